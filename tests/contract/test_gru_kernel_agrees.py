"""The GRU's kernel in C equals the plain and the stacked engine; its bits depend on a client's own examples alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kernel_runs import NUMBERS, Paused, check_equal, check_same_bits, run
from needs import C_COMPILER

from clients.core.examples import Examples
from clients.engines.native.choice import kernel_in
from clients.engines.native.gru import GruKernel
from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.models.build import build_model
from clients.models.options import GruOptions
from clients.sources.custom import custom_population
from clients.training import rules
from clients.training.local import Batches
from clients.training.options import LocalOptions
from clients.training.task import make_task
from clients.training.work import CohortWork

pytestmark = C_COMPILER.mark
RULES = {"plain": rules.PLAIN, "proximal": rules.proximal(0.5)}


@st.composite
def cases(draw):
    """Draw a GRU, local options, client sizes, the rule and the round; half of them are plain SGD."""
    kind = draw(st.sampled_from(["classification", "regression"]))
    time, channels = draw(st.integers(1, 12)), draw(st.integers(0, 3))
    model = (draw(st.integers(1, 40)), (time, channels) if channels else (time,), draw(st.integers(2, 12)))
    options = {
        "optimizer": draw(st.sampled_from(["sgd", "sgd", "sgd", "momentum", "adam"])),
        "local_lr": draw(st.sampled_from([0.01, 0.1])),
        "batch_size": draw(st.one_of(st.just("full"), st.integers(1, 40))),
        "drop_last": draw(st.booleans()),
        "l2": draw(st.sampled_from([0.0, 0.1])),
        "clip_norm": draw(st.sampled_from([None, None, 0.5])),
        draw(st.sampled_from(["local_epochs", "local_steps"])): draw(st.integers(1, 20)),
    }
    if kind == "classification":
        options["focal_gamma"] = draw(st.sampled_from([0.0, 0.0, 2.0]))
    sizes = draw(st.lists(st.integers(0, 60), min_size=1, max_size=5).filter(any))
    return (
        model,
        kind,
        options,
        sizes,
        draw(st.sampled_from(["plain", "plain", *sorted(RULES)])),
        draw(st.integers(1, 9)),
    )


def make(case, population_of, dtype, stored=None):
    """Return the task and the work."""
    (hidden, shape, outputs), kind, options, sizes, rule, round_index = case
    population = population_of(sizes, shape, outputs, kind, 0, stored or dtype)
    module = build_model(GruOptions(hidden=hidden), population, 1)
    task = make_task(module, population, LocalOptions(**options), seed=3, dtype=dtype, count_errors=True)
    params, buffers = task.initial()
    clients = np.arange(len(sizes))
    return task, CohortWork(
        round_index=round_index, clients=clients, params=params, buffers=buffers, rule=RULES[rule]
    )  # fmt: skip


def native(task, tile=None):
    engine = StackedEngine(task, tile=tile, native=True)
    assert isinstance(kernel_in(engine.program), GruKernel)
    return engine


PLAIN_SGD = {"batch_size": 16, "local_epochs": 1}


@settings(max_examples=100)
@given(case=cases())
@example(case=((32, (12, 2), 1), "regression", PLAIN_SGD, [160, 90, 0, 7], "plain", 1))
@example(case=((17, (5, 9), 3), "classification", PLAIN_SGD | {"local_epochs": 5}, [160, 90, 0, 7], "plain", 1))
@example(case=((3, (4,), 2), "classification", {"batch_size": "full", "local_steps": 40}, [50, 12], "plain", 1))
def test_kernel_equals_the_other_engines_in_float64(case, population_of):
    task, work = make(case, population_of, torch.float64)
    found = run(native(task), work)
    check_equal(run(StackedEngine(task), work), found, 1e-8)
    check_equal(run(PlainEngine(task), work), found, 1e-8)


@settings(max_examples=60, derandomize=True)
@given(case=cases())
def test_kernel_equals_the_other_engines_to_rounding_in_float32(case, population_of):
    case[2]["optimizer"] = "sgd"  # others divide by gradients, which turns rounding into whole steps
    task, work = make(case, population_of, torch.float32)
    wanted, found = run(StackedEngine(task), work), run(native(task), work)
    errors = np.abs(wanted.train_errors - found.train_errors)  # rounding may turn a near tie
    check_equal(wanted, replace(found, train_errors=wanted.train_errors), 2e-3)
    assert errors.sum() <= 1 + 0.01 * wanted.num_examples.sum()


@settings(max_examples=30)
@given(case=cases(), tile=st.integers(1, 3), threads=st.integers(2, 4), seconds=st.sampled_from([0.0, 1e-5, 10.0]))
def test_bits_depend_on_neither_tile_nor_threads_nor_pauses(case, tile, threads, seconds, population_of):
    case[2]["optimizer"], case[2]["clip_norm"], case[2]["focal_gamma"] = "sgd", None, 0.0
    task, work = make((*case[:4], "plain", 1), population_of, torch.float32)
    alone = run(native(task), work)
    check_same_bits(alone, run(native(task, tile), work))
    engine, before = native(task), torch.get_num_threads()
    engine.program.kernel = Paused(engine.program.kernel, seconds)
    try:
        torch.set_num_threads(threads)
        check_same_bits(alone, run(engine, work))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stored", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_examples_of_other_types_are_cast_as_by_torch(dtype, stored, kind, population_of):
    case = ((7, (5, 2), 3), kind, {"batch_size": 4, "local_epochs": 2}, [9, 5], "plain", 1)
    task, work = make(case, population_of, dtype, stored)
    bound = 1e-10 if dtype == torch.float64 else 1e-5
    check_equal(run(StackedEngine(task), work), run(native(task), work), bound)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("place", [0, 40, 120, -1])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_what_is_not_finite_passes_through(value, place, kind, population_of):
    case = ((5, (4, 2), 3), kind, {"batch_size": 2, "local_epochs": 1}, [6, 5, 0], "plain", 1)
    task, work = make(case, population_of, torch.float32)
    work.params[place] = value
    wanted, found = run(StackedEngine(task), work), run(native(task), work)
    for name in NUMBERS:
        x, y = (np.asarray(getattr(update, name), np.float64) for update in (wanted, found))
        np.testing.assert_array_equal(np.isfinite(x), np.isfinite(y), err_msg=name)
    np.testing.assert_array_equal(wanted.train_errors, found.train_errors)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_client_with_huge_features_changes_no_other_client(kind):
    def client(k):
        features = np.ones((6, 5, 2), np.float32)
        features[3, 2, 1] = 1e38 if k == 1 else 0.5
        targets = np.arange(6) % 3 if kind == "classification" else np.ones((6, 3), np.float32)
        return features, targets

    population = custom_population(client, [6, 6, 6], outputs=3, task=kind, feature_shape=(5, 2), dtype=torch.float32)
    local = LocalOptions(batch_size=2, local_epochs=1, local_lr=0.1)
    task = make_task(build_model(GruOptions(hidden=5), population, 1), population, local, seed=0, count_errors=True)
    params, buffers = task.initial()
    work = CohortWork(round_index=1, clients=np.arange(3), params=params, buffers=buffers)
    wanted, found = run(StackedEngine(task), work), run(native(task), work)
    for name in NUMBERS:
        x, y = (np.asarray(getattr(update, name), np.float64) for update in (wanted, found))
        np.testing.assert_array_equal(np.isfinite(x), np.isfinite(y), err_msg=name)
        np.testing.assert_allclose(x[[0, 2]], y[[0, 2]], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("row", "label", "words"), [(4, 0, "row"), (-1, 0, "row"), (0, 3, "label"), (0, -1, "label"), (0, 1 << 40, "label")]
)
def test_rows_and_labels_out_of_range_are_refused(row, label, words, population_of):
    case = ((4, (3, 2), 3), "classification", {"batch_size": 2, "local_epochs": 1}, [4], "plain", 1)
    task, work = make(case, population_of, torch.float32)
    kernel = native(task).program.kernel
    examples = Examples(torch.randn(4, 3, 2), torch.tensor([label, 1, 2, 0]))
    batches = Batches(np.array([[[row, 1]]]), np.array([[2]]), np.array([1]))
    with pytest.raises(IndexError, match=words):
        kernel.train(examples.features, examples.targets, batches, work.params, lr=0.1)


def test_sizes_that_do_not_fit_are_refused(population_of):
    case = ((4, (3, 2), 3), "classification", {"batch_size": 2, "local_epochs": 1}, [4], "plain", 1)
    task, work = make(case, population_of, torch.float32)
    kernel = native(task).program.kernel
    batches = Batches(np.array([[[0, 1]]]), np.array([[2]]), np.array([1]))
    features, targets = torch.randn(4, 3, 2), torch.tensor([0, 1, 2, 0])
    for wrong in ((features[:, :, :1], targets, work.params), (features[:, 0], targets, work.params),
                  (features, targets[:, None].expand(4, 2), work.params), (features, targets, work.params[:-1]),
                  (features, targets, work.params.double())):  # fmt: skip
        with pytest.raises(ValueError, match="do not fit a GRU of 4 units, 2 channels, 3 outputs"):
            kernel.train(*wrong[:2], batches, wrong[2], lr=0.1)
