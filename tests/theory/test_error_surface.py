"""The error surface against closed forms: quadratics, local maps, barriers, eigenvalues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federations import engine_options
from torch import nn

import fedscape as fs
from clients.core.numbers.lanczos import lanczos
from clients.core.parameters import parameter_layout
from clients.models.options import ParameterVectorOptions
from clients.sources.options import QuadraticOptions
from clients.training.options import LocalOptions
from server.algorithms.options import FedAvgOptions
from server.convergence.monitor import ConvergenceOptions
from simulator.scenario.sections import EvaluationOptions, RunOptions, Scenario
from simulator.surface.lines import Line, barrier_of
from simulator.surface.planes import plane_through, principal_plane, random_plane, share_of_variance

RANDOM = np.random.default_rng(11)
K, D, ETA, TAUS, WEIGHTS = 3, 4, 0.1, (1, 3, 6), (1, 2, 5)
P = np.array(WEIGHTS) / sum(WEIGHTS)
HALVES = RANDOM.normal(size=(K, D, D))
HESSIANS = HALVES @ HALVES.transpose(0, 2, 1) / D + 0.3 * np.eye(D)
CENTRES = RANDOM.normal(size=(K, D))


def tuples(values: np.ndarray) -> Any:
    return tuple(tuples(v) for v in values) if values.ndim else float(values)


def quadratic(
    d: int = D, rounds: int = 12, *, steps: Any = TAUS, eta: float = ETA, l1: float = 0.0, l2: float = 0.0
) -> Scenario:
    """Return clients with the first d coordinates of the quadratics, weighed by examples."""
    return Scenario(
        data=QuadraticOptions(curvatures=tuples(HESSIANS[:, :d, :d]), centres=tuples(CENTRES[:, :d]), weights=WEIGHTS),
        model=ParameterVectorOptions(start=tuples(np.arange(1.0, d + 1))),
        local=LocalOptions(optimizer="gd", local_lr=eta, local_steps=steps, l1=l1, l2=l2),
        algorithm=FedAvgOptions(weighting="examples"),
        evaluation=EvaluationOptions(federated_every=0),
        convergence=ConvergenceOptions(stop="never"),
        engine=engine_options("stacked"),
        run=RunOptions(rounds=rounds, dtype="float64", seed=2, keep_parameters_every=max(1, rounds // 12)),
    )


def f(w: np.ndarray, *, l1: float = 0.0, l2: float = 0.0) -> float:
    """Return sum p_k F_k and penalties at w [d], in closed form."""
    d = len(w)
    away = w - CENTRES[:, :d]
    each = 0.5 * np.einsum("ki,kij,kj->k", away, HESSIANS[:, :d, :d], away)
    return float(P @ each + l1 * np.abs(w).sum() + 0.5 * l2 * w @ w)


def places_of(found: fs.Surface) -> np.ndarray:
    """Return the parameters of all models of a surface, [size, size, P]."""
    x, y = np.meshgrid(found.x, found.y)
    return found.directions.points(np.stack([x.ravel(), y.ravel()], axis=1)).numpy().reshape(*x.shape, -1)


@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.0), (0.07, 0.4)])
@pytest.mark.parametrize("plane", ["path", "clients", "random", [0, 3, "last"]])
def test_surface_of_quadratics_is_their_objective(plane: Any, l1: float, l2: float, tmp_path: Path) -> None:
    run = fs.simulate(quadratic(l1=l1, l2=l2), out=tmp_path / "run")
    found = fs.surface(run, plane, size=7)
    expected = [[f(w, l1=l1, l2=l2) for w in row] for row in places_of(found)]
    np.testing.assert_allclose(found.loss, expected, rtol=0, atol=1e-10)
    path = [f(run.parameters(r)["w"].numpy(), l1=l1, l2=l2) for r in range(13)]
    np.testing.assert_allclose(found.server.loss, path, rtol=0, atol=1e-10)


def test_surface_about_the_optimum_is_the_quadratic_of_the_hessian(tmp_path: Path) -> None:
    hessian = np.einsum("k,kij->ij", P, HESSIANS)
    optimum = np.linalg.solve(hessian, np.einsum("k,kij,kj->i", P, HESSIANS, CENTRES))
    found = fs.surface(fs.simulate(quadratic(rounds=240, steps=1, eta=0.4), out=tmp_path / "run"), size=9)
    axes = found.directions.axes.numpy()
    np.testing.assert_allclose(found.directions.origin.numpy(), optimum, atol=1e-10)
    bent = axes @ hessian @ axes.T
    x, y = np.meshgrid(found.x, found.y)
    height = 0.5 * (bent[0, 0] * x**2 + 2 * bent[0, 1] * x * y + bent[1, 1] * y**2)
    np.testing.assert_allclose(found.loss - f(optimum), height, rtol=0, atol=1e-10)


def test_plane_of_a_path_in_two_dimensions_holds_all_of_it(tmp_path: Path) -> None:
    run = fs.simulate(quadratic(2), out=tmp_path / "run")
    found = fs.surface(run, size=5)
    assert found.share == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(found.server.away, 0.0, atol=1e-12)
    back = found.directions.points(found.server.places).numpy()
    np.testing.assert_allclose(back, [run.parameters(r)["w"].numpy() for r in range(13)], atol=1e-12)
    assert fs.surface(fs.simulate(quadratic(4), out=tmp_path / "four"), size=3).share < 1 - 1e-6


def test_ends_of_clients_are_the_local_maps_of_the_round(tmp_path: Path) -> None:
    """A client of curvature H takes tau steps from w to w* + (I - eta H)^tau (w - w*)."""
    run = fs.simulate(quadratic(), out=tmp_path / "run")
    for round_index in (1, 5, 12):
        found = fs.surface(run, "clients", size=3, round=round_index)
        before = run.parameters(round_index - 1)["w"].numpy()
        steps = [np.linalg.matrix_power(np.eye(D) - ETA * h, tau) for h, tau in zip(HESSIANS, TAUS, strict=True)]
        ends = np.stack([c + step @ (before - c) for c, step in zip(CENTRES, steps, strict=True)])
        assert found.ends is not None
        assert found.start is not None
        assert found.ends.numbers.tolist() == [0, 1, 2]
        places, away = found.directions.project(torch.from_numpy(ends))
        np.testing.assert_allclose(found.ends.places, places, atol=1e-12)
        np.testing.assert_allclose(found.ends.away, away, atol=1e-12)
        np.testing.assert_allclose(found.ends.loss, [f(end) for end in ends], atol=1e-12)
        np.testing.assert_allclose(found.start, 0.0, atol=1e-12)
        np.testing.assert_allclose(found.directions.origin.numpy(), before, atol=1e-12)


def test_two_clients_lie_in_their_plane(tmp_path: Path) -> None:
    scenario = quadratic()
    two = Scenario(
        data=QuadraticOptions(curvatures=tuples(HESSIANS[:2]), centres=tuples(CENTRES[:2])),
        model=scenario.model, local=LocalOptions(optimizer="gd", local_lr=ETA, local_steps=5),
        algorithm=scenario.algorithm, evaluation=scenario.evaluation, convergence=scenario.convergence,
        engine=scenario.engine, run=scenario.run,
    )  # fmt: skip
    found = fs.surface(fs.simulate(two, out=tmp_path / "run"), "clients", size=3, round=4)
    assert found.ends is not None
    np.testing.assert_allclose(found.ends.away, 0.0, atol=1e-12)
    assert np.linalg.norm(found.ends.places, axis=1).min() > 0.01


def test_convex_line_has_no_barrier(tmp_path: Path) -> None:
    found = fs.surface(fs.simulate(quadratic(), out=tmp_path / "run"), size=3, line=("first", "last")).line
    assert found is not None
    assert found.barrier == 0.0
    assert found.loss[0] == pytest.approx(f(np.arange(1.0, D + 1)), abs=1e-10)
    assert (np.diff(found.loss, 2) > 0).all()


class Bumps(nn.Module):
    """(x^2 - 1)^2 + y^2: two modes at x = -1 and 1, with a barrier of height 1 between them."""

    def __init__(self) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor([2.0, 1.0], dtype=torch.float64))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features[:, 0] * ((self.at[0] ** 2 - 1) ** 2 + self.at[1] ** 2)


def test_two_modes_have_a_barrier_between_them(tmp_path: Path) -> None:
    data = fs.custom_population(lambda k: (np.ones((1, 1)), np.zeros(1)), [1, 1], outputs=1, task="objective",
                                dtype=torch.float64)  # fmt: skip
    scenario = fs.load_scenario(
        {
            "local": {"optimizer": "gd", "local_lr": 0.02},
            "algorithm": {"kind": "fedavg"},
            "convergence": {"stop": "never"},
            "run": {"rounds": 5, "dtype": "float64"},
        }
    )
    run = fs.simulate(scenario, model=Bumps(), data=data, out=tmp_path / "run")
    modes = [torch.tensor([x, 0.0], dtype=torch.float64) for x in (-1.0, 1.0)]
    above = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    found = fs.surface(run, [*modes, above], size=5, line=modes, model=Bumps(), data=data)
    assert found.line is not None
    assert found.line.barrier == pytest.approx(1.0, abs=1e-12)
    assert found.line.t[np.argmax(found.line.loss)] == 0.5
    assert found.line.distance == 2.0
    x, y = np.meshgrid(found.x - 1, found.y)  # the first axis leads from x = -1 to x = 1, the second is y
    np.testing.assert_allclose(found.loss, (x**2 - 1) ** 2 + y**2, atol=1e-12)


def test_barrier_is_measured_above_the_line_between_the_ends() -> None:
    t = np.linspace(0, 1, 5)
    assert barrier_of(t, 3 * t + 1) == pytest.approx(0.0, abs=1e-15)
    assert barrier_of(t, 3 * t + 1 + np.array([0, 0.5, 2, 0.1, 0])) == pytest.approx(2.0)
    assert barrier_of(t, 3 * t + 1 - np.array([0, 0.5, 2, 0.1, 0])) == 0.0
    assert np.isnan(barrier_of(t, np.array([0.0, np.inf, np.nan, 0.0, 1.0])))
    falling = Line(("A", "B"), t, 10 - 10 * t + np.array([0, 0, 0, 1.0, 0]), 1.0)
    assert str(falling) == "A to B: loss from 10 to 0, barrier 1 at t = 0.75"
    broken = Line(("A", "B"), t, np.array([1.0, 1.0, 1.0, 1.0, np.nan]), 1.0)
    assert str(broken) == "A to B: the loss of B is not finite"
    between = Line(("A", "B"), t, np.array([1.0, np.inf, 1.0, 1.0, 1.0]), 1.0)
    assert str(between) == "A to B: the loss between them is not finite"


def test_principal_plane_holds_the_largest_singular_values() -> None:
    states = torch.from_numpy(RANDOM.normal(size=(9, 6)) * np.array([5.0, 3.0, 1.0, 0.5, 0.2, 0.1]))
    layout = parameter_layout(nn.ParameterDict({"a": nn.Parameter(torch.zeros(2, 3))}))
    plane = principal_plane(states, states.mean(0), states[-1], layout, seed=0)
    values = torch.linalg.svdvals(states - states.mean(0)).square()
    assert share_of_variance(plane, states) == pytest.approx(float(values[:2].sum() / values.sum()), abs=1e-12)
    torch.testing.assert_close(plane.axes @ plane.axes.T, torch.eye(2, dtype=torch.float64))
    places = plane.project(states)[0]
    np.testing.assert_allclose(places[-1], 0.0, atol=1e-12)
    assert places[0, 0] < 0
    assert places[:, 1].sum() > 0


def test_plane_through_three_states_has_them_at_their_distances() -> None:
    a, b, c = torch.from_numpy(RANDOM.normal(size=(3, 5)))
    plane = plane_through(torch.stack([a, b, c]))
    places, away = plane.project(torch.stack([a, b, c]))
    np.testing.assert_allclose(away, 0.0, atol=1e-12)
    np.testing.assert_allclose(places[:2], [[0, 0], [float((b - a).norm()), 0]], atol=1e-12)
    assert np.linalg.norm(places[2]) == pytest.approx(float((c - a).norm()))
    assert places[2, 1] > 0


def test_random_directions_have_the_norms_of_the_filters() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(4, 2)).double()
    layout = parameter_layout(module)
    origin = layout.flatten({n: p.detach() for n, p in module.named_parameters()})
    plane = random_plane(origin, layout, seed=5)
    for axis in plane.axes:
        drawn, own = layout.views(axis), layout.views(origin)
        for name in ("0.weight", "2.weight"):
            norms = [one[name].flatten(1).norm(dim=1) for one in (drawn, own)]
            torch.testing.assert_close(*norms)
        assert not drawn["0.bias"].any()
        assert not drawn["2.bias"].any()
    assert abs(plane.axes[0] @ plane.axes[1]) < 0.9 * plane.axes[0].norm() * plane.axes[1].norm()
    assert torch.equal(random_plane(origin, layout, seed=5).axes, plane.axes)
    assert not torch.equal(random_plane(origin, layout, seed=6).axes, plane.axes)


def test_lanczos_finds_the_largest_eigenvalues_of_a_matrix() -> None:
    half = RANDOM.normal(size=(60, 60))
    matrix = torch.from_numpy(half + half.T)
    found = lanczos(lambda v: matrix @ v, 60, steps=60, ends=(0, 4), tolerance=1e-4, seed=1)
    exact = np.linalg.eigvalsh(matrix.numpy())
    np.testing.assert_allclose(found.values[-4:], exact[-4:], rtol=1e-6)
    assert (np.abs(found.values[-4:] - exact[-4:]) <= found.residuals[-4:] + 1e-9).all()
    assert found.values[0] == pytest.approx(exact[0], rel=1e-2)
    assert len(found.values) < 60


def test_eigenvalues_of_quadratics_are_those_of_their_hessian(tmp_path: Path) -> None:
    run = fs.simulate(quadratic(l2=0.25), out=tmp_path / "run")
    found = fs.surface(run, size=3, hessian=2).curvature
    exact = np.linalg.eigvalsh(np.einsum("k,kij->ij", P, HESSIANS) + 0.25 * np.eye(D))[::-1]
    assert list(found) == [0, 12]
    for one in found.values():
        np.testing.assert_allclose(one.values, exact, rtol=1e-9)
        assert one.smallest == pytest.approx(exact[-1], rel=1e-9)


def test_eigenvalues_of_a_softmax_are_those_of_its_dense_hessian(tmp_path: Path) -> None:
    x, labels = RANDOM.normal(size=(40, 3)), RANDOM.integers(0, 3, 40)
    data = fs.custom_population(
        lambda k: (x[20 * k : 20 * k + 20], labels[20 * k : 20 * k + 20]), [20, 20], outputs=3, dtype=torch.float64
    )
    scenario = fs.load_scenario(
        {
            "model": {"kind": "softmax"},
            "local": {"local_lr": 0.1, "local_epochs": 1, "batch_size": 10},
            "algorithm": {"kind": "fedavg"},
            "convergence": {"stop": "never"},
            "run": {"rounds": 3, "dtype": "float64"},
        }
    )
    run = fs.simulate(scenario, data=data, out=tmp_path / "run")
    found = fs.surface(run, size=3, hessian=1, data=data).curvature[3]
    features, targets = torch.from_numpy(x), torch.from_numpy(labels)

    def loss(w: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(features @ w[:9].view(3, 3).T + w[9:], targets)

    dense = torch.autograd.functional.hessian(loss, run.params)
    exact = torch.linalg.eigvalsh(dense).flip(0).numpy()
    np.testing.assert_allclose(found.values, exact[:5], rtol=1e-6)


@pytest.mark.parametrize("loss", ["squared_hinge", "cross_entropy"])
def test_eigenvalues_are_of_the_loss_that_the_run_trains_with(loss: str, tmp_path: Path) -> None:
    x, labels = RANDOM.normal(size=(40, 3)), RANDOM.integers(0, 3, 40)
    data = fs.custom_population(
        lambda k: (x[20 * k : 20 * k + 20], labels[20 * k : 20 * k + 20]), [20, 20], outputs=3, dtype=torch.float64
    )
    sets = {"model.kind": "softmax", "local.local_lr": 0.1, "local.local_epochs": 1, "local.loss": loss,
            "local.l2": 0.2, "algorithm.kind": "fedavg", "run.rounds": 2, "run.dtype": "float64"}  # fmt: skip
    run = fs.simulate(fs.load_scenario({}, sets=sets), data=data, out=tmp_path / "run")
    found = fs.surface(run, size=3, hessian=1, data=data).curvature[2]
    features, targets = torch.from_numpy(x), torch.from_numpy(labels)

    def of(w: torch.Tensor) -> torch.Tensor:
        scores = features @ w[:9].view(3, 3).T + w[9:]
        if loss == "cross_entropy":
            return nn.functional.cross_entropy(scores, targets)
        own = scores.gather(1, targets[:, None])
        best = scores.scatter(1, targets[:, None], -torch.inf).amax(1, keepdim=True)
        return (1.0 - own + best).clamp_min(0).square().mean()

    dense = torch.autograd.functional.hessian(of, run.params) + 0.2 * torch.eye(12, dtype=torch.float64)
    exact = torch.linalg.eigvalsh(dense).flip(0).numpy()
    np.testing.assert_allclose(found.values, exact[:5], rtol=1e-6)
    probed = fs.probe(run.path, round=2, data=data, parts=("curvature",)).curvature
    assert probed is not None
    np.testing.assert_allclose(probed.values, exact[::-1], rtol=1e-9)
