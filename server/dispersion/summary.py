"""Dispersion in the record of a round: exact quantiles over clients, and the worst clients by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from clients.core.arrays import F64, I64, Bool
from server.dispersion.measures import Dispersion

LEVELS: Mapping[str, float] = {"min": 0.0, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
"""The levels of the quantiles, by their name in the record."""
_LEVELS = np.array(list(LEVELS.values()))


def quantiles(values: F64) -> dict[str, float]:
    """Return the exact quantiles of one value for each client, (K,), by the names of `LEVELS`.

    It interpolates linearly between two clients, as `numpy.quantile` does. If any value is nan, all quantiles are nan.

    Example:
        >>> quantiles(np.array([4.0, 0.0, 1.0, 2.0, 3.0]))
        {'min': 0.0, 'p05': 0.2, 'p25': 1.0, 'p50': 2.0, 'p75': 3.0, 'p95': 3.8, 'max': 4.0}
    """
    return dict(zip(LEVELS, _quantiles(values[None])[0].tolist(), strict=True))


def spreads(rows: F64) -> list[dict[str, float]]:
    """Return mean and quantiles of each row of [M, K]; of all measures of a round at once, they cost as one."""
    with np.errstate(invalid="ignore"):
        means = rows.mean(axis=1).tolist()
    levels = _quantiles(rows).tolist()
    return [{"mean": mean, **dict(zip(LEVELS, row, strict=True))} for mean, row in zip(means, levels, strict=True)]


def _quantiles(rows: F64) -> F64:
    """Quantiles of each row of [M, K], as [M, levels]."""
    last = rows.shape[1] - 1
    below, above, part, is_on_client = _places(last)
    ordered = np.sort(rows, axis=1)
    low, high = ordered[:, below], ordered[:, above]
    with np.errstate(invalid="ignore"):
        found: F64 = np.where(is_on_client | (low == high), low, low * (1.0 - part) + high * part)
    found[np.isnan(ordered[:, last])] = np.nan  # a sort puts nan last
    return found


@lru_cache(maxsize=64)
def _places(last: int) -> tuple[I64, I64, F64, Bool]:
    """Return the clients below and above each level, the part of the way between them, and whether it is 0."""
    position = _LEVELS * last
    below = position.astype(np.int64)
    part: F64 = position - below
    return below, np.asarray(np.minimum(below + 1, last), np.int64), part, np.asarray(part == 0.0)


def worst(clients: I64, values: F64, k: int = 5, *, lowest: bool = False) -> list[tuple[int, float]]:
    """Return the k clients with the largest values (or the lowest), worst first, as (client, value).

    nan counts as the worst value. Ties go to the lower client index, so the result does not depend on the order.

    Example:
        >>> worst(np.array([7, 3, 5]), np.array([0.5, 2.0, 0.5]), k=2)
        [(3, 2.0), (5, 0.5)]
    """
    badness = -values if lowest else values
    missing = np.isnan(badness)
    if not missing.any() and (clients[:-1] < clients[1:]).all():
        order = np.argsort(-badness, kind="stable")[:k]
    else:
        order = np.lexsort((clients, -np.where(missing, np.inf, badness), ~missing))[:k]
    return list(zip(clients[order].tolist(), values[order].tolist(), strict=True))


def named(found: list[tuple[int, float]], names: Callable[[int], str]) -> list[dict[str, Any]]:
    """Return the result of `worst` with the clients' display names."""
    return [{"client": client, "name": names(client), "value": value} for client, value in found]


def measured(dispersion: Dispersion) -> dict[str, F64]:
    """Return the measures of each client, by name."""
    arrays = {"update_norm": dispersion.update_norm, "cosine": dispersion.cosine, "distance": dispersion.distance}
    return {name: values for name, values in arrays.items() if values is not None}


def summary(
    dispersion: Dispersion,
    clients: I64,
    names: Callable[[int], str] = str,
    *,
    k: int = 5,
    levels: Sequence[dict[str, float]] | None = None,
) -> dict[str, Any]:
    """Return the dispersion of a round for the record: plain floats, strings, lists and dictionaries.

    Args:
        dispersion: the round's dispersion.
        clients: the clients' indices (K,), in the order of its arrays.
        names: client index -> its display name (`FederationFacts.client_name`).
        k: how many of the worst clients are named.
        levels: `spreads` of the `measured` arrays; None makes them.

    Returns:
        The scalars by their names; `by_layer`: layer -> dispersion and norm; the mean and quantiles of each array;
        `worst`: the k worst clients of each array (largest norm and distance, lowest cosine) with client, name and
        value. A measure that was not taken is None, and `not_measured` gives the reason.
    """
    assert len(clients) == len(dispersion.update_norm)
    arrays = measured(dispersion)
    found: dict[str, Any] = {
        "update_dispersion": dispersion.update_dispersion,
        "gradient_diversity": dispersion.gradient_diversity,
        "aggregate_norm": dispersion.aggregate_norm,
    }
    found.update(dict.fromkeys(("update_norm", "cosine", "distance")))
    found.update(zip(arrays, levels or spreads(np.stack(list(arrays.values()))), strict=True))
    found["by_layer"] = {
        layer: {"update_dispersion": part, "aggregate_norm": norm}
        for layer, (part, norm) in dispersion.by_layer.items()
    }
    found["worst"] = {
        name: named(worst(clients, values, k, lowest=name == "cosine"), names) for name, values in arrays.items()
    }
    if dispersion.reason:
        found["not_measured"] = dispersion.reason
    return found
