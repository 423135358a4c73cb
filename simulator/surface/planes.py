"""Planes in the space of parameters: of a path, of clients' ends, through three states, of random directions.

A point of a plane is origin + x e_1 + y e_2. But for random directions, e_1 and e_2 are orthonormal, so x and y are
distances between parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.core import streams
from clients.core.arrays import F64
from clients.core.errors import UserError
from clients.core.parameters import Layout

COLUMNS = 1 << 20
"""Columns of the states that are taken together in float64."""
FLAT = 1e-6
"""A second direction that holds less than this share of the first one's length is rounding."""


@dataclass(frozen=True)
class Plane:
    """A plane in the space of parameters.

    Attributes:
        origin: float64 [P].
        axes: e_1 and e_2, float64 [2, P].
        note: what was added so that it is a plane; empty otherwise.
    """

    origin: Tensor
    axes: Tensor
    note: str = ""

    def points(self, places: F64) -> Tensor:
        """Return the parameters at some places (n, 2), float64 [n, P]."""
        return self.origin + torch.from_numpy(np.ascontiguousarray(places)) @ self.axes

    def project(self, states: Tensor) -> tuple[F64, F64]:
        """Return the places of the nearest points of some states [n, P], (n, 2), and the distances from them, (n,)."""
        gram = self.axes @ self.axes.T
        inner = torch.zeros(len(states), 2, dtype=torch.float64)
        for away, columns in _parts(states, self.origin):
            inner += away @ self.axes[:, columns].T
        places = torch.linalg.solve(gram, inner.T).T
        squares = torch.zeros(len(states), dtype=torch.float64)
        for away, columns in _parts(states, self.origin):
            squares += (away - places @ self.axes[:, columns]).square().sum(1)
        return places.numpy(), squares.sqrt().numpy()


def principal_plane(states: Tensor, about: Tensor, origin: Tensor, layout: Layout, *, seed: int) -> Plane:
    """Return the plane through `origin` whose directions hold most of the squared distances of states from `about`.

    They are the first two right singular vectors of states - about: of a path about its mean, its principal axes. The
    first state lies at x <= 0, and the mean of the states at y >= 0.

    Args:
        states: [n, P], n >= 1.
        about: [P].
        origin: [P].
        layout: of the parameters, for a second direction where the states lie on a line.
        seed: of that direction.

    Raises:
        UserError: all states are equal, or there is one parameter.
    """
    _require_two(layout)
    centre = about.double()
    gram = torch.zeros(len(states), len(states), dtype=torch.float64)
    for away, _ in _parts(states, centre):
        gram += away @ away.T
    values, vectors = torch.linalg.eigh(gram)
    if not values[-1] > 0:
        raise UserError("plane", "has no direction: all of its states are equal", fix="Use plane='random'.")
    axes = torch.zeros(2, layout.size, dtype=torch.float64)
    found = 2 if len(values) > 1 and values[-2] > FLAT**2 * values[-1] else 1
    for axis in range(found):
        pull = vectors[:, -1 - axis]
        for away, columns in _parts(states, centre):
            axes[axis, columns] = pull @ away
    axes[:found] /= axes[:found].norm(dim=1, keepdim=True)
    note = ""
    if found == 1:
        axes[1] = _across(axes[0], layout, seed)
        note = "The states lie on a line; the second direction is random."
    places = Plane(origin.double(), axes).project(states)[0]
    signs = [-1.0 if places[0, 0] > 0 else 1.0, -1.0 if places[:, 1].sum() < 0 else 1.0]
    return Plane(origin.double(), axes * torch.tensor(signs, dtype=torch.float64)[:, None], note)


def share_of_variance(plane: Plane, states: Tensor) -> float | None:
    """Return the share of the variance of states [n, P] along a plane's directions; None where they do not move."""
    mean = states.double().mean(0)
    away = Plane(mean, plane.axes).project(states)[1]
    whole = sum(float(part.square().sum()) for part, _ in _parts(states, mean))
    return max(0.0, 1.0 - float(np.square(away).sum()) / whole) if whole > 0 else None


def plane_through(states: Tensor) -> Plane:
    """Return the plane through three states [3, P]: e_1 leads from the first to the second (Garipov et al. 2018).

    Raises:
        UserError: they lie on a line.
    """
    a, b, c = states.double()
    along, across = b - a, c - a
    length = along.norm()
    if length > 0:
        across = across - (across @ along) / length**2 * along
    if not length > 0 or not across.norm() > FLAT * (c - a).norm():
        raise UserError("plane", "needs three states that do not lie on a line", fix="Name other states.")
    return Plane(a, torch.stack([along / length, across / across.norm()]))


def random_plane(origin: Tensor, layout: Layout, *, seed: int) -> Plane:
    """Return two random directions whose filters have the norms of the origin's (Li et al. 2018, section 4).

    A filter is a row of a tensor with two axes or more. Other tensors (biases, factors of normalisation) do not move,
    unless the model has no filters: then each tensor is one.

    Raises:
        UserError: all filters are 0, or there is one parameter.
    """
    _require_two(layout)
    normals = streams.normals(streams.keys(seed, "directions of a surface", np.arange(2)), layout.size)
    axes = _normalised(torch.from_numpy(normals), origin.double(), layout)
    if not (axes.norm(dim=1) > 0).all():
        problem = "is 'random', whose directions have the norms of the model's filters, and all of these are 0"
        raise UserError("plane", problem, fix="Use plane='path'.")
    return Plane(origin.double(), axes)


def _normalised(directions: Tensor, origin: Tensor, layout: Layout) -> Tensor:
    """Return directions [2, P] whose filters have the norms of the origin's."""
    drawn, there, parts = layout.views(directions), layout.views(origin), {}
    filters = any(len(shape) > 1 for shape in layout.shapes)
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        one, own = drawn[name], there[name]
        if len(shape) < 2 and filters:
            parts[name] = torch.zeros_like(one)
            continue
        rows = (2, shape[0], -1) if filters else (2, 1, -1)
        flat = one.reshape(rows)
        sizes = own.reshape(rows[1:]).norm(dim=1)
        parts[name] = (flat / flat.norm(dim=2, keepdim=True) * sizes[:, None]).reshape(one.shape)
    return layout.flatten(parts, lead=1)


def _across(along: Tensor, layout: Layout, seed: int) -> Tensor:
    """Return a random direction of length 1 across another one."""
    drawn = torch.from_numpy(streams.normals(streams.keys(seed, "directions of a surface", 0), layout.size))
    across: Tensor = drawn - (drawn @ along) * along
    unit: Tensor = across / across.norm()
    return unit


def _require_two(layout: Layout) -> None:
    if layout.size < 2:
        raise UserError("plane", "needs two parameters, and the model has one")


def _parts(states: Tensor, origin: Tensor) -> Iterator[tuple[Tensor, slice]]:
    """Yield states - origin in float64, some columns at a time."""
    for start in range(0, states.shape[1], COLUMNS):
        columns = slice(start, start + COLUMNS)
        yield states[:, columns].double() - origin[columns], columns
