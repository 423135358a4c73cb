"""Decides how many workers train a cohort: one, or one for each processor where a trial shows that it pays."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median_low

import numpy as np
import torch

from clients.core.arrays import F64
from simulator.engines.limits import processors
from simulator.engines.options import EngineOptions
from simulator.engines.plan import probe_name
from simulator.engines.probe import Cost, Sample, largest_tile, seconds_text, tile_seconds
from simulator.engines.race import Entrant, choose
from simulator.engines.timing import Candidate, Stopwatch, Timing
from simulator.engines.trial import BURST_SECONDS, Trial, TrialError, obstacle, try_workers
from simulator.workers.dealing import deal

SHORT_SECONDS = 2.5
"""A run whose training is predicted to take less has one worker, without a trial."""
GAIN = 0.1
"""Several workers must reduce a round's seconds by this share."""
MESSAGES_SECONDS = 3e-3
"""What a round of several workers costs beside training (measured: 3.5 ms with a hundred small updates)."""
START_SECONDS = 0.15
"""Seconds that the workers of a run take to start (measured: 0.03 to 0.05 s, and more in their first round)."""
SUMS_EACH = 4
"""Sums of blocks that a worker returns where updates are not kept whole."""

TryWorkers = Callable[..., Trial]
"""See `try_workers`."""


@dataclass(frozen=True)
class Choice:
    """The number of workers, and why.

    Attributes:
        workers: how many.
        note: the reason, in words.
        entrant: the candidate that each of several workers runs; that of one process otherwise.
        threads: torch's threads of each worker.
        tile: clients trained together by a worker.
        probes: predicted seconds of a round on several workers, by the probe's name; empty where they were not tried.
    """

    workers: int
    note: str
    entrant: Entrant
    threads: int
    tile: int
    probes: Mapping[str, float] = field(default_factory=dict)


def most_workers(options: EngineOptions, cohort: int) -> int:
    """Return how many workers there may be: the processors of this process share out, and each client goes to one."""
    return min(max(1, processors() // (options.threads or 1)), cohort)


def threads_each(options: EngineOptions, workers: int) -> int:
    """Return torch's threads of each of some workers of one machine."""
    return options.threads or max(1, processors() // workers)


def shared_width(clients: int, width: int, workers: int) -> int:
    """Return the clients of a tile, at most `width`, such that there are equally many tiles for each worker.

    Example:
        >>> shared_width(10, 4, 2), shared_width(10, 10, 2), shared_width(10, 10, 1), shared_width(3, 1, 2)
        (3, 5, 10, 1)
    """
    needed = math.ceil(clients / width)
    tiles = min(clients, workers * math.ceil(needed / workers))
    shared = math.ceil(clients / tiles)
    return shared if math.ceil(clients / shared) >= min(clients, workers) else clients // tiles


def choose_workers(
    options: EngineOptions,
    watch: Stopwatch,
    entrants: Sequence[Entrant],
    winner: Entrant,
    rounds: int,
    trial: TryWorkers = try_workers,
) -> Choice:
    """Decide between the fastest candidate of one process and several workers.

    Args:
        options: of the engine.
        watch: times a typical cohort.
        entrants: the timed candidates.
        winner: the fastest of them.
        rounds: of the run.
        trial: tries the workers.
    """
    sample = watch.sample
    size = most_workers(options, len(sample.clients))

    def one(why: str, probes: Mapping[str, float] | None = None) -> Choice:
        own = winner.candidate
        return Choice(1, f"one worker: {why}", winner, own.threads, own.width, probes or {})

    if size == 1:
        few = "client" if len(sample.clients) == 1 else "processor"
        return one("engine.threads takes all processors" if options.threads else f"there is one {few}")
    if rounds * winner.seconds < SHORT_SECONDS:
        return one("the run is short")
    if why := obstacle(sample.task):
        return one(why)
    share = _Share(sample, size, threads_each(options, size))
    fitting = [e for e in entrants if share.fits(e, options)]
    if not fitting:
        return one(f"{size} tiles do not fit engine.keep_bytes")
    entrant = share.best(fitting)
    copies: list[float] = []
    one_process = _by_wall(watch, winner)
    try:
        found = _tried(watch, share, entrant, one_process, trial, copies)
    except TrialError as error:
        return one(f"a trial of {size} failed: {error}")
    seconds = share.seconds(entrant, found.costs) + _exchange(options, sample, size, found, median_low(copies))
    here = one_process.seconds
    words = f"{size} workers {seconds_text(seconds)}"
    width = share.width(entrant)
    tile = None if entrant.candidate.engine == "plain" else options.tile or width
    probes = {probe_name(entrant.candidate.engine, tile, workers=size): seconds}
    if seconds > (1 - GAIN) * here:
        return one(words, probes)
    if rounds * (here - seconds) < START_SECONDS + found.start:
        return one(f"{words}, which the run is too short to repay", probes)
    return Choice(size, words, entrant, share.threads, width, probes)


@dataclass(frozen=True)
class _Share:
    """How a cohort is shared out to `size` workers of some threads."""

    sample: Sample
    size: int
    threads: int

    def width(self, entrant: Entrant) -> int:
        """Return the clients of a tile: at most the candidate's, and of equally many tiles for each worker."""
        if entrant.candidate.engine == "plain":
            return entrant.candidate.width
        return shared_width(len(self.sample.clients), entrant.candidate.width, self.size)

    def fits(self, entrant: Entrant, options: EngineOptions) -> bool:
        """Return whether the tiles of all workers fit the memory of tiles."""
        if entrant.candidate.engine == "plain":
            return True
        return self.width(entrant) <= largest_tile(self.sample, options.keep_bytes // self.size)

    def best(self, entrants: Sequence[Entrant]) -> Entrant:
        """Return the candidate that a worker should run, by the costs of one process with the fewest threads.

        The cost of a tile wider than a share is known only where a tile is named.
        """
        fewest = min(e.candidate.threads for e in entrants)
        alike = [e for e in entrants if e.candidate.threads == fewest]
        narrow = [e for e in alike if self.width(e) == e.candidate.width or e.candidate.engine == "plain"]
        return choose(narrow or alike, lambda e: self.seconds(e, [e.cost] * self.size))

    def seconds(self, entrant: Entrant, costs: Sequence[Cost]) -> float:
        """Predict the seconds in which the last worker has trained its tiles, each of them at its own cost."""
        each = [self._tiles(entrant, cost) for cost in costs]
        mean = np.mean(each, axis=0)
        dealt = deal(mean, [float(mean.sum() / own.sum()) for own in each])
        return max(float(own[jobs].sum()) for own, jobs in zip(each, dealt, strict=True))

    def _tiles(self, entrant: Entrant, cost: Cost) -> F64:
        """Predict the seconds of each tile of the cohort on a worker of some cost."""
        if entrant.candidate.engine == "plain":
            return np.asarray((cost.setup + cost.step * self.sample.steps) / entrant.candidate.width, np.float64)
        alone = Cost(entrant.alone.setup, entrant.alone.step * cost.step / entrant.cost.step)
        return tile_seconds(self.sample, cost, self.width(entrant), alone)

    def part(self, number: int) -> Sample:
        """Return the share of a worker."""
        sample = self.sample
        return Sample(sample.task, sample.clients[number :: self.size], sample.steps[number :: self.size])


def _by_wall(watch: Stopwatch, winner: Entrant) -> Entrant:
    """Return the fastest candidate of one process, to be timed by the wall in turn with the workers.

    One thread's processor time leaves out what workers wait for: each other, and other processes. A comparison of it
    with the wall time of several threads would favour the workers.
    """
    own = watch.of(watch.sample)
    own.prepare(winner.candidate)
    timing = Timing(lambda steps: own.seconds(winner.candidate, steps), watch.sample.longest)
    timing.warm_up()
    return Entrant(winner.candidate, timing, watch.sample, winner.narrower)


def _tried(
    watch: Stopwatch, share: _Share, entrant: Entrant, winner: Entrant, trial: TryWorkers, copies: list[float]
) -> Trial:
    """Try the workers; time the engine of one process (`winner`), and a copy of some bytes, in between."""
    sample = share.sample
    size = sample.task.parameters.size * sample.task.dtype.itemsize
    rows = torch.zeros(min(len(sample.clients) * size, 1 << 23), dtype=torch.uint8)
    timings = []
    for number in range(share.size):
        part = share.part(number)
        width = min(share.width(entrant), len(part.clients))
        candidate = Candidate(entrant.candidate.engine, width, share.threads)
        own = watch.of(part)
        own.prepare(candidate)
        timings.append(Timing(lambda steps, own=own, c=candidate: own.seconds(c, steps), sample.longest))  # type: ignore[misc]

    def between() -> None:
        winner.timing.repeat()
        started = time.perf_counter()
        rows.clone()
        copies.append((time.perf_counter() - started) / len(rows))

    expected = BURST_SECONDS + entrant.timing.spent / entrant.timing.repeats
    return trial(timings, size=size, expected=expected, between=between)


def _exchange(options: EngineOptions, sample: Sample, size: int, found: Trial, copy: float) -> float:
    """Predict the seconds a round of sending parameters to workers and of taking their updates.

    Updates that are kept whole are written to shared memory and copied from it; others come as sums through sockets.
    """
    each = sample.task.parameters.size * sample.task.dtype.itemsize
    rows = len(sample.clients) * each
    is_kept = rows <= options.keep_bytes
    back = copy * rows * (1 + 1 / size) if is_kept else SUMS_EACH * found.exchange
    return found.exchange + back + MESSAGES_SECONDS * (size - 1)
