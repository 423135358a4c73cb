"""Finds the clients that faults and drifts name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from clients.concept_drift.options import DriftOptions
from clients.core.errors import UserError, unknown_name
from clients.core.options import names_of
from clients.core.population_parts import FederationFacts
from clients.faults.options import FaultOptions

SEARCHED = 20_000
"""The most names among which the nearest to an unknown one is searched."""

Options = TypeVar("Options", FaultOptions, DriftOptions)


def with_indices(chosen: Mapping[str, Options], facts: FederationFacts, section: str) -> dict[str, Options]:
    """Return options with indices of clients in place of names. Shares of clients do not change.

    Args:
        chosen: faults or drifts by name.
        facts: of the federation.
        section: of the scenario, for errors.

    Raises:
        UserError: there is no client of a name.
    """
    if not any(names_of(options.clients) for options in chosen.values()):
        return dict(chosen)
    index_of = _index_of(facts)
    found = {}
    for name, options in chosen.items():
        if names := names_of(options.clients):
            indices = _indices(names, facts, index_of, f"{section}.{name}.clients")
            options = replace(options, clients=indices)
        found[name] = options
    return found


def _indices(
    names: Sequence[object], facts: FederationFacts, index_of: Callable[[str], list[int]], field: str
) -> tuple[int, ...]:
    found: set[int] = set()
    for name in map(str, names):
        here = index_of(name)
        if not here:
            raise UserError(field, _unknown(name, facts), fix="Names are matched exactly.")
        found.update(here)
    return tuple(sorted(found))


def _index_of(facts: FederationFacts) -> Callable[[str], list[int]]:
    """Return a function from a name to the clients that have it. Clients without names of their own have numbers."""
    count = len(facts.sizes)
    if facts.client_name is str:
        return lambda name: [int(name)] if name.isdecimal() and str(int(name)) == name and int(name) < count else []
    table: dict[str, list[int]] = {}
    for k in range(count):
        table.setdefault(facts.client_name(k), []).append(k)
    return lambda name: table.get(name, [])


def _unknown(name: str, facts: FederationFacts) -> str:
    count = len(facts.sizes)
    if facts.client_name is str:
        return f"{name!r} is not one of the {count:,} clients of these data, '0' to '{count - 1}'"
    known = [facts.client_name(k) for k in range(min(count, SEARCHED))]
    return unknown_name(name, known, f"one of the {count:,} clients of these data")
