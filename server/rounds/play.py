"""One round, as a function of the server's state."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from torch import Tensor

from clients.core import streams
from clients.core.arrays import Array
from clients.core.errors import FedscapeError, StrategyError
from clients.core.shown.text import excerpt
from clients.core.user_code import described, is_of_users_code, naming
from clients.flower.decoding import Check, DecodedReplies, state_losses
from clients.flower.messages import ROUND, CohortMessages, CohortReplies, node_is_gone
from server.algorithms.state import ServerState
from server.convergence.facts import NO_AGGREGATE
from server.nodes.copies import CopiedMessages
from server.nodes.evaluations import evaluation_events, sift
from server.record.jsonlines import Line
from server.rounds.cohort_metrics import CohortMetrics, Replies, measure_cohort
from server.rounds.cohort_sum import CohortResult, sum_by_examples
from server.rounds.evaluation_metrics import evaluation_of, measure_evaluation, score_columns
from server.rounds.experiment import Experiment, RoundInterrupted


@dataclass(frozen=True)
class RoundResult:
    """What was measured in a round.

    Attributes:
        line: for the record; `Judge` adds what depends on earlier rounds.
        columns: one value for each client, by name of the column.
        predicted: predictions of the new model on the probe examples; None without them.
        events: failures that did not end the run.
        total: the sum of the updates; None without updates.
        scores: one value for each client that evaluated the new model, by name of the column; empty where none did.
        hashes: a hash of each client's update, by client; empty unless the certificate has them.
    """

    line: Line
    columns: dict[str, Array]
    predicted: Tensor | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    total: CohortResult | None = None
    scores: dict[str, Array] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)


def play_round(experiment: Experiment, state: ServerState) -> tuple[ServerState, RoundResult]:
    """Play the round after `state`: broadcast, local work, aggregation, server step, evaluation.

    With fedscape's own strategy the result depends only on `experiment`, `state` and the client states.

    Raises:
        StrategyError: every client of the round failed, or a user's strategy did.
    """
    round_index, strategy = state.round_index + 1, experiment.strategy
    if experiment.own is not None:
        experiment.own.state, experiment.own.sent = state, None
    arrays = record_of(experiment, state)
    with _addressed_randomness(experiment.seed, round_index) if experiment.is_foreign else nullcontext():
        with _naming(experiment, "configure_train"):
            made = strategy.configure_train(round_index, arrays, ConfigRecord({ROUND: round_index}), experiment.grid)
            sent = _copies_of_ours(experiment, _sequence(made))
            _require_ours(experiment, sent)
        with _naming_algorithm(experiment, "aggregation"):
            replies = _receive(experiment, sent)
            total = _total(experiment, state, replies)
        local = measure_cohort(
            sent,
            replies,
            total,
            population=experiment.population.during(round_index),
            codec=experiment.codec,
            clock=experiment.clock,
        )
        _require_replies(experiment, sent, replies, local)
        hashes = _hashes(experiment, total)
        with _naming(experiment, "aggregate_train"):
            given = replies.used if experiment.is_foreign and isinstance(replies, DecodedReplies) else replies
            aggregated = _aggregated(experiment, strategy.aggregate_train(round_index, given))
        new = _advance(experiment, state, aggregated)
        federated, scores, left_out = _evaluate_clients(experiment, new)
    # Without an aggregate the model took no step, so there is no step to measure: a length of 0 would be evidence.
    measured = experiment.model_metrics.measure(state if aggregated is not None else None, new)
    curves = experiment.model_metrics.curves(new, is_last=round_index == experiment.rounds)
    line: Line = {"round": round_index, **local.line, **measured.line, **federated, **curves}
    if experiment.sender is not None:
        line |= dict(zip(("late_replies", "repeats"), experiment.sender.take_late(), strict=True))
    line |= {"pseudo_gradient_norm": line.get("aggregate_norm")} if aggregated is not None else {NO_AGGREGATE: True}
    events = _losses(experiment, round_index, sent, replies, local, aggregated) + left_out
    return new, RoundResult(line, local.columns, measured.predicted, events, total, scores, hashes)


def _hashes(experiment: Experiment, total: CohortResult | None) -> dict[str, str]:
    """Return a hash of each client's update, before a user's strategy may change the rows; empty if none is wanted."""
    if experiment.certifier is None or total is None:
        return {}
    return experiment.certifier.updates(total.update)


def record_of(experiment: Experiment, state: ServerState) -> ArrayRecord:
    """Return the record that carries a state's model."""
    if isinstance(state.arrays, ArrayRecord):
        return state.arrays
    encode = experiment.codec.encode if experiment.is_foreign else experiment.codec.record_of
    return encode(state.params, state.buffers)


def _copies_of_ours(experiment: Experiment, made: Sequence[Message]) -> Sequence[Message]:
    """Return a strategy's messages; those of a wrapper to real nodes as copies of ours, whose replies are checked."""
    own = experiment.own
    if own is None or own.sent is None or experiment.sender is None or isinstance(made, CohortMessages):
        return made
    return CopiedMessages(own.sent, made)


def _require_ours(experiment: Experiment, sent: Sequence[Message]) -> None:
    """Refuse a wrapper whose messages to real nodes do not come from ours: the replies could not be checked.

    Raises:
        StrategyError: it did not call our `configure_train`.
    """
    if experiment.own is None or experiment.sender is None or not len(sent) or isinstance(sent, CohortMessages):
        return
    problem = f"{type(experiment.strategy).__name__} wraps ours and sends messages that ours did not make"
    fix = "Return what configure_train of the wrapped strategy returns, or copies with its nodes and clients."
    raise StrategyError("strategy", problem, fix=fix)


def _receive(experiment: Experiment, sent: Sequence[Message]) -> Replies:
    """Send messages and return the replies, decoded once."""
    replies = _sent(experiment, sent)
    if isinstance(replies, CohortReplies):
        return replies
    names: tuple[str, ...] = ()
    check: Check | None = None
    if experiment.own is not None:
        is_checked = isinstance(sent, CohortMessages) and experiment.sender is not None
        if is_checked or not experiment.is_foreign:
            names = experiment.own.algorithm.local.returns
        if isinstance(sent, CohortMessages) and is_checked:
            check = experiment.nodes.admission.check(sent, experiment.codec)
    return DecodedReplies(replies, experiment.codec, experiment.nodes.client_of, names, check)


def _sent(experiment: Experiment, messages: Sequence[Message]) -> Sequence[Message]:
    """Send messages to the clients and return their replies."""
    if experiment.sender is not None:
        return experiment.sender.send(messages)
    return _sequence(experiment.grid.send_and_receive(messages))


def _total(experiment: Experiment, state: ServerState, replies: Replies) -> CohortResult | None:
    """Return the sum of the updates: the grid's, or one made here and stored in the replies for the strategy."""
    if isinstance(replies.total, CohortResult):
        return replies.total
    update, round_index = replies.update, state.round_index + 1
    if update is None or not len(update.clients):
        return None
    if experiment.own is None:
        layers, clients = experiment.codec.layers, experiment.population.federation.with_data
        return sum_by_examples(update, state.params, layers, clients)
    total = experiment.own.total(update, state.params, round_index)
    if not experiment.is_foreign:
        replies.total = total
    return total


def _aggregated(experiment: Experiment, returned: object) -> ArrayRecord | None:
    """Return the arrays that a strategy aggregated to; None where it has none.

    Raises:
        StrategyError: it returned something else than (arrays, metrics).
    """
    is_pair = isinstance(returned, tuple) and len(returned) == 2
    arrays = returned[0] if isinstance(returned, tuple) and is_pair else None
    if is_pair and (arrays is None or isinstance(arrays, ArrayRecord)):
        return arrays
    got = f"({type(arrays).__name__}, ...)" if is_pair else type(returned).__name__
    problem = f"{type(experiment.strategy).__name__}.aggregate_train must return (ArrayRecord or None, metrics)"
    fix = "Return ArrayRecord({name: Array(numpy_array), ...}), MetricRecord({...})."
    raise StrategyError("strategy", f"{problem}, returned {got}", fix=fix)


def _advance(experiment: Experiment, state: ServerState, arrays: ArrayRecord | None) -> ServerState:
    """Return the state after a round; without arrays from the strategy the model stays unchanged."""
    round_index = state.round_index + 1
    vectors = experiment.own.state.vectors if experiment.own is not None else {}
    if arrays is None:
        return replace(state, round_index=round_index, vectors=vectors)
    try:
        params, buffers = experiment.codec.decode(arrays)
    except ValueError as error:
        raise StrategyError("strategy", f"aggregated to arrays that are not the model's: {error}") from error
    return ServerState(round_index, params, buffers, vectors, arrays if experiment.is_foreign else None)


def _evaluate_clients(experiment: Experiment, new: ServerState) -> tuple[Line, dict[str, Array], list[dict[str, Any]]]:
    """Return the metrics of a federated evaluation, a row for each client, and events."""
    strategy, own = experiment.strategy, experiment.own
    if own is not None and not experiment.is_foreign and not len(own.federation.evaluated(new.round_index)):
        return {}, {}, []
    arrays = record_of(experiment, new)
    if own is not None:
        own.sent = None
    with _naming(experiment, "configure_evaluate"):
        config = ConfigRecord({ROUND: new.round_index})
        made = strategy.configure_evaluate(new.round_index, arrays, config, experiment.grid)
        sent = _copies_of_ours(experiment, _sequence(made))
    if not len(sent):
        return {}, {}, []
    replies, events = _sent(experiment, sent), []
    if experiment.sender is not None and experiment.own is not None and isinstance(sent, CohortMessages):
        nodes, population = experiment.nodes, experiment.population.during(new.round_index)
        replies, rejected = sift(sent, replies, population, nodes.admission.sizes, nodes.client_of)
        events = evaluation_events(sent, rejected)
    found = evaluation_of(replies, experiment.population, experiment.nodes.client_of)
    with _naming(experiment, "aggregate_evaluate"):
        strategy.aggregate_evaluate(new.round_index, replies)
    return measure_evaluation(found, experiment.population), score_columns(found, experiment.population), events


def _require_replies(experiment: Experiment, sent: Sequence[Message], replies: Replies, local: CohortMetrics) -> None:
    """Raise where every client failed (Flower counts that as a success), or no respondent had an example.

    Raises:
        RoundInterrupted: nodes are gone or silent, and too few clients replied.
    """
    cohort, respondents = local.line["cohort"], local.line["respondents"]
    silent = cohort - respondents - local.line["failures"] - local.line.get("rejected", 0)
    if experiment.sender is not None and isinstance(sent, CohortMessages):  # those of a node that is gone did not reply
        silent += sum(len(sent.clients_of(m)) for m in replies if node_is_gone(m))
    if experiment.sender is not None and respondents < min(experiment.min_respondents, cohort) and silent:
        least = f"fewer than nodes.min_respondents = {experiment.min_respondents}"
        raise RoundInterrupted(f"{respondents} of {cohort} clients replied in time, {least}{_first_reason(replies)}")
    if len(sent) and respondents == 0:
        failed = "failed" if not local.line.get("rejected") else "failed, or their updates were rejected"
        raise StrategyError("clients", f"all {cohort} clients of the round {failed}{_first_reason(replies)}",
                            fix="Correct the ClientApp. The rounds recorded so far are kept.")  # fmt: skip
    examples = local.columns.get("num_examples")
    if examples is not None and not examples.any():
        raise StrategyError("clients", f"all {len(examples)} respondents of the round report 0 examples",
                            fix="Return the number of training examples as the metric 'num-examples'.")  # fmt: skip


def _first_reason(replies: Iterable[Message]) -> str:
    reason = next((m.error.reason for m in replies if m.has_error()), None)
    if reason is None and isinstance(replies, DecodedReplies) and replies.rejected:
        reason = replies.rejected[0].reason
    return f"; the first error: {excerpt(reason)}" if reason is not None else "; none replied in time"


def _node_events(
    experiment: Experiment, round_index: int, sent: Sequence[Message], replies: Replies
) -> list[dict[str, Any]]:
    """Return events of real nodes: those refused, updates not used, clients without a node, states that are lost."""
    refusals = experiment.nodes.take_refusals()
    events = [{"round": round_index, "kind": "node_refused", "message": text} for text in refusals]
    if not isinstance(sent, CohortMessages) or not isinstance(replies, DecodedReplies):
        return events
    events += experiment.nodes.admission.reject(sent, replies.rejected)
    if lost := experiment.nodes.take_lost():
        message = f"no node holds {len(lost)} clients of the round: {experiment.nodes.names_of(lost)}"
        events.append({"round": round_index, "kind": "clients_without_node", "message": message})
    if anew := state_losses(replies, sent.clients_of):
        message = f"nodes lost the states of {len(anew)} clients, which begin anew: {experiment.nodes.names_of(anew)}"
        events.append({"round": round_index, "kind": "client_states_lost", "message": message})
    return events


def _losses(
    experiment: Experiment,
    round_index: int,
    sent: Sequence[Message],
    replies: Replies,
    local: CohortMetrics,
    arrays: ArrayRecord | None,
) -> list[dict[str, Any]]:
    """Return an event where clients failed, and one where the round had no aggregate or the strategy sent nothing."""
    failed, cohort = local.line["failures"], local.line["cohort"]
    events = _node_events(experiment, round_index, sent, replies)
    if failed:
        message = f"{failed} of {cohort} clients failed{_first_reason(replies)}"
        events.append({"round": round_index, "kind": "clients_failed", "message": message})
    if experiment.is_foreign and not cohort:
        message = f"{type(experiment.strategy).__name__} sent no messages: no client trained"
        events.append({"round": round_index, "kind": "nothing_sent", "message": message})
    elif arrays is None:
        why = "no update of the cohort counts" if cohort else "the cohort is empty"
        if experiment.is_foreign:
            why = f"{type(experiment.strategy).__name__} returned no arrays"
        message = f"{why}: the model stays as it was"
        events.append({"round": round_index, "kind": "no_aggregate", "message": message})
    return events


def _naming(experiment: Experiment, method: str) -> AbstractContextManager[None]:
    """Turn an error of a user's strategy, or of a part of a user's algorithm, into a `StrategyError` that names it."""
    if experiment.is_foreign:
        return _naming_strategy(experiment, method)
    return _naming_algorithm(experiment, method)


def _naming_algorithm(experiment: Experiment, method: str) -> AbstractContextManager[None]:
    """Turn an error of a part of a user's algorithm into a `StrategyError` that names the algorithm."""
    name = experiment.own.algorithm.name if experiment.own is not None else type(experiment.strategy).__name__
    return naming("algorithm", f"{name!r} fails in {method}", kind=StrategyError)


@contextmanager
def _naming_strategy(experiment: Experiment, method: str) -> Iterator[None]:
    try:
        yield
    except FedscapeError:
        raise
    except Exception as error:
        if isinstance(error, AssertionError) and not is_of_users_code(error):
            raise
        problem = f"{type(experiment.strategy).__name__}.{method} raised {described(error)}"
        raise StrategyError("strategy", problem) from error


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
