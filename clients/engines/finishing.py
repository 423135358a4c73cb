"""The end of local work, in every engine: apply the rule's `finish` and the uplink."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from clients.core import streams
from clients.core.arrays import F64, I64, U64
from clients.core.cards.streams import as_signed
from clients.core.cards.streams import normals as card_normals
from clients.core.cards.transfer import sent
from clients.core.checks import require_shape
from clients.core.errors import StrategyError
from clients.modules.players import turns_of
from clients.training.local import count_steps
from clients.training.optimizers import gradient_weights
from clients.training.rules import LocalResult, LocalRule
from clients.training.task import LearningTask
from clients.training.uplink import RESIDUAL
from clients.training.work import CohortWork


@dataclass(frozen=True)
class Finished:
    """The result of finished clients.

    Attributes:
        params: the parameters that the server receives, [K, P]: the anchor minus the update sent by the uplink.
        extras: further vectors for the server, each [K, P].
        client_state: the new client states, each [K, P].
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
    before_last: Tensor | None = None,
) -> Finished:
    """Apply the rule's `finish` and the uplink of `work` to trained clients.

    Args:
        task: the learning task.
        gradients: work -> full-batch gradients at the anchor [K, P], called only where the rule needs them.
        work: the work of K clients.
        params: local parameters [K, P].
        steps: local steps taken, int64 (K,).
        client_state: the client states before the round, each [K, P].
        before_last: where they were before their last step [K, P], where the rule sends that step alone.
    """
    rule = work.rule
    client_state = {name: rows.to(params.device) for name, rows in client_state.items()}
    new: dict[str, Tensor] = {}
    extras: dict[str, Tensor] = {}
    if rule.finish is not None:
        _check_turns(task, rule)
        result = LocalResult(
            anchor=work.params,
            params=params,
            steps=torch.from_numpy(steps).to(params)[:, None],
            local_lr=task.local.lr(work.round_index),
            broadcast=work.broadcast,
            state={n: client_state[n] for n in rule.client_state},
            anchor_gradient=gradients(work) if rule.needs_anchor_gradient else None,
            gradient_weight=torch.from_numpy(_gradient_weights(task, work.round_index, steps)).to(params)[:, None],
        )
        new, extras = _finished(rule, result)
    if rule.sends_last_step:
        assert before_last is not None, "the engine has noted where the last step began"
        params = work.params - (before_last - params)
    sent = params
    if work.uplink.compress is not None:
        update = work.params - params
        if work.uplink.keeps_residual:
            update = update + client_state[RESIDUAL]
        arrived = require_shape(work.uplink.compress(update), update, work.uplink.name, "compress")
        sent = work.params - arrived
        if work.uplink.keeps_residual:
            new[RESIDUAL] = update - arrived
    least = full_steps(task, work.clients) if rule.forgets_partial_work else np.ones_like(steps)
    if new and (steps < least).any():  # a client without a step has nothing to remember
        whole = torch.from_numpy(steps >= least).to(params.device)[:, None]
        new = {n: torch.where(whole, v, client_state[n]) for n, v in new.items()}
    return Finished(sent, extras, new)


def _check_turns(task: LearningTask, rule: LocalRule) -> None:
    """Refuse SCAFFOLD's option II for players who take turns: each moves in a part of the local steps alone.

    Raises:
        StrategyError: the rule would divide a player's move by the steps of both.
    """
    if turns_of(task.module) is not None and rule.name == "control_variate" and not rule.needs_anchor_gradient:
        problem = (
            "is 2, which divides a client's move by its local steps, and under order = 'alternating' a player moves in "
            "a part of them alone"
        )
        fix = "Set algorithm.option = 1, or model.order = 'simultaneous'."
        raise StrategyError("algorithm.option", problem, fix=fix)


def _finished(rule: LocalRule, result: LocalResult) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the client state and the extra vectors that a rule's `finish` returns.

    Raises:
        StrategyError: they are not the vectors that the rule declares.
    """
    assert rule.finish is not None, "the rule has a finish"
    found = rule.finish(result)
    if not (isinstance(found, tuple) and len(found) == 2 and all(isinstance(part, Mapping) for part in found)):
        problem = f"finish of {rule.name!r} must return (new client state, extras), returned {type(found).__name__}"
        raise StrategyError("algorithm", problem, fix="Return two dictionaries: return {...}, {...}.")
    for what, names, vectors in zip(("client state", "extras"), (rule.client_state, rule.returns), found, strict=True):
        if set(vectors) != set(names):
            listed = f"{sorted(vectors)}, and the rule declares {sorted(names)}"
            raise StrategyError("algorithm", f"finish of {rule.name!r} returns the {what} {listed}")
        for name, vector in vectors.items():
            require_shape(vector, result.params, rule.name, f"finish, for {name!r},")
    return found


def _gradient_weights(task: LearningTask, round_index: int, steps: I64) -> F64:
    """Return |a| of clients after their local steps, (K,)."""
    return gradient_weights(task.local, task.local.lr(round_index), int(steps.max(initial=0)))[steps]


def client_slice(work: CohortWork, k: int) -> CohortWork:
    """Return the work of client k only."""
    return replace(work, clients=work.clients[k : k + 1])


def full_steps(task: LearningTask, clients: I64) -> I64:
    """Return the local steps of clients without partial work, int64 (K,)."""
    local, sizes = replace(task.local, partial_work=0.0), task.population.sizes[clients].astype(np.int64)
    return count_steps(local, sizes, clients, seed=task.seed, round_index=1)


def noise_keys(task: LearningTask, round_index: int, clients: I64, steps: int) -> U64 | Tensor | None:
    """Return the keys of a round's gradient noise, (steps, K), on a card that draws from them; None without noise."""
    if not task.local.gradient_noise:
        return None
    keys = streams.keys(task.seed, "gradient_noise", round_index, clients[None, :], np.arange(steps)[:, None])
    return keys if task.device.type == "cpu" else sent(as_signed(keys), task.device)


def gradient_noise(task: LearningTask, keys: U64 | Tensor) -> dict[str, Tensor]:
    """Return the additive gradient noise of one local step, [K, *shape] by parameter, from its `noise_keys` (K,)."""
    size = task.parameters.size
    drawn = card_normals(keys, size) if isinstance(keys, Tensor) else torch.from_numpy(streams.normals(keys, size))
    return task.parameters.views(drawn.to(task.dtype).mul_(task.local.gradient_noise))
