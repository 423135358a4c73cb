"""The errors of forecasts in deviations and in the readings' unit, beside persistence, and forecasts against truth.

Persistence repeats a window's last reading. It is the forecast to beat: what a model without any training can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from clients.core.arrays import F64, I64
from clients.core.population import Population
from clients.core.population_parts import CentralExamples, ForecastSpec
from clients.engines.evaluation import Evaluation, Evaluator

MOST_POINTS = 360
"""The most points that are drawn of a client."""
UNKNOWN = "concept drift changes the test windows, so their last readings are not known"


def forecast_errors(found: Evaluation, test: CentralExamples, spec: ForecastSpec) -> dict[str, Any]:
    """Return the root mean squared errors of forecasts and of persistence on the same windows.

    An error in the unit is the error in deviations times the deviation of the window's own client.

    Args:
        found: an evaluation on `test`, without a model loaded anew.
        test: the windows; they have owners.
        spec: what the forecasts are.

    Returns:
        `quantity`, `unit`, `scaled_by`, `windows`, `steps`; `error` in deviations and `error_in_unit`; `persistence`
        with the same two, and `ratio`, the error in the unit over persistence's; or why persistence is `not_measured`.
    """
    truth = _steps(test.examples.targets)
    deviation = _deviations(test, spec)
    model = _errors(_steps(found.predicted) - truth, deviation)
    facts = {
        "quantity": spec.quantity,
        "unit": spec.unit,
        "scaled_by": spec.scaled_by,
        "windows": len(truth),
        "steps": truth.shape[1],
    }
    if test.latest is None:
        return facts | model | {"persistence": {"not_measured": UNKNOWN}}
    naive = _errors(_steps(test.latest) - truth, deviation)
    ratio = model["error_in_unit"] / naive["error_in_unit"] if naive["error_in_unit"] > 0 else None
    return facts | model | {"persistence": naive, "ratio": ratio}


def forecast_examples(
    evaluator: Evaluator, found: Evaluation, population: Population, most: int = MOST_POINTS
) -> dict[str, Any] | None:
    """Return what a page draws: errors by step ahead, and forecasts against truth for a few clients.

    The clients are those with the lowest, the median and the highest error in the unit on the central test windows.

    Args:
        evaluator: has the model loaded.
        found: its evaluation on the central test windows.
        population: the clients.
        most: points drawn of a client, from the start of its test part.

    Returns:
        None where the data are no forecasts, or no test windows are known. Without an order of windows, `left_out` says
        why no client is drawn.
    """
    spec, test = population.spec.forecast, population.central.test
    if spec is None or test is None or test.owners is None or not len(test.examples):
        return None
    truth, deviation = _steps(test.examples.targets), _deviations(test, spec)
    squares = ((_steps(found.predicted) - truth) * deviation) ** 2
    naive = None if test.latest is None else ((_steps(test.latest) - truth) * deviation) ** 2
    view: dict[str, Any] = {
        "quantity": spec.quantity,
        "unit": spec.unit,
        "step_hours": spec.step_hours,
        "origin": spec.origin,
        "by_step": _by_step(squares),
        "persistence_by_step": None if naive is None else _by_step(naive),
    }
    clients = population.clients
    if clients.held_out is None or clients.held_out_steps is None or clients.held_out_latest is None:
        return view | {"left_out": "Concept drift changes the test windows, so they have no order of time to draw."}
    owners, errors = _by_owner(test.owners, squares)
    _, naives = _by_owner(test.owners, squares if naive is None else naive)
    chosen = _spread(errors)
    lead = _lead(spec, truth.shape[1])
    drawn = [
        {"rank": rank, "error_in_unit": _plain(errors[k]), "persistence_error_in_unit": _plain(naives[k])}
        | _client(evaluator, population, int(owners[k]), lead, most)
        for rank, k in chosen
    ]
    return view | {
        "lead": [int(lead[0]) + 1, int(lead[-1]) + 1],
        "jump": max(1, spec.stride - len(lead) + 1),  # from one point to the next; more is a gap
        "of_clients": len(owners),
        "clients": drawn,
    }


def _client(evaluator: Evaluator, population: Population, client: int, lead: I64, most: int) -> dict[str, Any]:
    """Return one client's forecasts and truth, `lead` steps ahead (from 0), from the start of its test part."""
    spec, parts = population.spec.forecast, population.clients
    assert spec is not None
    assert parts.held_out is not None
    assert parts.held_out_steps is not None
    assert parts.held_out_latest is not None
    one = np.array([client], np.int64)
    windows = parts.held_out(one)
    count = min(len(windows.rows), max(1, most // len(lead)))
    rows = torch.from_numpy(windows.rows[:count])
    mean, deviation = (float(values[0]) for values in spec.scale(one))
    forecast = _steps(evaluator.outputs(windows.features[rows]))[:, lead] * deviation + mean
    truth = _steps(windows.targets[rows])[:, lead] * deviation + mean
    naive = np.broadcast_to(_steps(parts.held_out_latest(one)[:count]) * deviation + mean, truth.shape)
    ends, ahead = parts.held_out_steps(one)[:count, None], lead + 1
    clocked = parts.held_out_hours is not None and spec.step_hours is not None
    hours = None
    if clocked:
        assert parts.held_out_hours is not None
        hours = parts.held_out_hours(one)[:count, None] + ahead * (spec.step_hours or 0.0)
    return {
        "client": client,
        "name": population.federation.client_name(client),
        "steps": (ends + ahead).reshape(-1).tolist(),
        "hours": None if hours is None else [round(hour, 4) for hour in hours.reshape(-1).tolist()],
        "truth": _numbers(truth),
        "forecast": _numbers(forecast),
        "persistence": _numbers(naive),
        "windows": [count, len(windows.rows)],
    }


def _lead(spec: ForecastSpec, steps: int) -> I64:
    """Return the steps ahead (from 0) that are drawn of each window.

    They are the last ones that cover every step once: of windows every 3 steps that forecast 6, steps 4 to 6.
    """
    return np.arange(max(0, steps - spec.stride), steps, dtype=np.int64)


def _spread(errors: F64) -> list[tuple[str, int]]:
    """Return the positions of the lowest, median and highest error; fewer where there are fewer clients."""
    order = np.argsort(np.nan_to_num(errors, nan=np.inf), kind="stable").tolist()
    if len(order) == 1:
        return [("only", order[0])]
    middle = [("median", order[(len(order) - 1) // 2])] if len(order) > 2 else []
    return [("lowest", order[0]), *middle, ("highest", order[-1])]


def _by_owner(owners: I64, squares: F64) -> tuple[I64, F64]:
    """Return the clients and the root of each one's mean square."""
    known, where = np.unique(owners, return_inverse=True)
    total = np.bincount(where, weights=squares.mean(axis=1))
    return known, np.sqrt(total / np.bincount(where))


def _by_step(squares: F64) -> list[float | None]:
    return [_plain(value) for value in np.sqrt(squares.mean(axis=0))]


def _errors(errors: F64, deviation: F64) -> dict[str, float]:
    return {
        "error": float(np.sqrt((errors**2).mean())),
        "error_in_unit": float(np.sqrt(((errors * deviation) ** 2).mean())),
    }


def _deviations(test: CentralExamples, spec: ForecastSpec) -> F64:
    """Return the deviation of each window's client, (n, 1)."""
    assert test.owners is not None
    known, where = np.unique(test.owners, return_inverse=True)
    return spec.scale(known)[1][where][:, None]


def _steps(values: torch.Tensor) -> F64:
    """Return one row a window and one column a step, float64."""
    return np.asarray(values.double().reshape(len(values), -1).numpy(), np.float64)


def _plain(value: float) -> float | None:
    """Return a number with five digits, None where it is not finite."""
    return float(f"{value:.5g}") if np.isfinite(value) else None


def _numbers(values: F64) -> Sequence[float | None]:
    return [_plain(value) for value in values.reshape(-1).tolist()]
