"""The loss along the line between two models, and the height of the barrier between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64
from clients.engines.many.examples import ExampleSet
from clients.engines.many.losses import ManyModels
from simulator.surface.states import Model


@dataclass(frozen=True)
class Line:
    """The loss along a line between two models.

    Attributes:
        ends: the names of the models.
        t: from 0 at the first model to 1 at the second, float64 (n,).
        loss: at (1 - t) a + t b, float64 (n,).
        distance: between the models' parameters.
    """

    ends: tuple[str, str]
    t: F64
    loss: F64
    distance: float

    @property
    def barrier(self) -> float:
        """The height of the barrier; see `barrier_of`."""
        return barrier_of(self.t, self.loss)

    def __str__(self) -> str:
        """Return the ends, their losses and the barrier, with its place, in a sentence; or where no loss is finite."""
        broken = [name for name, value in zip(self.ends, self.loss[[0, -1]], strict=True) if not np.isfinite(value)]
        if broken or not np.isfinite(self.loss).all():
            return f"{self.ends[0]} to {self.ends[1]}: the loss {_of(broken)} is not finite"
        loss = f"from {self.loss[0]:.4g} to {self.loss[-1]:.4g}"
        where = f" at t = {self.t[np.argmax(_above(self.t, self.loss))]:.2f}" if self.barrier > 0 else ""
        return f"{self.ends[0]} to {self.ends[1]}: loss {loss}, barrier {self.barrier:.4g}{where}"


def _of(ends: Sequence[str]) -> str:
    return f"of {' and of '.join(ends)}" if ends else "between them"


def barrier_of(t: F64, loss: F64) -> float:
    """Return how far the loss rises above the straight line between its values at the ends; 0 where it nowhere does.

    max_t f((1 - t) a + t b) - (1 - t) f(a) - t f(b) (Entezari et al. 2022, equation 1). It is nan where the loss is
    not finite.

    Args:
        t: float64 (n,), from 0 to 1.
        loss: float64 (n,).

    Example:
        >>> t = np.array([0.0, 0.5, 1.0])
        >>> barrier_of(t, np.array([1.0, 4.0, 2.0])), barrier_of(t, np.array([1.0, 0.0, 2.0]))
        (2.5, 0.0)
    """
    return float(np.max(_above(t, loss)))


def _above(t: F64, loss: F64) -> F64:
    """Return the loss above the straight line between its values at the ends, (n,)."""
    found: F64 = loss - (1 - t) * loss[0] - t * loss[-1]
    return found


def line_between(many: ManyModels, ends: tuple[Model, Model], examples: ExampleSet, size: int) -> Line:
    """Measure the loss at `size` models of the line between two; buffers are interpolated as parameters are.

    Args:
        many: measures models.
        ends: the two.
        examples: the examples of the loss.
        size: the number of models, at least 2.
    """
    one, other = ends
    t = np.linspace(0.0, 1.0, size)
    steps = torch.from_numpy(t)[:, None]

    def between(a: Tensor, b: Tensor, start: int, end: int) -> Tensor:
        part = steps[start:end]
        return (1 - part) * a.double() + part * b.double()

    def models(start: int, end: int) -> tuple[Tensor, Tensor]:
        return (between(one.params, other.params, start, end), between(one.buffers, other.buffers, start, end))

    distance = float((one.params.double() - other.params.double()).norm())
    return Line((one.name, other.name), t, many.losses(size, models, examples).numpy(), distance)
