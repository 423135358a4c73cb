"""A backtracking line search that needs gradients alone, for a stack of clients at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

UPHILL = 0.1
"""The largest slope uphill at the end of a step, as a share of the slope downhill at its start."""
HALVINGS = 20
"""The most times that a step is halved."""


def backtracked(
    gradient_at: Callable[[Tensor], Tensor], params: Tensor, directions: Tensor, gradients: Tensor, lengths: Tensor
) -> Tensor:
    """Halve steps until the slope along the direction is no longer uphill at their end; return their lengths [k].

    A step of length t is taken if d' g(w + t d) <= `UPHILL` |d' g(w)|. Along a line a convex function's slope rises, so
    the end is before the minimum, or so little beyond it that the slope there is a tenth of the first. A full Newton
    step near the minimum is always taken. Gradients are enough, so terms that are known by their gradient alone count
    too, such as an algorithm's correction. This is one side of the approximate Wolfe conditions (Hager and Zhang 2005,
    SIAM J. Optim. 16, equation 1.5); steps begin long, so the other side is not needed.

    Args:
        gradient_at: parameters [k, P] -> gradients [k, P].
        params: where steps begin [k, P].
        directions: d [k, P].
        gradients: those at `params` [k, P].
        lengths: first lengths t [k].
    """
    limits = UPHILL * (directions * gradients).sum(1).abs()
    lengths = lengths.clone()
    for _ in range(HALVINGS):
        slopes = (directions * gradient_at(params + lengths[:, None] * directions)).sum(1)
        uphill = ~(slopes <= limits)  # also nan: beyond what the type can hold
        if not bool(uphill.any()):
            break
        lengths = torch.where(uphill, lengths / 2, lengths)
    return lengths
