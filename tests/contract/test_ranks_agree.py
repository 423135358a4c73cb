"""A client over several gloo ranks, and in micro-batches, equals one device for every model, optimiser and rule."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_cases import MODELS, cases, make
from engine_distance import distance, run, tolerance
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.core.errors import EngineError
from clients.engines.plain import PlainEngine
from clients.engines.ranks.distributed import DistributedEngine
from clients.models.two_player.options import GanOptions


def splits(case) -> bool:
    """Return whether batches of a case can be split: a GAN draws a sample for each place in a batch."""
    return not isinstance(case[0].options, GanOptions)


def over(task, devices, work, own, micro=None):
    task = replace(task, local=replace(task.local, devices=devices, micro_batch_size=micro))
    with closing(DistributedEngine(task)) as engine:
        return run(engine, work, own)


@settings(max_examples=25, deadline=None)
@given(case=cases().filter(splits), devices=st.sampled_from([2, 2, 3]))
def test_ranks_equal_one_device_in_float64(case, devices, population_of):
    task, work, own = make(case, population_of, torch.float64)
    assert distance(run(PlainEngine(task), work, own), over(task, devices, work, own)) < tolerance(case, 1e-10)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(case=cases().filter(splits))
def test_two_ranks_equal_one_device_to_rounding_in_float32(case, population_of):
    task, work, own = make(case, population_of, torch.float32)
    assert distance(run(PlainEngine(task), work, own), over(task, 2, work, own)) < 1e-3


@settings(max_examples=20, deadline=None)
@given(case=cases().filter(lambda case: splits(case) and not case[0].batch_norm), micro=st.integers(1, 4))
def test_micro_batches_of_one_device_equal_whole_batches(case, micro, population_of):
    task, work, own = make(case, population_of, torch.float64)
    assert distance(run(PlainEngine(task), work, own), over(task, 1, work, own, micro)) < tolerance(case, 1e-10)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_two_ranks_with_micro_batches_equal_one_device(optimizer, dtype, bound, population_of):
    options = {"optimizer": optimizer, "local_lr": 0.03, "batch_size": 7, "local_epochs": 3, "clip_norm": 0.5,
               "class_weights": "inverse", "buffers": "average"}  # fmt: skip
    case = MODELS["relu"], options, [5, 14, 0, 1], "variate 2", 3, 7
    task, work, own = make(case, population_of, dtype)
    assert distance_of_trained(task, work, own, 2, 2) < bound


@pytest.mark.parametrize("name", ["batch norm", "cnn, batch norm"])
def test_batch_norm_over_ranks_has_the_statistics_of_whole_batches(name, population_of):
    """Three ranks share batches of two: one rank has none."""
    options = {"optimizer": "sgd", "local_lr": 0.03, "batch_size": 2, "local_epochs": 2, "buffers": "local"}
    task, work, own = make((MODELS[name], options, [4, 6], "plain", 1, 1), population_of, torch.float64)
    one, three = run(PlainEngine(task), work, own), over(task, 3, work, own)
    assert distance(one, three) < 1e-10
    moved = one[0].buffers - own["buffers"]
    assert float(moved.abs().max()) > 0.01


def test_gradients_over_ranks_equal_those_of_one_device(population_of):
    options = {"local_lr": 0.03, "batch_size": 4, "class_weights": "inverse", "buffers": "average"}
    task, work, _ = make((MODELS["relu"], options, [5, 0, 14], "plain", 2, 3), population_of, torch.float64)
    expected = PlainEngine(task).gradients(work)
    split = replace(task, local=replace(task.local, devices=2, micro_batch_size=3))
    with closing(DistributedEngine(split)) as engine:
        np.testing.assert_allclose(engine.gradients(work), expected, rtol=0, atol=1e-13)
    assert float(expected[0].abs().max()) > 1e-3


def distance_of_trained(task, work, own, devices, micro):
    """Compare the clients that have examples; the loss of an empty one is nan in both."""
    full = np.flatnonzero(task.population.sizes)
    index = torch.from_numpy(full)
    work, own = replace(work, clients=full), {n: v[index] for n, v in own.items()}
    return distance(run(PlainEngine(task), work, own), over(task, devices, work, own, micro))


def test_gan_over_ranks_is_refused(population_of):
    """Its samples belong to places in a batch."""
    options = {"local_lr": 0.03, "batch_size": 4, "local_epochs": 1, "buffers": "average"}
    name = next(name for name, model in MODELS.items() if isinstance(model.options, GanOptions))
    task, work, own = make((MODELS[name], options, [6, 5], "plain", 1, 1), population_of, torch.float64)
    with pytest.raises(EngineError, match="devices: is 2, and batches of this model cannot be split"):
        over(task, 2, work, own)
