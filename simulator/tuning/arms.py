"""The fair budget: every arm of a study is tuned with the same number of trials before its seeds are compared.

The seeds of the tuning are others than those of the comparison, so no arm is compared on runs that chose its values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from clients.core.errors import UserError, any_of, listed, require
from clients.core.shown.urls import bare_url
from dashboards.report.formats import count
from server.record.files import folder_name, writing
from simulator.scenario.sections import Scenario
from simulator.tuning.findings import TrialRow, Tuned
from simulator.tuning.measures import measure_of
from simulator.tuning.options import TuningOptions, options_of
from simulator.tuning.parameters import Parameter, applies, parameters_of
from simulator.tuning.tune import FILE, plain_values, tune_in, write_text

FOLDER = "tuning"
"""The folder in a study's with one folder an arm."""


@dataclass(frozen=True)
class TunedArms:
    """What the tuning of a study's arms found, for its runs and its page.

    Attributes:
        arms: what was found, by the arm's name; an arm without a key to tune is absent.
        scenarios: the scenario of each arm with its best values; as it was, where nothing was found.
        untuned: arms that have none of the keys.
        trials: trials of each arm.
        seeds: the seeds of each trial.
        compared: the seeds of the comparison; none is among `seeds`.
        interrupted: whether the tuning was stopped before its end: a study then goes no further.
    """

    arms: Mapping[str, Tuned]
    scenarios: Mapping[str, Scenario]
    untuned: tuple[str, ...]
    trials: int
    seeds: tuple[int, ...]
    compared: tuple[int, ...]
    interrupted: bool = False

    @property
    def sentences(self) -> list[str]:
        """The budget of every arm, in sentences for the page."""
        tuned = next(iter(self.arms.values()), None)
        if tuned is None:
            return []
        seeds, word = listed(map(str, self.seeds), 10), "seeds" if len(self.seeds) > 1 else "seed"
        found = [
            f"Each of {count(len(self.arms), 'arm')} was tuned with {count(self.trials, 'trial')} of "
            f"{count(len(self.seeds), 'run')} ({word} {seeds}), by the median of the "
            f"{measure_of(tuned.measure).spoken}. The comparison has other seeds."
        ]
        if self.untuned:
            found.append(f"{any_of(list(self.untuned)).capitalize()} has no key that is tuned.")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return what the page shows as plain values: sentences, and by arm what was found."""
        return {
            "sentences": self.sentences,
            "trials": self.trials,
            "seeds": list(self.seeds),
            "compared": list(self.compared),
            "untuned": list(self.untuned),
            "interrupted": self.interrupted,
            "arms": {name: plain_values(tuned.to_dict()) for name, tuned in self.arms.items()},
        }


@dataclass(frozen=True)
class TuningTable:
    """The table [tuning] of a study file: `params`, and the keys of `TuningOptions`.

    Attributes:
        params: what is tuned, as for `tune`.
        options: how.
    """

    params: Mapping[str, Any] | Sequence[str]
    options: TuningOptions = field(default_factory=TuningOptions)


def tuning_table(table: Mapping[str, Any]) -> TuningTable:
    """Return the table [tuning] of a study file.

    Raises:
        UserError: it has no `params`, an unknown key, a value that is not valid, or a database with a login.

    Example:
        >>> tuning_table({"params": {"local.local_lr": "log:0.001:1"}, "trials": 20}).options.trials
        20
    """
    given = dict(table)
    params = given.pop("params", None)
    fix = 'Such as params = { "local.local_lr" = "log:0.001:1" }.'
    require(isinstance(params, Mapping | list | tuple) and bool(params), "tuning.params", "is missing", fix=fix)
    assert isinstance(params, Mapping | list | tuple)
    options = options_of(given)
    if options.storage is not None and "@" in options.storage:
        problem = f"has a login ({bare_url(options.storage)!r}), and a study's folder holds its file"
        raise UserError("tuning.storage", problem, fix="Use a database without one, or leave it out for a journal.")
    return TuningTable(params, options)


def arm_parameters(arms: Mapping[str, Scenario], table: TuningTable) -> dict[str, tuple[Parameter, ...]]:
    """Return the parameters of each arm: those whose keys its scenario has, or has under a choice of another one.

    Raises:
        UserError: a parameter is not valid, or no arm has its key.
    """
    pairs = _pairs(table.params)
    found: dict[str, tuple[Parameter, ...]] = {}
    used: set[str] = set()
    for name, scenario in arms.items():
        own: dict[str, Any] = {}
        for key, value in pairs:
            try:
                made = parameters_of({**own, key: value}, scenario)
            except UserError:
                if _has(key, scenario):
                    raise
                continue
            own[key] = value
            used.add(key)
            found[name] = made
    unused = [key for key, _ in pairs if key not in used]
    if unused:  # its own error says what is wrong
        parameters_of({unused[0]: dict(pairs)[unused[0]]}, next(iter(arms.values())))
        raise UserError(f"tuning.params.{unused[0]}", "is a key of no arm", fix="Leave it out.")
    return found


def tune_arms(
    folder: Path,
    arms: Mapping[str, Scenario],
    table: TuningTable,
    *,
    compared: Sequence[int],
    trial_ended: Callable[[str, TrialRow, Tuned], object] = lambda arm, row, tuned: None,
    stop_asked: Callable[[], bool] = lambda: False,
) -> TunedArms:
    """Tune every arm of a study with the same number of trials, on seeds that the comparison does not have.

    Args:
        folder: the study's. The tuning of each arm goes to `tuning/` in it, and its runs to the study's `runs/`.
        arms: the scenario of each arm, by its name.
        table: what is tuned, and how.
        compared: the seeds of the comparison. A mere number of seeds for tuning counts up from the one after the last.
        trial_ended: called with the arm, each of its trials that ended, and what was found so far.
        stop_asked: as in `tune`.

    Returns:
        What was found. It is also in `tuning/tuning.json`, as `TunedArms.to_dict` returns it.

    Raises:
        UserError: a seed of the tuning is one of the comparison, or a parameter is not valid.
    """
    seeds = table.options.seeds_from(max(compared, default=-1) + 1)
    shared = sorted(set(seeds) & set(compared))
    fix = "Name other seeds, or a mere number of them."
    require(not shared, "tuning.seeds", f"has the compared seed {shared[:1]}", fix=fix)
    parameters = arm_parameters(arms, table)
    options = replace(table.options, seeds=seeds)
    found: dict[str, Tuned] = {}
    scenarios = dict(arms)
    interrupted = False
    for name in arms:
        if name not in parameters:
            continue
        place = folder / FOLDER / folder_name(name)
        with writing(place):
            place.mkdir(parents=True, exist_ok=True)
        named = replace(options, study_name=f"{options.study_name or folder.resolve().name}: {name}")
        done = tune_in(place, arms[name], parameters[name], named, study=folder,
                       trial_ended=partial(trial_ended, name), stop_asked=stop_asked)  # fmt: skip
        found[name] = replace(done.found, name=name)
        scenarios[name] = done.scenario
        interrupted = done.interrupted
        if interrupted:
            break
    untuned = tuple(name for name in arms if name not in parameters)
    trials = max((len(tuned.trials) for tuned in found.values()), default=0)
    made = TunedArms(found, scenarios, untuned, trials, seeds, tuple(compared), interrupted)
    if found:
        write_text(folder / FOLDER / FILE, json.dumps(made.to_dict(), indent=1) + "\n")
    return made


def _pairs(params: Mapping[str, Any] | Sequence[str]) -> list[tuple[str, Any]]:
    if isinstance(params, Mapping):
        return list(params.items())
    pairs = [text.partition("=") for text in params]
    return [(key.strip(), value) for key, _, value in pairs]


def _has(key: str, scenario: Scenario) -> bool:
    """Return whether a scenario has a key under its present kinds."""
    return applies(Parameter(key), scenario)
