"""The arms of a study: their scenarios, names and values, what they are compared with, and the runs they need."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from clients.core.errors import ScenarioError, UserError, unknown_name
from dashboards.report.arm_names import arm_names, flat_scenario
from dashboards.report.compared_measures import MEASURES
from simulator.scenario.data_files import data_digest
from simulator.scenario.keys import resolve
from simulator.scenario.sections import Scenario, load_scenario, to_toml
from simulator.scenario.values import shown
from simulator.studies.factors import REMOVED, combinations
from simulator.studies.options import ArmOptions, StudyOptions

MOST_ARMS = 10_000
TARGET = "convergence.target"
RESERVED = ("arm", "seed", "run", "key", "state", "verdict", "rounds", "seconds")
"""Columns of the table that are no factor."""


@dataclass(frozen=True)
class Arm:
    """One arm.

    Attributes:
        name: its name in words.
        values: the value of each factor, by the whole key; of listed arms, those that any of them sets.
        scenario: its experiment; a run replaces the seed.
        against: the arm that it is compared with; where no arm names one, all are compared with the first.
        data: the digest of the files that its data are read from; empty for data without files.
    """

    name: str
    values: Mapping[str, Any]
    scenario: Scenario
    against: str = ""
    data: str = ""

    @cached_property
    def _texts(self) -> tuple[str, str]:
        """The scenario's text before and after the seed, without what decides no number."""
        run = replace(self.scenario.run, seed=0, checkpoint_seconds=1.0, checkpoint_rounds=None)
        text = to_toml(replace(self.scenario, title="", name="", notices=(), run=run))
        before, line, after = text.partition("\nseed = 0\n")
        assert line, "the scenario's text has its seed"
        return before, after

    def of(self, seed: int) -> Scenario:
        """Return the scenario of a run."""
        return replace(self.scenario, run=replace(self.scenario.run, seed=seed))

    def key(self, seed: int) -> str:
        """Return the identity of a run: 16 hexadecimal digits of scenario, seed, this version and the data's files."""
        before, after = self._texts
        data = f"\ndata {self.data}" if self.data else ""
        text = f"{version()}\n{seed}\n{before}\n{after}{data}"
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class PlannedRun:
    """A run of a study.

    Attributes:
        arm: its arm.
        seed: its seed.
        key: its identity.
    """

    arm: Arm
    seed: int
    key: str


def version() -> str:
    """Return the version of fedscape."""
    return importlib.metadata.version("fedscape")


def make_arms(options: StudyOptions, digest_of: Callable[[Scenario], str] = data_digest) -> list[Arm]:
    """Return the arms of a study, each of them checked.

    Args:
        options: the study.
        digest_of: returns the digest of the files that a scenario's data are read from.

    Raises:
        ScenarioError: an arm's scenario is not valid, a factor is no key, or the question is none of the study; the
            message names the field and the arm.
    """
    given = _given(options)
    if len(given) > MOST_ARMS:
        raise ScenarioError(
            "factors", f"must make at most {MOST_ARMS} arms, got {len(given)}", fix="Name fewer values."
        )
    scenarios = [_scenario(options, arm, number) for number, arm in enumerate(given, 1)]
    flats = [flat_scenario(tomllib.loads(to_toml(scenario))) for scenario in scenarios]
    names = _names(given, flats, options.scenario.get("name") or "the scenario")
    paths = [{_path(key, scenario): value for key, value in arm.values.items()}
             for arm, scenario in zip(given, scenarios, strict=True)]  # fmt: skip
    columns = list(dict.fromkeys(path for values in paths for path in values))
    found = [
        Arm(name, {key: _value(key, values, flat) for key in columns}, scenario, arm.against, digest_of(scenario))
        for name, arm, values, flat, scenario in zip(names, given, paths, flats, scenarios, strict=True)
    ]
    _check_answer(options, found)
    return found


def planned_runs(arms: Sequence[Arm], seeds: Sequence[int], most: int | None = None) -> list[PlannedRun]:
    """Return the runs of a study: all arms of the first seed, then of the second; of `most` only whole seeds.

    Raises:
        ScenarioError: `most` is less than the number of arms.
    """
    if most is not None and most < len(arms):
        raise ScenarioError("budget.runs", f"must be at least the number of arms, {len(arms)}, got {most}")
    kept = seeds if most is None else seeds[: most // len(arms)]
    return [PlannedRun(arm, seed, arm.key(seed)) for seed in kept for arm in arms]


def compared_pairs(options: StudyOptions, arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """Return which arms the question compares, by name: the second of each pair is compared with the first."""
    compare = options.answer.compare or (next(iter(options.factors)) if options.factors and not options.zip else "")
    if compare:
        factor = _path(compare, arms[0].scenario)
        groups: dict[str, list[Arm]] = {}
        for arm in arms:
            others = {key: value for key, value in arm.values.items() if key != factor}
            groups.setdefault(json.dumps(others, sort_keys=True, default=str), []).append(arm)
        return [(group[0].name, arm.name) for group in groups.values() for arm in group[1:]]
    if any(arm.against for arm in arms):
        return [(arm.against, arm.name) for arm in arms if arm.against]
    return [(arms[0].name, arm.name) for arm in arms[1:]]


def _given(options: StudyOptions) -> list[ArmOptions]:
    if options.factors:
        return [ArmOptions(values=values) for values in combinations(options.factors, zipped=options.zip)]
    return list(options.arms) or [ArmOptions()]


def _scenario(options: StudyOptions, arm: ArmOptions, number: int) -> Scenario:
    """Return an arm's scenario: the study's, or its own, with [set], then its own keys, then the budget."""
    base = arm.scenario if arm.scenario is not None else options.scenario
    always = {key: _unset(value) for key, value in options.set.items()}
    always |= {} if options.answer.target is None else {TARGET: dict(options.answer.target)}
    own = {key: _unset(value) for key, value in arm.values.items()}
    end = {} if options.budget.rounds is None else {"run.rounds": options.budget.rounds}
    if "seed" in {key.rpartition(".")[2] for key in (*always, *own)}:
        raise ScenarioError("run.seed", "is no factor and no change of a study", fix="Seeds belong to `seeds`.")
    try:
        scenario = load_scenario(base, sets=always)
    except UserError as error:
        where = "in [set]" if any(error.field.endswith(key.rpartition(".")[2]) for key in always) else "of the study"
        field = "set" if error.field == "--set" else error.field
        raise ScenarioError(field, f"{error.problem} ({where})", fix=_fix(error)) from error
    try:
        return load_scenario(scenario, sets={**own, **end})
    except UserError as error:
        settings = ", ".join(f"{key} = {shown(value)}" for key, value in arm.values.items())
        name = arm.name or settings or f"arm {number}"
        field = ("factors" if options.factors else "arms") if error.field == "--set" else error.field
        raise ScenarioError(field, f"{error.problem} (arm {name})", fix=_fix(error)) from error


def _fix(error: UserError) -> str:
    return "" if "from Python" in error.fix else error.fix


def _unset(value: Any) -> Any:
    return None if value == REMOVED and isinstance(value, str) else value


def _path(key: str, scenario: Scenario) -> str:
    """Return the whole key that a short one means."""
    return ".".join(resolve(tuple(key.split(".")), Scenario, tomllib.loads(to_toml(scenario))))


def _names(given: Sequence[ArmOptions], flats: Sequence[Mapping[str, Any]], alone: str) -> list[str]:
    """Return distinct names: those given, else what differs in words, else all values."""
    if len(given) == 1:
        return [given[0].name or alone]
    words = arm_names(flats)
    names = [arm.name or name for arm, name in zip(given, words, strict=True)]
    if len(set(names)) < len(names):
        names = [
            name if names.count(name) == 1 or arm.name
            else ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in arm.values.items()) or name
            for arm, name in zip(given, names, strict=True)
        ]  # fmt: skip
    for i, name in enumerate(names):
        if name in names[:i]:
            fix = "Give each [[arms]] its name."
            raise ScenarioError("arms.name", f"must differ from each other, and two arms would be {name!r}", fix=fix)
    return names


def _value(key: str, values: Mapping[str, Any], flat: Mapping[str, Any]) -> Any:
    """Return an arm's value of a factor: the one it sets, else its scenario's."""
    if key in values:
        return values[key]
    if key in flat:
        return flat[key]
    inside = {name.removeprefix(f"{key}."): value for name, value in flat.items() if name.startswith(f"{key}.")}
    return inside or None


def _check_answer(options: StudyOptions, arms: Sequence[Arm]) -> None:
    """Refuse a question that the study cannot answer.

    Raises:
        ScenarioError: the factor or the measure is unknown, or an arm has no target where the measure needs one.
    """
    answer = options.answer
    if answer.compare:
        factors = list(arms[0].values)
        if _path(answer.compare, arms[0].scenario) not in factors:
            fix = "" if factors else "The study has no factors."
            raise ScenarioError(
                "answer.compare", unknown_name(answer.compare, factors, "a factor of the study"), fix=fix
            )
    known = {measure.key: measure for measure in MEASURES}
    if answer.measure and answer.measure not in known:
        raise ScenarioError("answer.measure", unknown_name(answer.measure, list(known), "a measure"))
    without = [arm.name for arm in arms if arm.scenario.convergence.target is None]
    if answer.measure.endswith("_to_target") and without:
        problem = f"is {answer.measure!r}, and {_some(without)} no convergence.target"
        fix = 'Such as [answer] target = { metric = "validation_accuracy", at_least = 0.9 }.'
        raise ScenarioError("answer.measure", problem, fix=fix)
    if options.early.kind != "off" and answer.measure and known[answer.measure].better is None:
        raise ScenarioError("early.kind", f"needs a measure with a better direction, and {answer.measure!r} has none")


def _some(names: Sequence[str]) -> str:
    return f"arm {names[0]!r} has" if len(names) == 1 else f"{len(names)} arms ({names[0]!r}, ...) have"
