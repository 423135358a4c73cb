"""Several workers are chosen where a trial shows that they pay; otherwise the reason says why there is one."""

import time

import numpy as np
import pytest

from clients.engines.native.threads import threads_restored
from clients.models.build import build_model
from clients.models.options import MlpOptions
from clients.training.options import LocalOptions
from clients.training.task import make_task
from simulator.engines import worker_count
from simulator.engines.options import EngineOptions
from simulator.engines.planner import plan_engine
from simulator.engines.probe import Cost, largest_tile, make_sample
from simulator.engines.timing import Candidate, Stopwatch
from simulator.engines.trial import Trial, TrialError
from simulator.engines.worker_count import shared_width

LONG = 1000


@pytest.fixture(autouse=True)
def _two_processors(monkeypatch):
    monkeypatch.setattr(worker_count, "processors", lambda: 2)
    monkeypatch.setattr(worker_count, "obstacle", lambda task: "")
    with threads_restored(2):
        yield


@pytest.fixture
def task(population_of):
    population = population_of([40] * 20, (6,), 3, "classification")
    return make_task(
        build_model(MlpOptions(hidden=(4,)), population, 0), population, LocalOptions(batch_size=4), seed=2
    )


class Watch(Stopwatch):
    """A step of a client takes a millisecond, in tiles of any width, on any number of threads."""

    def of(self, sample):
        return Watch(sample, None)

    def seconds(self, candidate, steps):
        return 1e-3 * steps * candidate.width


class FakeTrial:
    """Reports that steps of workers take `factor` times as long as alone."""

    def __init__(self, factor=1.0, exchange=0.0, start=0.0):
        self.factor, self.exchange, self.start = factor, exchange, start
        self.workers = []

    def __call__(self, timings, *, size, expected, between):
        self.workers.append(len(timings))
        between()
        for timing in timings:
            timing.burst(0.0)
        costs = tuple(Cost(0.0, self.factor * timing.cost.step) for timing in timings)
        return Trial(costs, self.exchange, self.start)


def planned(task, trial, rounds=LONG, **options):
    made = EngineOptions(**options, native="never")
    return plan_engine(made, task, 20, rounds, watch=Watch, trial=trial)[1]


def test_workers_are_chosen_where_the_trial_shows_a_gain(task):
    trial = FakeTrial(factor=1.2)
    plan = planned(task, trial)
    assert (plan.workers, plan.threads, trial.workers) == (2, 1, [2])
    assert plan.reason.startswith("probe: stacked")
    # 20 clients x 10 steps of 1 ms, shared by two, 1.2 times as slow; and 3 ms of messages.
    assert plan.round_seconds == pytest.approx(0.123, rel=0.01)
    assert plan.reason.endswith("; 2 workers 123 ms")
    assert plan.words == f"{plan.engine}, 2 workers" + (f", tile {plan.tile}" if plan.tile else "")


@pytest.mark.parametrize("factor", [1.85, 2.0, 4.0])
def test_one_worker_stays_where_the_gain_is_small(task, factor):
    plan = planned(task, FakeTrial(factor))
    assert plan.workers == 1
    assert plan.reason.endswith(f"; one worker: 2 workers {100 * factor + 3:.0f} ms")
    assert plan.round_seconds == pytest.approx(0.2, rel=0.01)


def test_cost_of_parameters_a_round_counts(task):
    assert planned(task, FakeTrial(exchange=0.05)).workers == 2
    assert planned(task, FakeTrial(exchange=0.1)).workers == 1


def test_updates_that_are_not_kept_come_back_as_sums(task):
    """A sum of each block comes back through the connection, so an exchange costs five times as much."""
    assert planned(task, FakeTrial(exchange=0.01), keep_bytes=1000).workers == 2
    assert planned(task, FakeTrial(exchange=0.02), keep_bytes=1000).workers == 1


def test_short_run_has_no_trial(task):
    trial = FakeTrial()
    plan = planned(task, trial, rounds=9)  # 0.2 s each
    assert (plan.workers, trial.workers) == (1, [])
    assert plan.reason.endswith("; one worker: the run is short")


def test_gain_must_repay_the_start(task):
    plan = planned(task, FakeTrial(1.0, start=60.0), rounds=100)
    assert plan.workers == 1
    assert plan.reason.endswith("; one worker: 2 workers 103 ms, which the run is too short to repay")


def test_failed_trial_means_one_worker(task):
    def fails(timings, **others):
        raise TrialError("a process did not answer")

    plan = planned(task, fails)
    assert plan.workers == 1
    assert plan.reason.endswith("; one worker: a trial of 2 failed: a process did not answer")


def test_obstacle_means_one_worker(task, monkeypatch):
    monkeypatch.setattr(worker_count, "obstacle", lambda task: "a process that uses CUDA cannot be forked")
    trial = FakeTrial()
    plan = planned(task, trial)
    assert (plan.workers, trial.workers) == (1, [])
    assert plan.reason.endswith("; one worker: a process that uses CUDA cannot be forked")


@pytest.mark.parametrize(
    ("processors", "threads", "workers"), [(1, None, 1), (2, 1, 2), (2, 2, 1), (4, None, 4), (4, 2, 2), (64, None, 20)]
)
def test_workers_are_as_many_as_processors_and_clients_allow(task, monkeypatch, processors, threads, workers):
    monkeypatch.setattr(worker_count, "processors", lambda: processors)
    trial = FakeTrial()
    plan = planned(task, trial, threads=threads)
    assert trial.workers == ([workers] if workers > 1 else [])
    assert plan.workers == workers
    if workers > 1:
        assert plan.threads == threads or max(1, processors // workers)
        assert workers * plan.threads <= processors


def test_named_number_of_workers_has_no_trial(task):
    trial = FakeTrial(factor=100.0)
    for workers in (1, 2, 3):
        plan = planned(task, trial, workers=workers, kind="stacked")
        assert plan.workers == workers
        assert plan.threads in ((1, 2) if workers == 1 else (1,))
        assert plan.tile is None or plan.tile <= -(-20 // workers)
        assert "worker" not in plan.reason
    assert trial.workers == []


def test_tiles_of_all_workers_fit_the_memory(task):
    sample = make_sample(task, 20)
    for workers in (2, "auto"):
        for tiles in (2, 4, 10):
            keep = next(b for b in range(10**6) if largest_tile(sample, b) == tiles)
            plan = planned(task, FakeTrial(), workers=workers, kind="stacked", keep_bytes=keep)
            assert plan.workers == 2
            assert largest_tile(sample, keep) >= 2 * plan.tile
    wide = planned(task, FakeTrial(), kind="stacked", tile=10, keep_bytes=keep)
    assert (wide.workers, wide.tile) == (1, 10)
    assert wide.reason.endswith("; one worker: 2 tiles do not fit engine.keep_bytes")


def test_share_of_workers_is_judged_by_tiles_that_fit_it(task):
    """A step takes equally long however wide a tile is: one process takes the cohort, two take half of it each."""

    class Flat(Watch):
        def of(self, sample):
            return Flat(sample, None)

        def seconds(self, candidate, steps):
            return 1e-3 * steps

    trial = FakeTrial(factor=0.5)
    plan = plan_engine(EngineOptions(kind="stacked"), task, 20, 10**6, watch=Flat, trial=trial)[1]
    assert (plan.workers, plan.tile) == (2, 10)
    plan = plan_engine(EngineOptions(kind="stacked"), task, 20, 10**6, watch=Flat, trial=FakeTrial())[1]
    assert (plan.workers, plan.tile) == (1, None)


@pytest.mark.parametrize(("factors", "workers"), [((1.85, 1.0), 1), ((1.2, 0.8), 2)])
def test_slowest_worker_bounds_the_round(task, factors, workers):
    """Two tiles of ten clients, one for each: the slower worker needs 185 ms, and one process 200."""

    class Unequal(FakeTrial):
        def __call__(self, timings, **others):
            costs = super().__call__(timings, **others).costs
            return Trial(tuple(Cost(0.0, f * c.step) for f, c in zip(factors, costs, strict=True)), 0.0, 0.0)

    assert planned(task, Unequal(), kind="stacked", tile=10).workers == workers


def test_one_process_and_workers_are_compared_by_the_same_clock(task):
    """By the wall everything takes twice as long as by the processor's time, by which the race is run."""

    class Busy(Watch):
        def of(self, sample):
            return Wall(sample, None)

    class Wall(Watch):
        def of(self, sample):
            return Wall(sample, None)

        def seconds(self, candidate, steps):
            return 2 * super().seconds(candidate, steps)

    def workers(factor):
        trial = FakeTrial(factor)
        return plan_engine(EngineOptions(native="never"), task, 20, LONG, watch=Busy, trial=trial)[1].workers

    assert workers(1.2) == 2
    assert workers(1.85) == 1


def test_stopwatch_of_a_share_takes_the_time_of_the_wall(task):
    sample, one = make_sample(task, 4), Candidate("plain", 1, 1)
    assert Stopwatch(sample, None).clock(one) is time.thread_time
    assert Stopwatch(sample, None).of(sample).clock(one) is time.perf_counter


def test_tiles_are_equally_many_for_each_worker():
    for clients in range(1, 40):
        for width in range(1, clients + 1):
            for workers in range(1, 6):
                shared = shared_width(clients, width, workers)
                assert 1 <= shared <= width
                parts = len(np.array_split(np.arange(clients), -(-clients // shared)))
                assert parts >= min(workers, clients)
