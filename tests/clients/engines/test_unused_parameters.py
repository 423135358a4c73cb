"""Parameters without a gradient: optimizers skip them as torch's do, and rules move them only by their definition."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from own_models import Unused, UsedByLength
from torch.nn import functional

from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.training import rules
from clients.training.class_balance import draw_batches
from clients.training.local import count_steps
from clients.training.optimizers import torch_optimizer
from clients.training.options import LocalOptions
from clients.training.task import make_task
from clients.training.work import CohortWork

ENGINES = (PlainEngine, StackedEngine)


def given(population_of, module, **local):
    torch.manual_seed(1)
    population = population_of([9, 6], (8,), 3, dtype=torch.float64)
    options = LocalOptions(**({"local_lr": 0.05, "batch_size": 4, "local_epochs": 3} | local))
    task = make_task(module(), population, options, seed=2, dtype=torch.float64)
    params, buffers = task.initial()
    return task, CohortWork(round_index=1, clients=np.arange(2), params=params, buffers=buffers)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "rmsprop", "adagrad"])
@pytest.mark.parametrize("module", [Unused, UsedByLength])
def test_training_equals_a_loop_of_torch(module, optimizer, population_of):
    """A parameter used in some batches has moments of those batches only."""
    task, work = given(population_of, module, optimizer=optimizer, l2=0.1)
    update, _ = PlainEngine(task).train(work, {})
    data = task.population.cohort(work.clients)
    steps = count_steps(task.local, data.sizes, work.clients, seed=2, round_index=1)
    batches = draw_batches(task.local, data, steps, work.clients, seed=2, round_index=1)
    for k in range(2):
        model = copy.deepcopy(task.module)
        optimizing = torch_optimizer([p for p in model.parameters() if p.requires_grad], task.local, 0.05)
        for step in range(int(steps[k])):
            rows = batches.rows[k, step, : batches.counts[k, step]]
            optimizing.zero_grad()
            functional.cross_entropy(model(data.features[rows]), data.targets[rows]).backward()
            optimizing.step()
        expected = torch.cat([dict(model.named_parameters())[n].detach().flatten() for n in task.parameters.names])
        torch.testing.assert_close(update.params[k], expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_proximal_term_and_decay_leave_an_unused_parameter_at_the_anchor(engine, population_of):
    """The proximal term is zero at the anchor, so nothing moves it there."""
    task, work = given(population_of, Unused, optimizer="adam", l2=0.1, decoupled_weight_decay=0.1)
    update, _ = engine(task).train(replace(work, rule=rules.proximal(0.5)), {})
    start, end = task.parameters.views(work.params), task.parameters.views(update.params)
    for name in task.passes.unused:
        assert torch.equal(end[name], start[name].expand_as(end[name]))


@pytest.mark.parametrize("engine", ENGINES)
def test_control_variates_move_an_unused_parameter_by_their_difference(engine, population_of):
    """SCAFFOLD: y <- y - lr (g - c_i + c) with g = 0. A client whose variates are equal leaves it."""
    task, work = given(population_of, Unused)
    own = torch.zeros(2, task.parameters.size, dtype=torch.float64)
    views = task.parameters.views(own)
    views["left_out.weight"][1] = 0.25
    broadcast = {"server_variate": torch.zeros_like(work.params)}
    work = replace(work, rule=rules.control_variate(2), broadcast=broadcast)
    update, _ = engine(task).train(work, {"client_variate": own})
    moved = task.parameters.views(update.params - work.params)
    assert not moved["left_out.weight"][0].any()
    torch.testing.assert_close(moved["left_out.weight"][1], torch.full((2, 2), 0.05 * 0.25 * 6, dtype=torch.float64))
    assert not moved["left_out.bias"].any()


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_engines_agree_where_a_rule_moves_an_unused_parameter_of_some_clients(optimizer, population_of):
    task, work = given(population_of, Unused, optimizer=optimizer, l2=0.1, decoupled_weight_decay=0.1, clip_norm=0.5)
    own = torch.zeros(2, task.parameters.size, dtype=torch.float64)
    own[1] = 0.3
    work = replace(work, rule=rules.dynamic(0.1))
    plain, stacked = (engine(task).train(work, {"client_gradient": own})[0].params for engine in ENGINES)
    torch.testing.assert_close(stacked, plain, rtol=1e-11, atol=1e-12)
    moved = task.parameters.views(plain - work.params)["left_out.weight"]
    assert not moved[0].any()
    assert moved[1].any()


@pytest.mark.parametrize("engine", ENGINES)
def test_full_gradient_of_an_unused_parameter_is_zero(engine, population_of):
    task, work = given(population_of, Unused)
    views = task.parameters.views(engine(task).gradients(work))
    assert not views["left_out.weight"].any()
    assert views["last.weight"].any()
