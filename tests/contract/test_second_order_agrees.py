"""Newton and L-BFGS: the stacked engine equals the plain one, a client does not depend on its cohort, and refusals."""

import numpy as np
import pytest
import torch
from engine_cases import MODELS, make
from engine_distance import distance, run
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.core.errors import UserError
from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.models.build import build_model
from clients.models.options import MlpOptions, SoftmaxOptions
from clients.training.options import SECOND_ORDER, AugmentOptions, LocalOptions
from clients.training.second_order import checks
from clients.training.task import make_task
from clients.training.work import CohortWork

CONVEX = {
    "softmax": MODELS["softmax"],
    "linear": MODELS["linear"],
    "quadratic": MODELS["quadratic"],
}
CURVED = {"group": MODELS["gelu"], "gru": MODELS["gru"], "cnn1d": MODELS["cnn1d"]}


@st.composite
def cases(draw):
    model = CONVEX[draw(st.sampled_from(sorted(CONVEX)))]
    sizes = draw(st.lists(st.integers(1, 14), min_size=1, max_size=4))
    options = {
        "optimizer": draw(st.sampled_from(SECOND_ORDER)), "local_lr": draw(st.sampled_from([0.3, 1.0, 2.0])),
        "l2": draw(st.sampled_from([0.05, 0.3])), "damping": draw(st.sampled_from([0.0, 0.1])),
        "history": draw(st.integers(1, 4)), "line_search": draw(st.sampled_from(["none", "backtracking"])),
        "buffers": "average",
    }  # fmt: skip
    if model is CONVEX["softmax"] and draw(st.booleans()):
        options |= {"class_weights": "inverse", "focal_gamma": draw(st.sampled_from([0.0, 2.0]))}
    steps = st.lists(st.integers(1, 5), min_size=len(sizes), max_size=len(sizes)).map(tuple)
    options["local_steps"] = draw(st.one_of(st.integers(1, 5), steps))
    rule = draw(st.sampled_from(["plain", "proximal", "variate 1", "dynamic"]))
    return model, options, sizes, rule, draw(st.integers(1, 50)), draw(st.integers(0, 9))


@settings(max_examples=60)
@given(case=cases(), tile=st.integers(1, 3))
def test_stacked_equals_plain_and_any_tile(case, tile, population_of):
    task, work, own = make(case, population_of, torch.float64)
    plain = run(PlainEngine(task), work, own)
    assert distance(plain, run(StackedEngine(task), work, own)) < 1e-6
    assert distance(plain, run(StackedEngine(task, tile=tile), work, own)) < 1e-6


@pytest.mark.parametrize("name", CURVED)
@pytest.mark.parametrize("optimizer", SECOND_ORDER)
def test_smooth_models_that_are_not_convex_train_alike_in_both_engines(name, optimizer, population_of):
    options = {
        "optimizer": optimizer,
        "local_lr": 1.0,
        "l2": 0.1,
        "damping": 5.0,
        "local_steps": 3,
        "buffers": "average",
    }
    model = CURVED[name]
    if name == "group":
        model = type(model)(MlpOptions(hidden=(6,), activation="gelu", norm="group", groups=1))
    task, work, own = make((model, options, [5, 9, 3], "proximal", 2, 1), population_of, torch.float64)
    plain = run(PlainEngine(task), work, own)
    assert distance(plain, run(StackedEngine(task), work, own)) < 1e-6
    assert (plain[0].params - work.params).norm() > 1e-3


def test_step_of_newton_lowers_the_loss_of_each_client_more_than_descent(population_of):
    losses = {}
    for optimizer, lr in (("newton", 1.0), ("gd", 0.1)):
        options = {"optimizer": optimizer, "local_lr": lr, "l2": 0.01, "local_steps": 4, "buffers": "average"}
        task, work, own = make((MODELS["softmax"], options, [12, 9], "plain", 1, 3), population_of, torch.float64)
        losses[optimizer] = run(StackedEngine(task), work, own)[0].train_loss
    assert (losses["newton"] < losses["gd"]).all()


@pytest.mark.parametrize("optimizer", SECOND_ORDER)
@pytest.mark.parametrize("keys", [
    {"l1": 0.1}, {"clip_norm": 1.0}, {"clip_value": 1.0}, {"gradient_noise": 0.1}, {"sampling": "class_balanced"},
    {"decoupled_weight_decay": 0.1}, {"augment": AugmentOptions(jitter=0.1)}, {"micro_batch_size": 4}, {"devices": 2},
])  # fmt: skip
def test_keys_that_break_the_function_are_refused(optimizer, keys):
    with pytest.raises(UserError, match=f"is not defined for optimizer '{optimizer}'") as caught:
        LocalOptions(optimizer=optimizer, **keys)
    assert caught.value.field == next(iter(keys))


def test_full_batch_replaces_a_batch_size_and_says_so():
    local = LocalOptions(optimizer="newton", batch_size=8)
    assert local.batch_size == "full"
    assert "takes all examples" in local.unread()["batch_size"]
    assert set(LocalOptions(optimizer="lbfgs").unread()) >= {"damping", "momentum"}


@pytest.mark.parametrize("optimizer", SECOND_ORDER)
def test_models_that_draw_or_keep_statistics_are_refused(optimizer, population_of):
    population = population_of([8, 6], dtype=torch.float64)
    drawn, kept = MlpOptions(hidden=(4,), dropout=0.5), MlpOptions(hidden=(4,), norm="batch")
    for model, words in ((drawn, "draws: dropout"), (kept, "running statistics")):
        with pytest.raises(UserError, match=words):
            make_task(build_model(model, population, 0), population, LocalOptions(optimizer=optimizer), seed=0)


def test_newton_refuses_a_large_model_and_lbfgs_takes_it(population_of, monkeypatch):
    population = population_of([8, 6])
    module = build_model(SoftmaxOptions(), population, 0)
    monkeypatch.setattr(checks, "MOST_PARAMETERS", 20)
    with pytest.raises(UserError, match="21 parameters in each step, and takes at most 20"):
        make_task(module, population, LocalOptions(optimizer="newton"), seed=0)
    task = make_task(module, population, LocalOptions(optimizer="lbfgs"), seed=0)
    assert task.parameters.size == 21


class Step(torch.autograd.Function):
    """A function whose derivative is given by hand, once."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g


class Once(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 3)

    def forward(self, x):
        return Step.apply(self.layer(x))


def test_newton_refuses_a_model_without_second_derivatives(population_of):
    with pytest.raises(UserError, match="needs second derivatives"):
        make_task(Once(), population_of([8]), LocalOptions(optimizer="newton"), seed=0)


def test_example_that_changes_others_is_trained_one_by_one(population_of):
    class Mixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(6, 3)

        def forward(self, x):
            return self.layer(x - x.mean(0))

    task = make_task(Mixed(), population_of([8, 5]), LocalOptions(optimizer="lbfgs"), seed=0)
    with pytest.raises(UserError, match="no example of a batch changes another's output"):
        StackedEngine(task)
    assert run(PlainEngine(task), make_work(task), {})[0].params.isfinite().all()


def make_work(task):
    params, buffers = task.initial()
    return CohortWork(round_index=1, clients=np.arange(2), params=params, buffers=buffers)
