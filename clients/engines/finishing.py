"""The end of a client's local work, in every engine: the rule's last word, and what is sent of the update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from clients.core import streams
from clients.core.arrays import I64
from clients.training.local import count_steps
from clients.training.rules import LocalResult
from clients.training.task import LearningTask
from clients.training.uplink import RESIDUAL
from clients.training.work import CohortWork


@dataclass(frozen=True)
class Finished:
    """What finished clients leave.

    Attributes:
        params: the parameters that the server sees, [K, P]: the anchor minus what the uplink sent.
        extras: further vectors for the server, each [K, P].
        client_state: what the clients remember from now on, each [K, P].
    """

    params: Tensor
    extras: dict[str, Tensor]
    client_state: dict[str, Tensor]


def finish(
    task: LearningTask,
    gradients: Callable[[CohortWork], Tensor],
    work: CohortWork,
    params: Tensor,
    steps: I64,
    client_state: Mapping[str, Tensor],
) -> Finished:
    """Let the rule and the uplink of `work` finish clients.

    Args:
        task: what is learnt.
        gradients: work -> full-batch gradients at the anchor [K, P], called only if the rule needs them.
        work: the clients' work, K clients.
        params: local parameters [K, P].
        steps: local steps taken, int64 (K,).
        client_state: what the clients remembered before, each [K, P].
    """
    rule = work.rule
    new: dict[str, Tensor] = {}
    extras: dict[str, Tensor] = {}
    if rule.finish is not None:
        result = LocalResult(
            anchor=work.params,
            params=params,
            steps=torch.from_numpy(steps).to(params)[:, None],
            local_lr=task.local.lr(work.round_index),
            broadcast=work.broadcast,
            state={n: client_state[n] for n in rule.client_state},
            anchor_gradient=gradients(work) if rule.needs_anchor_gradient else None,
        )
        new, extras = rule.finish(result)
    sent = params
    if work.uplink.compress is not None:
        update = work.params - params
        if work.uplink.keeps_residual:
            update = update + client_state[RESIDUAL]
        arrived = work.uplink.compress(update)
        sent = work.params - arrived
        if work.uplink.keeps_residual:
            new[RESIDUAL] = update - arrived
    if rule.forgets_partial_work and new:
        whole = torch.from_numpy(steps >= full_steps(task, work.clients)).to(params.device)[:, None]
        new = {n: torch.where(whole, v, client_state[n]) for n, v in new.items()}
    return Finished(sent, extras, new)


def client_slice(work: CohortWork, k: int) -> CohortWork:
    """Return the work of client k alone."""
    return replace(work, clients=work.clients[k : k + 1])


def full_steps(task: LearningTask, clients: I64) -> I64:
    """Return the local steps of clients that do all their local work, int64 (K,)."""
    local, sizes = replace(task.local, partial_work=0.0), task.population.sizes[clients].astype(np.int64)
    return count_steps(local, sizes, clients, seed=task.seed, round_index=1)


def gradient_noise(task: LearningTask, round_index: int, clients: I64, step: int) -> dict[str, Tensor] | None:
    """Return the additive gradient noise of one local step, [K, *shape] by parameter; None where there is none."""
    if not task.local.gradient_noise:
        return None
    key = streams.keys(task.seed, "gradient_noise", round_index, clients, step)
    noise = torch.from_numpy(streams.normals(key, task.parameters.size)).to(task.dtype)
    return task.parameters.views(noise.mul_(task.local.gradient_noise).to(task.device))
