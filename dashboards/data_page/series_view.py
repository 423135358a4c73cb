"""The raw series of a few clients as the page draws them: readings in their unit, gaps, and the parts of the time."""

from __future__ import annotations

from typing import Any

import numpy as np

from clients.core.arrays import F64, I64
from clients.core.numbers.spacing import evenly_spaced
from clients.core.population import Population
from clients.core.population_parts import RawSeries

MOST_SERIES = 4
"""The most clients whose series are drawn: evenly spaced over the sample."""
BUCKETS = 900
"""The most points across; a longer series is drawn as the lowest and highest reading of equal stretches."""


def series_view(population: Population, sample: I64) -> dict[str, Any] | None:
    """Return the series of a few clients of the sample; None where the examples are no windows of series."""
    of = population.clients.series
    if of is None or not len(sample):
        return None
    places = evenly_spaced(len(sample), MOST_SERIES)
    forecast = population.spec.forecast
    return {
        "origin": "" if forecast is None else forecast.origin,
        "clients": [
            one_series(of(int(client)), population.federation.client_name(int(client))) for client in sample[places]
        ],
    }


def one_series(raw: RawSeries, name: str, buckets: int = BUCKETS) -> dict[str, Any]:
    """Return one client's series, in at most so many stretches.

    Returns:
        By stretch: `x` (its first hour or step), `low` and `high` (None where all readings are missing), and the shares
        `missing` and `filled`; `ends`, the x at which training and validation end; and words.
    """
    count = len(raw.values)
    size = max(1, -(-count // buckets))
    across = raw.hours if raw.hours is not None else np.arange(count, dtype=np.float64)
    missing = np.isnan(raw.values)
    low, high = _stretches(raw.values, size, np.fmin), _stretches(raw.values, size, np.fmax)
    empty, filled = int(missing.sum()), int(raw.filled.sum())
    quantity = raw.quantity or name
    parts = [f"{count:,} readings", f"{empty:,} missing ({100 * empty / max(count, 1):.2g}%)" if empty else "no gaps"]
    parts += [f"{filled:,} filled"] if filled else []
    return {
        "name": name,
        "quantity": f"{quantity}, {raw.unit}" if raw.unit else quantity,
        "unit": raw.unit,
        "clocked": raw.hours is not None,
        "x": [round(float(x), 4) for x in across[::size]],
        "last": round(float(across[-1]), 4) if count else 0.0,
        "low": _numbers(low),
        "high": _numbers(high),
        "missing": _shares(missing, size),
        "filled": _shares(raw.filled, size),
        "ends": [round(float(across[min(end, count - 1)]), 4) for end in raw.ends[:2]],
        "stretch": size,
        "words": f"{name}: {', '.join(parts)}",
    }


def _stretches(values: F64, size: int, least: np.ufunc) -> F64:
    """Return the least (or largest) known value of each stretch, NaN where none is known."""
    starts = np.arange(0, len(values), size)
    return np.asarray(least.reduceat(values, starts), np.float64) if len(values) else values


def _shares(marked: np.ndarray[Any, np.dtype[np.bool_]], size: int) -> list[float]:
    starts = np.arange(0, len(marked), size)
    lengths = np.diff(np.append(starts, len(marked)))
    return [round(float(x), 4) for x in np.add.reduceat(marked.astype(np.float64), starts) / lengths]


def _numbers(values: F64) -> list[float | None]:
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in values.tolist()]
