"""The perceptron's facts: its bound on mistakes, XOR, and Cover's count of separable labellings."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

import fedscape as fs
from clients.core.arrays import F64, I64
from clients.sources.made_options import PointsOptions
from clients.sources.points import made_points
from fedscape import Run

PLAIN = ["engine.kind=plain", "engine.threads=1", "engine.workers=1"]
STACKED = ["engine.kind=stacked", "engine.tile=8", "engine.threads=1", "engine.workers=1", "engine.compile=never"]
ROSENBLATT = ["model.kind=perceptron", "model.bias=false", "local_lr=1", "batch_size=1", "local_epochs=1",
              "weighting=uniform", "run.dtype=float64", "error_free.hold=1"]  # fmt: skip


def trained(*sets: str, seed: int = 0, engine: list[str] = STACKED) -> Run:
    made = ["data.kind=points", "data.validation_fraction=0", "data.test_fraction=0", "partition.kind=iid"]
    return fs.simulate(fs.load_scenario("blank", sets=[*made, *ROSENBLATT, *engine, *sets], seed=seed), record=False)


def mistakes(run: Run) -> F64:
    return np.asarray(run.rounds["train_errors"][1:], np.float64)


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10_000),
    clients=st.integers(1, 4),
    features=st.integers(2, 20),
    margin=st.floats(0.03, 0.5),
)
def test_mistakes_stay_below_novikoffs_bound_in_every_order(
    seed: int, clients: int, features: int, margin: float
) -> None:
    """A federated mean of perceptrons has the same bound for the mean client (McDonald et al. 2010, theorem 3)."""
    options = PointsOptions(examples=60, features=features, margin=margin)
    bound = made_points(options, seed)[2]["mistake_bound"]
    data = ("data.examples=60", f"data.features={features}", f"data.margin={margin!r}")
    run = trained(*data, f"partition.clients={clients}", "rounds=400", seed=seed)
    assert mistakes(run).sum() / clients <= bound
    assert mistakes(run)[-1] == 0, "it stops, since the classes are separable"


def test_one_example_a_step_is_rosenblatts_rule() -> None:
    """Both engines equal the rule written out, on the batches' order of a fixed seed, for a client of one example."""
    points, labels, _ = made_points(PointsOptions(examples=1, features=3), seed=5)
    side = 2.0 * labels[0] - 1
    for engine in (PLAIN, STACKED):
        run = trained("data.examples=1", "data.features=3", "partition.clients=1", "rounds=1", seed=5, engine=engine)
        np.testing.assert_allclose(run.params.numpy(), side * points[0], rtol=1e-14)


def test_xor_never_stops_and_weights_stay_bounded() -> None:
    made = ("data.pattern=xor", "data.spread=0", "data.examples=40", "partition.clients=1", "rounds=60")
    run = trained(*made, seed=3)
    assert (mistakes(run) > 0).all()
    points = made_points(PointsOptions(pattern="xor", spread=0.0, examples=40), 3)[0]
    radius = np.linalg.norm(points, axis=1).max()
    assert float(run.params.norm()) <= 10 * radius  # 2,400 steps of this length would reach 2,400 radii


def is_separable(points: F64, labels: I64) -> bool:
    """Return whether some w has y w'x >= 1 for all points: a linear program decides it."""
    signed = (2.0 * labels[:, None] - 1) * points
    found = linprog(np.zeros(points.shape[1]), A_ub=-signed, b_ub=-np.ones(len(points)), bounds=(None, None))
    return bool(found.status == 0)


@pytest.mark.parametrize(("n", "d"), [(6, 3), (5, 3), (8, 2)])
def test_share_of_separable_labellings_is_covers(n: int, d: int) -> None:
    share = 2.0 ** (1 - n) * sum(comb(n - 1, k) for k in range(d))
    draws = 300
    made = [made_points(PointsOptions(pattern="random", examples=n, features=d), seed) for seed in range(draws)]
    found = sum(is_separable(points, labels) for points, labels, _ in made) / draws
    assert abs(found - share) < 4 * np.sqrt(share * (1 - share) / draws)


def test_perceptron_stops_where_the_labels_are_separable() -> None:
    """Of ten labellings of six points in three dimensions, it becomes error-free on those that a plane separates."""
    found = []
    for seed in range(10):
        points, labels, _ = made_points(PointsOptions(pattern="random", examples=6, features=3), seed)
        pattern = ("data.pattern=random", "data.examples=6", "data.features=3")
        last = mistakes(trained(*pattern, "partition.clients=1", "local_epochs=100", "rounds=4", seed=seed))[-1]
        found.append(last == 0)
        assert found[-1] == is_separable(points, labels)
    assert len(set(found)) == 2
