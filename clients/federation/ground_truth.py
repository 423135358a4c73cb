"""The ground truth about a run's data, for its record: the faults, drifts and city events, their clients and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from clients.concept_drift.options import DriftOptions
from clients.concept_drift.table import drifting
from clients.core import streams
from clients.core.arrays import I64
from clients.core.numbers.spacing import evenly_spaced
from clients.core.population import Population
from clients.faults.apply import affected
from clients.faults.options import FaultOptions, Faults
from clients.faults.packet_options import GatewayOutageOptions
from clients.faults.table import FAULTS, SensorFaultRow
from clients.world.world import World

MOST_NAMED = 1000
"""The most clients listed of those that a fault or drift affects, the first ones."""
COUNTED_CLIENTS = 200
"""The most affected clients, chosen by seed, in whose data a fault's changes are counted."""
MOST_SITES = 400
_BLOCK = 50_000
MOST_EVENTS = 100
"""The most events of a kind on the world's clock that a record announces; the ground truth lists all."""


def data_ground_truth(
    population: Population,
    *,
    faults: Faults,
    drifts: Mapping[str, DriftOptions],
    world: World | None,
    seed: int,
) -> dict[str, Any]:
    """Return the ground truth about a population's data.

    Returns:
        `faults` by name: their options, `affected` (how many clients; `clients` are the first `MOST_NAMED`, `names`
        their names), `changed` (share of readings or labels changed among the affected, counted on at most
        `COUNTED_CLIENTS`) and its `effect`, in `measure`; `outages` in the training data, by the clock;
        `drifts` by name: options, affected clients and when they start; `world`: storms, public events and power cuts;
        `source`: what a generated source knows about its clients and no model sees; `sites`, at most
        `MOST_SITES` of them.
    """
    clients = np.arange(population.num_clients, dtype=np.int64)
    district = _districts(population)
    truth: dict[str, Any] = {"seed": seed}
    if faults:
        truth["faults"] = {n: _fault(n, f, population, clients, district, seed) for n, f in faults.items()}
        truth["outages"] = [asdict(o) | {"fault": n} for n, o in _outages(faults, population, world, seed)]
    if drifts:
        truth["drifts"] = {n: _drift(n, d, population, clients, district, seed) for n, d in drifts.items()}
    if world is not None:
        truth["world"] = {
            "options": asdict(world.options),
            "districts": list(world.names),
            "storms": [asdict(s) for s in world.storms],
            "events": [asdict(e) for e in world.events],
            "power_cuts": [asdict(c) for c in world.cuts],
        }
    if population.history.ground_truth is not None:
        truth["source"] = {"name": population.name, **population.history.ground_truth()}
    if population.federation.places is not None:
        shown = evenly_spaced(len(clients), MOST_SITES)
        where = population.federation.places(shown)
        truth["sites"] = {
            "client": shown.tolist(),
            "x": where.x.round(3).tolist(),
            "y": where.y.round(3).tolist(),
            "district": where.district.tolist(),
            "districts": list(population.federation.districts),
        }
    return truth


def _districts(population: Population) -> I64:
    """Return the district of every client, (N,), made in blocks to save memory; 0 without places."""
    district = np.zeros(population.num_clients, np.int64)
    places = population.federation.places
    if places is not None:
        for start in range(0, len(district), _BLOCK):
            block = np.arange(start, min(start + _BLOCK, len(district)), dtype=np.int64)
            district[block] = places(block).district
    return district


def _fault(
    name: str, options: FaultOptions, population: Population, clients: I64, district: I64, seed: int
) -> dict[str, Any]:
    districts = population.federation.districts
    touched = clients[affected(name, options, clients, district, seed, districts=districts)]
    measure = FAULTS.row_of(options).measure
    found: dict[str, Any] = {"options": asdict(options), "measure": measure, **_affected(touched, population)}
    if not len(touched):
        return found
    some = touched[
        streams.choose(streams.keys(seed, "realised rates"), len(touched), min(len(touched), COUNTED_CLIENTS))
    ]
    first = max(1, int(np.ceil(options.schedule.start))) if options.schedule.unit == "rounds" else 1
    active = population.during(first)
    counts = active.fault_counts(some) if name in active.history.faults else None
    if counts is not None:
        found |= {
            "changed": float(counts.changed[name].mean()),
            "effect": float(counts.effect[name].mean()),
            "measured_on": len(some),
        }
    return found


def _drift(
    name: str, options: DriftOptions, population: Population, clients: I64, district: I64, seed: int
) -> dict[str, Any]:
    among = np.array([population.federation.districts.index(d) for d in options.districts], np.int64)
    starts = drifting(name, options, clients, district, among, seed)
    touched = np.flatnonzero(np.isfinite(starts))
    return {
        "options": asdict(options),
        **_affected(touched, population),
        "starts": starts[touched[:MOST_NAMED]].round(3).tolist(),
    }


def _affected(touched: I64, population: Population) -> dict[str, Any]:
    """Return how many clients are affected, and the indices and names of the first ones."""
    listed, name_of = touched[:MOST_NAMED].tolist(), population.federation.client_name
    return {"affected": len(touched), "clients": listed, "names": [name_of(k) for k in listed]}


def _outages(faults: Faults, population: Population, world: World | None, seed: int) -> list[tuple[str, Any]]:
    """Return (name of the fault, outage) of the outages that hit clients' training data, in order of time."""
    hours, districts = training_ends(population), population.federation.districts
    found = []
    for name, options in faults.items():
        row = FAULTS.row_of(options)
        if not isinstance(row, SensorFaultRow) or row.outages is None or not hours or not options.clients:
            continue
        hit = hit_districts(name, options, population, seed)
        for outage in row.outages(name, options, max(1, len(districts)), hours, seed=seed, world=world):
            if outage.district in hit:
                found.append((name, outage))
    return sorted(found, key=lambda pair: (pair[1].start, pair[1].district))


def hit_districts(name: str, options: FaultOptions, population: Population, seed: int) -> set[int]:
    """Return the districts that have affected clients with examples; {0} for some clients without districts.

    It looks at blocks of clients until every district is known to have some.
    """
    clients, facts = np.flatnonzero(population.sizes).astype(np.int64), population.federation
    wanted = len(options.districts) or max(1, len(facts.districts))
    hit: set[int] = set()
    for start in range(0, len(clients), _BLOCK):
        block = clients[start : start + _BLOCK]
        district = np.zeros_like(block) if facts.places is None else facts.places(block).district
        hit |= set(district[affected(name, options, block, district, seed, districts=facts.districts)].tolist())
        if len(hit) >= wanted:
            break
    return hit


def training_ends(population: Population) -> float:
    """Return the hour at which training data end, by some clients' last examples; 0 if these have no time."""
    ends, hours = population.federation.training_ends, population.clients.hours
    if ends is not None or hours is None:
        return ends or 0.0
    some = np.flatnonzero(population.sizes)[:COUNTED_CLIENTS].astype(np.int64)
    return float(np.floor(hours(some).max(initial=-1.0)) + 1.0)


def clock_events(
    population: Population,
    faults: Faults,
    world: World | None,
    seed: int,
    round_index: int,
    *,
    of_the_city: bool = True,
) -> Sequence[dict[str, Any]]:
    """Return the events on the world's clock that a record announces at the start of a round.

    The first round announces the storms and power cuts of the city, if the data come from it (`of_the_city`). Other
    data with a clock have its storms alone, and only where a gateway outage reads them. A round in which a
    gateway outage becomes active announces all its outages. Of each kind at most `MOST_EVENTS` are announced, the
    earliest first.
    """
    districts = population.federation.districts or ("all sites",)
    new = {
        n: f
        for n, f in faults.items()
        if f.schedule.active(round_index) and (round_index == 1 or not f.schedule.active(round_index - 1))
    }
    events: list[dict[str, Any]] = [
        _event("outage", o.start, o.hours, f"gateway of {districts[o.district]} out", districts[o.district], name)
        for name, o in _outages(new, population, world, seed)[:MOST_EVENTS]
    ]
    stormy = of_the_city or any(isinstance(fault, GatewayOutageOptions) for fault in faults.values())
    if round_index == 1 and world is not None and population.clients.hours is not None and stormy:
        events += [_event("storm", s.start, s.hours, f"storm of strength {s.strength:.2f}")
                 for s in world.storms[:MOST_EVENTS]]  # fmt: skip
        events += [
            _event("power_cut", c.start, c.hours, f"power cut in {world.names[c.district]}", world.names[c.district])
            for c in world.cuts[: MOST_EVENTS if of_the_city else 0]
        ]
    return sorted(events, key=lambda event: event["from_hour"])


def _event(kind: str, start: float, hours: float, what: str, district: str = "", name: str = "") -> dict[str, Any]:
    found = {"kind": kind, "from_hour": round(float(start), 3), "hours": round(float(hours), 3)}
    named = {key: value for key, value in (("district", district), ("name", name)) if value}
    return {**found, **named, "message": f"{what} from hour {start:g} for {hours:g} h"}
