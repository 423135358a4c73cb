"""A client's own optimiser and rule along a given gradient: the ideal and the undivided path of drift by cause."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from clients.core.arrays import F64, Bool
from clients.core.numbers.norms import norm
from clients.training.optimizers import shrink, stacked_optimizer
from clients.training.options import LocalOptions
from clients.training.rules import LocalRule

CLIP_EPSILON = 1e-6
"""torch's: clipped gradients have a norm of clip_norm x norm / (norm + this)."""


def weighted_update(
    gradient: Callable[[Tensor], Tensor],
    start: Tensor,
    masses: F64,
    *,
    local: LocalOptions,
    lr: float,
    rule: LocalRule,
    broadcast: Mapping[str, Tensor],
    states: Mapping[str, Tensor],
    fixed: Bool | None = None,
) -> Tensor:
    """Return sum_t masses[t] (start - x_t) [P], where x_t is the point after t local steps from `start`.

    A step is that of the engines: gradient, the rule's correction, clipping, decoupled decay, optimiser, proximal step.

    Args:
        gradient: x [P] -> the gradient of the loss there [P], without penalties.
        start: the broadcast parameters [P].
        masses: coefficients by number of steps, (T + 1,).
        local: the optimiser and its constants.
        lr: the round's local learning rate.
        rule: the local rule.
        broadcast: what it reads of the server, each [P].
        states: the client state that it reads, each [P].
        fixed: which parameters no step moves, bool (P,); None for none.
    """
    optimizer = stacked_optimizer(local)
    point, total = start.clone()[None], torch.zeros_like(start)
    memory = [torch.zeros_like(point) for _ in range(optimizer.num_states)]
    kept = None if fixed is None else torch.from_numpy(fixed)
    for step in range(1, len(masses)):
        g = gradient(point[0]).to(point)[None].clone()
        if rule.correct is not None:
            g = rule.correct(g, point, start, broadcast, states)
        g = _clipped(g, local)
        if local.decoupled_decay:
            point.mul_(1.0 - lr * local.decoupled_decay)
        optimizer.step(point, g, memory, step, lr)
        if local.l1:
            shrink(point, local, lr, step, memory)
        if kept is not None:
            point[0, kept] = start[kept]
        if masses[step]:
            total += float(masses[step]) * (start - point[0])
    return total


def _clipped(g: Tensor, local: LocalOptions) -> Tensor:
    if local.clip_norm is not None:
        g = g * min(1.0, local.clip_norm / (norm(g[0]) + CLIP_EPSILON))
    return g if local.clip_value is None else g.clamp(-local.clip_value, local.clip_value)
