"""A population of a node's own clients as part of a larger one, by the server's indices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np

from clients.core.arrays import I64
from clients.core.population import ClientData, Population


def numbered_from(population: Population, first: int, total: int) -> Population:
    """Return a population of `total` clients, in which those of `population` are `first`, `first + 1`, ...

    The others are empty: a node knows neither their sizes nor their data. Random numbers of a client depend on its
    index, so two nodes do not draw the same.

    Args:
        population: the node's clients.
        first: index of its first client.
        total: clients of all nodes.
    """
    own, sizes = population.federation, np.zeros(total, np.int32)
    sizes[first : first + population.num_clients] = population.sizes

    def shifted(function: Callable[[I64], Any]) -> Callable[[I64], Any]:
        return lambda clients: function(clients - first)

    held = {f.name: getattr(population.clients, f.name) for f in fields(ClientData)}
    of_series = held.pop("series")
    held.pop("series_faults")
    held.pop("elsewhere")
    clients: dict[str, Any] = {name: None if function is None else shifted(function) for name, function in held.items()}
    if of_series is not None:
        clients["series"] = lambda client: of_series(client - first)
    spec = population.spec
    if spec.forecast is not None:
        spec = replace(spec, forecast=replace(spec.forecast, scale=shifted(spec.forecast.scale)))
    facts = replace(
        own, sizes=sizes, shares=None, places=None, client_name=lambda client: own.client_name(client - first)
    )
    return replace(population, spec=spec, federation=facts, clients=ClientData(**clients))
