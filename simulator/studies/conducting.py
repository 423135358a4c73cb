"""Conducts a study: gives its runs to processes, keeps the table, and ends when every run has a row."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from clients.core.errors import UserError
from simulator.engines.limits import processors
from simulator.scenario.sections import to_toml
from simulator.studies.arms import PlannedRun
from simulator.studies.drawing import PageDrawing
from simulator.studies.early import Standing, standing
from simulator.studies.folder import StudyFolder
from simulator.studies.plan import StudyPlan
from simulator.studies.processes.messages import Job
from simulator.studies.processes.pool import Pool
from simulator.studies.queue import Queue
from simulator.studies.rows import BUSY, FAILED, FINISHED, INTERRUPTED, frame, is_finished, read_rows, write_table

TABLE_SECONDS, TABLE_SHARE = 5.0, 0.01
"""The least seconds between two writes of the table, and the largest share of the time that they take."""
LOOK_SECONDS = 2.0
"""Between two looks at runs that another process plays, or for which a decision waits while nothing is played here."""


class StudyObserver(Protocol):
    """What sees a study's progress."""

    def study_started(self, plan: StudyPlan, folder: StudyFolder, processes: int, threads: int) -> None:
        """The study begins, or goes on."""

    def run_ended(self, run: PlannedRun, row: Mapping[str, Any], *, again: bool) -> None:
        """A run has ended; `again` if it was played before."""

    def progress(self, state: Progress) -> None:
        """Called about once a second."""


@dataclass
class Progress:
    """How far a study is.

    Attributes:
        done: finished runs.
        of: all runs of this process's part.
        playing: by key, the runs that are played, and the share of each that is done.
        elsewhere: runs that other processes play.
        left: expected seconds until the end; None where unknown.
        rows: of all runs that have one, by key.
    """

    done: int
    of: int
    playing: Mapping[str, tuple[PlannedRun, float]]
    elsewhere: int
    left: float | None
    rows: Mapping[str, Mapping[str, Any]]


class Quiet:
    """The observer of a study that nobody watches."""

    def study_started(self, plan: StudyPlan, folder: StudyFolder, processes: int, threads: int) -> None:
        """Say nothing."""

    def run_ended(self, run: PlannedRun, row: Mapping[str, Any], *, again: bool) -> None:
        """Say nothing."""

    def progress(self, state: Progress) -> None:
        """Say nothing."""


def share_of(runs: Sequence[PlannedRun], shard: tuple[int, int]) -> list[PlannedRun]:
    """Return the runs of a shard: every n-th, from the k-th, of those that differ.

    Example:
        >>> share_of([], (2, 4))
        []
    """
    keys = list(dict.fromkeys(run.key for run in runs))
    mine = set(keys[shard[0] - 1 :: shard[1]])
    return [run for run in runs if run.key in mine]


def packing(runs: Sequence[PlannedRun], processes: int | None, cores: int) -> tuple[int, int]:
    """Return how many processes play, and the threads of each: together as many as the processors.

    Args:
        runs: that are to be played.
        processes: as the user wants them; None for one a processor, at most the runs.
        cores: processors of this process.
    """
    workers = max((w for run in runs if (w := run.arm.scenario.engine.workers) != "auto"), default=1)
    most = max(1, len({run.key for run in runs}))
    count = min(processes if processes is not None else max(1, cores // workers), most)
    return count, max(1, cores // (count * workers))


@dataclass
class Conductor:
    """Plays the runs of a study.

    Attributes:
        plan: the study.
        folder: its folder.
        observer: sees its progress.
        stop_asked: called about once a second; if it returns True, running runs finish their rounds and keep their
            checkpoints.
        drawing: draws the page.
        rows: of the runs, by key.
        stopped: why arms were dropped early, by name.
    """

    plan: StudyPlan
    folder: StudyFolder
    observer: StudyObserver
    stop_asked: Callable[[], bool]
    drawing: PageDrawing
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)
    _shares: dict[str, tuple[PlannedRun, float]] = field(default_factory=dict)
    _elsewhere: dict[str, PlannedRun] = field(default_factory=dict)
    _final: set[str] = field(default_factory=set)
    _stops: bool = False
    _write_at: float = 0.0
    _written: float = 0.0
    _looked: float = 0.0
    _standing: Standing | None = None

    def conduct(self, processes: int | None, shard: tuple[int, int]) -> bool:
        """Play all runs of a shard that are not finished, and write the table and the page.

        Return False where the study was stopped before its end.

        Raises:
            UserError: the processes cannot be started.
        """
        mine = share_of(self.plan.runs, shard)
        self.rows = read_rows(self.folder, self.plan.runs)
        queue = Queue(mine)
        for run in list(queue.waiting.values()):
            row = self.rows.get(run.key)
            if row is not None and is_finished(self.folder, run.key, row):
                queue.finished(run, row["seconds"])
                self.observer.run_ended(run, row, again=True)
        count, threads = packing(list(queue.waiting.values()), processes, processors())
        self.observer.study_started(self.plan, self.folder, count, threads)
        self._settle()
        if not self._open(queue):
            self.write()
            self.drawing.finish()
            return True
        pool = Pool(self.folder.path.resolve(), self.folder.log, count)
        at_once = True
        try:
            self.write()  # it imports pandas, while the processes import what a run needs
            self._play(pool, queue, threads, {run.key for run in mine})
            at_once = False
        finally:
            pool.release(at_once=at_once)
            self._shares = {}
            try:
                self.write()
                if not at_once:
                    self.drawing.finish()
            finally:
                pool.close()
        return not self._stops and not self._open(queue)

    def write(self) -> None:
        """Write the table, with the rows that other processes have written too; a finished run's is read once."""
        began = time.monotonic()
        with self.folder.locked("table"):
            found = read_rows(self.folder, [run for run in self.plan.runs if run.key not in self._final])
            self._final |= {key for key, row in found.items() if is_finished(self.folder, key, row)}
            own = {k: row for k, row in self.rows.items() if k in self._final or row["state"] == FAILED}
            self.rows = found | {k: row for k, row in own.items() if k not in found or k not in self._final}
            table = frame(self.plan.runs, self.rows, stopped=self.stopped, running=list(self._shares))
            write_table(self.folder, table)
            self.plan.write_facts(self.folder, self.rows, self.stopped)
        self._written = now = time.monotonic()
        self._write_at = now + max(TABLE_SECONDS, (now - began) / TABLE_SHARE)

    def _play(self, pool: Pool, queue: Queue, threads: int, mine: set[str]) -> None:
        """Give runs to idle processes until none is left."""
        began = time.monotonic()
        while True:
            if not self._stops and self.stop_asked():
                self._stops = True
                pool.stop()
            spent = self.plan.options.budget.seconds
            closed = self._stops or (spent is not None and time.monotonic() - began >= spent)
            if not closed:
                self._look_elsewhere(queue)
                self._give(pool, queue, threads)
            if not pool.playing and (closed or not (self._open(queue) or self._elsewhere)):
                return
            if not pool.playing:  # what may begin now depends on runs of other processes
                self._write_at = min(self._write_at, self._written + LOOK_SECONDS)
            self._show(spare=bool(pool.idle and pool.playing) and not closed)  # while every process has its run
            for job, message in pool.wait(0.5):
                self._hear(queue, job, message)
            done = sum(row["state"] in (*FINISHED, FAILED) for key, row in self.rows.items() if key in mine)
            left = queue.left(self._shares, len(pool.playing))
            self.observer.progress(Progress(done, len(mine), self._shares, len(self._elsewhere), left, self.rows))

    def _show(self, *, spare: bool) -> None:
        """Write the table where that is due; draw the page where that is due and a run has ended."""
        draws = self.drawing.is_due(spare=spare) and any(row["state"] in FINISHED for row in self.rows.values())
        if draws or time.monotonic() >= self._write_at:
            self.write()
            self._settle()  # other processes may have finished what a decision waited for
        if draws:
            self.drawing.draw(spare=spare)

    def _give(self, pool: Pool, queue: Queue, threads: int) -> None:
        """Give a run to each idle process, where one may begin."""
        for process in pool.idle:
            run = queue.take(self._allowed())
            if run is None:
                return
            self._shares[run.key] = (run, 0.0)
            scenario = run.arm.of(run.seed)
            looks = run.seed == self.plan.runs[0].seed
            name = self.plan.options.name
            job = Job(run.key, to_toml(scenario), scenario.notices, threads, looks, run.arm.data, name, run.arm.name)
            pool.play(process, job)

    def _hear(self, queue: Queue, job: Job, message: Mapping[str, Any]) -> None:
        """Take in what a process says of its run."""
        run, _ = self._shares[job.key]
        if "round" in message:
            self._shares[job.key] = run, message["round"] / max(1, message["of"])
            return
        row = message["played"] if "played" in message else self._lost(job, message["lost"])
        del self._shares[job.key]
        if row["state"] == BUSY:
            self._elsewhere[run.key] = run
            return
        self.rows[run.key] = row
        if row["state"] == INTERRUPTED:
            return
        queue.finished(run, row.get("seconds", float("nan")))
        self.observer.run_ended(run, row, again=False)
        self._settle()

    def _lost(self, job: Job, how: str) -> dict[str, Any]:
        row = {"state": FAILED, "error": f"its process {how}"}
        self.folder.write_row(job.key, row)
        return row

    def _look_elsewhere(self, queue: Queue) -> None:
        """Take the rows of runs that other processes have finished, and the runs that they have left."""
        if not self._elsewhere or time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        for key, run in list(self._elsewhere.items()):
            row = self.folder.read_row(key)
            if row is not None and is_finished(self.folder, key, row):
                self.rows[key] = row
                queue.finished(run, row["seconds"])
                self.observer.run_ended(run, row, again=True)
                del self._elsewhere[key]
                self._settle()
                continue
            with self.folder.tried(key) as free:
                if free:  # its process ended without a row
                    del self._elsewhere[key]
                    queue.put_back(run)

    def _settle(self) -> None:
        """Decide again which arms go on, where the study drops hopeless ones."""
        if self.plan.options.early.kind != "off":
            measure = self.plan.measure(self.rows)
            if measure is not None and measure.better is not None:
                self._standing = standing(self.plan.options.early, self.plan.arms, self.plan.seeds, self.rows, measure)
                self.stopped = self._standing.dropped

    def _allowed(self) -> dict[str, bool] | None:
        """Return the runs that may begin now, where arms may be dropped; None for all."""
        if self.plan.options.early.kind == "off":
            return None
        now = self._standing
        arms = now.arms if now is not None else [arm.name for arm in self.plan.arms]
        count = now.seeds if now is not None else self.plan.options.early.seeds
        seeds = set(self.plan.seeds[:count])
        return {run.key: run.arm.name in arms and run.seed in seeds for run in self.plan.runs}

    def _open(self, queue: Queue) -> bool:
        """Return whether a run is left that may be played, now or after the present ones."""
        return any(run.arm.name not in self.stopped for run in queue.waiting.values())


def checked_shard(text: str | None) -> tuple[int, int]:
    """Return the shard that a text names: `2/4` is the second of four.

    Raises:
        UserError: it names none.
    """
    if text is None:
        return 1, 1
    first, slash, second = text.partition("/")
    if slash and first.strip().isdecimal() and second.strip().isdecimal() and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise UserError(
        "shard", f"must be K/N with K from 1 to N, got {text!r:.40}", fix="2/4 is the second of four parts."
    )
