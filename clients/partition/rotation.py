"""Square images that each client holds turned by an angle of its own."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from clients.core import streams
from clients.core.arrays import F64, I64, U64
from clients.core.examples import Cohort, Examples
from clients.core.population import ClientData, Population
from clients.core.population_parts import CentralData, CentralExamples
from clients.core.ragged import cohort_of, label_counts_of, offsets_of


def turned(population: Population, most: float, seed: int) -> Population:
    """Turn the images of a population: each client's by one angle, each central one by an angle of its own.

    An angle depends on the seed and the client's index alone; the central ones are drawn from the same distribution,
    so that they are examples of the mean client.

    Args:
        population: square images [n, s * s] or [n, channels, s, s].
        most: angles are uniform in [-most, most], in degrees, anticlockwise.
        seed: root seed.

    Returns:
        The population. Its facts for the record have the clients' mean absolute angle.
    """
    angles = client_angles(population.num_clients, most, seed)
    clients, side = population.clients, _side(population.feature_shape)
    cohort = _turned_cohort(clients.cohort, angles, side)
    held_out = None if clients.held_out is None else _turned_cohort(clients.held_out, angles, side)
    counts = None if clients.label_counts is None else label_counts_of(cohort, population.outputs)
    facts = population.federation
    record = {**facts.record, "rotation": most, "mean_absolute_angle": float(np.abs(angles).mean())}
    return replace(
        population,
        clients=ClientData(cohort=cohort, held_out=held_out, label_counts=counts),
        federation=replace(facts, record=record),
        central=CentralData(
            validation=_turned_central(population.central.validation, most, seed, "validation", side),
            test=_turned_central(population.central.test, most, seed, "test", side),
        ),
    )


def client_angles(clients: int, most: float, seed: int) -> F64:
    """Return the angle of each client in degrees, (clients,), uniform in [-most, most]."""
    return _angles(streams.keys(seed, "rotation", np.arange(clients)), most)


def _angles(keys: U64, most: float) -> F64:
    found: F64 = most * (2 * streams.uniforms(keys, 1)[:, 0] - 1)
    return found


def rotation_matrix(degrees: float, side: int) -> F64:
    """Return the matrix that turns flat images of side x side about their centre, anticlockwise.

    Each pixel of the turned image is interpolated between the four pixels around the place that it comes from; what
    comes from outside is 0.

    Example:
        >>> image = np.arange(9.0).reshape(3, 3)
        >>> turn = rotation_matrix(90.0, 3)
        >>> np.allclose((turn @ image.reshape(-1)).reshape(3, 3), np.rot90(image))
        True
    """
    cos, sin = (round(f(math.radians(degrees)), 12) for f in (math.cos, math.sin))
    centre = (side - 1) / 2
    row, column = (axis.reshape(-1) - centre for axis in np.mgrid[:side, :side])
    from_row, from_column = cos * row + sin * column + centre, cos * column - sin * row + centre
    matrix = np.zeros((side * side, side * side))
    top, left = np.floor(from_row).astype(np.int64), np.floor(from_column).astype(np.int64)
    for down in (0, 1):
        for right in (0, 1):
            at_row, at_column = top + down, left + right
            weight = (1 - np.abs(from_row - at_row)) * (1 - np.abs(from_column - at_column))
            inside = (at_row >= 0) & (at_row < side) & (at_column >= 0) & (at_column < side)
            place = np.flatnonzero(inside)
            np.add.at(matrix, (place, at_row[inside] * side + at_column[inside]), weight[inside])
    return matrix


def _side(shape: tuple[int, ...]) -> int:
    side = math.isqrt(shape[0]) if len(shape) == 1 else shape[-1]
    assert shape in ((side * side,), (*shape[:-2], side, side)), "rotation is for square images"
    return side


def _rotated(features: Tensor, angles: F64, owners: I64, side: int) -> Tensor:
    """Return images [n, ...] turned by the angles of their owners, (n,) indices into `angles`."""
    channels = math.prod(features.shape[1:]) // side**2
    flat = features.double().reshape(len(features), channels, side * side)
    found = torch.empty_like(flat)
    for owner in np.unique(owners):
        mine = torch.from_numpy(np.flatnonzero(owners == owner))
        found[mine] = flat[mine] @ torch.from_numpy(rotation_matrix(float(angles[owner]), side)).T
    return found.clamp_(0, 1).reshape(features.shape).to(features.dtype)


def _turned_cohort(cohort: Cohort, angles: F64, side: int) -> Cohort:
    """Return the examples of all clients, turned once, as a cohort function."""
    data = cohort(np.arange(len(angles)))
    owners = np.repeat(np.arange(len(angles)), data.sizes)
    rows = torch.from_numpy(data.rows)
    features, targets = _rotated(data.features[rows], angles, owners, side), data.targets[rows]
    return cohort_of(features, targets, offsets_of(data.sizes))


def _turned_central(
    part: CentralExamples | None, most: float, seed: int, name: str, side: int
) -> CentralExamples | None:
    if part is None:
        return None
    each = np.arange(len(part.examples))
    angles = _angles(streams.keys(seed, f"rotation/{name}", each), most)
    return CentralExamples(Examples(_rotated(part.examples.features, angles, each, side), part.examples.targets))
