"""Decoding of clients' replies to Flower messages, and of the values in any message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict

from clients.core.arrays import F64, I64
from clients.core.examples import FaultCounts
from clients.core.shown.text import excerpt
from clients.engines.evaluation import CohortEvaluation
from clients.flower.codec import Codec, decode_vectors
from clients.flower.messages import ARRAYS, BY_CLASS, EXTRAS, FAULTS, STATE_LOST
from clients.training.class_metrics import ClassCounts
from clients.training.work import CohortUpdate, SummedUpdates, concatenate

DAMAGED = (ValueError, KeyError, TypeError, IndexError, OverflowError)
"""What decoding a reply raises that is not as it should be."""
LARGEST = 2**53
"""The largest whole number that a message may have, such as an index of a round: a float holds all of them."""


@dataclass(frozen=True)
class Rejection:
    """A reply that is not used.

    Attributes:
        node: Flower's id of the node.
        reply: the reply.
        reason: why, as a clause.
    """

    node: int
    reply: Message
    reason: str


@dataclass(frozen=True)
class Check:
    """Why a reply must not be used, as a clause; empty where it may.

    Attributes:
        before: the same of a reply that is not decoded yet.
        after: of a reply and its update.
    """

    before: Callable[[Message], str]
    after: Callable[[Message, CohortUpdate], str]


class DecodedReplies(Sequence[Message]):
    """Real replies: a sequence of their messages, with the content decoded once.

    Attributes:
        update: one row for each client, in order of client; None where no reply has content, or decoding failed.
        problem: why decoding failed; empty otherwise.
        failures: number of replies that are errors.
        rejected: replies that are left out, where there is a check.
        total: the sum of the updates, once it is made.

    Args:
        replies: of any grid.
        codec: decodes the model's arrays.
        client_of: node id -> client.
        extras: names of the extra vectors to read.
        check: what each reply must pass; a reply that cannot be decoded or does not pass is left out. None for replies
            to a user's strategy that does not wrap ours, which receives all of them: one that cannot be decoded leaves
            nothing to measure.
    """

    def __init__(
        self,
        replies: Sequence[Message],
        codec: Codec,
        client_of: Callable[[int], int],
        extras: Sequence[str] = (),
        check: Check | None = None,
    ) -> None:
        self._replies = replies
        self.failures = sum(1 for m in replies if m.has_error())
        self.update: CohortUpdate | None = None
        self.problem = ""
        self.total: SummedUpdates | None = None
        self.rejected: list[Rejection] = []
        if check is None:
            try:
                self.update = stack_replies(replies, codec, client_of, extras)
            except DAMAGED as error:
                self.problem = str(error)
            return
        kept = []
        for reply in filter(Message.has_content, replies):
            update = None
            try:
                if not (reason := check.before(reply)):
                    update = _update_of(reply, codec, client_of, extras)
                    reason = check.after(reply, update)
            except Exception as error:  # whatever a reply of another machine raises, only it is left out
                reason = undecodable(error)
            if reason or update is None:
                self.rejected.append(Rejection(reply.metadata.src_node_id, reply, reason))
            else:
                kept.append(update)
        if kept:
            self.update = concatenate(kept)
        elif self.rejected:
            self.problem = self.rejected[0].reason

    @property
    def used(self) -> Sequence[Message]:
        """The replies without those that are left out; errors are among them."""
        left_out = {id(one.reply) for one in self.rejected}
        return [reply for reply in self._replies if id(reply) not in left_out] if left_out else self

    def __len__(self) -> int:
        """Return the number of replies, with errors."""
        return len(self._replies)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | Sequence[Message]:
        """Return a reply, or some."""
        return self._replies[index]


def undecodable(error: Exception) -> str:
    """Return why a reply is not used that raised an error when it was decoded."""
    kind = "" if isinstance(error, DAMAGED) else f"{type(error).__name__}: "
    return f"it cannot be decoded: {kind}{excerpt(str(error))}"


def stack_replies(
    replies: Iterable[Message], codec: Codec, client_of: Callable[[int], int], extras: Sequence[str] = ()
) -> CohortUpdate | None:
    """Decode replies into one stacked update, sorted by client; None if no reply has content.

    Args:
        replies: of any grid; errors are skipped.
        codec: decodes the model's arrays.
        client_of: node id -> client, for replies without our metrics (a user's ClientApp). Their steps are unknown (0),
            and so is client drift (nan); their losses come from `train_loss`, the name in Flower's quickstarts.
        extras: names of the extra vectors to read.

    Raises:
        ValueError: a reply's arrays do not have the model's names and shapes, or it has no num-examples.
    """
    good = [m for m in replies if m.has_content()]
    if not good:
        return None
    return concatenate([_update_of(m, codec, client_of, extras) for m in good])


def _update_of(m: Message, codec: Codec, client_of: Callable[[int], int], extras: Sequence[str]) -> CohortUpdate:
    """Decode a reply: of one client, or of a node with a row for each of several."""
    metrics = _metrics(m)
    named = metrics.get("client")
    is_grouped = isinstance(named, list)
    clients = whole_numbers(
        [client_of(m.metadata.src_node_id)] if named is None else named if isinstance(named, list) else [named],
        f"node {m.metadata.src_node_id} returned no whole number as 'client'",
    )
    k = len(clients)

    def column(name: str, default: float) -> F64:
        value = metrics.get(name, metrics.get(name.replace("-", "_"), default))
        values = np.array([number(v) for v in value] if isinstance(value, list) else [number(value)] * k, np.float64)
        if len(values) != k:
            raise ValueError(f"{name!r} has {len(values)} values for {k} clients")
        return values

    def count(name: str, default: float) -> I64:
        values = column(name, default)
        wrong = ~(np.abs(values) <= LARGEST)  # nan is neither
        if wrong.any():
            raise ValueError(f"client {clients[wrong][0]} returned no number as {name!r}")
        return values.astype(np.int64)

    arrays = model_arrays(m.content)
    params, buffers = codec.decode_rows(arrays, k) if is_grouped else (t[None] for t in codec.decode(arrays))
    shape = (k, codec.parameters.size) if is_grouped else (codec.parameters.size,)
    vectors = decode_vectors(m.content.array_records[EXTRAS], extras, codec.dtype, shape) if extras else {}
    return CohortUpdate(
        clients=clients,
        params=params,
        buffers=buffers,
        num_examples=count("num-examples", np.nan),
        local_steps=count("local-steps", 0),
        train_loss=column("train-loss", np.nan),
        train_errors=count("train-errors", -1),
        client_drift=column("client-drift", np.nan),
        gradient_norm=column("gradient-norm", np.nan),
        extras={n: vectors[n] if is_grouped else vectors[n][None] for n in extras},
        fault_counts=_fault_counts(m, k),
    )


def _fault_counts(message: Message, clients: int) -> FaultCounts | None:
    """Decode what faults changed in the data of a reply's clients; None where it does not report it."""
    record = message.content.config_records.get(FAULTS)
    names = record.get("names") if record is not None else None
    if record is None or not isinstance(names, list):
        return None
    changed, effect = (np.array(record[key], np.float64).reshape(len(names), clients) for key in ("changed", "effect"))
    return FaultCounts(
        {str(n): changed[i] for i, n in enumerate(names)}, {str(n): effect[i] for i, n in enumerate(names)}
    )


def decode_evaluation(
    replies: Iterable[Message], client_of: Callable[[int], int], score_name: str
) -> CohortEvaluation | None:
    """Decode the replies to an evaluation, sorted by client.

    Args:
        replies: of any grid; errors are skipped.
        client_of: node id -> client.
        score_name: name of the score of our clients; Flower's quickstarts use `eval_loss` and `eval_acc`.

    Returns:
        The evaluation; None unless all replies have a number of examples, a loss and a score under these names.
    """
    good = [m for m in replies if m.has_content()]
    rows = sorted((row for m in good for row in _evaluations(m, client_of)), key=lambda row: row[0])
    wanted = [("num-examples",), ("loss", "eval_loss"), (score_name, "eval_acc")]
    named = [n for names in wanted for n in [n for n in names if all(n in record for _, record in rows)][:1]]
    if not rows or len(named) != len(wanted):
        return None
    sizes, losses, scores = (np.array([number(record[n]) for _, record in rows]) for n in named)
    if not (np.abs(sizes) <= LARGEST).all():
        return None
    clients, counts = np.array([c for c, _ in rows], np.int64), _class_counts([record for _, record in rows])
    return CohortEvaluation(clients, sizes.astype(np.int64), losses, scores, "client", counts)


def _evaluations(message: Message, client_of: Callable[[int], int]) -> list[tuple[int, Mapping[str, object]]]:
    """Return (client, metrics) for each client of a reply; a node's reply has lists, one value for each client."""
    record = _metrics(message)
    clients = record.get("client")
    if not isinstance(clients, list):
        if isinstance(clients, int) and 0 <= clients < 2**63:  # a user's ClientApp may report anything
            return [(clients, record)]
        return [(client_of(message.metadata.src_node_id), record)]
    k = len(clients)
    rows: list[tuple[int, Mapping[str, object]]] = []
    for i, whole in enumerate(whole_numbers(clients, "a 'client' is no whole number").tolist()):
        lists = {name: values for name, values in record.items() if isinstance(values, list) and len(values) >= k}
        one = {n: v[i] if len(v) == k and n not in BY_CLASS else v[i * len(v) // k : (i + 1) * len(v) // k]
               for n, v in lists.items()}  # fmt: skip
        rows.append((whole, one))
    return rows


def _class_counts(records: Sequence[Mapping[str, object]]) -> ClassCounts | None:
    """Decode the counts by class of our own nodes; None unless all records have them, with equal lengths."""
    found = [[record.get(name) for name in BY_CLASS] for record in records]
    if not all(isinstance(values, list) for client in found for values in client):
        return None
    if len({len(values) for client in found for values in client if isinstance(values, list)}) != 1:
        return None
    right, actual, guessed = np.array(found, np.int64).swapaxes(0, 1)
    return ClassCounts(right, actual, guessed)


def state_losses(replies: Iterable[Message], clients_of: Callable[[Message], I64]) -> list[int]:
    """Return the clients whose state their node did not have, among those that it was sent work for."""
    lost: set[int] = set()
    for reply in filter(Message.has_content, replies):
        values = _metrics(reply).get(STATE_LOST)
        if isinstance(values, list):
            lost |= set(clients_of(reply).tolist()) & {value for value in values if isinstance(value, int)}
    return sorted(lost)


def _metrics(message: Message) -> Mapping[str, object]:
    return next(iter(message.content.metric_records.values()), {})


def model_arrays(content: RecordDict) -> ArrayRecord:
    """Return the model's arrays: those under our name, else a strategy's first arrays.

    Raises:
        ValueError: there are none.
    """
    records = content.array_records
    if not records:
        raise ValueError("there are no arrays")
    return records[ARRAYS] if ARRAYS in records else next(iter(records.values()))


def number(value: object) -> float:
    """Return a number from a Flower record, or nan for any other value."""
    return float(value) if isinstance(value, int | float) else float("nan")


def whole_numbers(values: Sequence[object], problem: str) -> I64:
    """Return whole numbers of a Flower record, int64 (K,).

    Raises:
        ValueError: one is something else, or does not fit; the text is `problem`.
    """
    if not all(isinstance(value, int) and -(2**63) <= value < 2**63 for value in values):
        raise ValueError(problem)
    return np.array(values, np.int64)
