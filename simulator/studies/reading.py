"""Reads a study: a TOML file, a study's folder, a built-in study or scenario, or a table from Python."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

from clients.core.errors import ScenarioError, unknown_name
from simulator.scenario.changes import apply_changes, changes_of
from simulator.scenario.keys import hint_of, resolve
from simulator.scenario.kinds import hints_of
from simulator.scenario.plain import plain
from simulator.scenario.sections import Scenario, ScenarioSource, load_scenario
from simulator.scenario.shell import interpret, split
from simulator.scenario.sources import DEFAULT, find
from simulator.scenario.values import Mismatch, read, shown, words
from simulator.studies.factors import REMOVED, factor_values, flattened
from simulator.studies.options import AnswerOptions, ArmOptions, BudgetOptions, EarlyOptions, StudyOptions

MOST_SEEDS = 100_000
STUDY_FILE = "study.toml"
KEYS = tuple(field.name for field in fields(StudyOptions) if field.name != "zip")
"""The keys of a study file; `zip` is a key of [factors]."""

StudySource = ScenarioSource
"""A study file, a study's folder, a built-in study, a table, or a scenario in any of its forms."""


@dataclass(frozen=True)
class Changes:
    """What a caller changes in a study.

    Attributes:
        seeds: instead of the study's: how many, or which.
        set: changes of every arm, after the study's own: texts as after `--set`, or a table.
        factors: instead of the study's factors and arms: values by key, or texts such as
            "algorithm.kind=fedavg,scaffold".
        arms: likewise: tables with a name and keys, or keys by name.
        answer: keys of [answer], beside the study's own.
        budget: keys of [budget], beside the study's own.
        early: keys of [early], beside the study's own.
    """

    seeds: int | Sequence[int] | None = None
    set: Mapping[str, Any] | Sequence[str] = ()
    factors: Mapping[str, Any] | Sequence[str] | None = None
    arms: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    answer: Mapping[str, Any] | None = None
    budget: Mapping[str, Any] | None = None
    early: Mapping[str, Any] | None = None


def builtin_studies() -> list[str]:
    """Return the names of the built-in studies."""
    folder = resources.files("simulator.studies") / "builtin"
    return sorted(Path(file.name).stem for file in folder.iterdir() if file.name.endswith(".toml"))


def read_study(source: StudySource = None, changes: Changes | None = None) -> StudyOptions:
    """Return the options of a study.

    Args:
        source: a study file, a study's folder, a built-in study's name, or a table; or a scenario, as for
            `load_scenario`, which then is the study's only arm.
        changes: what the caller changes.

    Raises:
        ScenarioError: there is no such study, or it has a mistake; the message names the field.
    """
    table, name, folder = _table_of(source)
    changes = changes or Changes()
    table = dict(table)
    if changes.seeds is not None:
        table["seeds"] = changes.seeds if isinstance(changes.seeds, int) else list(changes.seeds)
    if changes.factors is not None or changes.arms is not None:
        table.pop("factors", None)
        table.pop("arms", None)
        table |= {} if changes.factors is None else {"factors": _factors(changes.factors, table, folder)}
        table |= {} if changes.arms is None else {"arms": _listed(changes.arms)}
    for section in ("answer", "budget", "early"):
        given = getattr(changes, section)
        if given is not None:
            table[section] = {**_mapping(table.get(section, {}), section), **given}
    options = _options(table, name, folder)
    return options if not changes.set else _with_set(options, changes.set)


def _factors(given: Mapping[str, Any] | Sequence[str], table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the factors that a caller names: by key, or as texts of a command line.

    Raises:
        ScenarioError: a text has no values, or its key is none.
    """
    if isinstance(given, Mapping):
        return dict(given)
    base = scenario_table(table.get("scenario", DEFAULT), folder, "scenario")
    found: dict[str, Any] = {}
    for text in given:
        key, equals, values = text.partition("=")
        if not equals or not key.strip():
            fix = "Such as --factor algorithm.kind=fedavg,scaffold."
            raise ScenarioError("--factor", f"must be section.key=value,value, got {shown(text)}", fix=fix)
        path = resolve(tuple(key.strip().removeprefix("--").split(".")), Scenario, base)
        hint = hint_of(path, Scenario, base)
        found[".".join(path)] = [interpret(part, hint) for part in split(values) if part.strip()]
    return found


def _table_of(source: StudySource) -> tuple[Mapping[str, Any], str, Path]:
    """Return a study's table, its default name, and the folder to which its scenario's path is relative."""
    here = Path()
    if isinstance(source, Scenario):
        return {"scenario": source}, source.name or "study", here
    if isinstance(source, Mapping):
        return (source if _is_study(source) else {"scenario": source}), "study", here
    if source is None or source == "":
        return {"scenario": DEFAULT}, DEFAULT, here
    given: object = source
    if not isinstance(given, str | Path):
        problem = f"must be a study file, a scenario or a table, got {type(source).__name__}"
        raise ScenarioError("study", problem, fix="Such as 'digits-label-skew' with factors=....")
    path = Path(source)
    if str(source) in builtin_studies():
        text = (resources.files("simulator.studies") / "builtin" / f"{source}.toml").read_text("utf-8")
        return tomllib.loads(text), str(source), here
    if path.is_dir() and (path / STUDY_FILE).is_file():
        return find(path / STUDY_FILE).table, path.name, path
    try:
        found = find(source)
    except ScenarioError as error:
        if "is not a scenario file or a built-in" not in error.problem:
            raise
        raise ScenarioError("study", f"{error.problem}; built-in studies: {', '.join(builtin_studies())}") from None
    if found.is_builtin or not _is_study(found.table):
        return {"scenario": str(source)}, found.name, here
    return found.table, found.name, path.parent


def _is_study(table: Mapping[str, Any]) -> bool:
    """Return whether a table is a study's and not a scenario's, by its keys."""
    sections = {*hints_of(Scenario)} - {"title", "name"}
    return not set(table) & sections or bool(set(table) & ({*KEYS} - {"title", "name"}))


def _options(table: Mapping[str, Any], name: str, folder: Path) -> StudyOptions:
    """Check a study's table."""
    if unknown := [key for key in table if key not in KEYS]:
        fix = "Keys of the scenario belong to [set]." if unknown[0] in hints_of(Scenario) else ""
        raise ScenarioError(str(unknown[0]), unknown_name(unknown[0], KEYS, "a key of a study"), fix=fix)
    factors = dict(_mapping(table.get("factors", {}), "factors"))
    zipped = _value(factors.pop("zip", False), bool, "factors.zip")
    found = factor_values(factors)
    arms = table.get("arms", [])
    if found and arms:
        raise ScenarioError("arms", "and factors are both given", fix="Keep one: factors are crossed, arms are listed.")
    if "seeds" in table and isinstance(table["seeds"], str):
        raise ScenarioError("seeds", f"must be a number of seeds or a list of them, got {shown(table['seeds'])}")
    return StudyOptions(
        title=_value(table.get("title", ""), str, "title"),
        name=_value(table.get("name", name), str, "name"),
        scenario=scenario_table(table.get("scenario", DEFAULT), folder, "scenario"),
        seeds=_seeds(table.get("seeds", 10)),
        set=flattened(plain(_mapping(table.get("set", {}), "set"), "set")),
        factors=_zipped(found, zipped),
        zip=zipped,
        arms=_arms(arms, folder),
        answer=_section(AnswerOptions, table.get("answer", {}), "answer"),
        budget=_budget(table.get("budget", {})),
        early=_early(table.get("early", {})),
        tuning=dict(_mapping(table.get("tuning", {}), "tuning")),
    )


def scenario_table(source: Any, folder: Path, field: str) -> dict[str, Any]:
    """Return a scenario's table as its author wrote it, checked.

    Args:
        source: a built-in's name, a file's path, a table or a `Scenario`.
        folder: to which the path is relative; one that is not found there is looked for here.
        field: the key that names it, for messages.

    Raises:
        ScenarioError: there is none, or it is not valid.
    """
    if isinstance(source, str | Path):
        beside = folder / source
        place = beside if beside.is_file() else source
        load_scenario(place)  # its mistakes name the file
        found = find(place)
        return {"name": found.name, **found.table}
    if isinstance(source, Scenario):
        return _without_none(plain({key: getattr(source, key) for key in hints_of(Scenario)}))
    if not isinstance(source, Mapping):
        problem = f"must be the name of a built-in scenario or the path of a file, got {shown(source)}"
        raise ScenarioError(field, problem, fix=f'Such as {field} = "{DEFAULT}".')
    load_scenario(source)
    return _without_none(plain(source))


def _without_none(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table without keys that are None, which TOML cannot hold, and without empty sections."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        kept = _without_none(inner) if isinstance(inner, Mapping) else inner
        if kept is not None and kept != {}:
            found[key] = kept
    return found


def _seeds(given: Any) -> tuple[int, ...]:
    """Return the seeds: n for 0 to n - 1, or a list."""
    if isinstance(given, int) and not isinstance(given, bool):
        if not 1 <= given <= MOST_SEEDS:
            raise ScenarioError("seeds", f"must be 1 to {MOST_SEEDS} seeds or a list of them, got {given}")
        return tuple(range(given))
    seeds: tuple[int, ...] = _value(given, tuple[int, ...], "seeds", "a number of seeds or a list of them")
    wrong = [seed for seed in seeds if not 0 <= seed < 2**63]
    if wrong or not seeds:
        raise ScenarioError(
            "seeds", f"must be whole numbers from 0 to 2**63 - 1, got {shown(wrong[0] if wrong else [])}"
        )
    if len(set(seeds)) < len(seeds):
        again = next(seed for i, seed in enumerate(seeds) if seed in seeds[:i])
        raise ScenarioError("seeds", f"must differ from each other, got {again} twice")
    return seeds


def _arms(given: Any, folder: Path) -> tuple[ArmOptions, ...]:
    """Return the listed arms."""
    if not isinstance(given, Sequence) or isinstance(given, str) or not all(isinstance(a, Mapping) for a in given):
        raise ScenarioError(
            "arms", f"must be a list of tables, got {shown(given)}", fix='Write [[arms]] and name = "...".'
        )
    arms = []
    for number, table in enumerate(given, 1):
        keys = dict(table)
        name, against = (_value(keys.pop(key, ""), str, f"arms.{number}.{key}") for key in ("name", "against"))
        scenario = keys.pop("scenario", None)
        own = None if scenario is None else scenario_table(scenario, folder, f"arms.{number}.scenario")
        arms.append(ArmOptions(name=name, scenario=own, against=against, values=flattened(plain(keys, "arms"))))
    names = [arm.name for arm in arms if arm.name]
    if again := next((name for i, name in enumerate(names) if name in names[:i]), ""):
        raise ScenarioError("arms.name", f"must differ from each other, got {again!r} twice")
    for number, arm in enumerate(arms, 1):
        if arm.against and (arm.against not in names or arm.against == arm.name):
            others = [name for name in names if name != arm.name]
            raise ScenarioError(f"arms.{number}.against", unknown_name(arm.against, others, "another arm"))
    return tuple(arms)


def _listed(arms: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> list[Any]:
    """Return arms from Python as a list of tables."""
    if isinstance(arms, Mapping):
        return [{"name": name, **_mapping(values, f"arms.{name}")} for name, values in arms.items()]
    return list(arms)


def _zipped(factors: Mapping[str, tuple[Any, ...]], zipped: bool) -> Mapping[str, tuple[Any, ...]]:
    lengths = {key: len(values) for key, values in factors.items()}
    if zipped and len(set(lengths.values())) > 1:
        counts = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        raise ScenarioError(
            "factors.zip", f"needs factors with equally many values; {counts}", fix="Leave zip out to cross them."
        )
    return factors


def _with_set(options: StudyOptions, given: Mapping[str, Any] | Sequence[str]) -> StudyOptions:
    """Return a study with further changes of every arm."""
    if isinstance(given, Mapping):
        return replace(options, set={**options.set, **flattened(plain(given, "set"))})
    changed = apply_changes(options.scenario, changes_of(given), Scenario)
    values: dict[str, Any] = {}
    for path in sorted(changed.paths):
        value: Any = changed.table
        for step in path:
            value = value.get(step) if isinstance(value, Mapping) else None
        values[".".join(path)] = REMOVED if value is None else value
    return replace(options, set={**options.set, **values})


def _budget(given: Any) -> BudgetOptions:
    budget: BudgetOptions = _section(BudgetOptions, given, "budget")
    for key in ("rounds", "seconds", "runs"):
        if (value := getattr(budget, key)) is not None and not value >= (0 if key == "seconds" else 1):
            raise ScenarioError(f"budget.{key}", f"must be at least {0 if key == 'seconds' else 1}, got {shown(value)}")
    return budget


def _early(given: Any) -> EarlyOptions:
    early: EarlyOptions = _section(EarlyOptions, given, "early")
    if early.seeds < 1 or (early.kind == "racing" and early.seeds < 3):
        least = "3, which racing needs for a test" if early.kind == "racing" else "1"
        raise ScenarioError("early.seeds", f"must be at least {least}, got {early.seeds}")
    for key in ("keep", "alpha"):
        if not 0 < getattr(early, key) < 1:
            raise ScenarioError(f"early.{key}", f"must be between 0 and 1, got {shown(getattr(early, key))}")
    return early


def _section(cls: type[Any], given: Any, path: str) -> Any:
    """Return the options of one section of a study."""
    hints = get_type_hints(cls)
    table = _mapping(given, path)
    for key in table:
        if key not in hints:
            raise ScenarioError(f"{path}.{key}", unknown_name(key, list(hints), f"a key of [{path}]"))
    return cls(**{
        key: _mapping(value, f"{path}.{key}") if key == "target" else _value(value, hints[key], f"{path}.{key}")
        for key, value in table.items()
    })  # fmt: skip


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ScenarioError(path, f"must be a table of keys, got {shown(value)}")
    return value


def _value(value: Any, hint: Any, path: str, allowed: str = "") -> Any:
    try:
        return read(plain(value, path), hint)
    except Mismatch:
        raise ScenarioError(path, f"must be {allowed or words(hint)}, got {shown(value)}") from None
