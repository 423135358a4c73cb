"""What lessons read of a run: values of rounds, factors, floors, and the scenario's own quantities."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from clients.core.arrays import F64

if TYPE_CHECKING:
    from simulator.runs.run import Run


def series(run: Run, metric: str) -> F64:
    """Return a metric's values over rounds, round 0 first; nan where a round has none, empty where no round has."""
    if metric not in list(run.rounds):
        return np.empty(0)
    return np.asarray(run.rounds[metric], np.float64)


def last(run: Run, metric: str) -> float:
    """Return a metric's last value; nan where there is none."""
    values = series(run, metric)
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else math.nan


def best(run: Run, metric: str) -> float:
    """Return a metric's least value; nan where there is none."""
    values = series(run, metric)
    known = values[np.isfinite(values)]
    return float(known.min()) if len(known) else math.nan


def at_round(run: Run, metric: str, round_index: int) -> float:
    """Return a metric's value after a round; nan where the run has none."""
    values = series(run, metric)
    return float(values[round_index]) if round_index < len(values) else math.nan


def factor(run: Run, metric: str, start: int, end: int) -> float:
    """Return the mean factor a round of a metric from round `start` to round `end`; nan where it reaches 0."""
    values = series(run, metric)
    if end >= len(values) or not values[start] > 0 or not values[end] > 0:
        return math.nan
    return float((values[end] / values[start]) ** (1 / (end - start)))


def floor(run: Run, metric: str, skip: int) -> float:
    """Return the mean of a metric over the rounds after `skip`; nan where there are none."""
    values = series(run, metric)[skip + 1 :]
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def rounds_to(run: Run, metric: str, below: float) -> float:
    """Return the first round whose value of a metric is at most `below`; inf where none is."""
    hits = np.flatnonzero(series(run, metric) <= below)
    return float(hits[0]) if len(hits) else math.inf


def curvatures(run: Run) -> F64:
    """Return the diagonals of quadratic clients' curvatures, (K, d).

    A scenario gives them as numbers or diagonals; those of a matrix are its diagonal.
    """
    rows = [np.atleast_1d(np.asarray(h, np.float64)) for h in run.session.scenario.data.curvatures]  # type: ignore[union-attr]
    return np.stack([np.diagonal(h) if h.ndim == 2 else h for h in rows])


def centres(run: Run) -> F64:
    """Return the centres of quadratic clients, (K, d)."""
    rows = run.session.scenario.data.centres  # type: ignore[union-attr]
    return np.stack([np.atleast_1d(np.asarray(c, np.float64)) for c in rows])
