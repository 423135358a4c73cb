"""What the record measures of a round, by closed forms on quadratics in float64."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from federations import Federation, engine_options, quadratics

from clients.models.options import ParameterVectorOptions
from clients.sources.options import QuadraticOptions
from clients.training.options import LocalOptions
from clients.training.path_measures import is_placed
from clients.training.schedule_options import ScheduleOptions
from server.algorithms.aggregation import Aggregation
from server.algorithms.build import local_for
from server.algorithms.options import (
    FedAvgOptions,
    FedDynOptions,
    FedNovaOptions,
    FedProxOptions,
    ScaffoldOptions,
)
from simulator.runs.baselines import weight_divergence
from simulator.runs.experiment import objective_notices
from simulator.scenario.sections import EvaluationOptions, RunOptions, Scenario

E, ETA, START = np.array([0.0, 1.0, 5.0]), 0.05, 10.0
TAU = (1, 10, 40)
WITHOUT_ONE = Aggregation("without client 1", lambda facts: np.array([0.5, 0.0, 0.5]))


def moves(tau, start=START, eta=ETA):
    """Return the pseudo-gradients of clients |x - e_k|^2 / 2 after tau_k steps of gradient descent."""
    return (1 - (1 - eta) ** np.array(tau)) * (start - E)


def one_round(algorithm, tau=TAU, weights=(), **more):
    federation = quadratics((1.0,) * 3, E, algorithm=algorithm, local_lr=ETA, local_steps=tau, start=START,
                            weights=weights, **more)  # fmt: skip
    federation.step()
    return federation


# The aggregate: what the server receives.


@pytest.mark.parametrize("tau", [(1, 1, 1), (1, 10, 40), (7, 2, 16)])
@pytest.mark.parametrize("engine", ["plain", "stacked"])
def test_pseudo_gradient_norm_of_fednova_has_its_closed_form(tau, engine):
    """The norm of tau_eff sum p_k d_k / tau_k, tau_eff = sum p_k tau_k: its coefficients do not sum to 1."""
    line = one_round(FedNovaOptions(weighting="uniform"), tau, engine=engine).result.line
    expected = np.mean(tau) * np.mean(moves(tau) / np.array(tau))
    assert line["pseudo_gradient_norm"] == pytest.approx(expected, rel=1e-13)
    assert line["by_layer"]["w"]["aggregate_norm"] == pytest.approx(expected, rel=1e-13)
    assert line["step_norm"] == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("keep_bytes", [1 << 30, 1])
def test_pseudo_gradient_norm_of_unbiased_weights_has_its_closed_form(keep_bytes):
    """Two of four clients, sum (N / K) p_k d_k: the coefficients sum to 2 (p_1 + p_2), also where rows are streamed."""
    sizes, centres = np.array([1, 2, 3, 10]), np.array([0.0, 1.0, 5.0, -3.0])
    federation = quadratics((1.0,) * 4, centres, algorithm=FedAvgOptions(weighting="unbiased", cohort=2), local_lr=ETA,
                            start=START, weights=sizes)  # fmt: skip
    options = replace(federation.session.scenario.engine, keep_bytes=keep_bytes)
    federation = type(federation)(replace(federation.session.scenario, engine=options))
    for _ in range(4):
        before = federation.params.item()
        federation.step()
        clients = federation.update.clients
        received = 4 / 2 * (sizes[clients] / 16) @ (ETA * (before - centres[clients]))
        assert federation.result.line["pseudo_gradient_norm"] == pytest.approx(abs(received), rel=1e-12)
        assert (federation.result.line["cosine"] is None) == (keep_bytes == 1)


@pytest.mark.parametrize("server_lr", [1.0, 0.3])
@pytest.mark.parametrize("algorithm", [FedAvgOptions, FedProxOptions, FedNovaOptions])
@pytest.mark.parametrize("weighting", ["examples", "uniform", "unbiased"])
def test_plain_server_moves_by_the_pseudo_gradient(algorithm, weighting, server_lr):
    federation = one_round(algorithm(weighting=weighting, server_lr=server_lr), weights=(1, 2, 5))
    line = federation.result.line
    assert line["step_norm"] == pytest.approx(server_lr * line["pseudo_gradient_norm"], rel=1e-12)
    squares = sum(part["aggregate_norm"] ** 2 for part in line["by_layer"].values())
    assert squares == pytest.approx(line["pseudo_gradient_norm"] ** 2, rel=1e-12)


def test_dropped_update_that_diverged_changes_no_measure_of_the_round():
    """Clients 0 and 2 do all their work, client 1 is left out; what it sends is nan."""
    federation = quadratics((1.0,) * 3, E, local_lr=ETA, start=START)
    federation.strategy.algorithm = replace(federation.strategy.algorithm, aggregation=WITHOUT_ONE)

    def line_of(value):
        def tamper(update):
            params = update.params.clone()
            params[1] = value
            return replace(update, params=params)

        federation.tampered(torch.tensor([START], dtype=torch.float64), tamper)
        return federation.result.line

    clean, found = line_of(9.0), line_of(float("nan"))
    spread = ETA * np.array([START - E[0], START - E[2]])
    assert found["update_dispersion"] == pytest.approx(spread.var(), rel=1e-12)
    assert found["distance"]["mean"] == pytest.approx(abs(spread[0] - spread[1]) / 2, rel=1e-12)
    for name in ("update_dispersion", "gradient_diversity", "aggregate_norm", "update_norm", "cosine", "distance",
                 "by_layer", "worst", "histograms"):  # fmt: skip
        assert found[name] == clean[name], name


# Client drift: (1 / S) sum of |x_s - x|^2 over the local steps s.


def squared_distances(steps, hessian, centre, start, eta, momentum=0.0, pull=0.0):
    """Return |x_s - x_0|^2 for s = 1, ..., steps of a client (x - centre)' H (x - centre) / 2, by the recursion."""
    x, velocity, found = np.array(start), np.zeros(len(start)), []
    for _ in range(steps):
        velocity = momentum * velocity + hessian @ (x - centre) + pull * (x - start)
        x = x - eta * velocity
        found.append(((x - start) ** 2).sum())
    return np.array(found)


@pytest.mark.parametrize("engine", ["plain", "stacked"])
@pytest.mark.parametrize("steps", range(1, 17))
def test_client_drift_has_its_closed_form_up_to_sixteen_steps(steps, engine):
    """x_s - x = (1 - (1 - eta)^s) (e - x), so the drift is (e - x)^2 times the mean of (1 - (1 - eta)^s)^2."""
    found = one_round(FedAvgOptions(), steps, engine=engine).update.client_drift
    path = (1 - (1 - ETA) ** np.arange(1, steps + 1)) ** 2
    np.testing.assert_allclose(found, (START - E) ** 2 * path.mean(), rtol=1e-13)


@pytest.mark.parametrize("engine", ["plain", "stacked"])
@pytest.mark.parametrize(
    ("algorithm", "local", "momentum", "pull"),
    [
        (FedAvgOptions(), {}, 0.0, 0.0),
        (FedProxOptions(mu=0.7), {}, 0.0, 0.7),
        (FedAvgOptions(), {"optimizer": "momentum", "momentum": 0.6, "batch_size": "full"}, 0.6, 0.0),
    ],
)
def test_client_drift_of_clients_with_unequal_steps_is_the_mean_over_their_own(
    engine, algorithm, local, momentum, pull
):
    """Every path of the engines, plain and corrected and with momentum, against the recursion."""
    rng = np.random.default_rng(5)
    roots = rng.normal(size=(5, 3, 3))
    hessians, centres = roots @ roots.transpose(0, 2, 1), rng.normal(size=(5, 3))
    hessians, taus, start = (hessians + hessians.transpose(0, 2, 1)) / 2, (16, 1, 7, 3, 12), (1.0, -2.0, 0.5)
    federation = quadratics(hessians, centres, algorithm=algorithm, local_lr=0.02, local_steps=taus, start=start,
                            engine=engine, **local)  # fmt: skip
    federation.step()
    expected = [
        squared_distances(t, h, c, start, 0.02, momentum, pull).mean()
        for t, h, c in zip(taus, hessians, centres, strict=True)
    ]
    np.testing.assert_allclose(federation.update.client_drift, expected, rtol=1e-12)


@pytest.mark.parametrize("engine", ["plain", "stacked"])
@pytest.mark.parametrize("steps", [17, 20, 33, 64, 100])
def test_client_drift_beyond_sixteen_steps_errs_within_its_bound(steps, engine):
    """Between two measured steps n apart the sum errs by (n^3 - n) / 12 times the largest second difference."""
    found = one_round(FedAvgOptions(), steps, engine=engine).update.client_drift
    exact = (1 - (1 - ETA) ** np.arange(steps + 1)) ** 2
    places = [s for s in range(1, steps + 1) if is_placed(s) or s == steps]
    interpolated = np.interp(np.arange(1, steps + 1), places, exact[places])
    np.testing.assert_allclose(found, (START - E) ** 2 * interpolated.mean(), rtol=1e-12)
    bend = np.abs(np.diff(exact, 2))
    bound = sum(((b - a) ** 3 - (b - a)) / 12 * bend[a - 1 : b].max() for a, b in itertools.pairwise(places)
                if b - a > 1)  # fmt: skip
    assert abs(interpolated.sum() - exact[1:].sum()) <= bound + 1e-12
    assert interpolated.mean() == pytest.approx(exact[1:].mean(), rel=0.05)


# The gradient is that of the objective that the run minimises: 0 at the algorithm's fixed point.

CURVED, SIZES = np.array([1.0, 3.0, 0.5]), (1, 2, 7)


def measured(algorithm, *, start=START, weights=SIZES, cohort=None, **local):
    """Return a federation of a_k (x - e_k)^2 / 2 that measures the gradient in each round."""
    options = LocalOptions(**{"optimizer": "gd", "local_lr": ETA, "local_steps": 1, "batch_size": "full"} | local)
    scenario = Scenario(
        data=QuadraticOptions(curvatures=tuple(CURVED), centres=tuple(E), weights=weights),
        model=ParameterVectorOptions(start=start),
        local=local_for(algorithm, options),
        algorithm=algorithm,
        engine=engine_options(),
        evaluation=EvaluationOptions(federated_every=0, gradient_every=1),
        run=RunOptions(dtype="float64"),
    )
    return Federation(scenario)


def minimiser(p, l2=0.0, l1=0.0):
    """Return the minimiser of sum p_k a_k (x - e_k)^2 / 2 + l2 x^2 / 2 + l1 |x|, which is >= 0 here."""
    return max(0.0, (p @ (CURVED * E) - l1) / (p @ CURVED + l2))


BY_EXAMPLES, ALIKE = np.array(SIZES) / 10, np.full(3, 1 / 3)


@pytest.mark.parametrize(
    ("algorithm", "local", "p", "penalty"),
    [
        (FedAvgOptions(), {}, BY_EXAMPLES, {}),
        (FedAvgOptions(weighting="unbiased"), {}, BY_EXAMPLES, {}),
        (FedAvgOptions(weighting="uniform"), {}, ALIKE, {}),
        (FedNovaOptions(weighting="uniform"), {}, ALIKE, {}),
        (FedProxOptions(mu=0.5), {}, BY_EXAMPLES, {}),
        (ScaffoldOptions(), {"local_steps": 5}, ALIKE, {}),
        (ScaffoldOptions(sampling="by_examples", cohort=2), {"local_steps": 5, "local_lr": 0.05}, ALIKE, {}),
        (FedDynOptions(alpha=1.0), {"local_steps": 40}, ALIKE, {}),
        (FedAvgOptions(), {"l2": 0.3}, BY_EXAMPLES, {"l2": 0.3}),
        (FedAvgOptions(), {"decoupled_weight_decay": 0.3}, BY_EXAMPLES, {"l2": 0.3}),
        (ScaffoldOptions(), {"l2": 0.3, "local_steps": 5}, ALIKE, {"l2": 0.3}),
        (FedAvgOptions(), {"l1": 0.4}, BY_EXAMPLES, {"l1": 0.4}),
        (FedAvgOptions(weighting="uniform"), {"l1": 0.4, "l2": 0.3}, ALIKE, {"l1": 0.4, "l2": 0.3}),
    ],
)
def test_gradient_norm_is_zero_at_the_fixed_point_of_the_algorithm(algorithm, local, p, penalty):
    federation = measured(algorithm, **{"local_lr": 0.2} | local)
    federation.step(150)
    line = federation.result.line
    assert federation.params.item() == pytest.approx(minimiser(p, **penalty), abs=1e-9)
    assert line["gradient_norm"] == pytest.approx(0.0, abs=1e-8)
    slopes = CURVED * (minimiser(p, **penalty) - E)
    assert line["gradient_dissimilarity"] == pytest.approx(((slopes - p @ slopes) ** 2).mean(), rel=1e-7)


def test_gradient_norm_has_its_closed_form_away_from_the_fixed_point():
    federation = measured(FedAvgOptions(weighting="uniform"), l1=0.4, l2=0.3, start=(10.0,))
    federation.step()
    x = federation.params.item()
    slopes = CURVED * (x - E)
    line = federation.result.line
    assert line["gradient_norm"] == pytest.approx(slopes.mean() + 0.4 + 0.3 * x, rel=1e-12)
    assert line["gradient_dissimilarity"] == pytest.approx(slopes.var(), rel=1e-12)


def test_gradient_is_zero_at_a_minimiser_at_zero_and_grows_beyond_the_kink():
    """At x = 0 the slope is -sum p_k a_k e_k: an l1 above it makes 0 the minimiser, a lower one does not."""
    pull = BY_EXAMPLES @ (CURVED * E)
    for l1, expected in ((pull + 0.1, 0.0), (pull - 0.1, 0.1)):
        federation = measured(FedAvgOptions(), l1=l1, start=0.0)
        found = federation.experiment.model_metrics.measure(None, federation.state)
        assert found.line["gradient_norm"] == pytest.approx(expected, abs=1e-12)


def test_clients_drawn_by_examples_and_weighed_alike_minimise_the_mean_by_examples():
    federation = measured(FedAvgOptions(sampling="by_examples", cohort=2, weighting="uniform"),
                          start=minimiser(BY_EXAMPLES), local_lr=1e-18)  # fmt: skip
    federation.step()
    assert federation.result.line["gradient_norm"] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("algorithm", "local", "weights", "words"),
    [
        (FedAvgOptions(), {}, SIZES, ""),
        (ScaffoldOptions(), {}, (2, 2, 2), ""),
        (ScaffoldOptions(), {}, SIZES, "weighs clients otherwise than the data do"),
        (FedAvgOptions(), {"l2": 0.1}, SIZES, "has a penalty"),
    ],
)
def test_run_states_where_its_objective_is_not_that_of_the_data(algorithm, local, weights, words):
    notices = objective_notices(measured(algorithm, weights=weights, **local).session)
    assert len(notices) == bool(words)
    assert all(words in n and "optimality_gap" in n and "gradient_norm" in n for n in notices)


# The size of a round's step, the distance from pooled training, and the rounds of a schedule.


@pytest.mark.parametrize("start", [START, -3.0, 0.0])
def test_relative_change_is_over_the_norm_before_the_round(start):
    """One client at e = 5, x = start: the step is eta (5 - x). From x = 0 there is no relative change."""
    federation = quadratics((1.0,), E[2:], local_lr=ETA, start=start)
    for before in (start, 5.0 + (1 - ETA) * (start - 5.0)):
        federation.step()
        line, step = federation.result.line, ETA * abs(5.0 - before)
        assert line["step_norm"] == pytest.approx(step, rel=1e-12)
        assert line["relative_change"] == (pytest.approx(step / abs(before), rel=1e-12) if before else None)


def test_weight_divergence_is_over_the_norm_of_pooled_training():
    found = weight_divergence(torch.tensor([3.0, 0.0]), torch.tensor([0.0, -2.0]))
    assert found == pytest.approx(13**0.5 / 2)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (ScheduleOptions(kind="step", factor=0.5, every=2), (1, 1, 1 / 2, 1 / 2, 1 / 4)),
        (ScheduleOptions(kind="step", factor=0.5, at=(2, 3)), (1, 1, 1 / 2, 1 / 4, 1 / 4)),
        (ScheduleOptions(kind="inverse_time", decay=1.0), (1, 1 / 2, 1 / 3, 1 / 4, 1 / 5)),
        (ScheduleOptions(kind="cosine", rounds=5), (1, (2 + 2**0.5) / 4, 1 / 2, (2 - 2**0.5) / 4, 0)),
        (ScheduleOptions(warmup_rounds=3), (1 / 4, 1 / 2, 3 / 4, 1, 1)),
    ],
)
@pytest.mark.parametrize("engine", ["plain", "stacked"])
def test_schedule_acts_in_the_round_that_it_names(schedule, factors, engine):
    """One client x^2 / 2, one step a round: x becomes (1 - eta factor) x in rounds 1 to 5."""
    federation = quadratics((1.0,), (0.0,), local_lr=ETA, start=START, schedule=schedule, engine=engine)
    np.testing.assert_allclose(federation.step(5)[:, 0], START * np.cumprod(1 - ETA * np.array(factors)), rtol=1e-13)
