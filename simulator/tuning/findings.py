"""What a tuning found: the best values, how flat the optimum is, what matters, and the table of trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from optuna.importance import get_param_importances
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from simulator.tuning.measures import looks_at_test, measure_of
from simulator.tuning.parameters import Parameter, Value
from simulator.tuning.search import AT_LEAST, ERROR, PLACE, RESULTS
from simulator.tuning.storage import quietly

EDGE = 0.05
"""A best value in the outer 5% of its range, on the parameter's scale, lies at its edge."""
FEWEST_FOR_IMPORTANCE = 10
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
        number: its place in the order of proposals, from 0.
        state: complete, pruned (ended early) or failed.
        value: the median over its seeds; None unless it is complete.
        at_least: whether the median's run missed its target, so that the value is a lower bound.
        values: the values of its parameters.
        by_seed: the measure by seed, of the runs that were finished.
        runs: their folders by seed.
        seconds: wall seconds.
        error: why it failed; empty otherwise.
    """

    number: int
    state: str
    value: float | None
    at_least: bool
    values: Mapping[str, Value]
    by_seed: Mapping[int, float]
    runs: Mapping[int, str]
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class Flatness:
    """How flat the optimum is along one parameter.

    Attributes:
        key: the parameter.
        best: its best value.
        low: the least value among the trials that are about as good as the best; None for choices.
        high: the largest.
        choices: the choices among them; empty for a range.
        at_edge: whether the best value lies at an end of the range that was searched, so that better ones may lie
            outside.
        importance: its share of the importance of all parameters; None where there are too few trials to say.
    """

    key: str
    best: Value
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    at_edge: bool
    importance: float | None


@dataclass(frozen=True)
class Tuned:
    """What a tuning found.

    Attributes:
        name: the name of the scenario, or of the arm.
        measure: the key of the measure.
        better: lower or higher.
        seeds: the seeds of each trial.
        sampler: the sampler's name.
        pruner: the pruner's.
        trials: all trials, in order.
        best: the best values by key; empty where no trial is complete.
        value: the best trial's median; None likewise.
        at_least: whether it is a lower bound: half of its runs or more missed the target.
        untuned: the median of the scenario's own values, where they are inside the ranges and their trial is complete.
        within: the share of the best value that still counts as flat.
        as_good: how many trials are within that share.
        flatness: one for each parameter of the best trial.
        notes: what a reader should know, in sentences.
    """

    name: str
    measure: str
    better: str
    seeds: tuple[int, ...]
    sampler: str
    pruner: str
    trials: tuple[TrialRow, ...]
    best: Mapping[str, Value]
    value: float | None
    at_least: bool
    untuned: float | None
    within: float
    as_good: int
    flatness: tuple[Flatness, ...]
    notes: tuple[str, ...]

    def count(self, state: str) -> int:
        """Return how many trials are complete, pruned or failed."""
        return sum(trial.state == state for trial in self.trials)

    def table(self) -> Any:
        """Return a pandas DataFrame with one row a trial.

        Its columns are number, state, value, at_least, one for each parameter, one for each seed, and seconds.
        """
        pandas = import_module("pandas")
        keys = list(dict.fromkeys(key for trial in self.trials for key in trial.values))
        rows = [
            {"number": t.number, "state": t.state, "value": math.nan if t.value is None else t.value,
             "at_least": t.at_least, **{key: t.values.get(key) for key in keys},
             **{f"seed {seed}": t.by_seed.get(seed, math.nan) for seed in self.seeds}, "seconds": t.seconds}
            for t in self.trials
        ]  # fmt: skip
        return pandas.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, for tuning.json."""
        return asdict(self)


def found(
    study: Study,
    parameters: Sequence[Parameter],
    *,
    name: str,
    measure: str,
    seeds: tuple[int, ...],
    sampler: str,
    pruner: str,
    within: float,
    has_own: bool,
) -> Tuned:
    """Return what the trials of a study found.

    Args:
        study: Optuna's.
        parameters: what was tuned.
        name: the name of the scenario, or of the arm.
        measure: the key of the measure.
        seeds: the seeds of each trial.
        sampler: the sampler's name.
        pruner: the pruner's.
        within: the share of the best value that counts as flat.
        has_own: whether the first trial has the scenario's own values.
    """
    rows = _rows(study, parameters)
    better = measure_of(measure).better
    assert better is not None
    sign = 1.0 if better == "lower" else -1.0
    complete = [row for row in rows if row.value is not None and math.isfinite(row.value)]
    best = min(complete, key=lambda row: (sign * _number(row), row.at_least, row.number), default=None)
    good = [row for row in complete if best is not None and _is_as_good(row, best, within, sign)]
    importances = _importances(study, complete) if best is not None else {}
    flatness = tuple(
        _flatness(parameter, best.values[parameter.key], good, importances.get(parameter.key))
        for parameter in parameters
        if best is not None and parameter.key in best.values
    )
    own = rows[0].value if rows and has_own and rows[0].number == 0 else None
    return Tuned(
        name=name,
        measure=measure,
        better=better,
        seeds=seeds,
        sampler=sampler,
        pruner=pruner,
        trials=tuple(rows),
        best=best.values if best is not None else {},
        value=best.value if best is not None else None,
        at_least=best.at_least if best is not None else False,
        untuned=own if own is not None and math.isfinite(own) else None,
        within=within,
        as_good=len(good),
        flatness=flatness,
        notes=tuple(_notes(measure, best, flatness)),
    )


def _rows(study: Study, parameters: Sequence[Parameter]) -> list[TrialRow]:
    """Return the trials that ended, in the order of their proposals; one that was repeated counts once."""
    keys = [parameter.key for parameter in parameters]
    rows = []
    for place, trial in _in_order(study):
        if trial.state not in _STATES:
            continue
        attrs, results = trial.user_attrs, trial.user_attrs.get(RESULTS) or []
        is_complete = trial.state == TrialState.COMPLETE
        words = attrs.get(ERROR, "its process ended in the middle of it")
        rows.append(
            TrialRow(
                number=place,
                state=_STATES[trial.state],
                value=float(trial.value) if is_complete and trial.value is not None else None,
                at_least=bool(attrs.get(AT_LEAST, False)),
                values={key: trial.params[key] for key in keys if key in trial.params},
                by_seed={int(result["seed"]): float(result["value"]) for result in results},
                runs={int(result["seed"]): str(result["run"]) for result in results},
                seconds=trial.duration.total_seconds() if trial.duration is not None else 0.0,
                error=words if trial.state == TrialState.FAIL else "",
            )
        )
    return rows


def _in_order(study: Study) -> list[tuple[int, FrozenTrial]]:
    """Return places and trials in order, without those that were cut off and repeated in the same place.

    Folders that share a database may propose a trial each for one place at the same moment: both count.
    """
    placed = [(int(t.user_attrs[PLACE]), t) for t in study.get_trials(deepcopy=False) if PLACE in t.user_attrs]
    last = dict(placed)
    kept = [(p, t) for p, t in placed if t.state != TrialState.FAIL or ERROR in t.user_attrs or last[p] is t]
    return sorted(kept, key=lambda pair: (pair[0], pair[1].number))


def _number(row: TrialRow) -> float:
    assert row.value is not None
    return row.value


def _is_as_good(row: TrialRow, best: TrialRow, within: float, sign: float) -> bool:
    """Return whether a trial is at most a share of the best value worse, and no lower bound unless the best is one."""
    worse = sign * (_number(row) - _number(best))
    return worse <= within * abs(_number(best)) and row.at_least <= best.at_least


def _flatness(parameter: Parameter, best: Value, good: Sequence[TrialRow], importance: float | None) -> Flatness:
    values = [row.values[parameter.key] for row in good if parameter.key in row.values]
    if parameter.choices:
        choices = tuple(choice for choice in parameter.choices if choice in values)
        return Flatness(parameter.key, best, None, None, choices, False, importance)
    numbers = [float(value) for value in values]
    place = parameter.within(float(best))
    at_edge = not EDGE <= place <= 1 - EDGE
    return Flatness(parameter.key, best, min(numbers), max(numbers), (), at_edge, importance)


def _importances(study: Study, complete: Sequence[TrialRow]) -> Mapping[str, float]:
    """Return Optuna's importances (PED-ANOVA) of the parameters; none with few trials, or where all are equal."""
    different = {row.value for row in complete}
    if len(complete) < FEWEST_FOR_IMPORTANCE or len(different) < 3:
        return {}
    with quietly():
        found = get_param_importances(study, normalize=True)
    return {key: share for key, share in found.items() if math.isfinite(share)}


def _notes(measure: str, best: TrialRow | None, flatness: Sequence[Flatness]) -> list[str]:
    notes = []
    if best is None:
        notes.append("No trial is complete with a finite value: nothing was found.")
    if looks_at_test(measure):
        notes.append(
            f"The measure {measure} is one of the test examples, so the test scores of the best values are optimistic."
        )
    if best is not None and best.at_least:
        notes.append("Half of the best trial's runs or more missed the target: its value is a lower bound.")
    notes += [
        f"The best {part.key} ({part.best:g}) lies at an end of its range: better values may lie outside."
        for part in flatness
        if part.at_edge and not isinstance(part.best, str)
    ]
    return notes
