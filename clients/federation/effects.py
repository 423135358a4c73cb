"""Finds settings of faults, drifts and the world that have no effect, or another one than they seem to have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from clients.concept_drift.options import DriftOptions
from clients.core.errors import UserError
from clients.core.options import names_of
from clients.core.population import Population
from clients.faults.options import FaultOptions, Faults
from clients.faults.packet_options import GatewayOutageOptions
from clients.federation.ground_truth import hit_districts, training_ends
from clients.world.options import WorldOptions
from clients.world.world import World

Drifts = Mapping[str, DriftOptions]

PLACING = ("districts", "radius_km")
"""Keys of [world] that act on any data: they place its clients."""
STORMY = ("start", "days", "storms_per_month")
"""Keys of [world] that gateway outages read, where data have a clock."""


def check_world(options: WorldOptions | None, faults: Faults, clean: Population, *, is_generated: bool) -> None:
    """Refuse keys of [world] that nothing reads.

    Raises:
        UserError: naming the key.
    """
    if options is None or is_generated:
        return
    outages = any(isinstance(fault, GatewayOutageOptions) for fault in faults.values())
    read = PLACING + (STORMY if outages and clean.clients.hours is not None else ())
    default = WorldOptions()
    for key in (f.name for f in fields(WorldOptions)):
        value = getattr(options, key)
        if key not in read and value != getattr(default, key):
            raise UserError(
                f"world.{key}",
                f"is {value!r}, and nothing reads it: {clean.name!r} data do not come from the generated city",
                fix=f"Leave it out. What acts here: {', '.join(read)}.",
            )


def data_notices(faults: Faults, drifts: Drifts, population: Population, world: World | None, seed: int) -> list[str]:
    """Return sentences on faults and drifts that affect nobody, or that count time in another way than they seem to.

    Args:
        faults: by name; the clients that they name are indices.
        drifts: the same.
        population: with faults and drifts.
        world: the city, or None.
        seed: root seed.
    """
    notices = []
    clocked, districts = population.clients.hours is not None, population.federation.districts
    for name, fault in faults.items():
        if isinstance(fault, GatewayOutageOptions) and not clocked:
            notices.append(
                f"faults.{name}: these data have no clock, so a gateway outage counts each example as an hour"
                + ("" if districts else ", and without districts it hits all of its clients at once")
            )
        if isinstance(fault, GatewayOutageOptions) and (world is None or not clocked) and _is_stormy(fault):
            notices.append(f"faults.{name}.storm_factor has no effect: these data have no storms")
        if fault.severity and fault.clients and _is_limited(fault) and not hit_districts(name, fault, population, seed):
            notices.append(f"faults.{name} affects no client{_why(fault)}")
    for name, drift in drifts.items():
        if drift.unit == "hours" and drift.start >= training_ends(population):
            end = training_ends(population)
            notices.append(
                f"drifts.{name} starts at hour {drift.start:g}, when the training data have ended (hour {end:g}): it "
                "changes held-out and central examples alone"
            )
    return notices


def rounds_notices(faults: Faults, drifts: Drifts, rounds: int) -> list[str]:
    """Return a sentence for each fault or drift that is never active in rounds 1 to `rounds`."""
    notices = []
    for name, fault in faults.items():
        when = fault.schedule
        if when.unit == "rounds" and when.start > rounds:
            notices.append(_never(f"faults.{name}", when.start, rounds))
        elif when.unit == "rounds" and when.stop is not None and when.stop <= 1:
            notices.append(f"faults.{name} does nothing: it stops in round {when.stop:g}, and the first round is 1")
    for name, drift in drifts.items():
        if drift.unit == "rounds" and drift.start > rounds:
            notices.append(_never(f"drifts.{name}", drift.start, rounds))
    return notices


def _never(who: str, start: float, rounds: int) -> str:
    return f"{who} does nothing: it starts in round {start:g}, and the last round is {rounds}"


def _is_stormy(fault: GatewayOutageOptions) -> bool:
    return fault.storm_factor != type(fault)().storm_factor


def _is_limited(fault: FaultOptions) -> bool:
    return bool(fault.districts) or fault.clients != 1.0


def _why(fault: FaultOptions) -> str:
    where = f" in {', '.join(fault.districts)}" if fault.districts else ""
    if names_of(fault.clients):
        return f": none of those it names has examples{where}"
    return f": a share of {fault.clients}{where} chose none of those with examples"
