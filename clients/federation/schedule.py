"""Faults that start and end with rounds: each set of active faults has its own population."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from clients.core.options import clients_words
from clients.core.population import Population
from clients.faults.options import FaultOptions, Faults

POPULATIONS_KEPT = 3
"""How many populations are kept at once: each has examples of its own in memory."""


def on_schedule(build: Callable[[Faults], Population], faults: Faults) -> Population:
    """Return a population whose faults follow their schedules in rounds.

    Args:
        build: makes the population with the faults given.
        faults: all faults by name, in order.

    Returns:
        The population before the first round (faults scheduled in rounds have not begun), with its `schedule` and
        `events`.
    """

    def active(round_index: int) -> tuple[str, ...]:
        return tuple(n for n, f in faults.items() if f.schedule.active(round_index))

    @lru_cache(maxsize=POPULATIONS_KEPT)
    def made(names: tuple[str, ...]) -> Population:
        return build({name: faults[name] for name in names})

    base = made(active(0))
    if not faults:
        return base
    schedules = [f.schedule for f in faults.values()]
    in_rounds = any(s.unit == "rounds" and (s.start > 0 or s.stop is not None) for s in schedules)

    def schedule(round_index: int) -> Population:
        return made(active(round_index))

    name_of = base.federation.client_name
    real = {n for n, f in faults.items() if f.severity and f.clients}

    def events(round_index: int) -> Sequence[dict[str, Any]]:
        before = active(round_index - 1) if round_index > 1 else ()
        now = active(round_index)
        return [
            *(_event("fault_started", n, faults[n], name_of) for n in now if n in real and n not in before),
            *(_event("fault_ended", n, faults[n], name_of) for n in before if n in real and n not in now),
        ]

    history = replace(base.history, schedule=schedule if in_rounds else None, events=events)
    return replace(base, history=history)


def _event(kind: str, name: str, fault: FaultOptions, name_of: Callable[[int], str]) -> dict[str, Any]:
    """Return the event of a fault's start or end."""
    share = clients_words(fault.clients, name_of) + (f" in {', '.join(fault.districts)}" if fault.districts else "")
    verb = "starts" if kind == "fault_started" else "ends"
    event: dict[str, Any] = {
        "kind": kind,
        "name": name,
        "fault": fault.kind,
        "severity": fault.severity,
        "message": f"fault {name} ({fault.kind}, severity {fault.severity:g}, {share}) {verb}",
    }
    if fault.schedule.unit == "hours" and (fault.schedule.start or fault.schedule.stop is not None):
        end = "the end" if fault.schedule.stop is None else f"hour {fault.schedule.stop:g}"
        event |= {"from_hour": fault.schedule.start, "message": f"{event['message']}: in readings from hour "
                  f"{fault.schedule.start:g} to {end}"}  # fmt: skip
    return event
