"""The Dirac-GAN with a linear loss: its rounds are linear maps with known eigenvalues (Mescheder et al. 2018).

With a = theta - mean(x_k), the field of both players is (psi, -a), a rotation. Simultaneous steps of length eta
multiply the distance from the equilibrium by sqrt(1 + eta^2); alternating ones have determinant 1; regularised ones
contract.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from federations import Federation, affine, engine_options, spectral_radius

import fedscape
from clients.core.errors import StrategyError, UserError
from clients.models.two_player.options import DiracGanOptions
from clients.sources.dirac import dirac_population
from clients.sources.options import DiracOptions
from clients.training.options import LocalOptions
from server.algorithms.options import FedAvgOptions, FedProxOptions, ScaffoldOptions
from simulator.scenario.sections import EvaluationOptions, RunOptions, Scenario

POINTS = (-1.0, 3.0, 4.0)
MEAN = np.mean(POINTS)
ETA = 0.2


def game(*, steps=1, engine="stacked", algorithm=None, points=POINTS, local=None, **model):
    return Federation(Scenario(
        data=DiracOptions(points=points),
        model=DiracGanOptions(**model),
        local=LocalOptions(**({"optimizer": "gd", "local_lr": ETA, "local_steps": steps} | (local or {}))),
        algorithm=algorithm or FedAvgOptions(weighting="uniform"),
        engine=engine_options(engine),
        evaluation=EvaluationOptions(federated_every=0),
        run=RunOptions(dtype="float64"),
    ))  # fmt: skip


def check_equilibrium(a, b):
    np.testing.assert_allclose(np.linalg.solve(np.eye(2) - a, b), [MEAN, 0.0], atol=1e-12)


@pytest.mark.parametrize("engine", ["plain", "stacked"])
def test_simultaneous_steps_spiral_outwards_by_the_root_of_one_plus_eta_squared(engine):
    steps = 3
    a, b = affine(game(steps=steps, engine=engine))
    np.testing.assert_allclose(a, np.linalg.matrix_power([[1.0, -ETA], [ETA, 1.0]], steps), atol=1e-14)
    assert spectral_radius(a) == pytest.approx((1 + ETA**2) ** (steps / 2), rel=1e-12)
    check_equilibrium(a, b)
    path = game(steps=steps, engine=engine, generator=5.0).step(20).numpy() - [MEAN, 0.0]
    away = np.hypot(*path.T)
    np.testing.assert_allclose(away, (5.0 - MEAN) * (1 + ETA**2) ** (steps * np.arange(1, 21) / 2), rtol=1e-12)


@pytest.mark.parametrize("engine", ["plain", "stacked"])
def test_alternating_steps_keep_on_a_closed_orbit(engine):
    """The discriminator moves first: psi+ = psi + eta a, a+ = a - eta psi+. Determinant 1, cos(angle) = 1 - eta^2/2.

    Each round keeps a^2 + psi^2 - eta a psi, an ellipse.
    """
    a, b = affine(game(steps=2, order="alternating", engine=engine))
    np.testing.assert_allclose(a, [[1 - ETA**2, -ETA], [ETA, 1.0]], atol=1e-14)
    values = np.linalg.eigvals(a)
    np.testing.assert_allclose(np.abs(values), 1.0, rtol=1e-12)
    np.testing.assert_allclose(np.cos(np.angle(values)), 1 - ETA**2 / 2, rtol=1e-12)
    check_equilibrium(a, b)
    x, psi = (game(steps=2, order="alternating", engine=engine, generator=5.0).step(500).numpy() - [MEAN, 0.0]).T
    np.testing.assert_allclose(x**2 + psi**2 + ETA * x * psi, (5.0 - MEAN) ** 2, rtol=1e-10)


def test_discriminator_takes_its_steps_before_the_generator():
    a, _ = affine(game(steps=3, order="alternating", discriminator_steps=2))
    np.testing.assert_allclose(a, [[1 - 2 * ETA**2, -ETA], [2 * ETA, 1.0]], atol=1e-14)
    ends, _ = affine(game(steps=2, order="alternating", discriminator_steps=2))
    np.testing.assert_allclose(ends, [[1.0, 0.0], [2 * ETA, 1.0]], atol=1e-14)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.0])
def test_r1_contracts_where_gamma_exceeds_eta(gamma):
    a, b = affine(game(regularisation="r1", gamma=gamma))
    np.testing.assert_allclose(a, [[1.0, -ETA], [ETA, 1 - ETA * gamma]], atol=1e-14)
    assert spectral_radius(a) == pytest.approx(np.sqrt(1 - ETA * gamma + ETA**2), rel=1e-12)
    assert (spectral_radius(a) < 1) == (gamma > ETA)
    check_equilibrium(a, b)


@pytest.mark.parametrize("gamma", [0.05, 0.5, 1.0])
def test_consensus_contracts_both_players(gamma):
    a, b = affine(game(regularisation="consensus", gamma=gamma))
    np.testing.assert_allclose(a, [[1 - ETA * gamma, -ETA], [ETA, 1 - ETA * gamma]], atol=1e-14)
    assert (spectral_radius(a) < 1) == ((1 - ETA * gamma) ** 2 + ETA**2 < 1)
    check_equilibrium(a, b)


def test_regularised_players_reach_the_mean_of_unlike_clients():
    found = game(steps=5, regularisation="r1", gamma=1.0, generator=5.0).step(300)[-1].numpy()
    np.testing.assert_allclose(found, [MEAN, 0.0], atol=1e-10)


@pytest.mark.parametrize("optimizer", ["momentum", "nesterov", "adam", "adagrad", "rmsprop"])
def test_player_out_of_turn_keeps_its_velocity(optimizer):
    """An optimiser counts the steps of each player by itself; both engines agree, also with l1's proximal step."""
    local = {"optimizer": optimizer, "l1": 0.01, "clip_norm": 1.0}
    found = [game(steps=7, order="alternating", discriminator_steps=2, generator=5.0, engine=engine, local=local,
                  algorithm=FedProxOptions(mu=0.3)).step(3).numpy() for engine in ("plain", "stacked")]  # fmt: skip
    np.testing.assert_allclose(found[0], found[1], rtol=1e-10)
    early = game(steps=2, order="alternating", discriminator_steps=2, generator=5.0, local=local,
                 algorithm=FedProxOptions(mu=0.3)).step(1)[-1].numpy()  # fmt: skip
    assert early[0] == pytest.approx(5.0, abs=1e-12), "the generator has not moved yet"
    assert abs(early[1]) > 0.01


def test_dimensions_do_not_mix():
    points = ((1.0, 0.0), (3.0, -2.0))
    federation = game(points=points, generator=(2.5, -1.0))
    assert federation.session.population.objective.optimum.tolist() == [2.0, -1.0, 0.0, 0.0]
    path = federation.step(4).numpy()
    np.testing.assert_allclose(path[:, [1, 3]] - [-1.0, 0.0], 0.0, atol=1e-14)  # already at its equilibrium
    assert (np.diff(np.hypot(path[:, 0] - 2.0, path[:, 2])) > 0).all()


def test_built_in_scenario_circles():
    """Five periods of 2 pi / angle rounds: the value changes its sign, and the distance neither falls nor grows."""
    run = fedscape.simulate("dirac-gan", record=False)
    assert run.verdict.outcome != "converged"
    away = run.rounds["distance_to_optimum"]
    np.testing.assert_allclose(run.rounds["optimality_gap"], away**2 / 2, atol=1e-12)
    assert 0.9 < away[1:].min() < away.max() < 1.1
    period = 2 * np.pi / np.arccos(1 - 0.1**2 / 2)
    signs = np.sign(run.rounds["train_loss"][1:])
    turns = np.flatnonzero(np.diff(signs))
    assert np.diff(turns).mean() == pytest.approx(period / 4, abs=1.0)  # V = psi a has twice the frequency


@pytest.mark.parametrize("optimizer", ["newton", "lbfgs"])
def test_second_order_optimizers_are_refused(optimizer):
    with pytest.raises(UserError, match="is a game of two players"):
        game(local={"optimizer": optimizer})


def test_control_variates_from_moves_are_refused_for_turns():
    federation = game(steps=2, order="alternating", algorithm=ScaffoldOptions(option=2))
    with pytest.raises(StrategyError, match="alternating"):
        federation.step(1)
    a, b = affine(game(steps=2, order="alternating", algorithm=ScaffoldOptions(option=1)))
    assert np.isfinite(a).all()
    assert np.isfinite(b).all()


def test_models_fit_their_own_data_alone():
    with pytest.raises(UserError, match="Data 'dirac' need the model 'dirac_gan', and only they do"):
        fedscape.simulate(fedscape.load_scenario("quadratic-two-clients", sets=["model.kind=dirac_gan"]), record=False)
    with pytest.raises(UserError, match="These data take: dirac_gan"):
        fedscape.simulate(fedscape.load_scenario("dirac-gan", sets=["model.kind=quadratic"]), record=False)


def test_points_of_unlike_dimensions_are_refused():
    with pytest.raises(UserError, match="must have one dimension"):
        game(points=((1.0, 2.0), (1.0, 2.0, 3.0)))


def test_drawn_points_depend_on_the_seed_and_the_client_alone():
    few, many = (dirac_population(DiracOptions(clients=n, dimension=3), seed=4) for n in (3, 9))
    clients = np.arange(3)
    assert torch.equal(few.cohort(clients).features[:3], many.cohort(clients).features[:3])
