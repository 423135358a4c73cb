"""Flower strategies that are unsupported, raise, or return nothing: refused or named, never a hang or a silent loss."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg, Strategy
from run_folders import digits

from clients.core.errors import StrategyError
from server.record.checked.line_files import read_rounds
from simulator.runs.run import simulate
from simulator.runs.strategies import StrategyChoice

EVERYONE = ("algorithm.cohort=", "run.rounds=3")


def fixed(inner: Strategy, clipping_norm: float) -> Strategy:
    return DifferentialPrivacyServerSideFixedClipping(inner, 0.0, clipping_norm, 4)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            FedAvg(min_available_nodes=9),
            "min_available_nodes = 9 is more than the 8 clients that can be sampled: Flower would wait for ever",
        ),
        (fixed(FedAvg(min_train_nodes=20), 1.0), "min_train_nodes = 20 is more than the 8 clients"),
        (
            FedAvg(fraction_train=3.0),
            "fraction_train = 3.0 must be a share of the clients, from 0 to 1: Flower would wait "
            "for 24 of 8 nodes for ever. fraction_train = 1.0 takes all of them.",
        ),
        (fixed(FedAvg(fraction_evaluate=1.5), 1.0), "fraction_evaluate = 1.5 must be a share of the clients"),
        (FedAvg(fraction_train=-0.5), "fraction_train = -0.5 must be a share"),
        (FedAvg(fraction_train=float("nan")), "fraction_train = nan must be a share"),
        (FedAvg(min_evaluate_nodes=8.5), "min_evaluate_nodes = 8.5 is more than the 8 clients"),  # type: ignore[arg-type]
        (lambda ours: "a word", "is a function that returned str, not a Flower Strategy"),
    ],
)
def test_unsupported_strategy_is_refused(strategy: StrategyChoice, message: str) -> None:
    with pytest.raises(StrategyError) as error:
        simulate(digits(*EVERYONE), strategy=strategy, record=False)
    assert message in str(error.value)


def test_wrapper_around_control_variates_is_refused() -> None:
    scenario = digits("algorithm.kind=scaffold", "algorithm.weighting=")
    with pytest.raises(StrategyError, match="wraps 'scaffold', whose clients return more than parameters"):
        simulate(scenario, strategy=lambda ours: fixed(ours, 1.0), record=False)
    assert simulate(scenario, strategy=lambda ours: ours, record=False).verdict.outcome == "stopped"


class Odd(FedAvg):
    """Calls the given function instead of aggregating."""

    def __init__(self, instead: Callable[[Sequence[Message]], ArrayRecord | None]) -> None:
        super().__init__()
        self._instead = instead

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        return self._instead(list(replies)), None


def test_strategy_that_raises_is_named() -> None:
    def fail(replies: Sequence[Message]) -> None:
        raise KeyError("lost")

    with pytest.raises(StrategyError, match=r"Odd.aggregate_train raised KeyError: 'lost'") as error:
        simulate(digits(*EVERYONE), strategy=Odd(fail), record=False)
    assert isinstance(error.value.__cause__, KeyError)
    wrong = ArrayRecord({"parameters": Array(np.zeros(3, np.float32))})
    with pytest.raises(StrategyError, match=r"to arrays that are not the model's: .*is float32 of shape \(3,\)"):
        simulate(digits(*EVERYONE), strategy=Odd(lambda replies: wrong), record=False)


class Listing(FedAvg):
    """A user's strategy that returns arrays as those of Flower's old API did, or keeps its state in a nested way."""

    def __init__(self, returned: object = None, state: object = None) -> None:
        super().__init__()
        self.returned, self.state = returned, state

    def aggregate_train(self, server_round: int, replies: Iterable[Message]):  # type: ignore[no-untyped-def]
        return self.returned or super().aggregate_train(server_round, replies)

    def state_dict(self) -> object:
        return self.state

    def load_state_dict(self, state: object) -> None:
        raise AssertionError


def test_strategy_that_returns_no_record_of_arrays_is_named() -> None:
    for returned, words in ((([np.zeros(3)], {}), r"\(list, ...\)"), ([np.zeros(3)], "list")):
        message = rf"Listing.aggregate_train must return \(ArrayRecord or None, metrics\), returned {words}"
        with pytest.raises(StrategyError, match=message):
            simulate(digits(*EVERYONE), strategy=Listing(returned), record=False)


def test_state_of_a_strategy_that_is_not_tensors_is_named(tmp_path: Path) -> None:
    for name, state, words in (("nested", {"m": {}}, "and 'm' is a dict"), ("list", [], "returned list")):
        with pytest.raises(StrategyError, match=rf"Listing.state_dict must return a dictionary of tensors, {words}"):
            simulate(digits(*EVERYONE), strategy=Listing(state=state), out=tmp_path / name)


def test_failures_are_logged_once_where_nothing_observes_the_run(caplog: pytest.LogCaptureFixture) -> None:
    simulate(digits(*EVERYONE, "evaluation.federated_every=10"), strategy=Odd(lambda replies: None), record=False)
    words = "fedscape: round 1: Odd returned no arrays: the model stays as it was."
    assert [record.getMessage() for record in caplog.records] == [words]


def test_strategy_without_arrays_leaves_the_model_and_makes_an_event(tmp_path: Path) -> None:
    run = simulate(digits(*EVERYONE), strategy=Odd(lambda replies: None), out=tmp_path / "run")
    assert torch.equal(run.params, run.session.start.params)
    events, _ = read_rounds(tmp_path / "run" / "events.jsonl")
    assert [(e["round"], e["kind"], e["message"]) for e in events] == [
        (r, "no_aggregate", "Odd returned no arrays: the model stays as it was") for r in (1, 2, 3)
    ]


class Silent(Strategy):
    """A user's strategy whose messages lack the round."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return [Message(RecordDict({"w": arrays}), node, "train") for node in grid.get_node_ids()]

    aggregate_train = FedAvg.aggregate_train
    configure_evaluate = FedAvg.configure_evaluate
    aggregate_evaluate = FedAvg.aggregate_evaluate

    def summary(self) -> None:
        """Nothing."""


def test_messages_without_the_round_are_refused() -> None:
    with pytest.raises(StrategyError, match="sends messages whose config has no 'server-round'"):
        simulate(digits(*EVERYONE), strategy=Silent(), record=False)


class Waiting(FedAvg):
    """Waits in round 2: as its argument says, or in Flower's own loop."""

    def __init__(self, wait: Callable[[Grid], object] | None = None) -> None:
        super().__init__()
        self._wait = wait

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        if server_round == 2 and self._wait is not None:
            self._wait(grid)
        elif server_round == 2:
            self.fraction_train = 3.0
        return super().configure_train(server_round, arrays, config, grid)


def polls_with_pauses(grid: Grid) -> None:
    while len(list(grid.get_node_ids())) < 9:
        time.sleep(0.02)


def polls_without_a_pause(grid: Grid) -> None:
    while len(list(grid.get_node_ids())) < 9:
        pass


def pulls(grid: Grid) -> None:
    while not grid.pull_messages(["never sent"]):
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("wait", "words"),
    [
        (None, "waits for ever in sample_nodes: it looked 4 times for 24 nodes and sent nothing, and this grid has 8"),
        (polls_with_pauses, "waits for ever in polls_with_pauses: it looked 31 times for nodes"),
        (polls_without_a_pause, "waits for ever in polls_without_a_pause: it looked 10,000 times for nodes"),
        (pulls, "waits for ever in pulls: it pulled 31 times for replies that do not exist"),
    ],
)
def test_strategy_that_waits_for_ever_is_refused(wait: Callable[[Grid], object] | None, words: str) -> None:
    with pytest.raises(StrategyError) as error:
        simulate(digits(*EVERYONE), strategy=Waiting(wait), record=False)
    assert words in str(error.value)


def slow_but_working(grid: Grid) -> None:
    """Look the nodes up for each client, wait at each as for a file, and then compute for long."""
    for k in range(8):
        assert list(grid.get_node_ids())[k]
        time.sleep(0.02)
    for _ in range(60):
        grid.get_node_ids()
        until = time.process_time() + 0.012
        while time.process_time() < until:
            pass


def test_slow_strategy_is_not_refused() -> None:
    assert simulate(digits(*EVERYONE), strategy=Waiting(slow_but_working), record=False).verdict.round_index == 3


def test_strategy_that_sends_nothing_makes_an_event(tmp_path: Path) -> None:
    simulate(digits(*EVERYONE), strategy=FedAvg(fraction_train=0.0), out=tmp_path / "run")
    events, _ = read_rounds(tmp_path / "run" / "events.jsonl")
    assert [(e["round"], e["kind"], e["message"]) for e in events] == [
        (r, "nothing_sent", "FedAvg sent no messages: no client trained") for r in (1, 2, 3)
    ]


class Proximal(FedAvg):
    """Sends a mu of its own to the clients."""

    def __init__(self, mu: object) -> None:
        super().__init__()
        self._mu = mu

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        config["proximal-mu"] = self._mu  # type: ignore[assignment]
        return super().configure_train(server_round, arrays, config, grid)


@pytest.mark.parametrize("mu", ["0.1", float("nan"), float("inf"), -0.1, True, [0.1]])
def test_proximal_mu_that_is_no_number_is_refused(mu: object) -> None:
    with pytest.raises(StrategyError, match=r"sends 'proximal-mu' = .*, which must be a finite number of at least 0"):
        simulate(digits(*EVERYONE), strategy=Proximal(mu), record=False)
    assert simulate(digits(*EVERYONE), strategy=Proximal(1), record=False).verdict.round_index == 3
