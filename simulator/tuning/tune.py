"""Tune a scenario: open or continue its folder and Optuna's study, play the trials, and write what was found."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from clients.core.errors import UserError, require
from server.record.files import folder_name, whole_file, writing
from server.record.recorder import sole_writer
from simulator.scenario.data_files import data_files
from simulator.scenario.sections import Scenario, ScenarioSource, load_scenario, to_toml
from simulator.tuning.findings import TrialRow, Tuned, found
from simulator.tuning.measures import measure_of
from simulator.tuning.options import TuningOptions
from simulator.tuning.parameters import Parameter, own_values, parameters_of
from simulator.tuning.players import Players
from simulator.tuning.samplers import grid_of, pruner_of
from simulator.tuning.search import Search, with_values
from simulator.tuning.storage import Direction, open_study, quietly
from simulator.tuning.trial_runs import key_of, reports_every, study_folder

STUDIES = Path("studies")
FILE, BEST, SCENARIO = "tuning.json", "best.toml", "scenario.toml"


@dataclass(frozen=True)
class Tuning:
    """A tuning that is over, or was interrupted.

    Attributes:
        found: what it found.
        scenario: the scenario with the best values; as it was, where no trial is complete.
        path: its folder.
        interrupted: whether it was stopped before all trials were over; the same call with `out=` goes on.
    """

    found: Tuned
    scenario: Scenario
    path: Path
    interrupted: bool

    @property
    def best(self) -> Mapping[str, Any]:
        """The best values by key."""
        return self.found.best

    @property
    def value(self) -> float | None:
        """The best trial's median of the measure; None where no trial is complete."""
        return self.found.value

    def table(self) -> Any:
        """Return the trials as a pandas table, one row a trial."""
        return self.found.table()


TrialObserver = Callable[[TrialRow, Tuned], object]


def tune(
    scenario: ScenarioSource,
    params: Sequence[str] | Mapping[str, Any],
    *,
    trials: int = 30,
    seeds: int | Sequence[int] = 3,
    measure: str = "validation_loss",
    sampler: str = "tpe",
    pruner: str = "none",
    sampler_seed: int = 0,
    processes: int = 1,
    storage: str | None = None,
    study_name: str | None = None,
    within: float = 0.05,
    sets: Sequence[str] | Mapping[str, Any] = (),
    out: Path | str | None = None,
    trial_ended: TrialObserver = lambda row, tuned: None,
    stop_asked: Callable[[], bool] = lambda: False,
) -> Tuning:
    """Tune keys of a scenario with Optuna. A trial is one run for each seed; its score is their median.

    The first trial has the scenario's own values, where they lie inside the ranges. Runs are recorded in the folder
    and are never played twice: a tuning that was stopped or killed goes on when it is called again with its folder.

    Args:
        scenario: as for `simulate`.
        params: what is tuned: texts such as "local.local_lr=log:0.001:1", or a table of ranges and lists.
        trials: trials in all.
        seeds: the seeds of each trial, or how many, counted from the scenario's own.
        measure: the key of a measure, such as validation_loss or rounds_to_target.
        sampler: tpe, random, gp, qmc or grid.
        pruner: none, median, halving or hyperband.
        sampler_seed: the seed of the sampler.
        processes: trials that are played at once.
        storage: URL of a database for Optuna's study; by default a journal in the folder.
        study_name: the study's name there; by default the folder's.
        within: the share of the best value that counts as flat.
        sets: changes of the scenario, as for `load_scenario`.
        out: the folder, new or of this tuning; by default a new one in `studies/`.
        trial_ended: called with each trial that ended and what was found so far.
        stop_asked: called after each round; if it returns True, the tuning stops.

    Returns:
        The tuning. With one process, equal calls propose equal values.

    Raises:
        UserError: an argument is not valid, or the folder is of another tuning.
        ScenarioError: a parameter's key or value does not fit the scenario.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     done = tune("quadratic-two-clients", ["local.local_lr=0.1,0.5"], trials=2, seeds=1, out=folder,
        ...                 measure="optimality_gap", sampler="grid")
        >>> [trial.state for trial in done.found.trials]
        ['complete', 'complete']
    """
    base = load_scenario(scenario, sets=sets)
    options = TuningOptions(
        trials=trials,
        seeds=seeds,
        measure=measure,
        sampler=sampler,
        pruner=pruner,
        sampler_seed=sampler_seed,
        processes=processes,
        storage=storage,
        study_name=study_name,
        within=within,
    )
    parameters = parameters_of(params, base)
    folder = _folder(Path(out) if out is not None else None, base)
    return tune_in(folder, base, parameters, options, trial_ended=trial_ended, stop_asked=stop_asked)


def tune_in(
    folder: Path,
    scenario: Scenario,
    parameters: Sequence[Parameter],
    options: TuningOptions,
    *,
    study: Path | None = None,
    trial_ended: TrialObserver = lambda row, tuned: None,
    stop_asked: Callable[[], bool] = lambda: False,
) -> Tuning:
    """Tune a scenario in a folder, which exists; see `tune`.

    Args:
        folder: where Optuna's journal and the findings are.
        scenario: what is tuned.
        parameters: of `parameters_of`.
        options: how.
        study: the folder of the study in whose `runs/` the runs are; by default the same folder.
        trial_ended: called with each trial that ended.
        stop_asked: as in `tune`.
    """
    seeds = options.seeds_from(scenario.run.seed)
    queue = _queue(options, parameters, scenario)
    trials = min(options.trials, len(queue)) if options.sampler == "grid" else options.trials
    rounds, every = scenario.run.rounds, reports_every(scenario.run.rounds)
    data = data_files(scenario)
    digest = data.digest if data is not None else ""
    settings = {
        "scenario": key_of(replace(scenario, run=replace(scenario.run, seed=0)), digest),
        "parameters": [str(parameter) for parameter in parameters],
        "seeds": list(seeds),
        "measure": options.measure,
    }
    direction: Direction = "minimize" if measure_of(options.measure).better == "lower" else "maximize"
    with ExitStack() as held:
        held.enter_context(sole_writer(folder))
        home = study_folder(study or folder).path
        owner = _owner(folder)
        name = options.study_name or folder.resolve().name
        with quietly():
            optuna_study = open_study(folder, options.storage, name, direction, settings, data)
        optuna_study.pruner = pruner_of(options.pruner, rounds, every, len(seeds))
        write_text(folder / SCENARIO, to_toml(scenario))

        def findings() -> Tuned:
            return found(optuna_study, parameters, name=scenario.name, measure=options.measure, seeds=seeds,
                         sampler=options.sampler, pruner=options.pruner, within=options.within,
                         has_own=options.sampler != "grid" and bool(queue))  # fmt: skip

        def tell(number: int) -> None:
            place = optuna_study.get_trials(deepcopy=False)[number].user_attrs["place"]
            tuned = findings()
            for row in tuned.trials:
                if row.number == place:
                    trial_ended(row, tuned)

        search = Search(optuna_study, scenario, parameters, trials, options.sampler, options.sampler_seed, owner, queue)
        search.recover()
        players = Players(search, seeds, home, options.measure, every, tell, stop_asked, digest)
        try:
            players.play_here() if options.processes == 1 else players.play_in(options.processes)
        finally:
            tuned = findings()
            write_text(folder / FILE, json.dumps(plain_values(tuned.to_dict()), indent=1) + "\n")
        best = with_values(scenario, tuned.best)
        if tuned.best:
            write_text(folder / BEST, to_toml(best))
    interrupted = len(tuned.trials) < trials and stop_asked()
    return Tuning(tuned, best, folder, interrupted)


def _queue(options: TuningOptions, parameters: Sequence[Parameter], scenario: Scenario) -> list[Mapping[str, Any]]:
    """Return the values to try first: all points of a grid, or the scenario's own."""
    if options.sampler == "grid":
        return list(grid_of(parameters))
    own = own_values(parameters, scenario)
    return [own] if own else []


def _folder(out: Path | None, scenario: Scenario) -> Path:
    """Return the tuning's folder: a new one, an empty one, or that of a tuning that goes on."""
    if out is None:
        stem = f"{folder_name(scenario.name or 'scenario')}-tuning"
        out = STUDIES / f"{stem}-{datetime.now():%m%d-%H%M}-{secrets.token_hex(2)}"
    require(not out.exists() or out.is_dir(), "out", f"must be a folder, and {str(out)!r} is a file",
            fix="Name another folder.")  # fmt: skip
    if out.is_dir() and any(out.iterdir()) and not (out / "owner").is_file():
        raise UserError("out", f"{str(out)!r} is not empty and has no tuning", fix="Name a new folder.")
    with writing(out, fix="Name another folder."):
        out.mkdir(parents=True, exist_ok=True)
    return out


def _owner(folder: Path) -> str:
    """Return the name under which this folder plays trials; a database of several folders tells them apart by it."""
    file = folder / "owner"
    if not file.is_file():
        write_text(file, f"{folder.resolve().name}-{secrets.token_hex(4)}\n")
    return file.read_text("utf-8").strip()


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode())


def plain_values(value: Any) -> Any:
    """Return a value as JSON allows it: what is not finite becomes a text."""
    if isinstance(value, Mapping):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
