"""Prepares what every worker holds, with the memory that the workers of one machine share."""

from __future__ import annotations

from collections.abc import Mapping

from clients.engines.base import Engine
from clients.training.client_states import BUFFERS
from clients.training.work import LocalWork
from server.algorithms.algorithm import Algorithm
from server.dispersion.sums import Layers
from simulator.workers.arena import Arena
from simulator.workers.workplace import Job, Workplace

STATES_SHARED = 4
"""The most memory for client states that are handed to workers, in multiples of `keep_bytes`; what does not fit is sent
through the connections."""


def workplace_of(
    engine: Engine, algorithm: Algorithm | None, layers: Layers, jobs: Mapping[str, Job] | None = None
) -> Workplace:
    """Return what every worker holds.

    Args:
        engine: the engine of each worker.
        algorithm: the algorithm; None for a user's strategy.
        layers: (name, start, end) of each layer of the parameters.
        jobs: by name, what a worker does beside the passes of a round.
    """
    return Workplace(
        engine=engine,
        local=algorithm.local_work if algorithm is not None else LocalWork(),
        aggregation=algorithm.aggregation if algorithm is not None else None,
        layers=layers,
        population=engine.task.population.federation.with_data,
        jobs=jobs or {},
    )


def shared_memory(place: Workplace, *, cohort: int, keep_bytes: int) -> Arena:
    """Return memory for what is broadcast, and for a cohort's rows: updates if kept whole, client states, gradients."""
    task, local = place.task, place.local
    size, dtype = task.parameters.size, task.dtype
    whole = cohort * size * dtype.itemsize
    widths: dict[str, int] = {}
    if whole <= keep_bytes:  # otherwise only sums come back
        widths |= {"params": size, "buffers": task.buffers.size, "gradients": size}
        widths |= {f"extras/{name}": size for name in local.rule.returns}
    if whole <= STATES_SHARED * keep_bytes:
        kept = dict.fromkeys((*local.rule.client_state, *local.uplink.client_state), size)
        if task.local.buffers == "local":
            kept[BUFFERS] = task.buffers.size
        widths |= {f"{way}/{name}": width for name, width in kept.items() for way in ("held", "state")}
    vectors = {"params": size, "buffers": task.buffers.size}
    vectors |= {f"broadcast/{name}": size for name in local.rule.broadcast}
    return Arena(cohort, widths, dtype, vectors)
