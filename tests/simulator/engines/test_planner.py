"""The planner picks an engine and gives the reason in one line, also for an engine that cannot run."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from needs import COMPILER
from torch import nn

from clients.core.errors import DataError, EngineError, UserError
from clients.engines.native.threads import threads_restored
from clients.engines.plain import PlainEngine
from clients.engines.programs import make_program
from clients.engines.recurrent import GruProgram
from clients.engines.stacked import StackedEngine
from clients.models.build import build_model
from clients.models.options import GruOptions, MlpOptions, SmallCnnOptions, SoftmaxOptions
from clients.sources.custom import custom_population
from clients.training.options import LocalOptions
from clients.training.task import make_task, probe_examples
from clients.training.work import CohortWork
from simulator.engines.compiling import Compiled, compile_where_it_pays, compiled_widths, compiler_missing
from simulator.engines.options import EngineOptions
from simulator.engines.plan import EnginePlan, engine_from_plan
from simulator.engines.planner import plan_engine
from simulator.engines.probe import (
    Cost,
    Sample,
    largest_tile,
    make_sample,
    plain_round,
    stacked_round,
    tile_widths,
)
from simulator.engines.timing import Candidate, Stopwatch, measure


@pytest.fixture(autouse=True)
def _threads():
    with threads_restored():
        yield


GELU = MlpOptions(hidden=(4,), activation="gelu")


class Module(nn.Module):
    """A user's module; each subclass has one obstacle to stacking."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)
        self.calls = 0


class Branching(Module):
    def forward(self, x):
        return self.inner(x) if x.sum() > 0 else self.inner(-x)


class Reading(Module):
    def forward(self, x):
        return self.inner(x) * (1 + abs(self.inner.bias[0].item()))


class Drawing(Module):
    def forward(self, x):
        return self.inner(nn.functional.dropout(x, 0.5, self.training))


class Counting(Module):
    """Behaves differently in each call; a call serves one client in the plain engine and all in the stacked one."""

    def forward(self, x):
        self.calls += self.training
        return self.inner(x) * (1 + self.calls % 3)


class Changing(Module):
    """Changes after more passes than the trial has: two clients need four in the plain engine, two when stacked."""

    def forward(self, x):
        self.calls += self.training
        return self.inner(x) * (1 + self.calls // 3)


class Lstm(Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(1, 3, batch_first=True)

    def forward(self, x):
        return self.lstm(x.unsqueeze(-1))[0][:, -1]


class FakeWatch(Stopwatch):
    """Says how long steps take, and trains nothing: `costs` has the cost of a candidate."""

    def __init__(self, costs, sample, program):
        super().__init__(sample, program)
        self.costs = costs

    def of(self, sample):
        return FakeWatch(self.costs, sample, None)

    def seconds(self, candidate, steps):
        cost = self.costs(candidate)
        return cost.setup + cost.step * steps


def faked(costs):
    """Return what makes a watch with given costs, candidate -> cost."""
    return lambda sample, program: FakeWatch(costs, sample, program)


def task_of(module, population_of, sizes=(9, 4, 7, 12, 5, 8), shape=(6,), task="classification", **local):
    population = population_of(list(sizes), shape, 3, task)
    module = module if isinstance(module, nn.Module) else build_model(module, population, 0)
    return make_task(module, population, LocalOptions(**({"batch_size": 4, "local_epochs": 2} | local)), seed=2)


def work_of(task):
    params, buffers = task.initial()
    clients = np.arange(task.population.num_clients)
    return CohortWork(round_index=1, clients=clients, params=params, buffers=buffers)


def test_auto_times_both_and_takes_the_faster(population_of):
    task = task_of(SoftmaxOptions(), population_of, [30] * 40)
    state, start = torch.random.get_rng_state(), task.initial()[0]
    engine, plan = plan_engine(EngineOptions(threads=1), task, 40, 100)
    fastest = min(plan.probes, key=plan.probes.__getitem__)
    assert plan.engine == engine.name == ("plain" if fastest == "plain" else "stacked"), plan.reason
    assert plan.reason.startswith("probe: stacked")
    assert " a round, plain " in plan.reason
    assert "\n" not in plan.reason
    assert plan.probes.keys() > {"plain"}
    assert min(plan.probes.values()) > 0
    assert (plan.compiled, plan.compile_seconds, plan.threads) == (False, 0.0, 1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(start, task.initial()[0])


def test_auto_takes_plain_where_that_is_faster(population_of):
    task = task_of(SoftmaxOptions(), population_of)
    watch = faked(lambda c: Cost(0.0, 1e-3) if c.engine == "plain" else Cost(0.01, 1e-3))
    engine, plan = plan_engine(EngineOptions(threads=1, workers=1), task, 6, 100, watch=watch)
    assert plan.engine == engine.name == "plain"
    assert plan.tile is None
    # Of 26 steps two clients take 1 ms each; the tile of all six takes 10 ms and 6 steps.
    assert plan.reason == "probe: stacked 16 ms a round, plain 13 ms"


def test_auto_takes_the_fastest_tile(population_of):
    task = task_of(SoftmaxOptions(), population_of, [8] * 16)
    steps = {1: 4.0, 2: 4.0, 4: 4.0, 8: 4.1, 16: 80.0}
    watch = faked(lambda c: Cost(0.0, 1e-4 * steps[c.width]))
    options = EngineOptions(kind="stacked", threads=1, workers=1, native="never")
    engine, plan = plan_engine(options, task, 16, 100, watch=watch)
    assert (plan.tile, engine.tile) == (8, 8)
    assert plan.reason == "probe: stacked in tiles of 8: 3.3 ms a round"
    assert "plain" not in plan.probes


@pytest.mark.parametrize("module", [Branching, Reading, Drawing, Lstm, Counting, Changing])
def test_model_that_cannot_be_stacked_runs_plain_with_the_reason(module, population_of):
    task = task_of(module(), population_of, sizes=(9, 4, 7))
    engine, plan = plan_engine(EngineOptions(threads=1, workers=1), task, 3, 1000)
    assert plan.engine == engine.name == "plain"
    assert plan.reason.startswith("plain: cannot be stacked: ")
    assert "\n" not in plan.reason
    assert len(plan.reason) < 180
    assert ("updates differ" in plan.reason) == (module is Changing)
    assert ("outputs depend on earlier passes" in plan.reason) == (module is Counting)
    engine.train(work_of(task), {})
    with pytest.raises(EngineError, match=r"engine.kind: 'stacked' cannot run this model: .*Set engine.kind = 'plain'"):
        plan_engine(EngineOptions(kind="stacked"), task, 3, 1000)
    with pytest.raises(EngineError, match=r"engine.compile: 'always' cannot run this model: "):
        plan_engine(EngineOptions(compile="always"), task, 3, 1000)


def test_named_engine_is_used_without_timing_others(population_of):
    task = task_of(SoftmaxOptions(), population_of)
    engine, plan = plan_engine(EngineOptions(kind="plain", threads=1), task, 6, 1)
    assert isinstance(engine, PlainEngine)
    assert (plan.engine, list(plan.probes)) == ("plain", ["plain"])
    assert plan.reason == "plain: as configured; one worker: the run is short"
    engine, plan = plan_engine(EngineOptions(kind="stacked", tile=2), task, 6, 1)
    assert isinstance(engine, StackedEngine)
    assert engine.tile == plan.tile == 2
    assert [len(t) for t in engine.tiles(work_of(task))] == [2, 2, 2]


@pytest.mark.parametrize("kind", ["plain", "stacked"])
def test_plan_survives_json_and_builds_the_same_engine(kind, population_of):
    task = task_of(SmallCnnOptions(channels=(2, 2)), population_of, shape=(4, 4))
    engine, plan = plan_engine(EngineOptions(kind=kind, tile=None if kind == "plain" else 4), task, 6, 100)
    again = EnginePlan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan
    work = work_of(task)
    rebuilt = engine_from_plan(again, task)
    assert type(rebuilt) is type(engine)
    assert [t.tolist() for t in rebuilt.tiles(work)] == [t.tolist() for t in engine.tiles(work)]
    assert torch.equal(rebuilt.train(work, {})[0].params, engine.train(work, {})[0].params)


def test_threads_are_the_faster_of_one_and_all_unless_configured(population_of):
    task = task_of(SoftmaxOptions(), population_of)
    torch.set_num_threads(2)
    for slow, chosen in ((1, 2), (2, 1)):
        watch = faked(lambda c, slow=slow: Cost(0.0, 1e-3 * (1 + (c.threads == slow))))
        for kind in ("auto", "plain", "stacked"):
            torch.set_num_threads(2)
            _, plan = plan_engine(EngineOptions(kind=kind, native="never"), task, 6, 10, watch=watch)
            assert torch.get_num_threads() == plan.threads == chosen
            assert f"({chosen} thread" in plan.reason
    _, plan = plan_engine(EngineOptions(threads=2, workers=1, native="never"), task, 6, 10)
    assert torch.get_num_threads() == plan.threads == 2
    assert "thread" not in plan.reason
    with threads_restored():
        engine_from_plan(replace(plan, threads=1), task)
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 0}, "tile: must be >= 1, got 0"),
        ({"kind": "plain", "tile": 3}, "tile: belongs to the stacked engine"),
        (
            {"kind": "plain", "compile": "always"},
            "compile: 'always' belongs to the stacked engine, and kind is 'plain'",
        ),
        ({"keep_bytes": -1}, "keep_bytes: must be >= 0"),
        ({"threads": 0}, "threads: must be >= 1"),
    ],
)
def test_invalid_option_is_named(options, message):
    with pytest.raises(UserError, match=message):
        EngineOptions(**options)


def test_error_of_the_data_is_not_reported_as_an_engine_error(population_of):
    def client(k):
        return np.full((4, 6), np.nan if k == 2 else k), np.zeros(4, int)

    population = custom_population(client, [4] * 3, outputs=2, feature_shape=(6,))
    module = build_model(SoftmaxOptions(), population, 0)
    with pytest.raises(DataError, match="client 2"):
        plan_engine(EngineOptions(), make_task(module, population, LocalOptions(), seed=0), 3, 10)


def test_predicted_seconds_are_the_sum_over_steps():
    steps = np.array([10, 6, 6, 2])
    sample = Sample(None, np.arange(4), steps)
    assert plain_round(sample, Cost(0.2, 0.5), 2) == pytest.approx((4 * 0.2 + 24 * 0.5) / 2)
    # One tile: 10 steps; a step costs 1 s for one client and 4 s for four.
    assert stacked_round(sample, Cost(3.0, 4.0), 4, Cost(0.0, 1.0)) == pytest.approx(3 + 10 * 1 + 3 * 24 / 4)
    # Two tiles of two: steps of 10 and 6.
    assert stacked_round(sample, Cost(3.0, 2.0), 2, Cost(0.0, 1.0)) == pytest.approx(6 + 16 * 1 + 1 * 24 / 2)


@given(cohort=st.integers(1, 20_000), largest=st.integers(1, 20_000))
def test_tile_widths_increase_from_one_to_the_largest(cohort, largest):
    widths = tile_widths(cohort, largest)
    assert widths[0] == 1
    assert widths[-1] == min(cohort, largest)
    assert widths == sorted(set(widths))
    assert len(widths) <= 11


def test_largest_tile_fits_the_memory(population_of):
    sample = make_sample(task_of(MlpOptions(hidden=(64,)), population_of, optimizer="adam"), 6)
    one = (6 * 64 + 64 + 64 * 3 + 3) * 4 * 5 + 32 * 6 * 4  # five copies, and six steps of four rows
    assert largest_tile(sample, 3 * one + 10) == 3
    assert largest_tile(sample, 0) == 1
    _, plan = plan_engine(EngineOptions(kind="stacked", keep_bytes=2 * one), sample.task, 6, 1)
    assert plan.tile in (1, 2)


def test_sample_has_only_clients_with_examples(population_of):
    task = task_of(SoftmaxOptions(), population_of, sizes=(0, 9, 0, 4, 17, 0, 8), local_epochs=1)
    sample = make_sample(task, 3)
    assert sample.clients.tolist() == [1, 4, 6]
    assert sample.steps.tolist() == [5, 3, 2]
    assert make_sample(task, 100).clients.tolist() == [1, 3, 4, 6]
    watch = Stopwatch(sample, None)
    cost = measure(lambda steps: watch.seconds(Candidate("plain", 2, 1), steps), sample.longest)
    assert cost.step > 0
    assert cost.setup >= 0


class Waiting(Module):
    """Waits in each pass, as a thread does that is interrupted."""

    def forward(self, x):
        time.sleep(0.5)
        return self.inner(x)


@pytest.mark.skipif(time.get_clock_info("thread_time").resolution > 1e-5, reason="the clock of a thread is coarse here")
def test_one_thread_is_timed_without_interruptions_and_several_with_them(population_of):
    task = task_of(Waiting(), population_of, sizes=(4,))
    watch = Stopwatch(make_sample(task, 1), None)
    assert watch.seconds(Candidate("plain", 1, 1), 1) < 0.5
    assert watch.seconds(Candidate("plain", 1, 2), 1) >= 0.5


def test_compiling_is_considered_only_for_long_runs(population_of):
    task = task_of(GELU, population_of, sizes=[8] * 6)
    _, plan = plan_engine(EngineOptions(kind="stacked"), task, 6, 10)
    assert plan.reason.endswith("; not compiled: the run is too short to repay it")
    _, plan = plan_engine(EngineOptions(kind="stacked", compile="never"), task, 6, 10**9)
    assert "compiled" not in plan.reason


def test_compiling_needs_a_compiler(population_of, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiler_missing() == "no C++ compiler (no-such-compiler) is installed"
    task = task_of(GELU, population_of, sizes=[8] * 6)
    _, plan = plan_engine(EngineOptions(kind="stacked"), task, 6, 10**9)
    assert not plan.compiled
    assert plan.reason.endswith("; not compiled: no C++ compiler (no-such-compiler) is installed")
    with pytest.raises(EngineError, match=r"engine.compile: 'always' is impossible: no C\+\+ compiler"):
        plan_engine(EngineOptions(compile="always"), task, 6, 1)


def test_gradients_written_by_hand_are_not_compiled(population_of):
    task = task_of(SoftmaxOptions(), population_of)
    engine, plan = plan_engine(EngineOptions(compile="always", native="never"), task, 6, 1)
    assert engine.name == "stacked"
    assert not plan.compiled
    assert plan.reason.endswith("; nothing to compile: its gradients are written by hand")


class Recurrent(Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(1, 3, batch_first=True)

    def forward(self, x):
        return self.gru(x.unsqueeze(-1))[0][:, -1]


@COMPILER.mark
def test_varying_shapes_and_unrolled_loops_are_not_compiled(population_of):
    ragged = task_of(GELU, population_of, batch_size="full")
    found = compile_where_it_pays(make_sample(ragged, 3), None, 1.0, 10**9, forced=False)
    assert found.program is None
    assert "a new shape each round" in found.note
    with pytest.raises(EngineError, match="a new shape each round"):
        compile_where_it_pays(make_sample(ragged, 3), None, 1.0, 1, forced=True)
    recurrent = task_of(Recurrent(), population_of)
    found = compile_where_it_pays(make_sample(recurrent, 6), None, 1.0, 10**9, forced=False)
    assert found.note == "not compiled: an unrolled recurrence compiles for minutes"


def test_at_most_three_shapes_are_compiled(population_of):
    equal, ragged = (make_sample(task_of(GELU, population_of, s), 10) for s in ([8] * 10, [8, 80] * 5))
    assert compiled_widths(equal, None) == (10,)
    assert compiled_widths(equal, 4) == (3, 4)
    assert compiled_widths(ragged, None) == (3, 5, 10)


def test_built_in_gru_does_not_use_torch_func(population_of):
    task = task_of(GruOptions(hidden=3), population_of, shape=(5, 2), task="regression")
    engine, plan = plan_engine(EngineOptions(kind="stacked"), task, 6, 10**9)
    assert isinstance(engine.program, GruProgram)
    assert not plan.compiled


@pytest.mark.parametrize("workers", [1, 2])
def test_compiled_program_is_made_once_for_any_number_of_workers(workers, population_of, monkeypatch):
    made = []

    def compiled(sample, tile, eager, rounds, *, forced):
        program = make_program(sample.task, probe_examples(sample.task.population, sample.task.dtype).features)
        made.append((program, tile, torch.get_num_threads()))
        return Compiled(program, (3,), 4, "compiled", 1.0, 0.5)

    monkeypatch.setattr("simulator.engines.planner.compile_where_it_pays", compiled)
    torch.set_num_threads(2)
    task = task_of(GELU, population_of, sizes=[8] * 6)
    options = EngineOptions(kind="stacked", tile=3, workers=workers, threads=1)
    engine, plan = plan_engine(options, task, 6, 10)
    ((program, tile, threads),) = made
    assert engine.program is program
    assert (tile, threads) == (plan.tile, plan.threads) == (3, 1)
    assert (plan.compiled, plan.workers, plan.round_seconds) == (True, workers, 0.5)
    assert torch.get_num_threads() == 1


@pytest.mark.slow
@COMPILER.mark
def test_forced_compilation_is_timed_recorded_and_repeated_on_resume(population_of):
    task = task_of(GELU, population_of, [8, 16, 4, 8, 20])
    engine, plan = plan_engine(EngineOptions(compile="always"), task, 5, 1)
    assert plan.compiled
    assert plan.compile_seconds > 0
    assert plan.widths == (2, 3, 5)
    assert plan.length == 4
    assert "; compiled " in plan.reason
    assert "(compiling took " in plan.reason
    work = work_of(task)
    compiled, _ = engine.train(work, {})
    eager, _ = StackedEngine(task).train(work, {})
    torch.testing.assert_close(compiled.params, eager.params, rtol=1e-5, atol=1e-6)
    resumed, _ = engine_from_plan(EnginePlan.from_dict(json.loads(json.dumps(plan.to_dict()))), task).train(work, {})
    assert torch.equal(resumed.params, compiled.params)
    assert engine_from_plan(replace(plan, compiled=False), task).program.width(4) == 4
