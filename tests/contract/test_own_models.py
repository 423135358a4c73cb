"""A user's model gives the same record for the same seed in every engine, or its engine is plain and says why."""

import copy
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from own_models import (
    ADDRESSED,
    COPIED,
    DRAWING,
    CallsByLength,
    Closure,
    ComplexScale,
    Counting,
    LockedPart,
    Sampling,
    Unseedable,
    Unused,
    UsedByLength,
    perceptron,
)
from torch import nn

from clients.core.errors import EngineError, UserError
from clients.engines.evaluation import Evaluator
from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.training.options import LocalOptions
from clients.training.task import make_task
from clients.training.work import CohortWork
from simulator.engines.options import EngineOptions
from simulator.engines.planner import plan_engine

SIZES = [7, 4, 9, 1, 6]
ENGINES = (PlainEngine, StackedEngine)


def given(population_of, module, *, seed=3, sizes=SIZES, dtype=torch.float64, **local):
    """Return the task of a model and the work of a round."""
    torch.manual_seed(1)
    module = module if isinstance(module, nn.Module) else module()
    population = population_of(sizes, (8,), 3, dtype=dtype)
    options = LocalOptions(**({"local_lr": 0.1, "batch_size": 4, "local_epochs": 2} | local))
    task = make_task(module, population, options, seed=seed, dtype=dtype)
    params, buffers = task.initial()
    return task, CohortWork(round_index=1, clients=np.arange(len(sizes)), params=params, buffers=buffers)


def trained(engine, work):
    """Train with the global generators in any state; they stay in it."""
    torch.seed()
    np.random.seed(None)  # noqa: NPY002 (what a user's model draws from)
    random.seed()
    before = torch.get_rng_state(), np.random.get_state()[2], random.getstate()  # noqa: NPY002
    update, _ = engine.train(work, {})
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[2], random.getstate())  # noqa: NPY002
    return update.params


@pytest.mark.parametrize("name", ADDRESSED)
def test_dropout_of_every_form_is_addressed_in_both_engines(name, population_of):
    task, work = given(population_of, ADDRESSED[name])
    assert task.sites, "its dropout is found"
    assert not task.passes.only_plain
    plain, stacked = (trained(engine(task), work) for engine in ENGINES)
    torch.testing.assert_close(stacked, plain, rtol=1e-10, atol=1e-11)
    assert torch.equal(plain, trained(PlainEngine(task), work)), "the same seed gives the same parameters"

    other, _ = given(population_of, ADDRESSED[name], seed=4)
    same_batches = replace(other, local=replace(task.local, batch_size="full"))
    first = replace(task, local=same_batches.local)
    for engine in ENGINES:
        assert not torch.allclose(trained(engine(first), work), trained(engine(same_batches), work)), "the seed matters"


@pytest.mark.parametrize("name", ADDRESSED)
def test_dropout_differs_between_clients_rounds_and_steps(name, population_of):
    """All clients hold the same examples: only their masks can tell them apart."""
    task, work = given(population_of, ADDRESSED[name], sizes=[6, 6], batch_size="full", local_epochs=1)
    twin = task.population.cohort(np.zeros(2, np.int64))
    population = replace(
        task.population, clients=replace(task.population.clients, cohort=lambda which: cut(twin, len(which)))
    )
    task = replace(task, population=population)
    for engine in ENGINES:
        one, other = trained(engine(task), work)
        assert not torch.allclose(one, other), "clients draw different masks"
        later = trained(engine(task), replace(work, round_index=2))
        assert not torch.allclose(one, later[0]), "rounds draw different masks"
        twice = engine(replace(task, local=replace(task.local, local_epochs=2)))
        step, both = one - work.params, trained(twice, work)[0] - work.params
        again = trained(engine(task), replace(work, params=one))[0] - one
        assert not torch.allclose(both, step + again), "steps draw different masks"


def cut(data, clients):
    """Return the first clients of a cohort."""
    return replace(data, rows=data.rows[: data.offsets[clients]], offsets=data.offsets[: clients + 1])


@pytest.mark.parametrize("name", DRAWING)
def test_other_random_numbers_are_seeded_in_the_plain_engine_and_refused_by_the_stacked(name, population_of):
    make, source = DRAWING[name]
    task, work = given(population_of, make)
    assert source in task.notices[-2]
    assert task.notices[-2].startswith("Only the plain engine can train the model: its training pass draws from")
    params = trained(PlainEngine(task), work)
    assert torch.equal(params, trained(PlainEngine(task), work)), "the same seed gives the same parameters"
    alone = replace(work, clients=work.clients[2:3])
    assert torch.equal(params[2:3], trained(PlainEngine(task), alone)), "a client does not depend on its cohort"
    again = replace(task, seed=4, local=replace(task.local, batch_size="full"))
    whole = replace(task, local=again.local)
    assert not torch.allclose(trained(PlainEngine(whole), work), trained(PlainEngine(again), work)), "the seed matters"
    torch.testing.assert_close(PlainEngine(task).gradients(work), PlainEngine(task).gradients(work), rtol=0, atol=0)

    with pytest.raises(EngineError, match="'stacked' cannot run this model: its training pass draws from") as error:
        StackedEngine(task)
    assert source in str(error.value)
    with pytest.raises(EngineError, match=r"engine.kind: 'stacked' cannot run this model: its training pass draws"):
        plan_engine(EngineOptions(kind="stacked", threads=1), task, 3, 10)
    engine, plan = plan_engine(EngineOptions(threads=1), task, 3, 10)
    assert isinstance(engine, PlainEngine)
    assert plan.reason.startswith(f"plain: cannot be stacked: its training pass draws from {source}")


def test_drawn_noise_differs_between_steps(population_of):
    """A step's noise follows from its address, not from the steps before it."""
    task, work = given(population_of, Sampling, sizes=[6], batch_size="full", local_epochs=1)
    one = trained(PlainEngine(task), work)
    both = trained(PlainEngine(replace(task, local=replace(task.local, local_epochs=2))), work)
    again = trained(PlainEngine(task), replace(work, params=one[0]))
    assert not torch.allclose(both - work.params, (one - work.params) + (again - one))


def test_noise_in_evaluation_is_seeded(population_of):
    task, work = given(population_of, Sampling)
    assert task.notices[0].startswith("In evaluation mode the model draws from torch's generator, in Sampling.forward.")
    first = Evaluator(task).evaluate(work)
    torch.seed()
    state = torch.get_rng_state()
    assert np.array_equal(first.loss, Evaluator(task).evaluate(work).loss)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (CallsByLength, "its calls of dropout depend on the batch (drop)"),
        (UsedByLength, "which parameters get a gradient depends on the batch (sometimes.bias, sometimes.weight)"),
        (
            lambda: perceptron(nn.BatchNorm1d(12, momentum=None)),
            "batch normalisation with momentum=None counts batches in an integer buffer (2)",
        ),
    ],
)
def test_what_depends_on_the_batch_runs_in_the_plain_engine_with_a_reason(make, reason, population_of):
    task, work = given(population_of, make, sizes=[7, 4, 6])
    assert task.notices == (f"Only the plain engine can train the model: {reason}.",)
    assert (
        plan_engine(EngineOptions(threads=1, workers=1), task, 2, 10)[1].reason == f"plain: cannot be stacked: {reason}"
    )
    with pytest.raises(EngineError, match="'stacked' cannot run this model"):
        StackedEngine(task)
    params = trained(PlainEngine(task), work)
    assert torch.equal(params, trained(PlainEngine(task), work))
    other, _ = given(population_of, make, sizes=[7, 4, 6], seed=4)
    assert not torch.allclose(params, trained(PlainEngine(other), work))


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # torch's, of its weight normalisation
@pytest.mark.parametrize("name", COPIED)
def test_model_that_refuses_deepcopy_runs_alike_in_every_engine(name, population_of):
    torch.manual_seed(1)
    module = COPIED[name]()
    module(torch.randn(3, 8)).sum().backward()  # a pass leaves tensors with a graph in it
    if name != "parametrised":
        with pytest.raises((RuntimeError, TypeError)):
            copy.deepcopy(module)
    before = {n: v.clone() for n, v in module.state_dict().items()}
    task, work = given(population_of, module, dtype=torch.float32)
    assert task.notices == (("Copies of the model share what cannot be copied: lock (lock).",) * (name == "locked"))
    plain, stacked = (trained(engine(task), work) for engine in ENGINES)
    engine, plan = plan_engine(EngineOptions(threads=1), task, len(SIZES), 10)
    assert "cannot be stacked" not in plan.reason
    for other in (stacked, trained(engine, work), trained(engine, work)):
        torch.testing.assert_close(other, plain, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(v, before[n]) for n, v in module.state_dict().items()), "the caller's model does not change"


def test_state_outside_buffers_does_not_pass_from_client_to_client(population_of):
    task, work = given(population_of, Counting)
    reason = "its outputs depend on earlier passes, through a state outside its parameters and buffers"
    assert task.notices == (
        f"Only the plain engine can train the model: {reason}.",
        "Each client trains a fresh copy, so that the state does not pass from client to client.",
    )
    assert (
        plan_engine(EngineOptions(threads=1, workers=1), task, 3, 10)[1].reason == f"plain: cannot be stacked: {reason}"
    )
    engine = PlainEngine(task)
    params = trained(engine, work)
    assert torch.equal(params, trained(engine, work))
    assert torch.equal(params[3:4], trained(engine, replace(work, clients=work.clients[3:4])))
    assert torch.equal(engine.gradients(work), engine.gradients(work))
    evaluator = Evaluator(task)
    assert np.array_equal(evaluator.evaluate(work).loss, evaluator.evaluate(work).loss)


def test_unused_and_frozen_parameters_never_move(population_of):
    for optimizer in ("sgd", "momentum", "nesterov", "adam", "rmsprop", "adagrad"):
        decay = {"l1": 0.1, "l2": 0.1, "decoupled_weight_decay": 0.1, "gradient_noise": 0.1, "clip_norm": 1.0}
        task, work = given(population_of, Unused, optimizer=optimizer, **decay)
        assert task.passes.unused == ("left_out.weight", "left_out.bias")
        assert task.notices == ("No gradient reaches 2 parameters of the model (left_out.weight, left_out.bias). "
                                "Optimizers skip them, as in torch.",)  # fmt: skip
        assert "scale" not in task.parameters.names
        start = task.parameters.views(work.params)
        plain, stacked = (trained(engine(task), work) for engine in ENGINES)
        torch.testing.assert_close(stacked, plain, rtol=1e-10, atol=1e-11)
        for params in (plain, stacked):
            views = task.parameters.views(params)
            for name in task.passes.unused:
                assert torch.equal(views[name], start[name].expand_as(views[name])), optimizer
            assert not torch.allclose(views["last.weight"][0], start["last.weight"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (ComplexScale, r"model: has complex parameters or buffers \(phase, turn\)"),
        (Unseedable, r"model: gives other outputs in the training pass of another copy on the same batch: it draws"),
        (LockedPart, r"model: has an attribute 'held' that cannot be copied .* Keep what cannot be copied"),
        (Closure, r"copies of the model would train the original's last.weight, last.bias. Write the function as a"),
    ],
)
def test_models_that_no_engine_can_run_are_refused_each_time(make, message, population_of):
    torch.manual_seed(1)
    module = make()
    for _ in range(2):
        with pytest.raises(UserError, match=message):
            given(population_of, module, dtype=torch.float32)


def test_sparse_gradients_are_refused(population_of):
    class Sparse(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.last = nn.Embedding(4, 5, sparse=True), nn.Linear(5, 3)

        def forward(self, x):
            return self.last(self.table((x[:, 0] > 0).long()))

    with pytest.raises(UserError, match=r"model: has embeddings with sparse gradients \(table\).*sparse=False"):
        given(population_of, Sparse)


def test_half_precision_parameters_are_cast_with_a_notice(population_of):
    task, work = given(population_of, perceptron().half(), dtype=torch.float32)
    assert task.notices == ("The model's float16 parameters and buffers are cast to float32 (run.dtype).",)
    assert work.params.dtype == torch.float32
    assert given(population_of, perceptron(), dtype=torch.float64)[0].notices == ()


def test_batches_of_one_follow_torch_in_both_engines(population_of):
    """A batch needs more than one value a channel: a row has one, an image has several."""
    rows = perceptron(nn.BatchNorm1d(12))
    with pytest.raises(UserError, match="batch normalisation needs batches of at least 2 examples, and 2 clients"):
        given(population_of, rows, sizes=[8, 5, 1])
    given(population_of, rows, sizes=[8, 5], drop_last=True)

    class Images(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.norm, self.last = nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Linear(32, 3)

        def forward(self, x):
            return self.last(torch.tanh(self.norm(self.inner(x.view(-1, 1, 2, 4)))).flatten(1))

    task, work = given(population_of, Images, sizes=[8, 5, 1])
    plain, stacked = (engine(task).train(work, {})[0] for engine in ENGINES)
    torch.testing.assert_close(stacked.params, plain.params, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(stacked.buffers, plain.buffers, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(12, track_running_stats=False),
        nn.SyncBatchNorm(12),
        nn.GroupNorm(3, 12),
        nn.LayerNorm(12),
        nn.Sequential(nn.Unflatten(1, (3, 4)), nn.InstanceNorm1d(3), nn.Flatten()),
        nn.Sequential(nn.Unflatten(1, (3, 4)), nn.InstanceNorm1d(3, track_running_stats=True), nn.Flatten()),
    ],
    ids=["untracked", "sync", "group", "layer", "instance", "tracked instance"],
)
def test_normalisation_agrees_between_engines(norm, population_of):
    task, work = given(population_of, perceptron(norm), sizes=[7, 4, 6])
    plain, stacked = (engine(task).train(work, {})[0] for engine in ENGINES)
    torch.testing.assert_close(stacked.params, plain.params, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(stacked.buffers, plain.buffers, rtol=1e-9, atol=1e-10)


def test_instance_normalisation_of_one_place_is_refused_with_torchs_reason(population_of):
    norm = nn.Sequential(nn.Unflatten(1, (12, 1)), nn.InstanceNorm1d(12), nn.Flatten())
    with pytest.raises(UserError, match=r"model: fails .*Expected more than 1 spatial element when training"):
        given(population_of, perceptron(norm))


def test_model_that_loses_the_batch_axis_of_one_example_is_refused_before_the_run(population_of):
    class Squeezing(nn.Linear):
        def forward(self, x):
            return super().forward(x).squeeze()

    with pytest.raises(
        UserError, match=r"the model needs batches of at least 2 examples, and 2 clients .*returns \(3,\)"
    ):
        given(population_of, Squeezing(8, 3))
