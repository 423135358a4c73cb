"""The runs of one trial: one a seed, played one after another, recorded, and never played twice.

They are runs of a study's folder: a trial that was killed finds its finished runs and goes on with the one that was
interrupted, and all runs of one shape have the engine that was chosen for the first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.core.errors import FedscapeError
from dashboards.report.run_data import read_run
from simulator.scenario.sections import Scenario, to_toml
from simulator.studies.arms import Arm
from simulator.studies.folder import StudyFolder
from simulator.studies.job import play_job
from simulator.studies.pinning import engine_group
from simulator.studies.processes.messages import Job
from simulator.studies.rows import BUSY, FAILED, FINISHED
from simulator.tuning.measures import SeedResult, measure_of, progress_of, result_of

REPORTS = 25
"""About so many values of a run are reported: each is written to the storage."""
LOOK_SECONDS = 0.5
"""Between two looks at a run that another process plays."""
FOLDERS = ("runs", "locks", "plans", "parts", "rows")
Report = Callable[[int, float], bool]
"""Takes the rounds that a trial has played and how far it is; returns whether the trial goes on."""


@dataclass(frozen=True)
class Task:
    """The runs of a trial.

    Attributes:
        scenarios: one a seed, with the trial's values.
        folder: the folder of the study in whose `runs/` they are.
        measure: the key of the measure.
        every: rounds between reports.
        threads: of each process that plays trials.
        engine: the name of the engine's choice that trials of one shape share, such as those of all learning rates.
        data: the digest of the data files of the tuned scenario; empty for data without files.
    """

    scenarios: tuple[Scenario, ...]
    folder: Path
    measure: str
    every: int
    threads: int
    engine: str
    data: str = ""


@dataclass(frozen=True)
class Played:
    """What a trial's runs gave.

    Attributes:
        results: of each finished run.
        is_whole: whether all of its runs are finished; otherwise the trial was stopped.
    """

    results: tuple[SeedResult, ...]
    is_whole: bool


def reports_every(rounds: int) -> int:
    """Return the rounds between reports of a run."""
    return max(1, rounds // REPORTS)


def study_folder(path: Path) -> StudyFolder:
    """Return the folder of a study in which runs are recorded, with the folders that it needs."""
    for name in FOLDERS:
        (path / name).mkdir(parents=True, exist_ok=True)
    return StudyFolder(path)


def key_of(scenario: Scenario, data: str) -> str:
    """Return the identity of a run: that of the same run of a study, whose data files have the digest `data`."""
    return Arm("", {}, scenario, data=data).key(scenario.run.seed)


def play(task: Task, report: Report, stop_asked: Callable[[], bool]) -> Played:
    """Play the runs of a trial.

    Args:
        task: the runs.
        report: called every `task.every` rounds of each run. The count of rounds goes on from one run to the next, so
            values of the same count are of the same seed and round in every trial.
        stop_asked: called after each round; if it returns True, the run stops and keeps its checkpoint.

    Raises:
        FedscapeError: a run failed, or lacks the measure.
    """
    measure, results, folder = measure_of(task.measure), list[SeedResult](), StudyFolder(task.folder)
    for number, scenario in enumerate(task.scenarios):
        watch = _Watch(task, number * scenario.run.rounds, report, stop_asked)
        key = key_of(scenario, task.data)
        group = engine_group(scenario)
        _copy_plan(folder, task.engine, group)
        if not _is_played(folder, Job(key, to_toml(scenario), scenario.notices, task.threads, data=task.data), watch):
            return Played(tuple(results), is_whole=False)
        _copy_plan(folder, group, task.engine)
        run = read_run(folder.run(key))
        if not watch.saw_rounds:
            watch.recorded_before(run.lines)
            if watch.ended:
                return Played(tuple(results), is_whole=False)
        results.append(result_of(run, measure, scenario.run.seed))
    return Played(tuple(results), is_whole=True)


class _Watch:
    """The observer that reports a run's rounds, and remembers that the trial is to stop. Its error ends the run."""

    critical = True

    def __init__(self, task: Task, before: int, report: Report, stop_asked: Callable[[], bool]) -> None:
        self._measure, self._every, self._before, self._report = measure_of(task.measure), task.every, before, report
        self._stop_asked = stop_asked
        self.ended = self.saw_rounds = False

    def stopped(self) -> bool:
        """Return whether the run is to stop."""
        return self.ended or self._stop_asked()

    def recorded_before(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Report the rounds of a run that goes on."""
        for line in lines:
            self.round_finished(line)

    def round_finished(self, line: Mapping[str, Any]) -> None:
        """Report a round."""
        number = int(line["round"])
        self.saw_rounds = True
        if self.ended or not number or number % self._every:
            return
        value = progress_of(line, self._measure)
        if value is not None:
            self.ended = not self._report(self._before + number, value)


def _copy_plan(folder: StudyFolder, source: str, target: str) -> None:
    """Have a group of runs take the engine that was chosen for another, where it has none."""
    if folder.read("plans", target) is None and (found := folder.read("plans", source)) is not None:
        folder.write("plans", target, found)


def _is_played(folder: StudyFolder, job: Job, watch: _Watch) -> bool:
    """Play a run unless it is finished; return False where it was stopped and keeps its checkpoint.

    Raises:
        FedscapeError: it failed.
    """
    while True:
        row = play_job(folder, job, observer=watch, stop_asked=watch.stopped)
        if row["state"] == FAILED:
            raise FedscapeError(str(row.get("error", "the run failed")))
        if row["state"] != BUSY:
            return row["state"] in FINISHED
        if watch.stopped():
            return False
        time.sleep(LOOK_SECONDS)
