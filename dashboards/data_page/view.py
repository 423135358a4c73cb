"""The clients' data as the page draws them: JSON values, of a sample where there are many clients."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from clients.core.arrays import F64, I64
from clients.core.numbers.spacing import evenly_spaced
from clients.core.population import Population
from clients.heterogeneity.table import HeterogeneityMeasures, Holdings
from dashboards.data_page import text as data_text
from dashboards.data_page.series_view import series_view
from dashboards.report.run_view import class_names

MOST_SHOWN = 400
"""The most clients that a grid shows one by one."""
MOST_NAMED = 40
"""Up to this many clients, each has a bar with its name."""
MOST_COUNTS = 20_000
BINS = 40


def data_view(
    population: Population, measures: HeterogeneityMeasures, held: Holdings, title: str = "", seed: int | None = None
) -> dict[str, Any]:
    """Return everything the page shows of a population.

    Args:
        population: the population.
        measures: its heterogeneity measures.
        held: the data of the sampled clients.
        title: the scenario's title.
        seed: the run's seed.
    """
    shown = shown_clients(held)
    names = [population.federation.client_name(int(client)) for client in held.clients]
    return {
        "title": title or population.name,
        "name": population.name,
        "seed": seed,
        "sentence": data_text.sentence(measures),
        "rows": [list(row) for row in [*data_text.requests(population), *data_text.rows(measures)]],
        "extremes": [[row.name, row.value] for row in data_text.extremes(population)],
        "clients": population.num_clients,
        "looked_at": len(held.clients),
        "histogram": histogram(population.sizes),
        "notices": list(population.federation.notices),
        "names": [names[k] for k in shown],
        "sizes": population.sizes[held.clients[shown]].tolist(),
        "classes": class_names(
            population.federation.record, None if held.label_counts is None else held.label_counts[:1].tolist()
        ),
        "label_counts": None if held.label_counts is None else held.label_counts[shown].tolist(),
        "faults": {name: _numbers(values[shown]) for name, values in _faults(held).items()},
        "curves": {
            name: {
                "label": data_text.quantity_name(name),
                "values": _numbers(curve(values)),
                "names": _named(values, names),
            }
            for name, values in held.quantities().items()
            if np.isfinite(values).any() and name not in held.fault_quantities() and name != "size"
        },
        "map": _map(population, held, names),
        "series": series_view(population, held.clients),
        "facts": {name: str(value) for name, value in population.federation.record.items()},
    }


def shown_clients(held: Holdings) -> I64:
    """Return the positions of the clients that a grid shows, evenly spaced over the sample."""
    n, counts = len(held.clients), held.label_counts
    most = MOST_SHOWN if counts is None else max(1, min(MOST_SHOWN, MOST_COUNTS // counts.shape[1]))
    return evenly_spaced(n, most)


def histogram(sizes: npt.NDArray[np.integer[Any]]) -> dict[str, Any]:
    """Return the number of clients by number of examples, over all clients: `edges` (B + 1 numbers) and `counts` (B).

    Bins are whole numbers where few would do, logarithmic where the largest client is far from the smallest.

    Example:
        >>> histogram(np.array([3, 4, 4, 6]))
        {'edges': [3, 4, 5, 6, 7], 'counts': [1, 2, 0, 1], 'log': False}
    """
    low, high = int(sizes.min()), int(sizes.max())
    log = high > 30 * max(low, 1)
    if high - low < BINS:
        edges, log = np.arange(low, high + 2), False
    elif log:
        edges = np.unique(np.geomspace(max(low, 1), high + 1, BINS + 1).round().astype(np.int64))
        edges = np.append(0, edges) if low == 0 else edges
    else:
        edges = np.unique(np.linspace(low, high + 1, BINS + 1).round().astype(np.int64))
    return {"edges": edges.tolist(), "counts": np.histogram(sizes, edges)[0].tolist(), "log": log}


def curve(values: F64, most: int = MOST_SHOWN) -> F64:
    """Return the finite values from the largest to the smallest, at most `most` of them, evenly spaced."""
    ordered = np.sort(values[np.isfinite(values)])[::-1]
    return ordered[evenly_spaced(len(ordered), most)]


def _named(values: F64, names: list[str]) -> list[str]:
    """Return the clients' names in the order of `curve`; empty where there are more than have a bar each."""
    known = np.flatnonzero(np.isfinite(values))
    if len(known) > MOST_NAMED:
        return []
    return [names[k] for k in known[np.argsort(-values[known], kind="stable")]]


def _faults(held: Holdings) -> dict[str, F64]:
    return dict(held.fault_counts.changed) if held.fault_counts is not None else {}


def _map(population: Population, held: Holdings, names: list[str]) -> dict[str, Any] | None:
    """Return the places of the sampled clients, and the quantities that can colour them."""
    if held.places is None:
        return None
    quantities = {name: values for name, values in held.quantities().items() if np.isfinite(values).any()}
    faults = [name for name in held.fault_quantities() if name in quantities]
    return {
        "x": _numbers(held.places.x),
        "y": _numbers(held.places.y),
        "district": held.places.district.tolist(),
        "districts": list(population.federation.districts),
        "names": names,
        "values": {name: _numbers(values) for name, values in quantities.items()},
        "labels": {
            name: ("changed by " if name in faults else "") + data_text.quantity_name(name) for name in quantities
        },
        "faults": faults,
    }


def _numbers(values: F64) -> list[float | None]:
    """Return numbers with five digits, None where not finite."""
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in values.tolist()]
