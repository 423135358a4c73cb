"""The plan says whether clients are trained by a kernel in C, and why not; runs keep to it."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from needs import C_COMPILER
from torch import nn

from clients.core.errors import EngineError, UserError
from clients.engines.native import build
from clients.engines.native.choice import NO_KERNEL, has_kernel, kernel_of
from clients.engines.native.threads import kernel_threads, set_threads, threads_restored
from clients.models.build import build_model
from clients.models.options import GruOptions, MlpOptions, SmallCnnOptions, SoftmaxOptions
from clients.training import rules
from clients.training.options import LocalOptions
from clients.training.task import make_task
from clients.training.work import CohortWork
from simulator.engines.options import EngineOptions
from simulator.engines.plan import EnginePlan, engine_from_plan
from simulator.engines.planner import plan_engine


@pytest.fixture(autouse=True)
def _threads():
    with threads_restored():
        yield


@pytest.fixture
def no_compiler(tmp_path, monkeypatch):
    """Take the compiler and the cache away."""
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.load.cache_clear()
    yield "no C compiler: $CC names 'no-such-compiler', which is not installed"
    build.load.cache_clear()


def task_of(model, population_of, shape=(6,), **local):
    population = population_of([8] * 6, shape)
    local = {"local_epochs": 1, "batch_size": 4, "local_lr": 0.05} | local
    return make_task(build_model(model, population, 0), population, LocalOptions(**local), seed=1)


STACKED = EngineOptions(kind="stacked", tile=3, threads=1)


@C_COMPILER.mark
def test_plan_with_a_kernel_says_so_and_builds_the_same_engine(population_of):
    task = task_of(SoftmaxOptions(), population_of)
    engine, plan = plan_engine(STACKED, task, 6, 10)
    assert plan.native
    assert plan.reason.endswith("; kernel in C")
    recorded = EnginePlan.from_dict(json.loads(json.dumps(plan.to_dict())))
    resumed = engine_from_plan(recorded, task)
    assert has_kernel(engine.program)
    assert has_kernel(resumed.program)
    assert has_kernel(resumed.with_task(task).program)
    params, buffers = task.initial()
    work = CohortWork(round_index=1, clients=np.arange(6), params=params, buffers=buffers)
    assert torch.equal(engine.train(work, {})[0].params, resumed.train(work, {})[0].params)


@C_COMPILER.mark
@pytest.mark.parametrize(("hidden", "of_torch"), [(10, 1), (4000, 3)])
def test_torch_has_one_thread_beside_the_kernel_of_a_small_model(hidden, of_torch, population_of):
    task = task_of(MlpOptions(hidden=(hidden,)), population_of)
    with threads_restored():
        _, plan = plan_engine(replace(STACKED, threads=3), task, 6, 10)
        assert (torch.get_num_threads(), kernel_threads(), plan.threads) == (of_torch, 3, 3)
        set_threads(1)
        assert kernel_threads() == 1
        engine_from_plan(plan, task)
        assert (torch.get_num_threads(), kernel_threads()) == (of_torch, 3)
        with threads_restored(2):  # as a worker does for a job
            assert kernel_threads() == 2
        assert kernel_threads() == 3
    assert kernel_threads() == torch.get_num_threads()


def test_switched_off_kernel_is_not_looked_for(population_of, no_compiler):
    task = task_of(SoftmaxOptions(), population_of)
    engine, plan = plan_engine(replace(STACKED, native="never"), task, 6, 10)
    assert not plan.native
    assert "kernel" not in plan.reason
    assert not has_kernel(engine.program)


def test_plan_of_an_older_run_has_no_kernel(population_of):
    old = EnginePlan("stacked", 3, False, "probe").to_dict()
    del old["native"]
    assert not has_kernel(engine_from_plan(EnginePlan.from_dict(old), task_of(SoftmaxOptions(), population_of)).program)


@pytest.mark.parametrize(
    ("model", "local", "rule", "reason"),
    [
        (MlpOptions(hidden=(4,), dropout=0.5), {}, rules.PLAIN, "it covers no dropout"),
        (SoftmaxOptions(), {"optimizer": "adam"}, rules.PLAIN, "its steps are plain SGD, without local.optimizer"),
        (
            SoftmaxOptions(),
            {"l1": 0.1, "clip_norm": 1.0},
            rules.PLAIN,
            "its steps are plain SGD, without local.l1, local.clip_norm",
        ),
        (SoftmaxOptions(), {}, rules.proximal(0.1), "its steps are plain SGD, without the local rule 'proximal'"),
        (SoftmaxOptions(), {"class_weights": "inverse"}, rules.PLAIN, "without local.class_weights"),
        (SoftmaxOptions(), {"focal_gamma": 2.0}, rules.PLAIN, "without local.focal_gamma"),
    ],
)
def test_scenario_without_a_kernel_names_what_is_in_the_way(model, local, rule, reason, population_of):
    task = task_of(model, population_of, **local)
    engine, plan = plan_engine(STACKED, task, 6, 10, rule)
    assert not plan.native
    assert not has_kernel(engine.program)
    assert "; no kernel in C: " in plan.reason
    assert plan.reason.endswith(reason)
    with pytest.raises(EngineError, match=r"engine.native: 'always' is impossible: .*Set native = 'auto' or 'never'"):
        plan_engine(replace(STACKED, native="always"), task, 6, 10, rule)


def test_convolutional_network_without_a_kernel_names_what_is_in_the_way(population_of):
    task = task_of(SmallCnnOptions(channels=(4, 4), norm="group"), population_of, (1, 4, 4))
    _, plan = plan_engine(STACKED, task, 6, 10)
    assert not plan.native
    assert plan.reason.endswith("; no kernel in C: in convolutional networks it covers no GroupNorm")


@C_COMPILER.mark
@pytest.mark.parametrize("compile", ["auto", "always"])
def test_convolutional_network_with_a_kernel_is_not_compiled(compile, population_of):
    task = task_of(SmallCnnOptions(channels=(2, 2)), population_of, (1, 4, 4))
    engine, plan = plan_engine(replace(STACKED, compile=compile), task, 6, 10**6)
    assert plan.native
    assert not plan.compiled
    assert has_kernel(engine.program)
    assert has_kernel(engine_from_plan(plan, task).program)
    forced = "; nothing to compile: a kernel in C trains" if compile == "always" else ""
    assert plan.reason.endswith(f"{forced}; kernel in C")


def test_model_of_another_form_has_no_note(population_of):
    population = population_of([8] * 6)
    module = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    task = make_task(module, population, LocalOptions(local_epochs=1, batch_size=4), seed=1)
    _, plan = plan_engine(STACKED, task, 6, 10)
    assert not plan.native
    assert "kernel" not in plan.reason
    assert kernel_of(task) == (None, NO_KERNEL)


@C_COMPILER.mark
def test_gru_has_a_kernel_under_every_optimiser_and_rule(population_of):
    task = task_of(GruOptions(hidden=3), population_of, (5, 2), optimizer="adam", clip_norm=1.0)
    engine, plan = plan_engine(STACKED, task, 6, 10, rules.proximal(0.5))
    assert plan.native
    assert has_kernel(engine.program)
    assert plan.reason.endswith("; kernel in C")


def test_missing_compiler_is_in_the_plan_and_an_error_where_a_kernel_is_demanded(population_of, no_compiler):
    task = task_of(SoftmaxOptions(), population_of)
    engine, plan = plan_engine(STACKED, task, 6, 10)
    assert not plan.native
    assert not has_kernel(engine.program)
    assert plan.reason.endswith(f"; no kernel in C: {no_compiler}")
    with pytest.raises(EngineError) as raised:
        plan_engine(replace(STACKED, native="always"), task, 6, 10)
    assert raised.value.field == "engine.native"
    assert no_compiler in str(raised.value)


def test_resumed_run_does_not_go_on_without_its_kernel(population_of, no_compiler):
    plan = EnginePlan("stacked", 3, False, "probe", native=True)
    with pytest.raises(EngineError) as raised:
        engine_from_plan(plan, task_of(SoftmaxOptions(), population_of))
    assert "the run's plan trains clients with a kernel in C, and here " + no_compiler in str(raised.value)
    assert "Install a C compiler" in str(raised.value)


@C_COMPILER.mark
def test_demanded_kernel_is_taken_whatever_plain_costs(population_of):
    _, plan = plan_engine(EngineOptions(native="always", threads=1), task_of(SoftmaxOptions(), population_of), 6, 1)
    assert plan.native
    assert "plain" not in plan.probes


def test_kernel_for_the_plain_engine_is_refused():
    with pytest.raises(UserError, match="native: 'always' belongs to the stacked engine, and kind is 'plain'"):
        EngineOptions(kind="plain", native="always")


@C_COMPILER.mark
def test_users_sequential_model_has_a_kernel(population_of):
    population = population_of([8] * 6)
    module = nn.Sequential(nn.Flatten(), nn.Linear(6, 4, bias=False), nn.Tanh(), nn.Linear(4, 3))
    task = make_task(module, population, LocalOptions(local_epochs=1, batch_size=4), seed=1)
    assert plan_engine(STACKED, task, 6, 10)[1].native


def test_imports_load_no_kernel(tmp_path):
    code = (
        "import sys, fedscape, clients.engines.stacked, simulator.engines.planner\n"
        "from clients.engines.native import build\n"
        "sys.exit(build.load.cache_info().misses)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        env={"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0
    assert not list(tmp_path.iterdir())
