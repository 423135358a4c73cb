"""Curvature, noise, dissimilarity and predictions beside a run, against known spectra and closed forms, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fedscape as fs
from clients.core.numbers.lanczos import lanczos
from simulator.probes.formulas.dissimilarity import dissimilarity, within_clients
from simulator.probes.formulas.predicted import (
    Range,
    Work,
    contraction,
    factors,
    largest_stable,
    noise_floor,
    sampling_floor,
)
from simulator.probes.result import Probes

D = 6
RANDOM = np.random.default_rng(5)
ROTATION = np.linalg.qr(RANDOM.normal(size=(D, D)))[0]


def symmetric(values: Any) -> Tensor:
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(len(values), len(values))))[0]
    return torch.from_numpy(rotation @ np.diag(np.asarray(values, float)) @ rotation.T)


@pytest.mark.parametrize(
    "values",
    [[0.1, 0.5, 2.0, 3.0, 7.0], [-2.0, 0.0, 1.0, 4.0], [1.0, 1.0, 1.0, 5.0, 5.0], [0.0, 0.0, 0.0], [3.0]],
    ids=str,
)
def test_lanczos_finds_all_eigenvalues_with_their_multiplicity(values: list[float]) -> None:
    matrix = symmetric(values)
    found = lanczos(lambda v: matrix @ v, len(values))
    np.testing.assert_allclose(found.values, sorted(values), atol=1e-12)
    assert found.is_whole
    np.testing.assert_allclose(found.residuals, 0.0, atol=1e-12)
    for vector, value in ((found.lowest, min(values)), (found.highest, max(values))):
        assert float(torch.linalg.vector_norm(vector)) == pytest.approx(1.0)
        assert float(torch.linalg.vector_norm(matrix @ vector - value * vector)) < 1e-12


def test_ends_of_a_large_spectrum_are_found_in_few_products_within_their_residuals() -> None:
    values = np.concatenate([[-1.0], np.linspace(0.0, 1.0, 400), [9.0]])
    matrix, count = torch.from_numpy(values), 0

    def product(v: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return matrix * v

    found = lanczos(product, len(values), steps=60, tolerance=1e-9)
    assert count < 60
    assert len(found.values) == count
    for place, value in ((0, -1.0), (-1, 9.0)):
        assert abs(found.values[place] - value) <= found.residuals[place] + 1e-12
        assert found.residuals[place] < 1e-7
    short = lanczos(lambda v: matrix * v, len(values), steps=6)
    assert abs(short.values[0] + 1.0) <= short.residuals[0]
    assert short.residuals[0] > 1e-3


@pytest.mark.parametrize("steps", [2, 5, 12, 40])
def test_bounds_of_the_inverse_form_hold_and_close(steps: int) -> None:
    values = np.linspace(0.5, 9.0, 40)
    matrix, start = torch.from_numpy(values), torch.from_numpy(np.random.default_rng(steps).normal(size=40))
    found = lanczos(lambda v: matrix * v, 40, steps=steps, start=start, ends=(0, 40))
    b = start.numpy() / np.linalg.norm(start.numpy())
    low, high = found.inverse_form(0.45)
    exact = float((b**2 / values).sum())
    assert low <= exact * (1 + 1e-12)
    assert exact <= high * (1 + 1e-12)
    assert (high - low < 1e-9) == (steps == 40)


def probed(tmp_path: Path, data: Any, *, round_index: int = 0, repeats: int = 4, **tables: Any) -> Probes:
    table: dict[str, Any] = {
        "local": {"optimizer": "sgd", "batch_size": "full", "local_lr": 0.1, "local_steps": 3},
        "algorithm": {"kind": "fedavg"},
        "convergence": {"stop": "never"},
        "evaluation": {"baselines": False},
        "engine": {"kind": "plain", "workers": 1},
        "run": {"rounds": 1, "seed": 4, "dtype": "float64"},
    }
    for name, section in tables.items():
        table[name] = {**table.get(name, {}), **section}
    run = fs.simulate(table, data=data, out=tmp_path / "run")
    return fs.probe(run.path, round=round_index, data=data, parts=("curvature",), repeats=repeats)


BOWL = {"model": {"kind": "quadratic", "start": [1.0] * D}}


def test_curvature_of_quadratics_is_the_spectrum_of_the_mean_hessian(tmp_path: Path) -> None:
    halves = RANDOM.normal(size=(4, D, D))
    hessians, p = halves @ halves.transpose(0, 2, 1) + 0.2 * np.eye(D), np.array([1, 2, 3, 4]) / 10
    data = fs.quadratics(hessians, RANDOM.normal(size=(4, D)), weights=[1, 2, 3, 4])
    found = probed(tmp_path, data, local={"l2": 0.3}, **BOWL).curvature
    assert found is not None
    values, vectors = np.linalg.eigh(np.einsum("k,kij->ij", p, hessians))
    np.testing.assert_allclose(found.values, values + 0.3, rtol=1e-9)
    assert found.is_whole
    assert found.largest.value == pytest.approx(values[-1] + 0.3, rel=1e-9)
    assert found.smallest.value == pytest.approx(values[0] + 0.3, rel=1e-9)
    along = np.einsum("i,kij,j->k", vectors[:, -1], hessians, vectors[:, -1])
    assert found.steepest_client == pytest.approx(along.max() + 0.3, rel=1e-5)
    assert not found.is_negative


def classes(k: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng((6, k))
    y = random.integers(0, 3, size=(9, 5, 14)[k])
    return random.normal(size=(len(y), 4)) + y[:, None] * 0.4, y


def test_curvature_of_a_softmax_is_that_of_its_dense_hessian(tmp_path: Path) -> None:
    """The closed form of cross-entropy: the mean of (diag p - p p') x [x, 1][x, 1]', with p the predictions."""
    data = fs.custom_population(classes, [9, 5, 14], outputs=3, dtype=torch.float64)
    found = probed(tmp_path, data, round_index=1, model={"kind": "softmax"}, run={"keep_parameters_every": 1})
    bent = found.curvature
    assert bent is not None
    named = fs.open_run(tmp_path / "run").parameters(1)
    weight, bias = (next(v for v in named.values() if v.dim() == dims).numpy() for dims in (2, 1))
    x = np.concatenate([classes(k)[0] for k in range(3)])
    logits = x @ weight.T + bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    inputs = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    middle = np.einsum("ni,ij->nij", p, np.eye(3)) - np.einsum("ni,nj->nij", p, p)
    dense = np.einsum("nij,na,nb->iajb", middle, inputs, inputs).reshape(15, 15) / len(x)
    values = np.linalg.eigvalsh(dense)
    assert bent.is_whole
    np.testing.assert_allclose(bent.values, values, atol=1e-9 * values[-1])
    assert not bent.is_negative
    assert found.theory is not None
    assert found.theory.limit == pytest.approx(2 / values[-1], rel=1e-9)
    assert found.theory.contraction is None
    assert "smallest curvature is 0 within rounding" in " ".join(found.theory.failures)


def test_negative_curvature_is_seen_and_said(tmp_path: Path) -> None:
    """A product of two weights has a saddle at 0: the Hessian of (1 - a b)^2 / 2 there has the eigenvalues -1 and 1."""

    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return (self.a * self.b * 0.5**0.5).expand(len(x), 1)

    y = np.full((4, 1), 0.5**0.5)
    data = fs.custom_population(lambda k: (np.zeros((4, 1)), y), [4, 4], task="regression", outputs=1,
                                dtype=torch.float64)  # fmt: skip
    table = {"run": {"rounds": 1, "dtype": "float64"}, "engine": {"kind": "plain", "workers": 1},
             "local": {"local_steps": 1}, "evaluation": {"baselines": False}}  # fmt: skip
    run = fs.simulate(table, model=Product, data=data, out=tmp_path / "run")
    found = fs.probe(run.path, round=0, model=Product, data=data, parts=("curvature",))
    assert found.curvature is not None
    np.testing.assert_allclose(found.curvature.values, [-1.0, 1.0], atol=1e-12)
    assert found.curvature.is_negative
    assert found.theory is not None
    assert found.theory.failures[0].startswith("Negative curvature was seen (-1)")


def test_dissimilarity_is_its_definition() -> None:
    gradients, weights = torch.tensor([[3.0, 1.0], [0.0, -1.0], [1.0, 1.0]]).double(), np.array([1.0, 2.0, 1.0])
    found = dissimilarity(gradients, weights, seed=1)
    p, g = weights / 4, gradients.numpy()
    mean = p @ g
    assert found.between.value == pytest.approx(p @ ((g - mean) ** 2).sum(1), rel=1e-14)
    assert found.ratio.value == pytest.approx(p @ (g**2).sum(1) / (mean @ mean), rel=1e-14)
    assert found.gradient_square == pytest.approx(mean @ mean, rel=1e-14)
    same = dissimilarity(gradients[[0, 0, 0]], weights, seed=1)
    assert (same.between.value, same.between.error, same.ratio.value) == (0.0, 0.0, 1.0)


def test_bootstrap_error_of_dissimilarity_is_the_deviation_over_draws_of_clients() -> None:
    random = np.random.default_rng(8)
    drawn = [torch.from_numpy(random.normal(size=(60, 2)) + 2.0) for _ in range(300)]
    found = [dissimilarity(rows, np.ones(60), seed=3).between for rows in drawn]
    spread = np.std([one.value for one in found])
    assert np.mean([one.error for one in found]) == pytest.approx(spread, rel=0.15)


def test_noise_within_clients_is_unbiased_with_its_jackknife_error() -> None:
    random, weights = torch.Generator().manual_seed(3), np.array([1.0, 3.0])
    scale = torch.tensor([1.0, 2.0]).double()[:, None]
    found = [within_clients(scale * torch.randn(4, 2, 5, generator=random, dtype=torch.float64), weights)[0]
             for _ in range(600)]  # fmt: skip
    exact = (1 * 5 + 3 * 4 * 5) / 4
    values = np.array([one.value for one in found])
    assert values.mean() == pytest.approx(exact, abs=4 * values.std() / np.sqrt(600))
    # The jackknife's variance is too large on average, never too small (Efron and Stein 1981).
    assert 1.0 < np.mean([one.error**2 for one in found]) / values.var() < 2.0


def stationary(work: Work, h: float, added: float) -> float:
    """Return h / 2 times the fixed point of v <- factor^2 v + added, by iteration."""
    factor, v = 1 - work.server_lr * (1 - (1 - work.lr * h) ** work.steps), 0.0
    for _ in range(5000):
        v = factor**2 * v + added
    return 0.5 * h * v


@pytest.mark.parametrize("server_lr", [1.0, 0.6])
@pytest.mark.parametrize("h", [0.2, 1.5, 9.0])
def test_floors_are_the_fixed_points_of_their_recursions(h: float, server_lr: float) -> None:
    work, sigma2, zeta2, m = Work(0.1, 4, server_lr), 0.7, 1.3, 3
    a = 1 - work.lr * h
    per_round = server_lr**2 * work.lr**2 * sigma2 / m * sum(a ** (2 * j) for j in range(work.steps))
    floor = noise_floor(work, sigma2 / m, h, h)
    assert floor.low == floor.high == pytest.approx(stationary(work, h, per_round), rel=1e-9)
    moved = server_lr * work.lr * sum(a**j for j in range(work.steps))
    floor = sampling_floor(work, zeta2, h, h)
    assert floor.low == floor.high == pytest.approx(stationary(work, h, moved**2 * zeta2), rel=1e-9)
    if server_lr == 1.0:
        assert noise_floor(work, sigma2 / m, h, h).low == pytest.approx(work.lr * sigma2 / (2 * m * (2 - work.lr * h)))


def test_ranges_of_floors_and_factors_hold_every_eigenvalue_between_their_ends() -> None:
    work = Work(0.15, 5, 0.9)
    whole = noise_floor(work, 1.0, 0.1, 9.0), sampling_floor(work, 1.0, 0.1, 9.0)
    factor, bounds = contraction(work, 0.1, 9.0), factors(work, 0.1, 9.0)
    assert factors(Work(0.15, 1, 0.9), 0.1, 9.0).low == 0.0  # 1 - 0.9 x 0.15 h changes its sign
    for h in np.geomspace(0.1, 9.0, 57):
        ones = noise_floor(work, 1.0, h, h), sampling_floor(work, 1.0, h, h)
        for one, both in zip(ones, whole, strict=True):
            assert both.low <= one.low * (1 + 1e-3)
            assert one.high <= both.high * (1 + 1e-3)
        assert bounds.low <= abs(1 - 0.9 * (1 - (1 - 0.15 * h) ** 5)) <= factor + 1e-12
    assert largest_stable(9.0) == pytest.approx(2 / 9)
    assert Range(1.0, 2.0) + Range(0.5, 0.5) == Range(1.5, 2.5)


def test_predicted_factor_and_floor_are_those_of_a_run_on_quadratics(tmp_path: Path) -> None:
    """One Hessian, noise of deviation s a step: the run's gap falls by factor^2 a round, and stays at the floor."""
    hessian, s, clients = np.diag([1.0, 4.0]), 0.4, 20
    centres = RANDOM.normal(size=(clients, 2))
    data = fs.quadratics([hessian] * clients, centres)
    tables: dict[str, Any] = {"model": {"kind": "quadratic", "start": [30.0, 0.0]}, "algorithm": {"cohort": 5},
                              "run": {"rounds": 1500}, "local": {"gradient_noise": s}}  # fmt: skip
    found = probed(tmp_path, data, repeats=20, **tables)
    theory, gradients = found.theory, found.gradients
    assert theory is not None
    assert gradients is not None
    assert theory.failures == ()
    assert theory.contraction == pytest.approx(0.9**3, rel=1e-9)
    assert theory.factors is not None
    assert (theory.factors.low, theory.factors.high) == pytest.approx((0.6**3, 0.9**3), rel=1e-9)
    assert gradients.noise.value == pytest.approx(2 * s**2, abs=4 * gradients.noise.error)
    spread = ((hessian @ (centres - centres.mean(0)).T) ** 2).sum(0).mean()
    assert gradients.between.between.value == pytest.approx(spread, rel=1e-9)
    assert gradients.sampled == pytest.approx(spread * (clients - 5) / (5 * (clients - 1)), rel=1e-9)
    gap = fs.open_run(tmp_path / "run").rounds["optimality_gap"]
    assert theory.gap is not None
    assert (theory.gap.low, theory.gap.high) == pytest.approx((gap[0], gap[0]), rel=1e-9)
    assert (gap[3] / gap[0]) ** (1 / 6) == pytest.approx(theory.contraction, rel=0.05)
    assert theory.floor is not None
    level = gap[200:].mean()
    error = 4 * gap[200:].std() / np.sqrt(len(gap[200:]) / 10)
    assert theory.floor.low - error < level < theory.floor.high + error
    assert theory.floor.high < 2.5 * theory.floor.low


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"local": {"optimizer": "adam"}}, "'adam' is adaptive"),
        ({"local": {"optimizer": "momentum"}}, "'momentum' has momentum"),
        ({"local": {"clip_norm": 1.0}}, "Gradients are clipped"),
        ({"local": {"local_lr": 0.9}}, "at or above 2 / L = 0.5"),
        ({"local": {"local_steps": [1, 2, 3]}}, "1 to 3 local steps"),
        ({"algorithm": {"kind": "fedadam"}}, "The algorithm is 'fedadam'"),
        ({"algorithm": {"kind": "scaffold"}}, "The algorithm is 'scaffold'"),
    ],
    ids=str,
)
def test_assumption_that_fails_is_named_and_nothing_is_predicted(
    tables: dict[str, Any], words: str, tmp_path: Path
) -> None:
    data = fs.quadratics([[1.0, 4.0]] * 3, [0.0, 1.0, 2.0])
    found = probed(tmp_path, data, model={"kind": "quadratic", "start": [1.0, 1.0]}, **tables).theory
    assert found is not None
    assert any(words in sentence for sentence in found.failures), found.failures
    assert found.contraction is None
    assert found.floor is None
    if tables.get("local", {}).get("optimizer") == "adam":  # 2 / L is no limit of its steps
        assert found.limit is found.steepest_limit is None
    else:
        assert found.limit == pytest.approx(0.5, rel=1e-9)
