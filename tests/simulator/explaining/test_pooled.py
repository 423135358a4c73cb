"""The models of the pooled sample against what least squares gives."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pytest
import torch

import fedscape as fs
from simulator.explaining.pooled import accuracies, largest_share, module_at, pooled_losses, wider_model
from simulator.explaining.reference import reference_loss
from simulator.runs.building import Overrides
from simulator.runs.session import open_session

NOISE = 0.3


def data_of(function: str, scale: float, number: int = 1500) -> Any:
    random = np.random.default_rng(0)
    x = random.normal(size=(number, 4)).astype(np.float32)
    smooth = {
        "plane": x @ np.array([1.0, -2.0, 0.5, 0.0]) + 3.0,
        "waves": np.sin(2 * x).sum(1),
        "none": np.zeros(number),
        "bends": np.abs(x).sum(1),
    }
    return fs.arrays(x * np.float32(scale), (smooth[function] + NOISE * random.normal(size=number)).astype(np.float32))


@contextmanager
def opened(function: str, model: dict[str, Any], scale: float = 1.0):
    scenario = fs.load_scenario({
        "partition": {"kind": "iid", "clients": 10}, "model": model, "local": {"local_lr": 0.1, "local_steps": 1},
        "algorithm": {"kind": "fedavg", "cohort": 5}, "run": {"rounds": 1, "seed": 3},
        "engine": {"kind": "stacked", "workers": 1, "threads": 1},
    })  # fmt: skip
    with closing(open_session(scenario, Overrides(None, data_of(function, scale), None, None))) as session:
        examples = session.population.cohort(np.arange(10))
        rows = torch.from_numpy(np.unique(examples.rows))
        yield session, examples.features[rows], examples.targets[rows]


def from_start(session) -> Any:
    return module_at(session.task, session.start.params, session.start.buffers)


def test_linear_model_reaches_least_squares_on_the_pooled_sample():
    with opened("plane", {"kind": "linear"}) as (session, x, y):
        validation = session.population.validation
        design = np.column_stack([x.numpy(), np.ones(len(x))])
        asked = np.column_stack([validation.features.numpy(), np.ones(len(validation.features))])
        best = np.linalg.lstsq(design, y.numpy(), rcond=None)[0]
        least = float(np.square(asked @ best - validation.targets.numpy()).mean())
        # Adam's steps are at most as long as their rates: 200 of 0.01 along a cosine reach weights up to 1
        start = session.start.params.new_tensor([0.5, -1.5, 0.2, 0.2, 2.5])
        found = pooled_losses(session.task, module_at(session.task, start, session.start.buffers), x, y, 0)
        fitted = float(np.square(design @ best - y.numpy()).mean())
    assert found == pytest.approx((least, fitted), rel=0.05)


@pytest.mark.parametrize(("tails", "low", "high"), [(0, 0.06, 0.11), (2, 0.25, 0.9)])
def test_largest_errors_have_the_share_that_their_distribution_gives_them(tails, low, high):
    with opened("plane", {"kind": "linear"}) as (session, x, _):
        random = np.random.default_rng(1)
        errors = random.standard_t(tails, len(x)) if tails else random.normal(size=len(x))
        exact = session.start.params.new_tensor([1.0, -2.0, 0.5, 0.0, 3.0])
        y = x @ exact[:4] + 3.0 + torch.from_numpy(errors).float()
        found = largest_share(session.task, module_at(session.task, exact, session.start.buffers), x, y)
    assert found is not None
    assert low < found < high  # normal errors: 0.085


def test_classes_have_no_share_of_the_largest_errors():
    with closing(
        open_session(fs.load_scenario("digits-iid", sets={"run.rounds": 1}), Overrides(None, None, None, None))
    ) as session:
        examples = session.population.cohort(np.arange(2))
        assert largest_share(session.task, from_start(session), examples.features, examples.targets) is None


def test_accuracies_are_the_shares_of_labels_that_the_model_gives():
    with closing(
        open_session(fs.load_scenario("digits-iid", sets={"run.rounds": 1}), Overrides(None, None, None, None))
    ) as session:
        examples, validation, module = (
            session.population.cohort(np.arange(2)),
            session.population.validation,
            from_start(session),
        )
        own = module(examples.features).argmax(1)
        wrong = own.clone()
        wrong[::4] = (own[::4] + 1) % 10
        found = accuracies(session.task, module, examples.features, wrong)
        share = float((module(validation.features).argmax(1) == validation.targets).double().mean())
    own_share = pytest.approx(1 - len(own[::4]) / len(own))
    assert found == {"training": own_share, "validation": pytest.approx(share), "examples": len(validation.targets)}


def test_numbers_have_no_accuracies():
    with opened("plane", {"kind": "linear"}) as (session, x, y):
        assert accuracies(session.task, from_start(session), x, y) is None


def test_training_on_the_pooled_sample_leaves_the_run_as_it_was():
    with opened("waves", {"kind": "mlp", "hidden": [8]}) as (session, x, y):
        before = session.start.params.clone()
        module = from_start(session)
        kept = [p.clone() for p in module.parameters()]
        one, other = (pooled_losses(session.task, module, x, y, 0) for _ in range(2))
        assert one == other
        assert torch.equal(before, session.start.params)
        assert all(torch.equal(a, b) for a, b in zip(kept, module.parameters(), strict=True))


def test_wider_model_does_better_where_the_run_s_is_too_small():
    options = fs.load_scenario("digits-iid", sets={"model.hidden": [2]}).model
    with opened("bends", {"kind": "mlp", "hidden": [2]}) as (session, x, y):
        build = wider_model(options, session.task)
        assert build is not None
        assert next(p.shape[0] for p in build().parameters()) == 8
        small = pooled_losses(session.task, from_start(session), x, y, 0)
        wide = pooled_losses(session.task, build(), x, y, 0)
    assert small is not None
    assert wide is not None
    assert wide[0] < 0.9 * small[0]


def test_model_that_learns_a_small_sample_by_heart_has_a_training_loss_far_below():
    with opened("none", {"kind": "mlp", "hidden": [256]}) as (session, x, y):
        found = pooled_losses(session.task, from_start(session), x[:40], y[:40], 0)
    assert found is not None
    assert found[0] > NOISE**2
    assert found[1] < NOISE**2 / 10


def test_model_without_a_width_and_one_from_python_have_no_wider_one():
    with opened("plane", {"kind": "linear"}) as (session, _, _):
        assert wider_model(session.scenario.model, session.task) is None
        assert wider_model(None, session.task) is None


def test_loss_that_leaves_the_finite_numbers_is_none():
    with opened("plane", {"kind": "linear"}) as (session, x, y):
        module = module_at(session.task, session.start.params + float("nan"), session.start.buffers)
        assert pooled_losses(session.task, module, x, y, 0) is None


@pytest.mark.parametrize(("function", "near"), [("plane", 1.1), ("none", 1.1), ("waves", 8.0)])
def test_reference_of_a_regression_is_near_the_noise(function, near):
    with opened(function, {"kind": "linear"}) as (session, x, y):
        found = reference_loss(session.population, x, y, seed=0)
        truth = session.population.validation.targets.numpy()
    assert found is not None
    assert 0.7 * NOISE**2 < found < near * NOISE**2
    if function == "waves":  # neither a plane nor the mean comes near
        assert found < 0.4 * truth.var()


def test_reference_is_the_same_for_features_of_any_scale():
    found = []
    for scale in (1.0, 1000.0):
        with opened("waves", {"kind": "linear"}, scale=scale) as (session, x, y):
            found.append(reference_loss(session.population, x, y, seed=0))
    assert found[1] == pytest.approx(found[0], rel=0.05)
