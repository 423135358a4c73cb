"""The runs of one trial: one a seed, played one after another, recorded, and never played twice.

A run's folder is named by what it computes, so a trial that was killed finds its finished runs, and goes on with the
one that was interrupted.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clients.core.errors import RunFolderError
from dashboards.report.run_data import RunData, read_run
from server.record.hints import is_resumable
from server.record.recorder import sole_writer
from simulator.runs.run import resume, simulate
from simulator.scenario.sections import Scenario, to_toml
from simulator.tuning.measures import SeedResult, measure_of, progress_of, result_of

REPORTS = 25
"""About so many values of a run are reported: each is written to the storage."""
WAIT_SECONDS = 60.0
Report = Callable[[int, float], bool]
"""Takes the rounds that a trial has played and how far it is; returns whether the trial goes on."""


@dataclass(frozen=True)
class Job:
    """The runs of a trial.

    Attributes:
        scenarios: one a seed, with the trial's values.
        runs: the folder of runs.
        measure: the key of the measure.
        every: rounds between reports.
    """

    scenarios: tuple[Scenario, ...]
    runs: Path
    measure: str
    every: int


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


def key_of(scenario: Scenario) -> str:
    """Return 16 hex digits for what a run computes: its scenario without title and name, and fedscape's version."""
    text = to_toml(replace(scenario, title="", name="", notices=()))
    return hashlib.blake2b(f"{version('fedscape')}\n{text}".encode(), digest_size=8).hexdigest()


def play(job: Job, report: Report, stop_asked: Callable[[], bool]) -> Played:
    """Play the runs of a trial.

    Args:
        job: the runs.
        stop_asked: called after each round; if it returns True, the run stops and keeps its checkpoint.
        report: called every `job.every` rounds of each run. The count of rounds goes on from one run to the next, so
            values of the same count are of the same seed and round in every trial.

    Raises:
        UserError: a scenario cannot be run, or lacks the measure.
    """
    measure, results = measure_of(job.measure), list[SeedResult]()
    for number, scenario in enumerate(job.scenarios):
        watch = _Watch(job, number * scenario.run.rounds, report, stop_asked)
        run = played(scenario, job.runs / key_of(scenario), watch)
        if run is None:
            return Played(tuple(results), is_whole=False)
        results.append(result_of(run, measure, scenario.run.seed))
    return Played(tuple(results), is_whole=True)


class _Watch:
    """The observer that reports a run's rounds, and remembers that the trial is to stop. Its error ends the run."""

    critical = True

    def __init__(self, job: Job, before: int, report: Report, stop_asked: Callable[[], bool]) -> None:
        self._measure, self._every, self._before, self._report = measure_of(job.measure), job.every, before, report
        self._stop_asked = stop_asked
        self.ended = False

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
        if self.ended or not number or number % self._every:
            return
        value = progress_of(line, self._measure)
        if value is not None:
            self.ended = not self._report(self._before + number, value)


def played(scenario: Scenario, folder: Path, watch: _Watch) -> RunData | None:
    """Return a finished run: the one in the folder, or that run continued, or a new one.

    Returns:
        The run; None where the watch stopped it, and its checkpoint is kept.
    """
    if folder.exists():
        _wait_for(folder)
        run = _finished(folder)
        if run is not None:
            watch.recorded_before(run.lines)
            return None if watch.stopped() else run
        try:
            if not is_resumable(folder):
                raise RunFolderError(str(folder), "has no checkpoint")
            resume(folder, observers=[watch], stop_asked=watch.stopped)
            return _finished(folder)
        except RunFolderError:  # killed before its first checkpoint, or damaged: nothing of it is worth keeping
            shutil.rmtree(folder)
            watch.ended = False
    simulate(scenario, out=folder, observers=[watch], stop_asked=watch.stopped)
    return _finished(folder)


def _wait_for(folder: Path) -> None:
    """Wait until no other process writes to a run: one of a tuning that was killed ends its round.

    Raises:
        RunFolderError: it is still written to after a minute.
    """
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            with sole_writer(folder):
                return
        except RunFolderError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def _finished(folder: Path) -> RunData | None:
    """Return the run in a folder; None where it is not over."""
    try:
        run = read_run(folder)
    except RunFolderError:
        return None
    return run if run.state in ("converged", "diverged", "stopped") else None
