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


def test_accuracy(run: Run) -> float:
    """Return the final model's accuracy on test examples; nan where there are none."""
    found = run.outcome.get("test_accuracy")
    return math.nan if found is None else float(found)


def factor(run: Run, metric: str, start: int, end: int) -> float:
    """Return the mean factor a round of a metric from round `start` to round `end`.

    It is nan where the metric reaches 0, or the run has no such rounds.
    """
    values = series(run, metric)
    if not 0 <= start < end < len(values) or not values[start] > 0 or not values[end] > 0:
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


def noise_floor(run: Run) -> float:
    """Return the gap at which noisy steps on one quadratic client settle: sum_i eta s_B^2 / (2 (2 - eta h_i)).

    s_B^2 is the variance of the mean of B of n examples: 0 where a batch has them all.
    """
    local, data = run.session.scenario.local, run.session.scenario.data
    count, eta = data.weights[0], local.local_lr  # type: ignore[union-attr]
    batch = count if local.batch_size == "full" else min(count, local.batch_size)
    square = data.noise**2 * (count - batch) / (batch * (count - 1)) if batch < count else 0.0  # type: ignore[union-attr]
    return float(np.sum(eta * square / (2 * (2 - eta * curvatures(run)))))


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
