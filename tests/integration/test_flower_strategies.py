"""Flower's strategies on our grid, alone and as wrappers of ours, compared with NumPy on the clients' updates."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdam,
    FedAvg,
    FedTrimmedAvg,
    Krum,
    Strategy,
)
from run_folders import digits

from clients.core.arrays import F64
from clients.flower.messages import CohortMessages
from simulator.runs.run import Run, simulate

EVERYONE = ("algorithm.cohort=", "run.rounds=3")
N = 8


@dataclass
class Watched:
    """The input and the result of a strategy in a round."""

    before: F64
    clients: F64
    examples: F64
    after: F64 = field(default_factory=lambda: np.zeros(0))

    @property
    def weights(self) -> F64:
        return self.examples / self.examples.sum()

    @property
    def updates(self) -> F64:
        """Client minus server parameters (K, P)."""
        return self.clients - self.before

    def clipped_mean(self, clipping_norm: float) -> F64:
        norms = np.linalg.norm(self.updates, axis=1, keepdims=True)
        mean: F64 = self.weights @ (self.updates * np.minimum(1, clipping_norm / norms))
        return mean


class Watching(Strategy):
    """A wrapper, as a user might write one, that keeps the inputs and results of another strategy."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.rounds: list[Watched] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self._before = flat(arrays)
        return self.strategy.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        held = list(replies)
        clients = np.stack([flat(next(iter(m.content.array_records.values()))) for m in held])
        examples = np.array([float(m.content["metrics"]["num-examples"]) for m in held])  # type: ignore[arg-type]
        arrays, metrics = self.strategy.aggregate_train(server_round, held)
        assert arrays is not None
        self.rounds.append(Watched(self._before, clients, examples, flat(arrays)))
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        self.strategy.summary()


def flat(arrays: ArrayRecord) -> F64:
    return np.concatenate([np.asarray(a.numpy(), np.float64).ravel() for a in arrays.values()])


def watch(strategy: Strategy, *sets: str) -> tuple[Run, Watching]:
    watching = Watching(strategy)
    return simulate(digits(*EVERYONE, *sets), strategy=watching, record=False), watching


def watch_around(wrap: Callable[[Strategy], Strategy], *sets: str) -> tuple[Run, Watching]:
    """Run our own strategy inside a wrapper."""
    made: list[Watching] = []

    def wrapped(ours: Strategy) -> Strategy:
        made.append(Watching(wrap(ours)))
        return made[0]

    run = simulate(digits(*EVERYONE, *sets), strategy=wrapped, record=False)
    return run, made[0]


def far(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the distance of two parameter vectors, relative to the second."""
    return float(torch.linalg.vector_norm(one - other) / torch.linalg.vector_norm(other))


def assert_drift_is_measured(run: Run) -> None:
    for line in run.rounds.lines[1:]:
        assert line["respondents"] == N
        assert line["update_dispersion"] > 0
        assert 0 < line["cosine"]["mean"] < 1
        assert line["client_drift"]["mean"] > 0
        assert len(line["worst_client_drift"]) == 5
        assert line["train_loss"] > 0
        assert "not_measured" not in line


def test_stock_fedavg_equals_our_fedavg() -> None:
    ours = simulate(digits(*EVERYONE), record=False)
    run, watching = watch(FedAvg())
    assert far(run.params, ours.params) <= 1e-6
    assert len({int(e) for w in watching.rounds for e in w.examples}) > 1, "equal sizes would hide the weights"
    assert_drift_is_measured(run)
    for name in ("update_dispersion", "client_drift.mean", "validation_loss", "bytes_total", "simulated_seconds_total"):
        np.testing.assert_allclose(run.rounds[name], ours.rounds[name], rtol=1e-5, err_msg=name)
    evaluated = run.rounds["federated_loss"]  # Flower's evaluates every round, ours each third here
    assert evaluated[3] == pytest.approx(ours.rounds["federated_loss"][3], rel=1e-5)
    assert np.isfinite(evaluated[1:]).all()


def test_fedadam_matches_its_formula() -> None:
    run, watching = watch(FedAdam(eta=0.03, beta_1=0.8, beta_2=0.9, tau=0.01))
    m = v = np.zeros_like(watching.rounds[0].before)
    for t, w in enumerate(watching.rounds, start=1):
        delta = w.weights @ w.updates
        m, v = 0.8 * m + 0.2 * delta, 0.9 * v + 0.1 * delta**2
        rate = 0.03 * np.sqrt(1 - 0.9 ** (t + 1)) / (1 - 0.8 ** (t + 1))
        np.testing.assert_allclose(w.after - w.before, rate * m / (np.sqrt(v) + 0.01), rtol=1e-3, atol=1e-6)
    assert_drift_is_measured(run)


def test_fedtrimmedavg_matches_its_formula() -> None:
    """Flower's strategy removes arrays from the replies, so it gets copies."""
    run, watching = watch(FedTrimmedAvg(beta=0.25))
    for w in watching.rounds:
        expected = np.sort(w.clients, axis=0)[2:-2].mean(0)
        np.testing.assert_allclose(w.after, expected, rtol=1e-5, atol=1e-7)
        assert np.abs(w.after - w.weights @ w.clients).max() > 1e-3, "trimming has no effect here"
    assert_drift_is_measured(run)


def test_krum_takes_one_clients_parameters() -> None:
    run, watching = watch(Krum(num_malicious_nodes=2))
    for w in watching.rounds:
        squares = ((w.clients[:, None] - w.clients[None]) ** 2).sum(-1)
        nearest = np.sort(squares, axis=1)[:, 1 : 1 + N - 2 - 2].sum(1)
        np.testing.assert_allclose(w.after, w.clients[nearest.argmin()], rtol=1e-6)
    assert_drift_is_measured(run)


def fixed(inner: Strategy, clipping_norm: float, noise: float = 0.0, sampled: int = N) -> Strategy:
    return DifferentialPrivacyServerSideFixedClipping(inner, noise, clipping_norm, sampled)


def adaptive(inner: Strategy, clipping_norm: float, noise: float = 0.0) -> Strategy:
    return DifferentialPrivacyServerSideAdaptiveClipping(
        inner, noise, N, initial_clipping_norm=clipping_norm, target_clipped_quantile=0.3, clip_norm_lr=0.5
    )


AROUND: dict[str, Callable[[Callable[[Strategy], Strategy]], tuple[Run, Watching]]] = {
    "FedAvg": lambda wrap: watch(wrap(FedAvg())),
    "ours": lambda wrap: watch_around(wrap),
}


@pytest.mark.parametrize("around", AROUND)
def test_fixed_clipping_clips_each_update(around: str) -> None:
    run, watching = AROUND[around](lambda inner: fixed(inner, 0.3))
    for w in watching.rounds:
        assert (np.linalg.norm(w.updates, axis=1) > 0.3).any(), "nothing was clipped"
        np.testing.assert_allclose(w.after - w.before, w.clipped_mean(0.3), rtol=1e-3, atol=1e-7)
        assert np.linalg.norm(w.after - w.before) <= 0.3 * (1 + 1e-5)
    assert_drift_is_measured(run)


@pytest.mark.parametrize("around", AROUND)
def test_noise_of_fixed_clipping_is_gaussian_and_depends_on_the_seed(around: str) -> None:
    run, watching = AROUND[around](lambda inner: fixed(inner, 0.3, noise=2.0))
    again, _ = AROUND[around](lambda inner: fixed(inner, 0.3, noise=2.0))
    assert torch.equal(run.params, again.params)
    noise = np.stack([w.after - w.before - w.clipped_mean(0.3) for w in watching.rounds])
    assert noise.std() == pytest.approx(2.0 * 0.3 / N, rel=0.05)
    assert abs(noise.mean()) < 0.05 * noise.std()
    assert abs(np.corrcoef(noise)[0, 1]) < 0.1, "rounds share their noise"


@pytest.mark.parametrize("around", AROUND)
def test_adaptive_clipping_adapts_its_norm(around: str) -> None:
    run, watching = AROUND[around](lambda inner: adaptive(inner, 1.2))
    clipping_norm, clipped = 1.2, []
    for w in watching.rounds:
        np.testing.assert_allclose(w.after - w.before, w.clipped_mean(clipping_norm), rtol=1e-3, atol=1e-7)
        clipped.append(float((np.linalg.norm(w.updates, axis=1) > clipping_norm).mean()))
        clipping_norm *= np.exp(-0.5 * (clipped[-1] - 0.3))
    assert watching.strategy.clipping_norm == pytest.approx(clipping_norm)  # type: ignore[attr-defined]
    assert any(0 < share < 1 for share in clipped), "all or no updates are clipped, so the share tests little"
    assert_drift_is_measured(run)


STOCK: dict[str, Callable[[], Strategy]] = {
    "FedAdam": lambda: FedAdam(eta=0.03),
    "FedTrimmedAvg": lambda: FedTrimmedAvg(beta=0.25),
    "Krum": lambda: Krum(num_malicious_nodes=2),
}


@pytest.mark.parametrize("wrap", [fixed, adaptive])
@pytest.mark.parametrize("name", STOCK)
def test_clipping_wraps_other_flower_strategies(name: str, wrap: Callable[[Strategy, float], Strategy]) -> None:
    inner = Watching(STOCK[name]())
    run, outer = watch(wrap(inner, 1.0), "run.rounds=1")
    (given,), (returned,) = inner.rounds, outer.rounds
    norms = np.linalg.norm(returned.updates, axis=1, keepdims=True)
    assert (norms > 1.0).any()
    expected = returned.before + returned.updates * np.minimum(1, 1.0 / norms)
    np.testing.assert_allclose(given.clients, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(returned.after, given.after, rtol=1e-6)  # without noise
    assert_drift_is_measured(run)


def test_wrapper_that_clips_nothing_changes_nothing() -> None:
    """The row's cohorts, weights and server step stay the same."""
    sets = ("algorithm.kind=fedavgm", "algorithm.weighting=uniform", "run.rounds=4")
    ours = simulate(digits(*sets), record=False)
    run = simulate(digits(*sets), strategy=lambda inner: fixed(inner, 1e6, sampled=4), record=False)
    assert far(run.params, ours.params) <= 1e-6
    assert [line["cohort"] for line in run.rounds.lines[1:]] == [4] * 4
    np.testing.assert_allclose(run.rounds["update_dispersion"], ours.rounds["update_dispersion"], rtol=1e-5)


def test_server_momentum_works_on_clipped_updates() -> None:
    _, watching = watch_around(lambda ours: fixed(ours, 0.3), "algorithm.kind=fedavgm", "algorithm.server_momentum=0.5")
    velocity = np.zeros_like(watching.rounds[0].before)
    for w in watching.rounds:
        velocity = 0.5 * velocity + w.clipped_mean(0.3)
        np.testing.assert_allclose(w.after - w.before, velocity, rtol=1e-3, atol=1e-7)


class Rewriting(Watching):
    """Turns lazy messages into real ones, as Flower's accounting does, and adds to their config."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        sent = super().configure_train(server_round, arrays, config, grid)
        assert isinstance(sent, CohortMessages)
        messages = list(sent)
        for message in messages:
            message.content["extra"] = ConfigRecord({"budget": 1.0})
        return messages


def test_our_local_rule_survives_a_wrapper_that_makes_real_messages() -> None:
    prox = ("algorithm.kind=fedprox", "algorithm.mu=0.5")
    ours = simulate(digits(*prox), record=False)
    run = simulate(digits(*prox), strategy=Rewriting, record=False)
    without = simulate(digits("algorithm.kind=fedprox", "algorithm.mu=0"), record=False)
    assert far(run.params, ours.params) <= 1e-6
    assert far(run.params, without.params) >= 1e-2


def test_flowers_draws_use_our_seed_and_leave_global_generators_unchanged() -> None:
    def half() -> FedAvg:
        return FedAvg(fraction_train=0.5, fraction_evaluate=0.0)

    scenario = digits("run.rounds=3")
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    one = simulate(scenario, strategy=half(), record=False)
    assert random.random() == random.Random(1).random()
    assert np.random.random() == np.random.RandomState(1).random()  # noqa: NPY002
    random.seed(2)
    again = simulate(scenario, strategy=half(), record=False)
    other = simulate(scenario, strategy=half(), record=False, seed=8)
    assert torch.equal(one.params, again.params)
    assert far(other.params, one.params) > 0.1


def test_strategy_chooses_the_names_of_records() -> None:
    ours = simulate(digits(*EVERYONE), record=False)
    named = FedAvg(arrayrecord_key="weights", configrecord_key="settings")
    assert far(simulate(digits(*EVERYONE), strategy=named, record=False).params, ours.params) <= 1e-6
