"""What the record measures of a round, by closed forms on quadratics in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from federations import quadratics

from server.algorithms.aggregation import Aggregation
from server.algorithms.options import FedAvgOptions, FedNovaOptions, FedProxOptions

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
