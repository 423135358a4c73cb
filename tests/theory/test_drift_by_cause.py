"""Drift by cause on quadratics, against recursions and sums over all outcomes written here, in float64."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedscape as fs
from clients.core.arrays import F64
from simulator.probes.formulas.cohort_law import (
    CohortLaw,
    by_cohorts,
    everyone,
    finite_correction,
    with_replacement,
    without_replacement,
)
from simulator.probes.formulas.error_by_cause import CAUSES, ShadowUpdates, split_error, with_errors
from simulator.probes.result import DriftByCause

K, D, LR, STEPS, COHORT = 5, 3, 0.07, 4, 2
RANDOM = np.random.default_rng(11)
HALVES = RANDOM.normal(size=(K, D, D))
HESSIANS = HALVES @ HALVES.transpose(0, 2, 1) / D + 0.3 * np.eye(D)
CENTRES = RANDOM.normal(size=(K, D))
COUNTS = (1, 4, 2, 5, 3)
START = (0.5, -1.0, 2.0)
CLOSE = {"rel": 1e-8, "abs": 1e-10}


def probed(tmp_path: Path, *, data: Any = None, round_index: int = 1, **tables: Any) -> tuple[DriftByCause, F64]:
    """Run a few rounds, and return drift by cause after one of them and the parameters there."""
    algorithm = {"kind": "fedavg", "weighting": "uniform", "cohort": COHORT, **tables.get("algorithm", {})}
    table = {
        "model": {"kind": "quadratic", "start": list(START)},
        "local": {"optimizer": "sgd", "batch_size": "full", "local_lr": LR, "local_steps": STEPS,
                  **tables.get("local", {})},
        "algorithm": algorithm,
        "convergence": {"stop": "never"},
        "engine": {"kind": "plain", "workers": 1},
        "run": {"rounds": 3, "seed": 4, "dtype": "float64", "keep_checkpoints_every": 1, "keep_parameters_every": 1},
    }  # fmt: skip
    data = fs.quadratics(HESSIANS, CENTRES, weights=COUNTS) if data is None else data
    run = fs.simulate(table, data=data, out=tmp_path / "run")
    found = fs.probe(run.path, round=round_index, data=data, parts=("drift_by_cause",), record=False,
                     repeats=tables.get("repeats", 4))  # fmt: skip
    assert found.drift_by_cause is not None, found.not_measured
    (w,) = fs.open_run(run.path).parameters(round_index).values()
    return found.drift_by_cause, w.numpy()


def walk(w: F64, hessian: F64, pull: F64, steps: int, *, momentum: float = 0.0, mu: float = 0.0) -> F64:
    """Return w minus the point after gradient steps on w' H w / 2 - pull' w, with momentum and a proximal term."""
    x, velocity = w.copy(), np.zeros_like(w)
    for _ in range(steps):
        velocity = momentum * velocity + (hessian @ x - pull + mu * (x - w))
        x = x - LR * velocity
    return w - x


def frozen(w: F64, gradient: F64, steps: int, *, momentum: float = 0.0, mu: float = 0.0) -> F64:
    """Return the same for steps along one constant gradient."""
    return walk(w, np.zeros((len(w), len(w))), -gradient, steps, momentum=momentum, mu=mu)


def brute(shadows: ShadowUpdates, cohorts: list[tuple[tuple[int, ...], F64]]) -> float:
    """Return E|U - I|^2 over equally likely cohorts, with their coefficients, and all outcomes of each client."""
    draws, ideal = shadows.draws.numpy(), shadows.ideal.numpy()
    outcomes = list(itertools.product(range(draws.shape[0]), repeat=draws.shape[1]))
    found = []
    for members, c in cohorts:
        for outcome in outcomes:
            update = sum(c[i] * draws[outcome[k], k] for i, k in enumerate(members))
            found.append(((update - ideal) ** 2).sum())
    return float(np.mean(found))


def made(clients: int = 4, outcomes: int = 2, seed: int = 1) -> ShadowUpdates:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(clients, 6, generator=random, dtype=torch.float64)
    draws = x + 0.5 * torch.randn(outcomes, clients, 6, generator=random, dtype=torch.float64)
    ideal, path = torch.randn(2, 6, generator=random, dtype=torch.float64)
    return ShadowUpdates(ideal, path, x, draws, is_complete=True)


def ratio(members: Any) -> F64:
    counts = np.array([3.0, 1.0, 7.0, 2.0])[list(members)]
    return counts / counts.sum()


def test_split_adds_up_to_the_expectation_over_all_cohorts_and_batches() -> None:
    shadows = made()
    law = by_cohorts(ratio, 4, 2, seed=0)
    found = split_error(shadows, law, ratio(range(4)))
    cohorts = [(members, ratio(members)) for members in itertools.combinations(range(4), 2)]
    assert law.drawn == 0
    assert found.total == pytest.approx(brute(shadows, cohorts), rel=1e-12)


def test_parts_are_the_mean_shifts_and_variances_of_their_definition() -> None:
    shadows, law = made(), without_replacement(np.full(4, 0.5), 2)
    full = np.full(4, 0.25)
    found = split_error(shadows, law, full)
    x, draws = shadows.full_batch.numpy(), shadows.draws.numpy()
    m, v = draws.mean(0), draws.var(0).sum(1)
    path, ideal = shadows.path.numpy(), shadows.ideal.numpy()
    between = ((m - m.mean(0)) ** 2).sum(1).mean()
    assert found.causes["local_steps"] == pytest.approx(((path - ideal) ** 2).sum(), rel=1e-12)
    assert found.causes["heterogeneity"] == pytest.approx(((full @ x - path) ** 2).sum(), rel=1e-12)
    assert found.causes["gradient_noise"] == pytest.approx(v.mean() / 2 + ((full @ (m - x)) ** 2).sum(), rel=1e-12)
    assert found.causes["client_sampling"] == pytest.approx((4 - 2) / (2 * (4 - 1)) * between, rel=1e-12)


def test_estimates_from_samples_of_batches_are_unbiased() -> None:
    """The mean over all samples of three draws, each equally likely, is the split over the outcomes themselves."""
    exact, law = made(clients=2), by_cohorts(lambda members: ratio(members), 2, 1, seed=0)
    full = ratio(range(2))
    picks = list(itertools.product(range(2), repeat=3))
    sums = dict.fromkeys((*CAUSES, "residual", "total"), 0.0)
    for one, other in itertools.product(picks, picks):
        draws = torch.stack([torch.stack([exact.draws[one[r], 0], exact.draws[other[r], 1]]) for r in range(3)])
        found = split_error(ShadowUpdates(exact.ideal, exact.path, exact.full_batch, draws), law, full)
        for name in CAUSES:
            sums[name] += found.causes[name] / len(picks) ** 2
        sums["residual"] += found.residual / len(picks) ** 2
        sums["total"] += found.total / len(picks) ** 2
    expected = split_error(exact, law, full)
    for name in CAUSES:
        assert sums[name] == pytest.approx(expected.causes[name], rel=1e-10), name
    assert sums["residual"] == pytest.approx(expected.residual, rel=1e-10)
    assert sums["total"] == pytest.approx(expected.total, rel=1e-10)


def test_laws_are_the_moments_over_all_cohorts() -> None:
    a = np.array([0.2, 0.5, 1.0, 0.3])
    listed = by_cohorts(lambda members: a[members], 4, 3, seed=0)
    closed = without_replacement(a, 3)
    np.testing.assert_allclose(closed.mean, listed.mean, rtol=1e-14)
    np.testing.assert_allclose(closed.second, listed.second, rtol=1e-14)
    p, size = np.array([0.5, 0.3, 0.2]), 3
    mean, second = np.zeros(3), np.zeros((3, 3))
    for drawn in itertools.product(range(3), repeat=size):
        c = np.bincount(drawn, minlength=3) / size
        mean += p[list(drawn)].prod() * c
        second += p[list(drawn)].prod() * np.outer(c, c)
    law = with_replacement(p, size)
    np.testing.assert_allclose(law.mean, mean, rtol=1e-14)
    np.testing.assert_allclose(law.second, second, rtol=1e-13)
    assert not everyone(a).covariance.any()


def test_drawn_cohorts_have_the_moments_of_the_law_within_their_error() -> None:
    a, clients = np.full(24, 0.25), 24
    drawn, exact = by_cohorts(lambda members: a[members], clients, 4, seed=3), without_replacement(a, 4)
    assert drawn.drawn == 4096
    np.testing.assert_allclose(drawn.mean, exact.mean, atol=5 * 0.1 / np.sqrt(4096))
    np.testing.assert_allclose(drawn.second, exact.second, atol=5 * 0.03 / np.sqrt(4096))


def test_correction_turns_the_variance_of_a_sample_into_that_of_the_population() -> None:
    """Simple random sampling: a cohort's mean has the variance s^2 (1/m - 1/N), with s^2 free of the sample's size."""
    values = RANDOM.normal(size=(12, 1))
    law = without_replacement(np.full(12, 0.25), 4)
    sampled = float((law.covariance * (values @ values.T)).sum())
    s2 = float(values.var(ddof=1))
    assert sampled == pytest.approx(s2 * (1 / 4 - 1 / 12), rel=1e-12)
    expected = s2 * 11 / 12 * (100 - 4) / (4 * 99)
    assert sampled * finite_correction(12, 100, 4) == pytest.approx(expected, rel=1e-12)


CASES: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "sgd": ({}, {}),
    "momentum": ({"local": {"optimizer": "momentum", "momentum": 0.6}}, {"momentum": 0.6}),
    "fedprox": ({"algorithm": {"kind": "fedprox", "mu": 0.8}}, {"mu": 0.8}),
}


@pytest.mark.parametrize("case", CASES)
def test_parts_of_quadratics_are_the_closed_form(case: str, tmp_path: Path) -> None:
    tables, constants = CASES[case]
    drift, w = probed(tmp_path, **tables)
    gradients = np.einsum("kij,kj->ki", HESSIANS, w - CENTRES)
    pulls = np.einsum("kij,kj->ki", HESSIANS, CENTRES)
    ideal = frozen(w, gradients.mean(0), STEPS, **constants)
    if case == "sgd":
        np.testing.assert_allclose(ideal, LR * STEPS * gradients.mean(0), rtol=1e-12)
    path = walk(w, HESSIANS.mean(0), pulls.mean(0), STEPS, **constants)
    x = np.stack([walk(w, HESSIANS[k], pulls[k], STEPS, **constants) for k in range(K)])
    sampled = (K - COHORT) / (COHORT * (K - 1)) * ((x - x.mean(0)) ** 2).sum(1).mean()
    assert drift.causes["local_steps"] == pytest.approx(((path - ideal) ** 2).sum(), **CLOSE)
    assert drift.causes["heterogeneity"] == pytest.approx(((x.mean(0) - path) ** 2).sum(), **CLOSE)
    assert drift.causes["gradient_noise"] == 0.0
    assert drift.causes["client_sampling"] == pytest.approx(sampled, **CLOSE)
    assert drift.residual == pytest.approx(2 * (path - ideal) @ (x.mean(0) - path), **CLOSE)
    cohorts = itertools.combinations(range(K), COHORT)
    total = np.mean([((x[list(s)].mean(0) - ideal) ** 2).sum() for s in cohorts])
    assert drift.total == pytest.approx(total, **CLOSE)
    assert drift.ideal_square == pytest.approx((ideal**2).sum(), **CLOSE)
    assert set(drift.errors.values()) == {0.0}


def test_mean_by_examples_has_the_bias_of_cohorts_in_client_sampling(tmp_path: Path) -> None:
    drift, w = probed(tmp_path, algorithm={"weighting": "examples"})
    n = np.array(COUNTS)
    x = np.stack([walk(w, HESSIANS[k], HESSIANS[k] @ CENTRES[k], STEPS) for k in range(K)])
    means = np.stack([n[list(s)] @ x[list(s)] / n[list(s)].sum() for s in itertools.combinations(range(K), COHORT)])
    bias = means.mean(0) - n @ x / n.sum()
    assert (bias**2).sum() > 1e-6
    expected = means.var(0).sum() + (bias**2).sum()
    assert drift.causes["client_sampling"] == pytest.approx(expected, **CLOSE)


def test_clients_drawn_by_examples_have_the_variance_of_independent_draws(tmp_path: Path) -> None:
    drift, w = probed(tmp_path, algorithm={"sampling": "by_examples"})
    p = np.array(COUNTS) / sum(COUNTS)
    x = np.stack([walk(w, HESSIANS[k], HESSIANS[k] @ CENTRES[k], STEPS) for k in range(K)])
    expected = (p @ (x**2).sum(1) - ((p @ x) ** 2).sum()) / COHORT
    assert drift.causes["client_sampling"] == pytest.approx(expected, **CLOSE)


def test_unequal_work_of_fednova_is_normalised(tmp_path: Path) -> None:
    """Its coefficients are tau_eff p_k / tau_k, and the ideal is lr tau_eff grad f (Wang et al. 2020, section 4)."""
    steps = (1, 3, 2, 6, 4)
    local = {"local_steps": list(steps)}
    drift, w = probed(tmp_path, local=local, algorithm={"kind": "fednova", "weighting": "examples", "cohort": K})
    p, tau = np.array(COUNTS) / sum(COUNTS), np.array(steps)
    q = (p @ tau) * p / tau
    pulls = np.einsum("kij,kj->ki", HESSIANS, CENTRES)
    gradient = p @ np.einsum("kij,kj->ki", HESSIANS, w - CENTRES)
    whole, pull = np.einsum("k,kij->ij", p, HESSIANS), p @ pulls
    path = sum(q[k] * walk(w, whole, pull, steps[k]) for k in range(K))
    x = sum(q[k] * walk(w, HESSIANS[k], pulls[k], steps[k]) for k in range(K))
    ideal = LR * (p @ tau) * gradient
    assert drift.ideal_square == pytest.approx((ideal**2).sum(), **CLOSE)
    assert drift.causes["local_steps"] == pytest.approx(((path - ideal) ** 2).sum(), **CLOSE)
    assert drift.causes["heterogeneity"] == pytest.approx(((x - path) ** 2).sum(), **CLOSE)


def test_scaffold_has_no_heterogeneity_at_the_optimum_where_fedavg_has(tmp_path: Path) -> None:
    """At w* with c_i = grad F_i(w*) corrected local steps are 0; FedAvg's clients leave for their own minimisers."""
    data = fs.quadratics(HESSIANS, CENTRES)
    assert data.objective is not None
    table = {"run": {"rounds": 400, "seed": 4, "dtype": "float64"},
             "model": {"kind": "quadratic", "start": list(START)},
             "local": {"optimizer": "gd", "local_lr": LR, "local_steps": STEPS}, "convergence": {"stop": "never"},
             "algorithm": {"kind": "scaffold"}, "engine": {"kind": "plain", "workers": 1}}  # fmt: skip
    run = fs.simulate(table, data=data, out=tmp_path / "scaffold")
    scaffold = fs.probe(run.path, data=data, parts=("drift_by_cause",)).drift_by_cause
    assert run.rounds["distance_to_optimum"][-1] < 1e-9
    fixed = {**table, "algorithm": {"kind": "fedavg"}, "run": {"rounds": 1, "seed": 4, "dtype": "float64"},
             "model": {"kind": "quadratic", "start": data.objective.optimum.tolist()}}  # fmt: skip
    other = fs.simulate(fixed, data=data, out=tmp_path / "fedavg")
    fedavg = fs.probe(other.path, round=0, data=data, parts=("drift_by_cause",)).drift_by_cause
    assert scaffold is not None
    assert fedavg is not None
    assert scaffold.causes["heterogeneity"] < 1e-16
    assert fedavg.causes["heterogeneity"] > 1e-4
    assert fedavg.causes["local_steps"] < 1e-16


def test_causes_that_are_off_are_zero(tmp_path: Path) -> None:
    everyone_here, _ = probed(tmp_path / "all", algorithm={"cohort": K})
    assert everyone_here.causes["client_sampling"] == 0.0
    assert min(everyone_here.causes["local_steps"], everyone_here.causes["heterogeneity"]) > 1e-6
    one_step, _ = probed(tmp_path / "one", local={"local_steps": 1})
    assert one_step.causes["local_steps"] < 1e-28
    assert one_step.causes["heterogeneity"] < 1e-28
    assert one_step.causes["client_sampling"] > 1e-6
    alike = fs.quadratics([HESSIANS[0]] * K, [CENTRES[0]] * K)
    same, _ = probed(tmp_path / "same", data=alike)
    assert same.causes["heterogeneity"] < 1e-28
    assert same.causes["client_sampling"] < 1e-28
    assert same.causes["local_steps"] > 1e-6
    assert same.causes["gradient_noise"] == 0.0


def test_gradient_noise_of_quadratics_has_the_variance_of_its_recursion(tmp_path: Path) -> None:
    """Noise s in each step: V = lr^2 s^2 sum_j tr (I - lr H)^(2 j), divided by m; its mean shift is 0."""
    alike, s, repeats = fs.quadratics([HESSIANS[0]] * K, [CENTRES[0]] * K), 0.3, 40
    drift, _ = probed(tmp_path, data=alike, local={"gradient_noise": s}, repeats=repeats)
    keeps = np.eye(D) - LR * HESSIANS[0]
    lone = LR**2 * s**2 * sum(np.trace(np.linalg.matrix_power(keeps, 2 * j)) for j in range(STEPS))
    error = drift.errors["gradient_noise"]
    assert 0 < error < 0.15 * lone / COHORT
    assert drift.causes["gradient_noise"] == pytest.approx(lone / COHORT, abs=4 * error)
    assert drift.causes["client_sampling"] == pytest.approx(0.0, abs=4 * drift.errors["client_sampling"])


def test_batches_of_one_have_the_closed_form_over_all_orders() -> None:
    """A client with centres a and b, batches of one, two steps: (w - x) takes two values, lr^2 h^2 |a - b| apart."""
    h, w, centres = 0.8, 1.5, np.array([[0.3, -0.9], [2.0, 1.1]])

    def end(order: tuple[float, float]) -> float:
        x = w
        for centre in order:
            x -= LR * h * (x - centre)
        return w - x

    draws = torch.tensor(
        [[[end((a, b))] for a, b in centres], [[end((b, a))] for a, b in centres]], dtype=torch.float64
    )
    full = torch.tensor([[end((c.mean(), c.mean()))] for c in centres], dtype=torch.float64)
    ideal = torch.zeros(1, dtype=torch.float64)
    law: CohortLaw = without_replacement(np.full(2, 1.0), 1)
    shadows = ShadowUpdates(ideal, ideal, full, draws, is_complete=True)
    found = with_errors(shadows, law, np.full(2, 0.5))
    apart = centres[:, 0] - centres[:, 1]
    expected = ((LR**2 * h**2 * apart / 2) ** 2).mean()
    assert found.causes["gradient_noise"] == pytest.approx(expected, rel=1e-10)
    assert found.errors["gradient_noise"] == 0.0
