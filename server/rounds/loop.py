"""The round loop: Flower's `Strategy.start` with hooks, early stop, measures and resume, for any Flower strategy."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from clients.core import streams
from clients.core.arrays import F64
from clients.core.errors import FedscapeError, StrategyError
from clients.flower.codec import Codec
from clients.flower.messages import ROUND
from clients.training.work import CohortUpdate
from server.convergence.facts import FACTS
from server.convergence.monitor import Assessment, ConvergenceMonitor
from server.convergence.outcome import RATE_EVERY, Trend
from server.convergence.verdict import Verdict
from server.rounds.observers import Observers
from server.rounds.round_metrics import Line, LocalRound, RoundMeter

BY_THE_CLOCK = ("wall_seconds", "clients_per_second", "finished_at")
"""Keys of a line that depend on when and where a run ran; two equal runs agree on all others."""


@dataclass(frozen=True)
class RoundState:
    """The model after a round: its vectors and the record that carries them. Round 0 is the initial model."""

    round_index: int
    params: Tensor
    buffers: Tensor
    arrays: ArrayRecord


class Keeper(Protocol):
    """Keeps what the clients remember and the checkpoint."""

    def commit(self, state: RoundState, local: LocalRound) -> None:
        """A round is over: its client states are the current ones; write a checkpoint when one is due."""

    def rollback(self) -> None:
        """A round was broken off: forget what its clients staged."""


@dataclass
class Experiment:
    """Everything the loop plays with.

    Attributes:
        strategy: any Flower strategy.
        grid: any Flower grid.
        codec: how models travel.
        meter: measures rounds.
        monitor: judges them.
        observers: are told of them.
        keeper: makes them last.
        rounds: the budget.
        seed: root seed.
        timeout: seconds to wait for replies; None waits for all.
        coefficients: weights of the updates in drift; None weighs by examples.
        foreign: whether the strategy draws from Python's and NumPy's global generators (Flower's own do).
        stop_asked: asked after each round; True interrupts the run there.
        trend: fits the rate into the record every few rounds; None leaves it out.
        totals: running sums of the record, so that a resumed run continues them.
    """

    strategy: Strategy
    grid: Grid
    codec: Codec
    meter: RoundMeter
    monitor: ConvergenceMonitor
    observers: Observers
    keeper: Keeper
    rounds: int
    seed: int
    timeout: float | None = None
    coefficients: Callable[[CohortUpdate], F64] | None = None
    foreign: bool = False
    stop_asked: Callable[[], bool] = lambda: False
    trend: Trend | None = None
    totals: dict[str, float] = field(default_factory=lambda: {"bytes_total": 0, "simulated_seconds_total": 0.0})


def run_rounds(x: Experiment, state: RoundState) -> tuple[RoundState, Verdict]:
    """Play rounds until a verdict: broadcast, local work, aggregation, server step, judgement.

    Args:
        x: the experiment.
        state: the model to start from; of round 0, or a checkpoint's.

    Returns:
        The last finite model and the verdict.

    Raises:
        StrategyError: every client of a round failed, or a user's strategy did.
    """
    for round_index in range(state.round_index + 1, x.rounds + 1):
        started = time.perf_counter()
        for happening in x.meter.happenings(round_index):
            x.observers.event({"round": round_index, **happening})
        try:
            with _addressed_randomness(x.seed, round_index) if x.foreign else nullcontext():
                with _asking(x, "configure_train"):
                    config = ConfigRecord({ROUND: round_index})
                    asked = _sequence(x.strategy.configure_train(round_index, state.arrays, config, x.grid))
                replies = _sequence(x.grid.send_and_receive(asked, timeout=x.timeout))
                local = x.meter.local(state.params, asked, replies, x.coefficients, round_index=round_index)
                _require_replies(asked, replies, local)
                with _asking(x, "aggregate_train"):
                    arrays, _ = x.strategy.aggregate_train(round_index, replies)
                _tell_losses(x, round_index, replies, local, arrays)
                new = _advance(x.codec, state, round_index, arrays)
                federated = _evaluate_clients(x, new)
        except BaseException:
            x.keeper.rollback()
            raise
        line = _line(x, round_index, local, new, state) | federated
        line["wall_seconds"] = time.perf_counter() - started
        line["clients_per_second"] = line["respondents"] / max(line["wall_seconds"], 1e-9)
        line["finished_at"] = time.time()
        assessment = judge(x, line)
        x.observers.round_finished(line)
        verdict = assessment.verdict
        if verdict is not None and verdict.outcome == "diverged" and not torch.isfinite(new.params).all():
            return state, verdict
        state = new
        x.keeper.commit(state, local)
        if verdict is not None:
            return state, verdict
        if x.stop_asked():
            return state, Verdict("interrupted", round_index, ("a stop was requested",))
    return state, x.monitor.stopped(state.round_index, x.rounds)


def facts_of(line: Line) -> dict[str, float | None]:
    """Return the facts that criteria look at, from a line of the record."""
    return {name: line.get(name) for name in FACTS}


def judge(x: Experiment, line: Line) -> Assessment:
    """Fold a round's line into the monitor, and write what it says into the line."""
    assessment = x.monitor.observe(line["round"], facts_of(line))
    line["criteria"] = {
        c.name: {"value": c.value, "threshold": c.threshold, "held": c.held_rounds, "needed": c.needed_rounds,
                 "holds": c.holds, "distance": c.distance, "first_held": c.first_held, "words": c.words}
        for c in assessment.criteria
    }  # fmt: skip
    if assessment.overfitting:
        line["overfitting"] = assessment.overfitting
    if x.trend is not None:
        x.trend.observe(line)
        if line["round"] and line["round"] % RATE_EVERY == 0:
            line |= x.trend.fit()
    return assessment


def initial_line(x: Experiment, state: RoundState) -> Line:
    """Measure and judge the model before the first round."""
    line: Line = {"round": 0, **x.meter.server(0, None, (state.params, state.buffers)), **x.totals}
    line["finished_at"] = time.time()
    judge(x, line)
    return line


def _line(x: Experiment, round_index: int, local: LocalRound, new: RoundState, old: RoundState) -> Line:
    after = x.meter.server(round_index, (old.params, old.buffers), (new.params, new.buffers))
    line: Line = {"round": round_index, **local.line, **after}
    line["pseudo_gradient_norm"] = line.get("aggregate_norm")
    x.totals["bytes_total"] += line["bytes_down"] + line["bytes_up"]
    x.totals["simulated_seconds_total"] += line["simulated_seconds"]
    return line | x.totals


def _advance(codec: Codec, state: RoundState, round_index: int, arrays: ArrayRecord | None) -> RoundState:
    """Return the state after a round; a strategy that returns no arrays leaves the model as it was."""
    if arrays is None:
        return RoundState(round_index, state.params, state.buffers, state.arrays)
    try:
        params, buffers = codec.decode(arrays)
    except ValueError as error:
        raise StrategyError("strategy", f"aggregated to arrays that are not the model's: {error}") from error
    return RoundState(round_index, params, buffers, arrays)


def _evaluate_clients(x: Experiment, new: RoundState) -> Line:
    with _asking(x, "configure_evaluate"):
        config = ConfigRecord({ROUND: new.round_index})
        asked = _sequence(x.strategy.configure_evaluate(new.round_index, new.arrays, config, x.grid))
    if not len(asked):
        return {}
    replies = _sequence(x.grid.send_and_receive(asked, timeout=x.timeout))
    line = x.meter.federated(replies)
    with _asking(x, "aggregate_evaluate"):
        x.strategy.aggregate_evaluate(new.round_index, replies)
    return line


def _require_replies(asked: Sequence[Message], replies: Sequence[Message], local: LocalRound) -> None:
    """Refuse a round in which every client failed (Flower calls that a success), or none had an example."""
    if len(asked) and local.line["respondents"] == 0:
        raise StrategyError("clients", f"all {len(asked)} clients of the round failed{_first_reason(replies)}",
                            fix="Mend the ClientApp; what was recorded is kept.")  # fmt: skip
    examples = local.columns.get("num_examples")
    if examples is not None and not examples.any():
        raise StrategyError("clients", f"all {len(examples)} respondents of the round say they have 0 examples",
                            fix="Return the number of training examples as the metric 'num-examples'.")  # fmt: skip


def _first_reason(replies: Sequence[Message]) -> str:
    reasons = [m.error.reason for m in replies if m.has_error()]
    return f"; the first said: {reasons[0]}" if reasons else "; none replied in time"


def _tell_losses(
    x: Experiment, round_index: int, replies: Sequence[Message], local: LocalRound, arrays: ArrayRecord | None
) -> None:
    """Announce what a round lost: clients that failed, or an aggregate that the strategy did not return."""
    failed, asked = local.line["failures"], local.line["cohort"]
    if failed:
        message = f"{failed} of {asked} clients failed{_first_reason(replies)}"
        x.observers.event({"round": round_index, "kind": "clients_failed", "message": message})
    if arrays is None and asked:
        message = f"{type(x.strategy).__name__} returned no arrays: the model stays as it was"
        x.observers.event({"round": round_index, "kind": "no_aggregate", "message": message})


@contextmanager
def _asking(x: Experiment, method: str) -> Iterator[None]:
    """Name the strategy and its method where a user's strategy raises."""
    try:
        yield
    except (FedscapeError, AssertionError):
        raise
    except Exception as error:
        if not x.foreign:
            raise
        said = f"{type(x.strategy).__name__}.{method} raised {type(error).__name__}: {error}"
        raise StrategyError("strategy", said) from error


def _sequence(messages: Iterable[Message]) -> Sequence[Message]:
    return messages if hasattr(messages, "__len__") else list(messages)  # type: ignore[return-value]


@contextmanager
def _addressed_randomness(seed: int, round_index: int) -> Iterator[None]:
    """Seed Python's and NumPy's global generators by address: Flower's strategies sample and draw noise from them."""
    held: tuple[Any, Any] = random.getstate(), np.random.get_state()  # noqa: NPY002 (Flower's generator)
    key = int(streams.keys(seed, "flower", round_index)) & 0xFFFFFFFF
    random.seed(key)
    np.random.seed(key)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(held[0])
        np.random.set_state(held[1])  # noqa: NPY002
