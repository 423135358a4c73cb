"""The kernel of convolutional networks equals the plain engine; its bits depend on a client's own examples alone."""

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
from clients.engines.native.choice import kernel_in
from clients.engines.native.conv import ConvKernel
from clients.engines.native.threads import threads_restored
from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.models.build import build_model
from clients.models.convolutions import MeanOverTime, SwapTimeAndChannels
from clients.models.options import Cnn1dOptions, CnnOptions, SmallCnnOptions
from clients.sources.custom import custom_population
from clients.training.local import Batches
from clients.training.options import LocalOptions
from clients.training.task import make_task
from clients.training.work import CohortWork

pytestmark = C_COMPILER.mark
AFTER = ("", "relu", "relu, pool", "pool, relu", "pool")


@st.composite
def images(draw):
    """Draw a network on images: its parts as (name, arguments), the examples' shape and the outputs."""
    channels, height, width = draw(st.integers(1, 3)), draw(st.integers(3, 9)), draw(st.integers(3, 9))
    shape, parts, size = (channels, height, width), [], [height, width]
    for _ in range(draw(st.integers(1, 3))):
        filters, kernel = draw(st.one_of(st.integers(1, 20), st.just(35))), draw(st.sampled_from([1, 2, 3, 5]))
        kernels = (kernel, draw(st.sampled_from([kernel, 3])))
        padding, stride = (draw(st.integers(0, 2)), draw(st.integers(0, 2))), draw(st.sampled_from([1, 1, 1, 2]))
        after = draw(st.sampled_from(AFTER))
        pool = (2, draw(st.sampled_from([2, 2, 1]))) if "pool" in after else (1, 1)
        sizes = [(n + 2 * p - k) // stride + 1 for n, p, k in zip(size, padding, kernels, strict=True)]
        pooled = [n // p for n, p in zip(sizes, pool, strict=True)]
        if min(n + 2 * p - k for n, p, k in zip(size, padding, kernels, strict=True)) < 0 or min(pooled) < 1:
            continue
        parts.append(("convolution", channels, filters, kernels, stride, padding, draw(st.booleans())))
        parts += [(part, pool) for part in after.split(", ") if part]
        channels, size = filters, pooled
    if not parts:
        parts, channels = [("convolution", channels, 2, (3, 3), 1, (1, 1), True)], 2
    return parts, shape, channels * size[0] * size[1], draw(st.integers(2, 20))


def network(model, hidden, activation):
    """Return a drawn network."""
    parts, _, inputs, outputs = model
    torch.manual_seed(1)
    layers = []
    for name, *rest in parts:
        if name == "convolution":
            channels, filters, kernel, stride, padding, bias = rest
            layers.append(nn.Conv2d(channels, filters, kernel, stride, padding, bias=bias))
        else:
            layers.append(nn.ReLU() if name == "relu" else nn.MaxPool2d(rest[0]))
    layers.append(nn.Flatten())
    for width in hidden:
        layers += [nn.Linear(inputs, width), activation()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


@st.composite
def cases(draw):
    """Draw a network, the task, local options, client sizes and the round."""
    model = draw(images())
    hidden = draw(st.lists(st.integers(1, 40), max_size=2))
    options = {
        "local_lr": draw(st.sampled_from([0.01, 0.1])),
        "batch_size": draw(st.one_of(st.just("full"), st.integers(1, 20))),
        "drop_last": draw(st.booleans()),
        "l2": draw(st.sampled_from([0.0, 0.1])),
        draw(st.sampled_from(["local_epochs", "local_steps"])): draw(st.integers(1, 4)),
    }
    sizes = draw(st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(any))
    kind = draw(st.sampled_from(["classification", "classification", "regression"]))
    return (model, hidden, draw(st.sampled_from([nn.ReLU, nn.Tanh]))), kind, options, sizes, draw(st.integers(1, 9))


def task_of(module, population, options, dtype):
    """Return the task and the work of all clients."""
    task = make_task(module, population, LocalOptions(**options), seed=3, dtype=dtype, count_errors=True)
    params, buffers = task.initial()
    clients = np.arange(population.num_clients)
    return task, CohortWork(round_index=1, clients=clients, params=params, buffers=buffers)


def make(case, population_of, dtype, stored=None):
    """Return the task and the work of a drawn case."""
    (model, hidden, activation), kind, options, sizes, round_index = case
    population = population_of(sizes, model[1], model[3], kind, 0, stored or dtype)
    task, work = task_of(network(model, hidden, activation), population, options, dtype)
    return task, replace(work, round_index=round_index)


def native(task, tile=None):
    engine = StackedEngine(task, tile=tile, native=True)
    assert isinstance(kernel_in(engine.program), ConvKernel)
    return engine


def model_of(*parts, shape=(1, 6, 5), outputs=3):
    """Return what `images` draws, its inputs counted by torch."""
    return list(parts), shape, _inputs(parts, shape), outputs


def _inputs(parts, shape):
    module = network((parts, shape, 1, 1), [], nn.ReLU)
    return module[:-1](torch.zeros(1, *shape)).shape[1]


POOLED = model_of(("convolution", 1, 3, (3, 3), 1, (1, 1), True), ("relu",), ("pool", (2, 2)))
DEEP = model_of(
    ("convolution", 2, 17, (5, 5), 1, (2, 2), True), ("relu",), ("pool", (2, 2)),
    ("convolution", 17, 33, (5, 5), 1, (2, 2), False), ("pool", (2, 2)), ("relu",),
    ("convolution", 33, 4, (3, 3), 1, (1, 1), True), ("relu",), shape=(2, 13, 11), outputs=10,
)  # fmt: skip
TILED = model_of(
    ("convolution", 3, 9, (3, 3), 1, (0, 0), True), ("relu",),
    ("convolution", 9, 20, (5, 5), 1, (2, 1), True), ("pool", (2, 2)),
    ("convolution", 20, 49, (5, 5), 1, (2, 2), True), ("relu",), ("pool", (2, 2)), shape=(3, 16, 21), outputs=5,
)  # fmt: skip
"""Its kernels of 5 x 5 are computed by tiles."""
SGD = {"batch_size": 8, "local_epochs": 1}


@settings(max_examples=150)
@given(case=cases())
@example(case=((DEEP, [70], nn.ReLU), "classification", SGD, [40, 13, 0], 1))
@example(case=((TILED, [], nn.ReLU), "regression", SGD, [16, 3], 1))
@example(case=((POOLED, [5], nn.ReLU), "classification", {"batch_size": "full", "local_steps": 40}, [200, 65, 1], 1))
def test_kernel_equals_the_plain_engine_in_float64(case, population_of):
    task, work = make(case, population_of, torch.float64)
    check_equal(run(PlainEngine(task), work), run(native(task), work), 1e-9)


@settings(max_examples=60, derandomize=True)
@given(case=cases())
@example(case=((TILED, [], nn.ReLU), "classification", SGD, [16, 3], 1))
@example(case=((DEEP, [70], nn.ReLU), "classification", SGD, [40, 13, 0], 1))
def test_kernel_equals_the_plain_engine_to_rounding_in_float32(case, population_of):
    task, work = make(case, population_of, torch.float32)
    wanted, found = run(PlainEngine(task), work), run(native(task), work)
    errors = np.abs(wanted.train_errors - found.train_errors)  # rounding may turn a near tie
    check_equal(wanted, replace(found, train_errors=wanted.train_errors), 2e-3)
    assert errors.sum() <= 1 + 0.01 * wanted.num_examples.sum()


@settings(max_examples=30)
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


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        (CnnOptions(), (1, 13, 12)),
        (CnnOptions(), (3, 8, 8)),
        (CnnOptions(), (9, 10)),
        (CnnOptions(), (81,)),
        (SmallCnnOptions(channels=(8, 16)), (64,)),
        (Cnn1dOptions(), (40, 6)),
        (Cnn1dOptions(channels=(3, 40), kernel=2), (7, 2)),
    ],
)
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_built_in_networks_equal_the_plain_engine(options, shape, kind, population_of):
    population = population_of([20, 7], shape, 4, kind, 0, torch.float64)
    task, work = task_of(build_model(options, population, 1), population, SGD, torch.float64)
    check_equal(run(PlainEngine(task), work), run(native(task), work), 1e-9)


@pytest.mark.parametrize("parts", [
    [nn.Conv1d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(3, 4, 2), nn.Flatten(), nn.Linear(12, 3)],
    [SwapTimeAndChannels(), nn.Conv1d(8, 3, 1), nn.MaxPool1d(2), nn.ReLU(), MeanOverTime(), nn.Linear(3, 3)],
    [nn.Conv1d(2, 3, 3, padding="same"), MeanOverTime(), nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 3)],
    [nn.Unflatten(1, (1, 2)), nn.Conv2d(1, 3, (1, 3), padding=(0, 1)), nn.Flatten(), nn.Linear(48, 3)],
])  # fmt: skip
def test_networks_over_time_equal_the_plain_engine(parts, population_of):
    torch.manual_seed(0)
    task, work = task_of(nn.Sequential(*parts), population_of([20, 7], (2, 8), 3, dtype=torch.float64), SGD,
                         torch.float64)  # fmt: skip
    check_equal(run(PlainEngine(task), work), run(native(task), work), 1e-9)


@pytest.mark.parametrize("order", [("relu", "pool"), ("pool", "relu"), ("pool",)])
def test_first_of_equal_maxima_gets_the_derivative_as_in_torch(order):
    def client(k):
        random = np.random.default_rng(k)
        return random.integers(-1, 2, (12, 1, 6, 6)).astype(np.float64), random.integers(0, 3, 12)

    population = custom_population(client, [12, 12], outputs=3, feature_shape=(1, 6, 6), dtype=torch.float64)
    after = [(name, (2, 2)) for name in order]
    model = model_of(("convolution", 1, 4, (2, 2), 1, (0, 0), True), *after, shape=(1, 6, 6))
    module = network(model, [], nn.ReLU)
    with torch.no_grad():
        module[0].weight.copy_(torch.randint(-1, 2, module[0].weight.shape))
        module[0].bias.zero_()
    task, work = task_of(module, population, {"batch_size": 12, "local_steps": 1}, torch.float64)
    check_equal(run(PlainEngine(task), work), run(native(task), work), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stored", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_examples_of_other_types_are_cast_as_by_torch(dtype, stored, kind, population_of):
    case = ((POOLED, [], nn.ReLU), kind, {"batch_size": 4, "local_epochs": 2}, [9, 5], 1)
    task, work = make(case, population_of, dtype, stored)
    check_equal(run(PlainEngine(task), work), run(native(task), work), 1e-10 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("model", [POOLED, DEEP, TILED])
@pytest.mark.parametrize("place", ["features", "params"])
def test_what_is_not_finite_passes_through(value, kind, model, place, population_of):
    case = ((model, [5], nn.ReLU), kind, {"batch_size": 2, "local_epochs": 1, "local_lr": 0.1}, [6, 6, 6], 1)
    task, work = make(case, population_of, torch.float32)
    if place == "features":
        usual = task.population.cohort(work.clients)
        features = usual.features.clone()
        features[usual.rows[usual.offsets[1] + 3], 0, 2, 2] = value
        damaged = replace(usual, features=features)
        holding = replace(task.population.clients, cohort=lambda clients: damaged)
        task = replace(task, population=replace(task.population, clients=holding))
    else:
        work.params[2] = value
    wanted, found = run(PlainEngine(task), work), run(native(task), work)
    others = [0, 2] if place == "features" else []
    for name in NUMBERS:
        x, y = (np.asarray(getattr(update, name), np.float64) for update in (wanted, found))
        if name != "params":  # a zero derivative times infinity, which torch makes NaN, is left out
            np.testing.assert_array_equal(np.isfinite(x), np.isfinite(y), err_msg=name)
        np.testing.assert_allclose(x[others], y[others], rtol=1e-5, atol=1e-6, err_msg=name)
    compared = others if model is TILED else slice(None)  # what is not finite makes its whole tile so
    np.testing.assert_array_equal(wanted.train_errors[compared], found.train_errors[compared])


def kernel_of(population_of):
    case = ((POOLED, [], nn.ReLU), "classification", {"batch_size": 2, "local_epochs": 1}, [4], 1)
    task, work = make(case, population_of, torch.float32)
    return native(task).program.kernel, work


@pytest.mark.parametrize(
    ("row", "label", "words"), [(4, 0, "row"), (-1, 0, "row"), (0, 3, "label"), (0, -1, "label"), (0, 1 << 40, "label")]
)
def test_rows_and_labels_out_of_range_are_refused(row, label, words, population_of):
    kernel, work = kernel_of(population_of)
    examples = Examples(torch.randn(4, 1, 6, 5), torch.tensor([label, 1, 2, 0]))
    batches = Batches(np.array([[[row, 1]]]), np.array([[2]]), np.array([1]))
    with pytest.raises(IndexError, match=words):
        kernel.train(examples.features, examples.targets, batches, work.params, lr=0.1)


def test_sizes_that_do_not_fit_are_refused(population_of):
    kernel, work = kernel_of(population_of)
    batches = Batches(np.array([[[0, 1]]]), np.array([[2]]), np.array([1]))
    features, targets = torch.randn(4, 1, 6, 5), torch.tensor([0, 1, 2, 0])
    for wrong in ((features[:, :, :5], targets, work.params), (features, targets[:, None].expand(4, 2), work.params),
                  (features, targets, work.params[:-1]), (features, targets, work.params.double())):  # fmt: skip
        with pytest.raises(ValueError, match=r"do not fit 1 convolutions of \(1, 6, 5\) and layers of \(18, 3\)"):
            kernel.train(*wrong[:2], batches, wrong[2], lr=0.1)
