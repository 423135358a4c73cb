"""Times an engine by a few local steps of real clients, repeat by repeat, so that engines can be timed in turn."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median_low

import numpy as np

from clients.core.arrays import I64
from clients.engines.base import Engine
from clients.engines.batch import Program
from clients.engines.native.threads import set_threads
from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.training.task import LearningTask
from clients.training.work import CohortWork
from simulator.engines.probe import Cost, Sample, shortened, work_of

HEAVY_STEP = 0.015
"""A local step of more seconds than this is a sample of its own."""
FINE_SECONDS = 1e-5
"""The coarsest resolution of a clock that times steps (Windows has one of 16 ms for a thread)."""
LIGHT_STEP = 0.003
"""Local steps of fewer seconds than this are timed four and eight at a time, others two and four at a time."""


@dataclass(frozen=True)
class Candidate:
    """An engine to time.

    Attributes:
        engine: "plain" or "stacked".
        width: clients that it is timed on: those of a tile, or a few that the plain engine trains one by one.
        threads: torch's threads.
    """

    engine: str
    width: int
    threads: int


Run = Callable[[int], float]
"""Local steps -> the seconds of taking them."""


class Stopwatch:
    """Times local steps of a sample's clients. Engines are kept between calls, and data are made before the clock runs.

    Args:
        sample: a typical cohort.
        program: of the stacked engine; None where only the plain one is timed.
        by_wall: whether also one thread is timed by the wall.
    """

    def __init__(self, sample: Sample, program: Program | None, *, by_wall: bool = False) -> None:
        self.sample, self._program, self._by_wall = sample, program, by_wall
        self._engines: dict[tuple[str, int], Engine] = {}
        self._works: dict[int, CohortWork] = {}

    def of(self, sample: Sample) -> Stopwatch:
        """Return a stopwatch of other clients, by the wall: it times processes that work at the same moments."""
        return Stopwatch(sample, self._program, by_wall=True)

    def prepare(self, candidate: Candidate) -> None:
        """Make the data of the clients on which a candidate is timed."""
        self._work(candidate.width)

    def seconds(self, candidate: Candidate, steps: int) -> float:
        """Return the seconds in which a candidate takes some local steps of each of its clients."""
        engine, work = self._engine(candidate.engine, steps), self._work(candidate.width)
        set_threads(candidate.threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of slow batching rules, which the timing measures anyway
            clock = self.clock(candidate)
            started = clock()
            engine.train(work, {})
            return clock() - started

    def clock(self, candidate: Candidate) -> Callable[[], float]:
        """Return the clock of a candidate.

        On a busy machine a long sample is interrupted and a short one is not, which would favour narrow tiles. The
        processor's time of one thread leaves the interruptions out. Several threads, which wait for each other, and
        a GPU need the time of the wall.
        """
        is_fine = time.get_clock_info("thread_time").resolution < FINE_SECONDS
        alone = candidate.threads == 1 and self.sample.task.device.type == "cpu" and not self._by_wall
        return time.thread_time if is_fine and alone else time.perf_counter

    def _engine(self, name: str, steps: int) -> Engine:
        if (name, steps) not in self._engines:
            task = shortened(self.sample.task, steps)
            self._engines[name, steps] = self._built(name, task)
        return self._engines[name, steps]

    def _built(self, name: str, task: LearningTask) -> Engine:
        return PlainEngine(task) if name == "plain" else StackedEngine(task, program=self._program)

    def _work(self, width: int) -> CohortWork:
        if width not in self._works:
            clients = _spread(self.sample.clients, width)
            self._works[width] = work = work_of(self.sample.task, clients)
            self.sample.task.population.during(work.round_index).cohort(clients)
        return self._works[width]


def _spread(clients: I64, count: int) -> I64:
    """Return `count` of some clients, evenly spaced."""
    return clients[np.linspace(0, len(clients) - 1, count).round().astype(np.int64)]


class Timing:
    """The samples of a candidate's seconds, and the cost that follows from their medians.

    The first call warms up. It decides how many steps a sample has: two numbers of steps, whose difference leaves out
    the cost of a call itself; or one, where steps are heavy or few. Of an even number of samples the median is the
    lower one of the two in the middle: another process can make a sample only too slow.

    Args:
        run: takes local steps.
        longest: the most local steps of a client in a round.

    Attributes:
        spent: seconds of all steps; a first step that was slow counts like the second.
        first_seconds: seconds of the first step.
    """

    def __init__(self, run: Run, longest: int) -> None:
        self._run, self._longest = run, longest
        self._samples: dict[int, list[float]] = {}
        self.spent, self.first_seconds = 0.0, 0.0

    @property
    def repeats(self) -> int:
        """The number of samples."""
        return min(map(len, self._samples.values()), default=0)

    @property
    def sample_seconds(self) -> float:
        """The seconds of one more sample, by those so far."""
        return sum(median_low(seconds) for seconds in self._samples.values())

    @property
    def is_warm(self) -> bool:
        """Whether it has run."""
        return bool(self._samples)

    def warm_up(self) -> None:
        """Take the first step. A heavy one is a sample; it is taken twice, since the first is often slow."""
        self.first_seconds = first = self._timed(1)
        if first > HEAVY_STEP:
            self.first_seconds = min(first, second := self._timed(1))
            self.spent = 2 * self.first_seconds
            if second > HEAVY_STEP / 2:
                self._samples = {1: [first, second]}
                return
        few = 4 if self.first_seconds < LIGHT_STEP else 2
        counts = (self._longest,) if self._longest <= 2 * few else (few, 2 * few)
        self._samples = {steps: [] for steps in counts}

    def repeat(self) -> None:
        """Take one more sample."""
        for steps, seconds in self._samples.items():
            seconds.append(self._timed(steps))

    def burst(self, seconds: float) -> None:
        """Take at least one sample, and more for some seconds."""
        before, had = self.spent, self.repeats
        if not self.is_warm:
            self.warm_up()
        while self.repeats == had or self.spent - before < seconds:
            self.repeat()

    @property
    def cost(self) -> Cost:
        """The cost by the samples so far; before the first, by the step that warmed up."""
        if not self.repeats:
            return Cost(0.0, self.first_seconds)
        medians = [(steps, median_low(seconds)) for steps, seconds in self._samples.items()]
        most, seconds = medians[-1]
        if len(medians) == 1 or self.repeats == 1:  # a difference needs two medians that no pause has reached
            return Cost(0.0, seconds / most)
        few, short = medians[0]
        step = max((seconds - short) / (most - few), 0.2 * seconds / most)
        return Cost(max(0.0, short - few * step), step)

    def _timed(self, steps: int) -> float:
        seconds = self._run(steps)
        self.spent += seconds
        return seconds


def measure(run: Run, longest: int) -> Cost:
    """Return the cost of a candidate that is timed alone."""
    timing = Timing(run, longest)
    timing.warm_up()
    while timing.repeats < 3 and not (timing.repeats and timing.spent > 1.0):
        timing.repeat()
    return timing.cost
