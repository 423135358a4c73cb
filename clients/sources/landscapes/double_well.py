"""The double well: the smallest objective with two minima and a saddle. Its minima are roots of a cubic."""

from __future__ import annotations

import numpy as np
import torch

from clients.core import streams
from clients.core.arrays import F64
from clients.core.population import ClientData, Population
from clients.core.population_parts import ExampleSpec, FederationFacts, KnownObjective
from clients.core.ragged import cohort_of, offsets_of
from clients.sources.landscapes.options import DoubleWellOptions
from clients.sources.landscapes.wells import stationary_points, well


def double_well_population(options: DoubleWellOptions, *, seed: int, dtype: torch.dtype = torch.float32) -> Population:
    """Make the population and the minimum of its mean objective.

    Args:
        options: the well; its model is `DoubleWell`.
        seed: root seed of drawn slopes and noise; a client's depend on its index alone.
        dtype: of features; theory tests take float64.

    Returns:
        An `objective` population with `outputs` = d. An example is [curvature, across, its slope (d)].
        `objective.optimum` is the lower minimum [d], or both minima [2, d] where they are equally low.

    Example:
        >>> double_well_population(DoubleWellOptions(), seed=0).objective.optimum.tolist()
        [[-1.0, 0.0], [1.0, 0.0]]
    """
    clients, n, d = options.clients, options.examples, options.dimension
    slopes = np.zeros((clients, n, d))
    drawn = streams.normals(streams.keys(seed, "double well/slope", np.arange(clients)), 1)[:, 0]
    slopes[:, :, 0] = (options.tilt + options.spread * drawn)[:, None]
    if options.noise:
        slopes += _offsets(options, seed)
    flat = slopes.reshape(-1, d)
    shape = np.broadcast_to([options.curvature, options.across], (len(flat), 2))
    features = torch.from_numpy(np.concatenate([shape, flat], axis=1)).to(dtype)
    sizes = np.full(clients, n, np.int64)
    cohort = cohort_of(features, torch.zeros(len(flat), dtype=dtype), offsets_of(sizes), np.arange(len(flat)))
    slope = options.tilt + options.spread * float(drawn.mean())
    points = stationary_points(options.curvature, slope)
    values = well(points, options.curvature, slope)
    lowest = points[values <= values.min() + 1e-15 * options.curvature]
    optimum = np.zeros((len(lowest), d))
    optimum[:, 0] = lowest
    return Population(
        spec=ExampleSpec(task="objective", feature_shape=(d + 2,), outputs=d),
        federation=FederationFacts(name="double_well", sizes=sizes.astype(np.int32), record={"dimension": d}),
        clients=ClientData(cohort=cohort),
        objective=KnownObjective(torch.from_numpy(optimum).squeeze(0), float(values.min())),
    )


def _offsets(options: DoubleWellOptions, seed: int) -> F64:
    """Return the offset of every example's slope, (K, n, d): of deviation `noise` and sum 0 for each client."""
    clients, n, d = options.clients, options.examples, options.dimension
    keys = streams.keys(seed, "double well/noise", np.arange(clients))
    e = streams.normals(keys, n * d).reshape(clients, n, d)
    e = e - e.mean(axis=1, keepdims=True)
    offsets: F64 = options.noise * e / np.sqrt(np.mean(e**2, axis=1, keepdims=True))
    return offsets
