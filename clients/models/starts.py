"""The first value of models whose parameters are one vector."""

from __future__ import annotations

import torch
from torch import Tensor

from clients.core.errors import UserError


def start_vector(start: float | tuple[float, ...], size: int, field: str = "start") -> Tensor:
    """Return the first parameters, float64 [size].

    Args:
        start: one number for all coordinates, or one each.
        size: how many.
        field: the key that gives them, for errors.

    Raises:
        UserError: of the field: there are neither one nor `size` numbers.

    Example:
        >>> start_vector(2.0, 3).tolist()
        [2.0, 2.0, 2.0]
    """
    given = torch.as_tensor(start, dtype=torch.float64)
    if given.dim() == 1 and len(given) != size:
        raise UserError(field, f"must be one number or {size}, got {len(given)} numbers")
    return given.expand(size).clone()
