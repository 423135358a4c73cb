"""The double well: its minima are roots of a cubic, and each direction at its saddle has a factor of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

import fedscape as fs
from clients.core.errors import UserError
from clients.sources.landscapes.double_well import double_well_population
from clients.sources.landscapes.options import DoubleWellOptions
from clients.sources.landscapes.wells import stationary_points, well
from fedscape import Run

GONE = 2 / math.sqrt(27)
PLAIN = {"kind": "plain", "threads": 1, "workers": 1}
STACKED = {"kind": "stacked", "tile": 4, "compile": "never", "threads": 1, "workers": 1}


def played(
    start: list[float], *, engine: dict[str, Any] = STACKED, local: dict[str, Any] | None = None, rounds: int = 40,
    seed: int = 0, **data: Any,
) -> Run:  # fmt: skip
    table = {
        "data": {"kind": "double_well", "dimension": len(start)} | data,
        "model": {"kind": "double_well", "start": start},
        "local": {"optimizer": "gd", "local_lr": 0.1, "local_steps": 1, **(local or {})},
        "algorithm": {"kind": "fedavg", "weighting": "uniform"},
        "evaluation": {"federated_every": 0},
        "convergence": {"stop": "never"},
        "engine": engine,
        "run": {"rounds": rounds, "seed": seed, "dtype": "float64"},
    }
    return fs.simulate(fs.load_scenario(table), record=False)


@given(curvature=st.floats(0.1, 10), share=st.floats(-0.99, 0.99))
def test_stationary_points_are_two_minima_and_a_saddle_between(curvature: float, share: float) -> None:
    slope = share * GONE * curvature
    points = stationary_points(curvature, slope)
    assert len(points) == 3
    np.testing.assert_allclose(curvature * (points**3 - points) + slope, 0, atol=1e-9 * curvature)
    bends = curvature * (3 * points**2 - 1)
    assert bends[0] > 0 > bends[1]
    assert bends[2] > 0


@given(curvature=st.floats(0.1, 10), share=st.floats(1.01, 5))
def test_one_minimum_is_left_beyond_the_largest_tilt(curvature: float, share: float) -> None:
    (point,) = stationary_points(curvature, share * GONE * curvature)
    found = minimize_scalar(lambda x: float(well(np.array(x), curvature, share * GONE * curvature)), bounds=(-5, 0),
                            method="bounded", options={"xatol": 1e-10})  # fmt: skip
    assert point == pytest.approx(found.x, abs=1e-6)


@pytest.mark.parametrize("engine", [PLAIN, STACKED], ids=["plain", "stacked"])
def test_rounds_are_gradient_steps_of_the_formula(engine: dict[str, Any]) -> None:
    """Three clients that disagree: two local steps each, then their mean, against the recursion written out."""
    h, across, eta = 1.5, 0.5, 0.05
    options = DoubleWellOptions(clients=3, dimension=3, curvature=h, across=across, tilt=0.2, spread=0.4)
    slopes = double_well_population(options, seed=7).cohort(np.arange(3)).features[:, 2].double().numpy()
    assert np.ptp(slopes) > 0.1
    w = np.array([0.6, -1.0, 2.0])
    for _ in range(5):
        moved = []
        for slope in slopes:
            own = w.copy()
            for _ in range(2):
                own = own - eta * np.array([h * (own[0] ** 3 - own[0]) + slope, *(across * own[1:])])
            moved.append(own)
        w = np.mean(moved, axis=0)
    run = played([0.6, -1.0, 2.0], engine=engine, rounds=5, seed=7, clients=3, curvature=h, across=across, tilt=0.2,
                 spread=0.4, local={"local_lr": eta, "local_steps": 2})  # fmt: skip
    np.testing.assert_allclose(run.params.numpy(), w, rtol=1e-6)  # slopes above are of float32


def test_gap_and_distance_are_of_the_lower_minimum() -> None:
    run = played([0.5, 1.0], tilt=0.1, curvature=2.0, rounds=300)
    points = stationary_points(2.0, 0.1)
    values = well(points, 2.0, 0.1)
    assert float(run.params[0]) == pytest.approx(points[2], abs=1e-12)
    assert run.rounds["optimality_gap"][-1] == pytest.approx(values[2] - values[0], abs=1e-12)
    assert run.rounds["distance_to_optimum"][-1] == pytest.approx(points[2] - points[0], abs=1e-9)


@pytest.mark.parametrize("start", [0.5, -0.5])
def test_distance_is_to_the_nearer_of_two_equal_minima(start: float) -> None:
    run = played([start, 0.0], rounds=300)
    assert float(run.params[0]) == pytest.approx(math.copysign(1.0, start), abs=1e-12)
    np.testing.assert_allclose([run.rounds[m][-1] for m in ("optimality_gap", "distance_to_optimum")], 0, atol=1e-12)
    assert run.rounds["distance_to_optimum"][0] == 0.5


@settings(max_examples=8)
@given(eta=st.floats(0.01, 0.3), curvature=st.floats(0.5, 2), across=st.floats(0.5, 2))
def test_factors_at_the_saddle_are_those_of_its_curvatures(eta: float, curvature: float, across: float) -> None:
    tiny = 1e-7
    run = played([tiny, 1.0], rounds=5, curvature=curvature, across=across, local={"local_lr": eta})
    away, along = run.params.tolist()
    assert away == pytest.approx(tiny * (1 + eta * curvature) ** 5, rel=1e-9)
    assert along == pytest.approx((1 - eta * across) ** 5, rel=1e-9)
    assert played([0.0, 1.0], rounds=5, curvature=curvature, across=across).params[0] == 0


def test_noise_has_its_deviation_and_sums_to_zero() -> None:
    options = DoubleWellOptions(clients=2, examples=40, noise=0.3, tilt=0.5, dimension=3)
    population = double_well_population(options, seed=1, dtype=torch.float64)
    slopes = population.cohort(np.arange(2)).features[:, 2:].reshape(2, 40, 3)
    torch.testing.assert_close(slopes.mean(1), torch.tensor([[0.5, 0.0, 0.0]] * 2, dtype=torch.float64))
    torch.testing.assert_close(slopes.std(1, correction=0), torch.full((2, 3), 0.3, dtype=torch.float64))
    assert not torch.equal(slopes[0], slopes[1])


def test_noise_leaves_the_saddle_at_the_rate_of_its_curvature() -> None:
    """Over 20 seeds |w_1| has the standard deviation eta s g^t sqrt(1 - g^-2t) / sqrt(g^2 - 1), g = 1 + eta h."""
    eta, noise, rounds, g = 0.1, 1e-6, 30, 1.1
    local = {"optimizer": "sgd", "batch_size": 1}
    ends = [float(played([0.0, 0.0], rounds=rounds, examples=64, noise=noise, local=local, seed=seed).params[0])
            for seed in range(20)]  # fmt: skip
    spread = eta * noise * math.sqrt((g ** (2 * rounds) - 1) / (g**2 - 1))
    assert np.sqrt(np.mean(np.square(ends))) == pytest.approx(spread, rel=0.48)  # three deviations of 20 draws
    assert min(ends) < 0 < max(ends)


def test_clients_slopes_depend_on_the_seed_and_the_client_alone() -> None:
    few, many = (double_well_population(DoubleWellOptions(clients=n, spread=1.0), seed=3) for n in (2, 5))
    assert torch.equal(few.cohort(np.arange(2)).features, many.cohort(np.arange(2)).features[:2])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"curvature": 0.0}, "curvature: must be > 0"),
        ({"across": -1.0}, "across: must be > 0"),
        ({"noise": 0.1}, "noise: needs at least two examples a client, got 1"),
        ({"tilt": math.inf}, "tilt: must be finite"),
        ({"examples": 0}, "examples: must be at least 1"),
    ],
)
def test_bad_options_are_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DoubleWellOptions(**keys)


def test_model_and_data_need_each_other() -> None:
    with pytest.raises(UserError, match="Data 'double_well' need the model 'double_well', and only they do"):
        fs.simulate(fs.load_scenario("quadratic-two-clients", sets=["model.kind=double_well"]), record=False)
    with pytest.raises(UserError, match="start: must be one number or 2, got 3 numbers"):
        played([0.0, 1.0, 2.0], dimension=2)
