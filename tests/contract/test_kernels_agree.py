"""Kernels in C equal the plain and the stacked engine, and their bits depend on a client's own examples alone."""

import ctypes
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kernel_runs import NUMBERS, Paused, check_equal, check_same_bits, run
from needs import C_COMPILER
from torch import nn

from clients.core.examples import Examples
from clients.engines.native.choice import has_kernel
from clients.engines.native.dense import DenseKernel, dense_library
from clients.engines.native.threads import threads_restored
from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.training.local import Batches
from clients.training.options import LocalOptions
from clients.training.task import make_task
from clients.training.work import CohortWork

pytestmark = C_COMPILER.mark
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


def perceptron(widths, activation="relu", bias=True):
    """Return a perceptron on flattened features."""
    torch.manual_seed(1)
    parts = [nn.Flatten()]
    for wide, narrow in itertools.pairwise(widths):
        parts += [nn.Linear(wide, narrow, bias=bias), ACTIVATIONS[activation]()]
    return nn.Sequential(*parts[:-1])


@st.composite
def cases(draw):
    """Draw a perceptron, local options, client sizes and the round."""
    hidden = draw(st.lists(st.integers(1, 70), max_size=3))
    widths = [draw(st.integers(1, 70)), *hidden, draw(st.integers(1, 70))]
    task = draw(st.sampled_from(["classification", "regression"]))
    if task == "classification":
        widths[-1] = max(2, widths[-1])
    model = (widths, draw(st.sampled_from(sorted(ACTIVATIONS))), draw(st.booleans()))
    options = {
        "local_lr": draw(st.sampled_from([0.01, 0.1])),
        "batch_size": draw(st.one_of(st.just("full"), st.integers(1, 40))),
        "drop_last": draw(st.booleans()),
        "l2": draw(st.sampled_from([0.0, 0.1])),
        draw(st.sampled_from(["local_epochs", "local_steps"])): draw(st.integers(1, 20)),
    }
    sizes = draw(st.lists(st.integers(0, 90), min_size=1, max_size=5).filter(any))
    return model, task, options, sizes, draw(st.integers(1, 9))


def make(case, population_of, dtype, stored=None):
    """Return the task and the work."""
    (widths, activation, bias), kind, options, sizes, round_index = case
    population = population_of(sizes, (widths[0],), widths[-1], kind, 0, stored or dtype)
    module = perceptron(widths, activation, bias)
    task = make_task(module, population, LocalOptions(**options), seed=3, dtype=dtype, count_errors=True)
    params, buffers = task.initial()
    return task, CohortWork(round_index=round_index, clients=np.arange(len(sizes)), params=params, buffers=buffers)


def native(task, tile=None):
    engine = StackedEngine(task, tile=tile, native=True)
    assert has_kernel(engine.program)
    return engine


@settings(max_examples=150)
@given(case=cases())
@example(case=(([60, 10], "relu", True), "classification", {"batch_size": 10, "local_epochs": 1}, [200, 90], 1))
@example(case=(([784, 30, 20, 10], "relu", True), "classification", {"batch_size": 10, "local_epochs": 1}, [35, 0], 1))
@example(case=(([3, 2], "relu", True), "classification", {"batch_size": "full", "local_steps": 40}, [200, 129, 64], 1))
def test_kernel_equals_the_other_engines_in_float64(case, population_of):
    task, work = make(case, population_of, torch.float64)
    found = run(native(task), work)
    check_equal(run(StackedEngine(task), work), found, 1e-9)
    check_equal(run(PlainEngine(task), work), found, 1e-9)


@settings(max_examples=80, derandomize=True)
@given(case=cases())
def test_kernel_equals_the_other_engines_to_rounding_in_float32(case, population_of):
    task, work = make(case, population_of, torch.float32)
    wanted, found = run(StackedEngine(task), work), run(native(task), work)
    errors = np.abs(wanted.train_errors - found.train_errors)  # rounding may turn a near tie
    check_equal(wanted, replace(found, train_errors=wanted.train_errors), 2e-3)
    assert errors.sum() <= 1 + 0.01 * wanted.num_examples.sum()


@settings(max_examples=40)
@given(case=cases(), tile=st.integers(1, 3), threads=st.integers(2, 4), seconds=st.sampled_from([0.0, 1e-5, 10.0]))
def test_bits_depend_on_neither_tile_nor_threads_nor_pauses(case, tile, threads, seconds, population_of):
    task, work = make(case, population_of, torch.float32)
    with threads_restored():
        torch.set_num_threads(1)
        alone = run(native(task), work)
        check_same_bits(alone, run(native(task, tile), work))
        torch.set_num_threads(threads)
        engine = native(task)
        engine.program.kernel = Paused(engine.program.kernel, seconds)
        check_same_bits(alone, run(engine, work))


def test_paused_kernel_counts_every_step_once(population_of):
    case = (([6, 5, 3], "tanh", True), "classification", {"batch_size": 2, "local_epochs": 3}, [40, 7, 0, 13], 1)
    task, work = make(case, population_of, torch.float32)
    counted = []
    engine = native(task)
    kernel = engine.program.kernel

    class Counting:
        def train(self, *arguments, **named):
            return kernel.train(*arguments, **named | {"advance": counted.append, "seconds": 0.0})

    engine.program.kernel = Counting()
    update = run(engine, work)
    assert sum(counted) == update.local_steps.sum() == 3 * (20 + 4 + 7)
    assert len(counted) > 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stored", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_examples_of_other_types_are_cast_as_by_torch(dtype, stored, kind, population_of):
    case = (([7, 5, 3], "relu", True), kind, {"batch_size": 4, "local_epochs": 2}, [9, 5], 1)
    task, work = make(case, population_of, dtype, stored)
    bound = 1e-10 if dtype == torch.float64 else 1e-5
    check_equal(run(StackedEngine(task), work), run(native(task), work), bound)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("widths", [[5, 3], [5, 4, 3], [5, 18, 3]])
@pytest.mark.parametrize("place", ["features", "params"])
def test_what_is_not_finite_passes_through(value, activation, kind, widths, place, population_of):
    case = ((widths, activation, True), kind, {"batch_size": 2, "local_epochs": 1, "local_lr": 0.1}, [6, 6, 6], 1)
    task, work = make(case, population_of, torch.float32)
    if place == "features":
        usual = task.population.cohort(work.clients)
        features = usual.features.clone()
        features[usual.rows[usual.offsets[1] + 3], 2] = value
        damaged = replace(usual, features=features)
        holding = replace(task.population.clients, cohort=lambda clients: damaged)
        task = replace(task, population=replace(task.population, clients=holding))
    else:
        work.params[2] = value
    wanted, found = run(StackedEngine(task), work), run(native(task), work)
    others = [0, 2] if place == "features" else []
    for name in NUMBERS:
        x, y = (np.asarray(getattr(update, name), np.float64) for update in (wanted, found))
        np.testing.assert_array_equal(np.isfinite(x), np.isfinite(y), err_msg=name)
        np.testing.assert_allclose(x[others], y[others], rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(wanted.train_errors, found.train_errors)


def kernel_of(population_of):
    case = (([4, 3], "relu", True), "classification", {"batch_size": 2, "local_epochs": 1}, [4], 1)
    task, work = make(case, population_of, torch.float32)
    kernel = native(task).program.kernel
    assert isinstance(kernel, DenseKernel)
    return kernel, task, work


@pytest.mark.parametrize(
    ("row", "label", "words"), [(4, 0, "row"), (-1, 0, "row"), (0, 3, "label"), (0, -1, "label"), (0, 1 << 40, "label")]
)
def test_rows_and_labels_out_of_range_are_refused(row, label, words, population_of):
    kernel, _, work = kernel_of(population_of)
    examples = Examples(torch.randn(4, 4), torch.tensor([label, 1, 2, 0]))
    batches = Batches(np.array([[[row, 1]]]), np.array([[2]]), np.array([1]))
    with pytest.raises(IndexError, match=words):
        kernel.train(examples.features, examples.targets, batches, work.params, lr=0.1)


@pytest.mark.parametrize(("features", "targets"), [(6, 4), (4, 6)])
def test_features_and_targets_of_other_lengths_serve_rows_within_both(features, targets, population_of):
    kernel, _, work = kernel_of(population_of)
    x, y = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
    batches = Batches(np.array([[[3, 1]]]), np.array([[2]]), np.array([1]))
    found = kernel.train(x[:features], y[:targets], batches, work.params, lr=0.1).params
    assert found.equal(kernel.train(x, y, batches, work.params, lr=0.1).params)
    outside = Batches(np.array([[[3, 4]]]), np.array([[2]]), np.array([1]))
    with pytest.raises(IndexError, match="outside the features or the targets"):
        kernel.train(x[:features], y[:targets], outside, work.params, lr=0.1)


def test_sizes_that_do_not_fit_are_refused(population_of):
    kernel, _, work = kernel_of(population_of)
    batches = Batches(np.array([[[0, 1]]]), np.array([[2]]), np.array([1]))
    features, targets = torch.randn(4, 4), torch.tensor([0, 1, 2, 0])
    for wrong in ((features[:, :3], targets, work.params), (features, targets[:, None].expand(4, 2), work.params),
                  (features, targets, work.params[:-1]), (features, targets, work.params.double())):  # fmt: skip
        with pytest.raises(ValueError, match="do not fit layers of"):
            kernel.train(*wrong[:2], batches, wrong[2], lr=0.1)


def apply(dtype, x, *outs):
    """Write exp, log, tanh and the sigmoid of x."""
    pointers = (ctypes.c_void_p(t.data_ptr()) for t in (x, *outs))
    dense_library(dtype).functions.fedscape_functions(*pointers, ctypes.c_int64(len(x)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_elementary_functions_are_right_to_three_units_in_the_last_place(dtype):
    low = -104.0 if dtype == torch.float32 else -745.0
    random = torch.Generator().manual_seed(0)
    spread = torch.rand(1 << 14, generator=random, dtype=torch.float64)
    x = torch.cat((low + spread * (88.7 - low), 4 * spread - 2, 1e-3 * (spread - 0.5), -spread * 1e-30)).to(dtype)
    outs = [torch.empty_like(x) for _ in range(4)]
    apply(dtype, x, *outs)
    exact = x.numpy().astype(np.longdouble)
    positive = x > torch.finfo(dtype).tiny
    wanted = {0: np.exp(exact), 2: np.tanh(exact), 3: 1 / (1 + np.exp(-exact))}
    sizeable = {0: -np.inf, 2: -np.inf, 3: -87.0 if dtype == torch.float32 else -700.0}  # as torch's, 0 far below
    for i, value in wanted.items():
        unit = np.spacing(np.abs(value.astype(x.numpy().dtype)))
        assert (np.abs(outs[i].numpy() - value) / unit)[exact > sizeable[i]].max() < 3, i
    ours, value = outs[1].numpy()[positive], np.log(exact[positive.numpy()])
    assert (np.abs(ours - value) / np.spacing(np.maximum(np.abs(value), 0.1).astype(x.numpy().dtype))).max() < 3


def test_elementary_functions_keep_what_is_not_finite():
    x = torch.tensor([np.nan, np.inf, -np.inf, 1e30, -1e30, 0.0, 90.0, -120.0] * 2)
    exps, logs, tanhs, sigmoids = (torch.empty_like(x) for _ in range(4))
    apply(torch.float32, x, exps, logs, tanhs, sigmoids)
    torch.testing.assert_close(exps, x.exp(), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(tanhs, x.tanh(), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(sigmoids, x.sigmoid(), equal_nan=True)
    assert logs[0].isnan()
