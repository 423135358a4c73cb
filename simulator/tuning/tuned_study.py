"""A study with a section [tuning]: every arm is tuned first, then its seeds are played with the best values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.scenario.keys import hint_of
from simulator.scenario.plain import plain
from simulator.scenario.sections import Scenario
from simulator.scenario.shell import interpret
from simulator.studies.conducting import StudyObserver
from simulator.studies.folder import StudyFolder
from simulator.studies.options import AnswerOptions, ArmOptions, StudyOptions
from simulator.studies.plan import StudyPlan
from simulator.studies.reading import Changes, StudySource
from simulator.studies.study import Study, play_study, prepare
from simulator.tuning.parameters import Value, table_of

if TYPE_CHECKING:
    from simulator.tuning.arms import TunedArms
    from simulator.tuning.findings import TrialRow, Tuned

TrialObserver = Callable[[str, "TrialRow", "Tuned"], object]


def study(
    source: StudySource = None,
    *,
    seeds: int | Sequence[int] | None = None,
    factors: Mapping[str, Any] | Sequence[str] | None = None,
    arms: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    set: Mapping[str, Any] | Sequence[str] = (),  # the key of a study file
    answer: Mapping[str, Any] | None = None,
    budget: Mapping[str, Any] | None = None,
    early: Mapping[str, Any] | None = None,
    out: Path | str | None = None,
    processes: int | None = None,
    shard: str | None = None,
    observer: StudyObserver | None = None,
    trial_ended: TrialObserver = lambda arm, row, tuned: None,
    stop_asked: Callable[[], bool] = lambda: False,
) -> Study:
    """Play a study, in processes of their own, and return its results.

    A run that is finished in the study's folder is not played again, so a study that was stopped or killed goes on
    where it was. Where the study has a section [tuning], its arms are tuned first: each with the same number of trials,
    on seeds that the study does not have. The study then has the best values of each arm.

    Args:
        source: a study file, a study's folder, a built-in study's name, a table as in a study file; or a scenario in
            any of its forms, which needs `factors` or `arms` for more than one arm.
        seeds: instead of the study's: how many, or which.
        factors: instead of the study's factors or arms: values by key, which are crossed.
        arms: likewise: keys and values by the arm's name.
        set: changes of every arm: a table, or texts as after `--set`.
        answer: keys of [answer].
        budget: keys of [budget].
        early: keys of [early].
        out: the study's folder: new, empty, or a study's. By default a new one in `studies/`; for a study's folder as
            source, that folder.
        processes: how many runs are played at once; one a processor by default.
        shard: "2/4" plays the second of four parts of the runs. Other processes play the others, with the same `out`.
        observer: sees the progress of the study's runs.
        trial_ended: called with the arm, a trial of its tuning that ended, and what was found so far.
        stop_asked: called about once a second; if it returns True, the study stops and keeps all checkpoints.

    Raises:
        UserError: the study has a mistake, found before the first run; the message names the field and the fix.

    Example:
        >>> from tempfile import mkdtemp
        >>> found = study("quadratic-two-clients", factors={"algorithm.kind": ["fedavg", "scaffold"]}, seeds=2,
        ...               out=mkdtemp(), processes=1)
        >>> found.arms, len(found.table())
        (['fedavg', 'scaffold'], 4)
    """
    changes = Changes(seeds, set, factors, arms, answer, budget, early)
    prepared = prepare(source, changes, out=out, processes=processes, shard=shard)
    plan, folder = prepared.plan, prepared.folder
    if plan.options.tuning:
        from simulator.tuning.arms import tune_arms, tuning_table  # imports Optuna and torch: seconds, for tuning alone

        table, by_name = tuning_table(plan.options.tuning), {arm.name: arm.scenario for arm in plan.arms}
        tuned = tune_arms(
            folder.path, by_name, table, compared=plan.seeds, trial_ended=trial_ended, stop_asked=stop_asked
        )
        if tuned.interrupted:
            return Study(folder.path, plan, complete=False)
        StudyFolder.make(folder.path, with_tuned(plan.options, plan, tuned), now=datetime.now())
        prepared = prepare(folder.path, Changes(), out=None, processes=processes, shard=shard)
    return play_study(prepared, observer=observer, stop_asked=stop_asked)


def with_tuned(options: StudyOptions, plan: StudyPlan, tuned: TunedArms) -> StudyOptions:
    """Return a study whose arms are listed with their best values, and compared as before.

    Args:
        options: the study.
        plan: its plan before the tuning.
        tuned: what was found.
    """
    against = {second: first for first, second in plan.pairs}
    listed = options.arms or tuple(ArmOptions(values=arm.values) for arm in plan.arms)
    arms = []
    for arm, given in zip(plan.arms, listed, strict=True):
        found = tuned.arms.get(arm.name)
        best = _typed(found.best, tuned.scenarios[arm.name]) if found is not None else {}
        arms.append(replace(given, name=arm.name, against=against.get(arm.name, ""), values={**given.values, **best}))
    answer: AnswerOptions = replace(options.answer, compare="")
    return replace(options, factors={}, zip=False, arms=tuple(arms), answer=answer, tuning={})


def _typed(best: Mapping[str, Value], scenario: Scenario) -> dict[str, Any]:
    """Return the best values with the types of their keys: choices are texts."""
    table = table_of(scenario)
    return {
        key: plain(interpret(value, hint_of(tuple(key.split(".")), Scenario, table)), key) if isinstance(value, str)
        else value
        for key, value in best.items()
    }  # fmt: skip
