"""Which keys of a scenario may change after some of its rounds were played, and what the change does to kept states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from clients.concept_drift.options import DriftOptions
from clients.core.errors import ScenarioError
from clients.faults.options import FaultOptions
from clients.training.client_states import BUFFERS
from server.record.checkpoint import Checkpoint
from simulator.scenario.plain import all_values
from simulator.scenario.sections import Scenario

FIXED = {
    "data": "the rounds before were played on other data",
    "partition": "the rounds before were played with other clients",
    "world": "the rounds before were played in another world",
    "features": "the model was trained on features processed otherwise",
    "model": "the parameters of a round belong to one model",
}
"""Sections that no branch changes, and why."""
FIXED_RUN = {
    "seed": "the rounds before drew other random numbers",
    "dtype": "the parameters of a round have one type",
}
"""Likewise of the keys of [run]."""


def changed_keys(before: Scenario, after: Scenario) -> list[str]:
    """Return the keys that have another value in another scenario, by path, in the order of the scenario.

    Titles, names and notices do not count.
    """
    return list(_differing(_values(before), _values(after), ""))


def values_of(scenario: Scenario, keys: list[str]) -> dict[str, Any]:
    """Return the values of keys by path; None for a key that the scenario lacks."""
    found = {}
    for key in keys:
        value: Any = _values(scenario)
        for step in key.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        found[key] = value
    return found


def check_changes(before: Scenario, after: Scenario, round_index: int) -> None:
    """Refuse changes that cannot apply after a round.

    Args:
        before: the scenario of the run.
        after: that of the branch.
        round_index: the round from whose end the branch starts.

    Raises:
        ScenarioError: naming the key and the reason.
    """
    for key in changed_keys(before, after):
        section, _, rest = key.partition(".")
        reason = FIXED.get(section) or (FIXED_RUN.get(rest, "") if section == "run" else "")
        if reason:
            fix = "Run it from the start: fedscape run with the same change."
            raise ScenarioError(key, f"cannot change after round {round_index}: {reason}", fix=fix)
    if after.run.rounds <= round_index:
        problem = f"must be more than {round_index}, the round that the branch starts from, got {after.run.rounds}"
        raise ScenarioError("run.rounds", problem, fix=f"Set run.rounds={round_index + 10}, or name an earlier round.")
    _check_named("faults", before.faults, after.faults, round_index)
    _check_named("drifts", before.drifts, after.drifts, round_index)


def _check_named(section: str, before: Mapping[str, Any], after: Mapping[str, Any], round_index: int) -> None:
    """Refuse changes of faults or drifts that were active in a round before."""
    for name in dict.fromkeys((*before, *after)):
        was, becomes = before.get(name), after.get(name)
        if was == becomes:
            continue
        early = [options for options in (was, becomes) if options is not None and _early(options, round_index)]
        if early and not _only_ends_later(was, becomes, round_index):
            key = f"{section}.{name}"
            problem = f"cannot change after round {round_index}: it is active before, or follows the world's clock"
            fix = _fix(section, key, was if was is not None and _early(was, round_index) else None, round_index + 1)
            raise ScenarioError(key, problem, fix=fix)


def _fix(section: str, key: str, active: FaultOptions | DriftOptions | None, start: int) -> str:
    """Return what can be done instead of a change of a fault or drift; `active` is the one of the run."""
    if active is None:
        where = "schedule.start" if section == "faults" else "start"
        return f"Let it start later, in rounds: {key}.{where}={start}."
    if section == "faults" and isinstance(active, FaultOptions) and active.schedule.unit == "rounds":
        return f"End it ({key}.schedule.stop={start}), and add another one that starts then."
    return "Run it from the start: fedscape run with the same change."


def _early(options: FaultOptions | DriftOptions, round_index: int) -> bool:
    """Return whether a fault or drift acts, or may act, up to a round."""
    when = options.schedule if isinstance(options, FaultOptions) else options
    return when.unit == "hours" or when.start <= round_index


def _only_ends_later(was: Any, becomes: Any, round_index: int) -> bool:
    """Return whether two versions of a fault are the same up to a round, and differ in when they end."""
    if not isinstance(was, FaultOptions) or type(was) is not type(becomes):
        return False
    differing = [f.name for f in fields(was) if getattr(was, f.name) != getattr(becomes, f.name)]
    if differing != ["schedule"]:
        return False
    one, other = was.schedule, becomes.schedule
    stops = [stop for stop in (one.stop, other.stop) if stop is not None]
    return one.unit == other.unit == "rounds" and one.start == other.start and all(s > round_index for s in stops)


def adapted(checkpoint: Checkpoint, before: Scenario, after: Scenario) -> tuple[Checkpoint, list[str]]:
    """Return a checkpoint for a changed scenario, and sentences on what begins anew.

    Args:
        checkpoint: of the run.
        before: the scenario of the run.
        after: that of the branch.
    """
    states, tensors, notes = dict(checkpoint.client_states), dict(checkpoint.tensors), []
    if before.algorithm.kind != after.algorithm.kind:
        gone = sorted(name for name in tensors if name.startswith("server/"))
        tensors = {name: tensor for name, tensor in tensors.items() if name not in gone}
        dropped = sorted(name for name in states if name != BUFFERS)
        states = {name: rows for name, rows in states.items() if name not in dropped}
        names = [*(name.removeprefix("server/") for name in gone), *dropped]
        if names:
            notes.append(f"{', '.join(names)} of {before.algorithm.kind} begin anew")
    if BUFFERS in states and after.local.buffers != "local":
        del states[BUFFERS]
        notes.append("clients' own buffers are dropped")
    return replace(checkpoint, tensors=tensors, client_states=states), notes


def _values(scenario: Scenario) -> dict[str, Any]:
    table = all_values(scenario)
    return {key: value for key, value in table.items() if key not in ("title", "name")}


def _differing(before: Any, after: Any, path: str) -> Iterator[str]:
    """Yield the paths of values that differ; a table that only one has is one path."""
    if before == after:
        return
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        yield path
        return
    kinds = [table.get("kind") for table in (before, after)]
    if kinds[0] != kinds[1]:
        yield f"{path}.kind".strip(".")
        return
    for key in dict.fromkeys((*before, *after)):
        yield from _differing(before.get(key), after.get(key), f"{path}.{key}".strip("."))
