"""Finds keys of a scenario that have no effect, because another key leaves them without one.

A class of options says which of its own keys it does not read (`unread`), next to the keys themselves. What depends on
two sections is here, in `_between_sections` and `late_keys`. What depends on the data or the model is in
`simulator.runs.measured`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from clients.federation.data_kinds import DATA
from server.algorithms.table import ALGORITHMS
from simulator.scenario.kinds import hints_of
from simulator.scenario.values import shown

Path = tuple[str, ...]


@runtime_checkable
class ReadsSome(Protocol):
    """Options some of whose keys depend on others."""

    def unread(self) -> Mapping[str, str]:
        """Return why a key has no effect, for each key that has none."""


def unread_keys(scenario: Any, named: Collection[Path] = ()) -> list[str]:
    """Return a sentence for each key that was set and has no effect.

    Args:
        scenario: a `Scenario`.
        named: paths of keys that count as set even at their default. All other keys count as set where they differ
            from it.
    """
    tables = dict(option_tables(scenario))
    reasons = {
        (*path, key): reason
        for path, options in tables.items()
        if isinstance(options, ReadsSome)
        for key, reason in _at_work(scenario, path, options).unread().items()
    }
    reasons |= dict(_between_sections(scenario))
    return [
        without_effect(path, given_value(tables[path[:-1]], path[-1]), reason)
        for path, reason in reasons.items()
        if is_set(tables[path[:-1]], path[-1]) or path in named
    ]


def late_keys(scenario: Any) -> list[str]:
    """Return a sentence for each key that names a round, or a number of rounds, which the run does not have."""
    rounds, conv = scenario.run.rounds, scenario.convergence
    schedule = scenario.local.schedule
    found = [
        f"local.schedule.{key} = {shown(getattr(schedule, key))}: {reason}"
        for key, reason in schedule.late(rounds).items()
    ]
    if conv.criteria() and conv.stop != "never" and conv.min_rounds > rounds:
        found.append(
            f"convergence.min_rounds = {conv.min_rounds}: the last round is {rounds}, so no criterion ends the run"
        )
    return [*found, *_late_measurements(scenario), *_long_criteria(scenario)]


MEASURED_LATE = {
    "evaluation.federated_every": "clients evaluate the final model only",
    "evaluation.gradient_every": "only round 0 is measured",
    "evaluation.objective_every": "only round 0 and the last are measured",
    "evaluation.test_every": "only round 0 and the last are measured",
    "evaluation.adapt_every": "only round 0 and the last are measured",
    "run.keep_parameters_every": "only round 0 and the last are kept",
    "run.keep_checkpoints_every": "only round 0 is kept",
}
"""What a run does where a cadence that the user set is longer than the run."""


def _late_measurements(scenario: Any) -> Iterator[str]:
    rounds = scenario.run.rounds
    for name, reason in MEASURED_LATE.items():
        section, key = name.split(".")
        options = getattr(scenario, section)
        if getattr(options, key) > rounds and is_set(options, key) and is_named(scenario, (section, key)):
            yield f"{name} = {getattr(options, key)}: the last round is {rounds}, so {reason}"


def _long_criteria(scenario: Any) -> Iterator[str]:
    """Yield a sentence on the criteria that need more rounds in a row than the run has."""
    rounds, long = scenario.run.rounds, []
    for name, options in scenario.convergence.criteria().items():
        key = "hold" if hasattr(options, "hold") else "patience"
        most = rounds + (key == "hold")  # round 0 may hold, and is never stale
        path = ("convergence", name, key) if is_set(options, key) else ("convergence", name)
        if getattr(options, key) > most and is_named(scenario, path):
            long.append(f"convergence.{name}.{key} = {getattr(options, key)}")
    if long:
        yield f"{' and '.join(long)}: the last round is {rounds}, so {'they' if long[1:] else 'it'} cannot be met"


def _between_sections(scenario: Any) -> Iterator[tuple[Path, str]]:
    """Yield keys that another section leaves without an effect, and why."""
    convergence, data = scenario.convergence, scenario.data
    if data is not None and scenario.world is not None:
        for key in DATA.row_of(data).unread_world:
            yield ("world", key), f"{data.kind!r} data do not depend on it"
    if not scenario.local.partial_work:
        yield ("algorithm", "partial_work"), "no client does less than its work (local.partial_work = 0)"
    if not convergence.criteria():
        yield ("convergence", "min_rounds"), "[convergence] has no criterion"
        compares = convergence.divergence.loss_factor or convergence.divergence.spike
        if convergence.stop != "never" or not compares:  # with 'never' growth ends no run either
            yield ("convergence", "stop"), "[convergence] has no criterion"
    elif convergence.stop == "never":
        yield ("convergence", "min_rounds"), "with stop 'never' no criterion ends the run"


def _at_work(scenario: Any, path: Path, options: Any) -> Any:
    """Return options as they act: an algorithm may fix keys of [local]."""
    fixed = ALGORITHMS.row_of(scenario.algorithm).fixed_local
    return dataclasses.replace(options, **fixed.values) if path == ("local",) and fixed is not None else options


def replaced_keys(scenario: Any, prefixes: Collection[Path], reason: str, *, but: Collection[Path] = ()) -> list[str]:
    """Return a sentence on the keys that the user set and that an argument from Python replaces; none: no sentence.

    Args:
        scenario: a `Scenario`.
        prefixes: paths of the sections and keys that are replaced.
        reason: what replaces them.
        but: keys among them that act.
    """
    found = [
        (*path, key)
        for path, options in option_tables(scenario)
        for key in hints_of(type(options))
        if any((*path, key)[: len(prefix)] == prefix for prefix in prefixes)
        and not dataclasses.is_dataclass(getattr(options, key))
        and (*path, key) not in but
        and is_set(options, key)
        and is_named(scenario, (*path, key))
    ]
    if not found:
        return []
    names = ", ".join(".".join(path) for path in found)
    return [f"{names} {'have' if found[1:] else 'has'} no effect: {reason}"]


def is_named(scenario: Any, path: Path) -> bool:
    """Return whether the user set a key, or a part of a section; unknown counts as set."""
    named: Collection[Path] | None = scenario.named
    return named is None or any(path[: len(key)] == key or key[: len(path)] == path for key in named)


def paths_in(table: Mapping[str, Any], path: Path = ()) -> Iterator[Path]:
    """Yield the path of each value in a scenario's table."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from paths_in(value, (*path, key))
        else:
            yield (*path, key)


def without_effect(path: Path, value: Any, reason: str) -> str:
    """Return the sentence that a key has no effect."""
    return f"{'.'.join(path)} = {shown(value)} has no effect: {reason}"


def option_tables(scenario: Any) -> Iterator[tuple[Path, Any]]:
    """Yield each table of options in a scenario with its path, the inner tables after the outer."""
    stack: list[tuple[Path, Any]] = [((), scenario)]
    while stack:
        path, options = stack.pop(0)
        if isinstance(options, Mapping):
            stack[:0] = [((*path, name), inner) for name, inner in options.items()]
        elif dataclasses.is_dataclass(options):
            if path:
                yield path, options
            stack[:0] = [((*path, key), getattr(options, key)) for key in hints_of(type(options))]


def is_set(options: Any, key: str) -> bool:
    """Return whether a key differs from its default."""
    field = next(field for field in dataclasses.fields(options) if field.name == key)
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return bool(given_value(options, key) != default)


def given_value(options: Any, key: str) -> Any:
    """Return the value of a key as it was given: `given_KEY` has one that the class replaced by another."""
    given = vars(options).get(f"given_{key}")
    return getattr(options, key) if given is None else given
