"""The stacked engine equals the plain engine for every model, optimiser, rule and shape of the work."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import COMPILER
from torch import nn

from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.models import options as kinds
from clients.models.build import build_model
from clients.training import rules
from clients.training.options import OPTIMIZERS, AugmentOptions, LocalOptions
from clients.training.task import make_task
from clients.training.work import CohortWork, concatenate

NUMBERS = ("params", "buffers", "train_loss", "client_drift", "gradient_norm")
COUNTS = ("clients", "num_examples", "local_steps", "train_errors")


class Residual(nn.Module):
    """A user's module: two biases that add up, layer normalisation, a skip connection, an unused parameter."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 3)
        self.norm, self.extra = nn.LayerNorm(6), nn.Parameter(torch.zeros(6))
        self.unused = nn.Parameter(torch.ones(2))
        self.register_buffer("mask", torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0]))

    def forward(self, x):
        return self.second(self.norm(x + torch.tanh(self.first(x) + self.extra)) * self.mask)


@dataclass(frozen=True)
class Model:
    """A model for a draw: its options (or module), and the data it needs."""

    options: object
    shape: tuple[int, ...] = (6,)
    outputs: int = 3
    task: str = "classification"

    @property
    def batch_norm(self):
        return getattr(self.options, "norm", "") == "batch"


MODELS = {
    "softmax": Model(kinds.SoftmaxOptions()),
    "linear": Model(kinds.LinearOptions(), outputs=2, task="regression"),
    "relu": Model(kinds.MlpOptions(hidden=(7, 5), dropout=0.3)),
    "tanh": Model(kinds.MlpOptions(hidden=(5,), activation="tanh", dropout=0.5), outputs=2, task="regression"),
    "sigmoid": Model(kinds.MlpOptions(hidden=(5,), activation="sigmoid", initialisation="xavier", dropout=0.25)),
    "gelu": Model(kinds.MlpOptions(hidden=(6,), activation="gelu", norm="group", groups=1, dropout=0.2)),
    "leaky": Model(kinds.MlpOptions(hidden=(5,), activation="leaky_relu", initialisation="torch")),
    "batch norm": Model(kinds.MlpOptions(hidden=(6,), norm="batch", dropout=0.5)),
    "cnn": Model(kinds.SmallCnnOptions(channels=(3, 4)), shape=(1, 5, 5)),
    "cnn, batch norm": Model(kinds.SmallCnnOptions(channels=(2, 3), norm="batch"), shape=(4, 4)),
    "cnn1d": Model(kinds.Cnn1dOptions(channels=(3, 4), kernel=2), shape=(7, 2)),
    "gru": Model(kinds.GruOptions(hidden=4), shape=(5, 2), outputs=2, task="regression"),
    "gru, classes": Model(kinds.GruOptions(hidden=3), shape=(5, 2), outputs=3),
    "gru, one channel": Model(kinds.GruOptions(hidden=3), shape=(4,), outputs=3),
    "quadratic": Model(kinds.ParameterVectorOptions(start=0.5), outputs=3, task="objective"),
    "user's": Model(Residual()),
}
RULES = {
    "plain": rules.PLAIN,
    "proximal": rules.proximal(0.5),
    "variate 1": rules.control_variate(1),
    "variate 2": rules.control_variate(2),
    "dynamic": rules.dynamic(0.1),
}


REMEDIES = {
    "balanced batches": {"sampling": "class_balanced"},
    "weights": {"class_weights": "inverse"},
    "effective weights": {"class_weights": "effective", "effective_beta": 0.9, "weights_from": "federation"},
    "focal": {"focal_gamma": 2.0},
    "shallow focal": {"focal_gamma": 0.5, "class_weights": "inverse", "weights_from": "federation"},
    "noise": {"augment": {"jitter": 0.1, "scaling": 0.2}},
    "shift": {"augment": {"time_shift": 2, "scaling": 0.1}},
    "mixup": {"augment": {"mixup": 0.3}},
    "all": {"sampling": "class_balanced", "class_weights": "effective", "focal_gamma": 1.5,
            "augment": {"jitter": 0.1, "scaling": 0.1, "mixup": 1.0}},
}  # fmt: skip
"""Remedies of imbalance, by what they are."""


def fitting(model):
    """Return the remedies that a model's data allow."""
    if model.task == "objective":
        return []
    names = list(REMEDIES) if model.task == "classification" else ["noise", "mixup"]
    return [n for n in names if n != "shift" or len(model.shape) == 2]


@st.composite
def cases(draw):
    """Draw a model, local options, client sizes, a rule, the round and a seed."""
    model = MODELS[draw(st.sampled_from(sorted(MODELS)))]
    pairs = 2 if model.batch_norm else 1  # batch normalisation refuses batches of one
    sizes = [pairs * n for n in draw(st.lists(st.integers(1, 14), min_size=1, max_size=5))]
    one_of = st.sampled_from
    bare = draw(st.booleans())  # plain SGD, for the fused step of the hand-written program
    options = {
        "optimizer": draw(st.sampled_from(OPTIMIZERS)),
        "local_lr": 0.03,
        "batch_size": draw(st.one_of(st.just("full"), st.integers(1, 6).map(lambda b: b * pairs))),
        "drop_last": draw(st.booleans()),
        "l1": 0.0 if bare else draw(one_of([0.0, 0.01])),
        "l2": draw(one_of([0.0, 0.1])),
        "decoupled_weight_decay": 0.0 if bare else draw(one_of([0.0, 0.5])),
        "clip_norm": None if bare else draw(one_of([None, 0.5])),
        "clip_value": None if bare else draw(one_of([None, 0.1])),
        "gradient_noise": 0.0 if bare else draw(one_of([0.0, 0.1])),
        "partial_work": draw(one_of([0.0, 0.0, 0.6])),
        "buffers": draw(one_of(["average", "local"])),
    }
    remedies = fitting(model)
    if remedies and draw(st.booleans()):
        chosen = dict(REMEDIES[draw(one_of(remedies))])
        options |= chosen | ({"augment": AugmentOptions(**chosen["augment"])} if "augment" in chosen else {})
    each = st.lists(st.integers(1, 6), min_size=len(sizes), max_size=len(sizes)).map(tuple)
    unit = draw(st.sampled_from(["local_epochs", "local_steps", "each"]))
    if unit == "each":
        options["local_steps"] = draw(each)
    else:
        options[unit] = draw(st.integers(1, 3 if unit == "local_epochs" else 6))
    rule = "plain" if bare and draw(st.booleans()) else draw(st.sampled_from(sorted(RULES)))
    return model, options, sizes, rule, draw(st.integers(1, 50)), draw(st.integers(0, 9))


def make(case, population_of, dtype):
    """Return the task, the work and the client states."""
    model, options, sizes, rule, round_index, seed = case
    population = population_of(sizes, model.shape, model.outputs, model.task, seed, dtype)
    module = model.options if isinstance(model.options, nn.Module) else build_model(model.options, population, seed)
    task = make_task(module, population, LocalOptions(**options), seed=seed, dtype=dtype, count_errors=True)
    params, buffers = task.initial()
    noise = torch.Generator().manual_seed(seed)

    def near(*shape):
        return torch.randn(*shape, len(params), generator=noise, dtype=torch.float64).to(dtype) * 0.05

    rule = RULES[rule]
    work = CohortWork(
        round_index=round_index,
        clients=np.arange(len(sizes)),
        params=params + near(),
        buffers=buffers,
        rule=rule,
        broadcast={n: near() for n in rule.broadcast},
    )
    own = {n: near(len(sizes)) for n in rule.client_state}
    if options["buffers"] == "local" and len(buffers):
        own["buffers"] = buffers.expand(len(sizes), -1) * torch.linspace(0.5, 1.5, len(sizes), dtype=dtype)[:, None]
    return task, work, own


def run(engine, work, own):
    """Train tile by tile, as a round does."""
    parts, kept = [], {}
    for tile in engine.tiles(work):
        index = torch.from_numpy(tile)
        part = replace(work, clients=work.clients[tile])
        update, new = engine.train(part, {n: v[index] for n, v in own.items()})
        parts.append(update)
        for name, rows in new.items():
            kept.setdefault(name, torch.zeros(work.num_clients, rows.shape[1], dtype=rows.dtype))[index] = rows
    return concatenate(parts), kept


def distance(one, other):
    """Return the largest difference of two trainings, relative for numbers above 1."""
    (a, own_a), (b, own_b) = one, other
    for name in COUNTS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert own_a.keys() == own_b.keys()
    assert a.extras.keys() == b.extras.keys()
    pairs = [(n, getattr(a, n), getattr(b, n)) for n in NUMBERS]
    pairs += [(n, own_a[n], own_b[n]) for n in own_a] + [(n, a.extras[n], b.extras[n]) for n in a.extras]
    worst = 0.0
    for _name, x, y in pairs:
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        assert x.shape == y.shape
        assert np.isfinite(x).all()
        if x.size:
            worst = max(worst, float(np.max(np.abs(x - y) / np.maximum(1.0, np.abs(x)))))
    return worst


ADAPTIVE = ("rmsprop", "adam", "adamw", "adagrad")


def tolerance(case, usual):
    """Return the largest difference by rounding.

    After batch normalisation of two examples most gradients are 0 up to rounding, about 1e-16. An adaptive optimizer
    divides them by their own size plus epsilon = 1e-8, and steps of local_lr = 0.03 multiply what is left: up to 1e-7.
    """
    model, options = case[:2]
    return 1e-6 if model.batch_norm and options["optimizer"] in ADAPTIVE else usual


@settings(max_examples=180)
@given(case=cases())
def test_stacked_equals_plain_in_float64(case, population_of):
    task, work, own = make(case, population_of, torch.float64)
    assert distance(run(PlainEngine(task), work, own), run(StackedEngine(task), work, own)) < tolerance(case, 1e-9)


@settings(max_examples=80, derandomize=True)
@given(case=cases())
def test_stacked_equals_plain_to_rounding_in_float32(case, population_of):
    # Momentum through batch normalisation of two examples amplifies rounding most: 4e-5 in 1,200 draws.
    task, work, own = make(case, population_of, torch.float32)
    assert distance(run(PlainEngine(task), work, own), run(StackedEngine(task), work, own)) < 1e-3


@settings(max_examples=60)
@given(case=cases(), tile=st.integers(1, 3), keep=st.data())
def test_client_does_not_depend_on_its_cohort(case, tile, keep, population_of):
    task, work, own = make(case, population_of, torch.float64)
    bound = tolerance(case, 1e-12)
    together = run(StackedEngine(task), work, own)
    assert distance(together, run(StackedEngine(task, tile=tile), work, own)) < bound

    order = np.array(keep.draw(st.permutations(range(work.num_clients))))
    some = order[: keep.draw(st.integers(1, len(order)))]
    index = torch.from_numpy(some)
    fewer = replace(work, clients=work.clients[some])
    for engine in (StackedEngine(task), PlainEngine(task)):
        update, kept = engine.train(fewer, {n: v[index] for n, v in own.items()})
        sort = np.argsort(some)
        rows = torch.from_numpy(some[sort])
        back = concatenate([update]), {n: v[torch.from_numpy(sort)] for n, v in kept.items()}
        whole = together[0]
        expected = replace(
            whole,
            **{n: getattr(whole, n)[some[sort]] for n in (*COUNTS, "train_loss", "client_drift", "gradient_norm")},
            params=whole.params[rows],
            buffers=whole.buffers[rows],
            extras={n: v[rows] for n, v in whole.extras.items()},
        )
        assert distance((expected, {n: v[rows] for n, v in together[1].items()}), back) < bound


def test_full_gradients_agree_and_equal_those_of_the_whole_data(population_of):
    sizes = [3, 8, 0, 5]
    for name in ("relu", "batch norm", "gru", "user's"):
        model = MODELS[name]
        options = {"batch_size": 4, "local_epochs": 1, "buffers": "average", "drop_last": True}
        case = (model, options, sizes, "plain", 1, 3)
        task, work, _ = make(case, population_of, torch.float64)
        plain, stacked = PlainEngine(task).gradients(work), StackedEngine(task).gradients(work)
        torch.testing.assert_close(plain, stacked, rtol=1e-10, atol=1e-12)
        assert not plain[2].any(), "an empty client has no gradient"
        assert (plain[[0, 1, 3]].norm(dim=1) > 0.01).all()


def test_ragged_cohort_computes_only_active_clients(population_of):
    """The active prefix shrinks: no gradient is computed for a client that has finished."""
    case = (MODELS["relu"], {"batch_size": 2, "local_epochs": 1, "buffers": "average"}, [2, 9, 4, 13], "plain", 1, 0)
    task, work, own = make(case, population_of, torch.float32)
    engine, widths = StackedEngine(task), []
    inner = engine.program

    class Watched:
        masks_padding, width = True, staticmethod(inner.width)

        def gradients(self, params, buffers, batch):
            widths.append(len(batch.features))
            return inner.gradients(params, buffers, batch)

    engine.program = Watched()
    engine.train(work, own)
    assert widths == [4, 3, 2, 2, 2, 1, 1]


@pytest.mark.slow
@COMPILER.mark
@pytest.mark.parametrize("name", ["gelu", "cnn, batch norm"])
def test_compiled_equals_eager_to_rounding(name, population_of):
    case = (MODELS[name], {"batch_size": 4, "local_epochs": 2, "buffers": "average"}, [28, 20, 8, 16, 6], "plain", 2, 1)
    task, work, own = make(case, population_of, torch.float32)
    engine = StackedEngine(task)
    eager = run(engine, work, own)
    engine.program.compile((5, 3), 4)
    assert engine.program.width(4) == 5
    assert distance(eager, run(engine, work, own)) < 1e-5
