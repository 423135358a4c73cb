"""Findings of Li et al. 2020 (MLSys) on small versions of their synthetic federations, with paired seeds.

30 devices of 60 features and 10 classes, softmax regression, batch 10, 10 devices a round at 0.01, as theirs. All
sizes are 60 where they draw log-normal sizes, and there are fewer rounds, except in the slow test.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from federations import Federation, engine_options
from paired import low

from clients.core.examples import Examples
from clients.models.options import SoftmaxOptions
from clients.sources.options import SyntheticOptions
from clients.training.options import LocalOptions
from clients.training.work import CohortWork
from server.algorithms.options import FedAvgOptions, FedProxOptions
from server.dispersion.measures import gradient_dissimilarity
from simulator.runs.baselines import train_pooled
from simulator.scenario.sections import EvaluationOptions, RunOptions, Scenario

SETTINGS = {"iid": None, "(0, 0)": 0.0, "(0.5, 0.5)": 0.5, "(1, 1)": 1.0}
SEEDS = (1, 2, 3, 4)
ROUNDS = 15
FEDAVG = FedAvgOptions(cohort=10)


def federation(setting, algorithm, seed, *, epochs=3, stragglers=0.0, sizes=60):
    spread = SETTINGS[setting]
    data = SyntheticOptions(iid=True, sizes=sizes) if spread is None else SyntheticOptions(
        alpha=spread, beta=spread, sizes=sizes)  # fmt: skip
    return Federation(
        Scenario(
            data=data,
            model=SoftmaxOptions(initialisation="xavier"),
            local=LocalOptions(local_lr=0.01, batch_size=10, local_epochs=epochs, partial_work=stragglers),
            algorithm=algorithm,
            engine=engine_options(),
            evaluation=EvaluationOptions(federated_every=0),
            run=RunOptions(seed=seed),
        )
    )


def train_losses(played, path):
    """Return the loss of each model of a path on all training examples."""
    population, evaluator = played.session.population, played.session.evaluator
    data = population.cohort(np.arange(population.num_clients))
    losses = []
    for params in path:
        evaluator.load(params, played.state.buffers)
        losses.append(evaluator.central(Examples(data.features, data.targets)).loss)
    return np.array(losses)


def dissimilarity(played, params):
    """Return their metric at a model: the unweighted mean of |grad F_k - grad f|^2 over all devices."""
    everyone = np.arange(played.session.population.num_clients)
    work = CohortWork(round_index=1, clients=everyone, params=params, buffers=played.state.buffers)
    sizes = played.session.population.sizes.astype(np.float64)
    return gradient_dissimilarity(played.session.engine.gradients(work), sizes).gradient_dissimilarity


@cache
def fedavg(setting, seed):
    """Play FedAvg; return how far its training loss ends above pooled training's at equal work, and the dissimilarity
    and the loss along the way."""
    played = federation(setting, FEDAVG, seed)
    path = played.step(ROUNDS)
    pooled, _ = train_pooled(played.session.task, rounds=ROUNDS, cohort=10)
    losses = train_losses(played, [*path, pooled])
    return losses[-2] - losses[-1], [dissimilarity(played, w) for w in path[::5]], losses[:-1:5]


def test_heterogeneity_worsens_convergence():
    """iid < (0, 0) < (0.5, 0.5) < (1, 1), by the loss above that of pooled training at equal work."""
    excess = {s: np.array([fedavg(s, seed)[0] for seed in SEEDS]) for s in SETTINGS}
    for better, worse in zip(list(SETTINGS), list(SETTINGS)[1:], strict=False):
        assert low(excess[worse] - excess[better]) > 0, (better, worse)
    assert excess["iid"].max() < 0.1


def test_dissimilarity_orders_the_settings_and_tracks_the_loss():
    found = {s: [fedavg(s, seed) for seed in SEEDS] for s in SETTINGS}
    for better, worse in zip(list(SETTINGS), list(SETTINGS)[1:], strict=False):
        assert low(np.log(w[1][0] / b[1][0]) for w, b in zip(found[worse], found[better], strict=True)) > 0
    for setting, runs in found.items():
        assert np.mean([np.corrcoef(d, loss)[0, 1] for _, d, loss in runs]) > 0.8, setting


def test_large_mu_slows_iid_data():
    slower = []
    for seed in SEEDS:
        prox = federation("iid", FedProxOptions(cohort=10, mu=1.0), seed)
        avg = federation("iid", FEDAVG, seed)
        slower.append(train_losses(prox, prox.step(ROUNDS)[-1:])[0] - train_losses(avg, avg.step(ROUNDS)[-1:])[0])
    assert low(slower) > 0


def last_losses(setting, algorithm, seed, rounds, **more):
    played = federation(setting, algorithm, seed, **more)
    return train_losses(played, played.step(rounds)[-10:]).mean()


def test_partial_work_helps():
    """At 90% stragglers on (1, 1): averaging their partial work (FedProx, any mu) beats dropping them (FedAvg)."""
    gains = {mu: [] for mu in (0.0, 1.0)}
    for seed in SEEDS:
        dropped = FedAvgOptions(cohort=10, partial_work="drop")
        fedavg_loss = last_losses("(1, 1)", dropped, seed, 10, epochs=10, stragglers=0.9)
        for mu, gain in gains.items():
            prox = FedProxOptions(cohort=10, mu=mu)
            gain.append(fedavg_loss - last_losses("(1, 1)", prox, seed, 10, epochs=10, stragglers=0.9))
    assert all(low(gain) > 0 for gain in gains.values())


@pytest.mark.slow
def test_mu_helps_heterogeneous_data_and_slows_iid():
    """Their own sizes, E = 10, 50 rounds, without and with 90% stragglers (minutes).

    `python -m pytest -m slow tests/theory/test_fedprox_orderings.py`
    """
    plain, proximal = FedProxOptions(cohort=10, mu=0.0), FedProxOptions(cohort=10, mu=1.0)
    for setting, sign in (("iid", -1.0), ("(1, 1)", 1.0)):
        for stragglers in (0.0, 0.9):
            gains = []
            for seed in SEEDS:
                base, prox = (
                    last_losses(setting, a, seed, 50, epochs=10, stragglers=stragglers, sizes="lognormal")
                    for a in (plain, proximal)
                )
                gains.append(np.log(base / prox))
            assert low(sign * np.array(gains)) > 0, (setting, stragglers, gains)
