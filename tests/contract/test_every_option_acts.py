"""Every key of a scenario acts, or a sentence says that it does not: keys are changed one at a time."""

from __future__ import annotations

import hashlib
import tomllib
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from option_cases import BASE, Table, cases, write_files
from option_values import ALIKE, VALUES

from clients.core.errors import UserError
from clients.federation.build import build_federation
from server.rounds.loop import BY_THE_CLOCK
from simulator.runs.building import federation_of
from simulator.runs.run import simulate
from simulator.scenario.kinds import classes_of, hints_of, is_named, table_in
from simulator.scenario.sections import Scenario, load_scenario
from simulator.scenario.unread import Path as Keys
from simulator.scenario.unread import given_value, option_tables
from simulator.scenario.values import alternatives

NO_RECORD = ("notices", "run_id", "engine_plan", "engine_reason", "foreseen_seconds", "rounds", "scenario_notices",
             "certificate")  # fmt: skip
NEED_FILES = {"2nn", "cnn", "table", "household_power", "uci_har", "n_baiot", "huggingface"}
"""Kinds that need images of 28 x 28 or large files; tests of these kinds have them."""


class Seen:
    """Keeps the facts and the events of a run."""

    def __init__(self) -> None:
        self.facts: Mapping[str, Any] = {}
        self.events: list[Mapping[str, Any]] = []

    def run_started(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts

    def event(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)


Record = tuple[str, tuple[str, ...]]
"""All that is recorded of a run, as one text, and its notices."""


def record(scenario: Scenario) -> Record:
    """Run a scenario; return all that is recorded, as one text, and its notices."""
    seen = Seen()
    run = simulate(scenario, record=False, observers=[seen])
    facts = {key: value for key, value in seen.facts.items() if key not in NO_RECORD}
    lines = [{key: value for key, value in line.items() if key not in BY_THE_CLOCK} for line in run.rounds.lines]
    params = hashlib.sha256(run.params.numpy().tobytes()).hexdigest()
    return repr((facts, lines, seen.events, dict(run.outcome), params)), tuple(seen.facts.get("notices", ()))


@cache
def unchanged(text: str) -> Record:
    """Return the record of a scenario, a text of TOML, with which those of its changes are compared."""
    return record(load_scenario(tomllib.loads(text)))


def values_of(path: Keys, kind: str, hint: Any, now: Any) -> list[Any]:
    """Return other values of a key, those that act best first."""
    section, key = path[0], path[-1]
    for name in (f"{section}.{kind}.{key}", ".".join(path), f"{section}.{key}", _unnamed(path)):
        if name in VALUES:
            return VALUES[name]
    found: list[Any] = []
    for option in alternatives(hint):
        if typing.get_origin(option) is typing.Literal:
            found += typing.get_args(option)
        elif option is bool:
            found.append(not now)
        elif option is int:
            whole = now if isinstance(now, int) and not isinstance(now, bool) else 2
            found += [whole + 1, max(1, whole - 1), 2 * whole]
        elif option is float:
            start = float(now) if isinstance(now, int | float) else 0.5
            found += [start / 2, 0.3, 2 * start + 0.25, 1.0]
        elif typing.get_origin(option) is tuple and typing.get_args(option)[0] is int:
            found += [[2, 3]]
    return [value for value in found if value != now]


def _unnamed(path: Keys) -> str:
    """Return a path without the name of a fault or a drift."""
    return ".".join((path[0], *path[2:]) if path[0] in ("faults", "drifts") else path)


def set_in(table: Mapping[str, Any], path: Keys, value: Any) -> Table:
    """Return a scenario with another value of a key. A value that is a table sets keys beside it, and sections."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            there = (key,) if isinstance(inner, Mapping) else (*path[:-1], key)
            table = _put(table, there, inner)
        return dict(table)
    return _put(table, path, value)


def _put(table: Mapping[str, Any], path: Keys, value: Any) -> Table:
    inner = _put(table.get(path[0], {}), path[1:], value) if len(path) > 1 else value
    return {**table, path[0]: inner} if inner is not None else {k: v for k, v in table.items() if k != path[0]}


def named_in(value: Any, scenario: Scenario, folder: Path) -> Any:
    """Return a value in which a folder, or the data's district or channel, replaces its placeholder."""
    if isinstance(value, str):
        return value.replace("{folder}", str(folder))
    if value not in (["{district}"], ["{channel}"]):
        return value
    population = build_federation(federation_of(scenario, scenario.data))
    channel = next(c.name for c in population.spec.channels if c.measured) if value == ["{channel}"] else ""
    places = population.federation.places
    assert places is not None
    return [channel or population.federation.districts[int(places(np.array([0])).district[0])]]


def verdict(table: Table, path: Keys, hint: Any, now: Any, kind: str, folder: Path, before: Record) -> str:
    """Return what happens to other values of a key; empty where one acts, or a sentence or a refusal says why not."""
    name, contradicts, tried = ".".join(path), False, []
    for given in values_of(path, kind, hint, now):
        value = named_in(given, load_scenario(table), folder)
        try:
            after, notices = record(load_scenario(set_in(table, path, value)))
        except UserError as error:
            if "must be" not in str(error):
                contradicts = True
            tried.append(f"{value!r} is refused: {error}")
            continue
        stated = any(name in notice and "has no effect" in notice for notice in notices if notice not in before[1])
        if after != before[0]:
            return f"{name} = {value!r} acts, and a notice says that it has no effect" if stated else ""
        if any(name in notice for notice in notices if notice not in before[1]):
            return ""
        tried.append(f"{value!r} changes nothing and is not mentioned: {notices}")
    return (
        "" if contradicts and all("is refused" in words for words in tried) else f"{name}: {tried or 'no value to try'}"
    )


def is_alike(path: Keys) -> bool:
    return any(".".join(path[:length]) in ALIKE for length in range(1, len(path) + 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("data")
    write_files(found)
    return found


SLOW = {"balanced epochs", "local of fedsgd", "world of congestion", "criterion error_free"}
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [], id=name) for name, _, _ in cases(Path())]


@pytest.mark.parametrize("name", NAMES)
def test_every_key_acts_or_a_notice_names_it(name: str, folder: Path, one_thread: None) -> None:
    table, place = next((table, place) for case, table, place in cases(folder) if case == name)
    scenario = load_scenario(table)
    tables = dict(option_tables(scenario))
    keys: Keys = ()
    if place not in tables:
        place, keys = place[:-1], place[-1:]
    options, before = tables[place], unchanged(tomli_w.dumps(table))
    found = [
        verdict(table, (*place, key), hint, given_value(options, key), getattr(options, "kind", ""), folder, before)
        for key, hint in hints_of(type(options)).items()
        if key != "kind" and (not keys or key in keys) and not classes_of(hint) and not is_alike((*place, key))
    ]
    assert not any(found), "\n".join(filter(None, found))


def test_record_of_a_scenario_repeats_itself(one_thread: None) -> None:
    assert record(load_scenario(BASE))[0] == record(load_scenario(BASE))[0]


@cache
def tables_tried() -> frozenset[tuple[str, str, str]]:
    """Return the section, the class and the kind of every case."""
    found = set()
    for _, table, place in cases(Path()):
        inner: Any = table
        for step in place:
            inner = inner.get(step, {})
        hint = _hint(place, table)
        found |= {(place[0], cls.__name__, str(inner.get("kind", ""))) for cls in hint}
    return frozenset(found)


def _hint(place: Keys, table: Table) -> list[type]:
    from simulator.scenario.keys import hint_of

    return classes_of(hint_of(place, Scenario, table))


def kinds_of_all() -> Iterator[tuple[str, str, str]]:
    """Yield the section, class and kind of each table of keys that a scenario can have."""
    for section, hint in hints_of(Scenario).items():
        kinds = table_in(hint)
        rows = [(row.options, row.kind) for row in kinds.values()] if kinds else [(c, "") for c in classes_of(hint)]
        for cls, kind in rows:
            yield section, cls.__name__, kind
            for inner in hints_of(cls).values():
                yield from ((section, c.__name__, "") for c in classes_of(inner))


def test_every_table_of_keys_has_a_case() -> None:
    """A new kind or a new table of keys needs a case in `option_cases`."""
    kinds = {(section, kind) for section, _, kind in tables_tried()}
    classes = {cls for _, cls, _ in tables_tried()}
    missing = [
        (section, cls, kind)
        for section, cls, kind in kinds_of_all()
        if (kind and (section, kind) not in kinds and kind not in NEED_FILES) or (not kind and cls not in classes)
    ]
    assert not missing


def test_values_and_exceptions_name_keys_of_a_scenario() -> None:
    assert all(reason for reason in ALIKE.values())
    known = set(hints_of(Scenario))
    assert {name.partition(".")[0] for name in (*ALIKE, *VALUES)} <= known
    assert not [name for name in hints_of(Scenario) if is_named(hints_of(Scenario)[name]) and name in ALIKE]
