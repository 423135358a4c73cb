"""Batch normalisation: running statistics are sent or kept as configured, and padding never changes them."""

import numpy as np
import pytest
import torch
from torch import nn

from clients.core.errors import UserError
from clients.core.parameters import buffer_layout
from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.models.build import build_model
from clients.models.options import MlpOptions, SmallCnnOptions
from clients.training.options import LocalOptions
from clients.training.task import make_task
from clients.training.work import CohortWork


def given(population_of, sizes, options=None, **local):
    population = population_of(sizes, (6,) if options is None else (4, 4), dtype=torch.float64)
    module = build_model(options or MlpOptions(hidden=(5,), norm="batch"), population, 2)
    local = LocalOptions(**({"local_lr": 0.1, "batch_size": 4, "local_epochs": 2} | local))
    task = make_task(module, population, local, seed=3, dtype=torch.float64)
    params, buffers = task.initial()
    work = CohortWork(round_index=1, clients=np.arange(len(sizes)), params=params, buffers=buffers)
    return task, work


@pytest.mark.parametrize("options", [None, SmallCnnOptions(channels=(2, 3), norm="batch")])
def test_running_statistics_agree_on_ragged_partial_batches(options, population_of):
    sizes = [7, 2, 12, 3, 6]
    task, work = given(population_of, sizes, options)
    assert task.buffers.size == 2 * 5
    plain, _ = PlainEngine(task).train(work, {})
    for tile in (None, 2):
        engine = StackedEngine(task, tile=tile)
        assert not engine.program.masks_padding
        stacked, _ = engine.train(work, {})
        torch.testing.assert_close(stacked.buffers, plain.buffers, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(stacked.params, plain.params, rtol=1e-10, atol=1e-11)
    moved = (plain.buffers - work.buffers).abs().max(1).values
    assert (moved > 0.05).all(), "every client's statistics moved"


def test_running_statistics_match_hand_computation(population_of):
    """One step on one batch: momentum 0.1 towards the batch's mean and unbiased variance."""
    task, work = given(population_of, [6], batch_size="full", local_epochs=1)
    x = task.population.cohort(np.arange(1)).client(0).features
    update, _ = StackedEngine(task).train(work, {})
    layer = task.module[0]
    h = layer(x).detach()
    views = task.buffers.views(update.buffers[0])
    torch.testing.assert_close(views["1.running_mean"], 0.1 * h.mean(0))
    torch.testing.assert_close(views["1.running_var"], 0.9 + 0.1 * h.var(0))


@pytest.mark.parametrize("engine", [PlainEngine, StackedEngine])
def test_clients_start_from_their_own_buffers_when_they_keep_them(engine, population_of):
    task, work = given(population_of, [6, 4], buffers="local")
    first, kept = engine(task).train(work, {})
    assert torch.equal(kept["buffers"], first.buffers)
    again, _ = engine(task).train(work, kept)
    swapped, _ = engine(task).train(work, {"buffers": kept["buffers"].flip(0)})
    assert not torch.allclose(again.buffers, first.buffers)
    assert not torch.allclose(again.buffers, swapped.buffers)
    # Batch normalisation trains on batch statistics: kept statistics change no parameter.
    torch.testing.assert_close(again.params, first.params)


@pytest.mark.parametrize("engine", [PlainEngine, StackedEngine])
def test_buffers_do_not_pass_between_clients(engine, population_of):
    task, work = given(population_of, [8, 8, 8])
    runner = engine(task)
    once, _ = runner.train(work, {})
    twice, _ = runner.train(work, {})
    assert torch.equal(once.params, twice.params)
    assert torch.equal(once.buffers, twice.buffers)
    assert int(task.module[1].num_batches_tracked) == 0, "the template is never written to"


def test_integer_buffers_are_not_averaged():
    layout = buffer_layout(nn.BatchNorm1d(3))
    assert layout.names == ("running_mean", "running_var")


def test_batches_of_one_are_refused_with_a_fix(population_of):
    with pytest.raises(UserError, match=r"1 clients would train on one example alone .*Set drop_last"):
        given(population_of, [8, 9])
    given(population_of, [8, 9], drop_last=True)
    with pytest.raises(UserError, match="batch normalisation"):
        given(population_of, [8, 1], drop_last=True)
