"""A cohort as a lazy sequence of Flower messages.

A grid that recognises the sequence never makes the messages, and replies are made only for a strategy that iterates
them. Flower's messages cost at least 80 us for each client, more than the training of a small model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from torch import Tensor

from clients.core.arrays import I64
from clients.core.errors import StrategyError
from clients.core.examples import FaultCounts
from clients.engines.evaluation import CohortEvaluation
from clients.flower.codec import Codec, encode_vectors
from clients.flower.shim import SUPERLINK_NODE
from clients.training.work import BeginSum, CohortUpdate, CohortWork, SummedUpdates

ARRAYS, BROADCAST, EXTRAS, CONFIG, METRICS = "arrays", "broadcast", "extras", "config", "metrics"
FAULTS = "faults"
"""The record of a reply with what faults changed in the client's data: `names`, `changed` and `effect`."""
TRAIN, EVALUATE, QUERY = MessageType.TRAIN, MessageType.EVALUATE, MessageType.QUERY
BY_CLASS = ("class-right", "class-examples", "class-guessed")
"""Names of an evaluation's counts by class, in the order of `clients.training.class_metrics.ClassCounts`."""
ROUND, RULE, UPLINK = "server-round", "local-rule", "uplink"
"""Keys of a message's config: the first is Flower's own; the others name the local rule and the uplink."""
CLIENTS, GROUPED, STAMPS, CHECKPOINT = "clients", "grouped", "state-rounds", "checkpoint-round"
"""Keys of messages to nodes: clients of the node; whether the reply has a row for each; the round after which each
client's state is read; the round of the server's newest checkpoint."""
OWN_DATA, FIRST, TOTAL = "own-data", "first-client", "all-clients"
"""Keys of messages to nodes with data of their own: that the run needs them; the index of the node's first client, and
how many clients all nodes have."""
NAME, TASK, SHAPE, OUTPUTS, CHANNELS = "name", "task", "feature-shape", "outputs", "channels"
"""Keys of such a node's answer to a query: its name, and what an example is."""
STATE_LOST = "state-lost"
"""Key of a reply's metrics: clients whose state the node did not have, and which began anew."""
SIZES, NAMES = "sizes", "names"
"""Keys of a node's answer to a query, beside `CLIENTS`: training examples and names of its clients."""
SCENARIO, VERSION, RUN, FINISHED = "scenario", "fedscape-version", "run", "finished-run"
"""Keys of messages to nodes: the scenario's text, the server's version, the run's name; a run that is over."""


@dataclass(frozen=True)
class Parcel:
    """What one message carries besides the work: the node it goes to, its clients, and keys of its config.

    Attributes:
        node: Flower's id of the node.
        clients: places in the cohort of the clients that the message is for, (K,).
        config: keys added to the message's config.
    """

    node: int
    clients: I64
    config: Mapping[str, bool | int | str | list[int]] = field(default_factory=dict)


class CohortMessages(Sequence[Message]):
    """The messages of a strategy to a cohort, made at the first access and then kept.

    There is one for each client, or one for each node that holds several.

    Attributes:
        kind: `MessageType.TRAIN` or `MessageType.EVALUATE`.
        work: the cohort's work.
        arrays: the model as a record.
        config: the strategy's.
        begin: starts the sum of the cohort's updates, to which a grid adds tiles as they arrive; None for evaluation.
        needs_rows: whether that sum needs all updates whole.
    """

    def __init__(
        self,
        kind: str,
        work: CohortWork,
        arrays: ArrayRecord,
        config: ConfigRecord,
        nodes: Callable[[I64], Sequence[Parcel]],
        begin: BeginSum | None = None,
        *,
        needs_rows: bool = False,
    ) -> None:
        self.kind, self.work, self.arrays, self.begin, self.needs_rows = kind, work, arrays, begin, needs_rows
        self.config, self._nodes = config, nodes
        self._made: list[Message] | None = None
        self._parcels: Sequence[Parcel] | None = None
        self._again: list[tuple[Message, Parcel]] = []

    @property
    def num_clients(self) -> int:
        """Number of clients in the cohort."""
        return self.work.num_clients

    def __len__(self) -> int:
        """Return the number of messages."""
        return len(self.parcels)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | Sequence[Message]:
        """Return messages; the same objects at each access."""
        if self._made is None:
            self._made = self._make()
        return self._made[index]

    @property
    def parcels(self) -> Sequence[Parcel]:
        """The node and the clients of each message."""
        if self._parcels is None:
            self._parcels = self._nodes(self.work.clients)
        return self._parcels

    def clients_of(self, reply: Message) -> I64:
        """Return the clients, (K,), of the message that a reply answers; none where it answers none of its node's.

        The SuperLink itself answers with an error for a node that is gone.
        """
        by_message = {m.metadata.message_id: p for m, p in [*zip(self, self.parcels, strict=True), *self._again]}
        parcel = by_message.get(reply.metadata.reply_to_message_id)
        if parcel is None or (parcel.node != reply.metadata.src_node_id and not node_is_gone(reply)):
            return self.work.clients[:0]
        return self.work.clients[parcel.clients]

    def repeat(self, message: Message) -> Message:
        """Return a message anew, to be sent once more; its id is known after it was sent."""
        parcel = next(p for made, p in [*zip(self, self.parcels, strict=True), *self._again] if made is message)
        again = repeated(message)
        self._again.append((again, parcel))
        return again

    def _make(self) -> list[Message]:
        work = self.work
        broadcast = encode_vectors(work.broadcast) if work.broadcast else None
        common = dict(self.config) | {ROUND: work.round_index, RULE: work.rule.signature, UPLINK: work.uplink.name}
        plain = ConfigRecord(common)
        made = []
        for parcel in self.parcels:
            config = ConfigRecord({**common, **parcel.config}) if parcel.config else plain
            content = RecordDict({ARRAYS: self.arrays, CONFIG: config})
            if broadcast is not None:
                content[BROADCAST] = broadcast
            made.append(
                Message(content, dst_node_id=parcel.node, message_type=self.kind, group_id=str(work.round_index))
            )
        return made


def node_is_gone(reply: Message) -> bool:
    """Return whether a reply is the SuperLink's error for a node that is gone, or for a message that it dropped."""
    return reply.has_error() and reply.metadata.src_node_id == SUPERLINK_NODE


def repeated(message: Message) -> Message:
    """Return a new message with the content and the receiver of another."""
    data = message.metadata
    return Message(
        message.content, dst_node_id=data.dst_node_id, message_type=data.message_type, group_id=data.group_id
    )


class CohortReplies(Sequence[Message]):
    """The replies of a cohort, made anew at each iteration, because some strategies change them.

    Attributes:
        update: one row for each client; without `params` where they were not kept.
        anchor: the broadcast parameters [P].
        total: the finished sum of the updates, where the strategy started one.
    """

    def __init__(
        self,
        sent: Sequence[Message],
        update: CohortUpdate,
        anchor: Tensor,
        codec: Codec,
        total: SummedUpdates | None = None,
    ) -> None:
        self.update, self.anchor, self.total = update, anchor, total
        self._sent, self._codec = sent, codec

    def __len__(self) -> int:
        """Clients that replied."""
        return len(self.update.clients)

    def __iter__(self) -> Iterator[Message]:
        """Make the replies, in order of client."""
        return (self._reply(k) for k in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | Sequence[Message]:
        """Make one reply, or some."""
        if isinstance(index, slice):
            return [self._reply(k) for k in range(*index.indices(len(self)))]
        return self._reply(range(len(self))[index])

    def _reply(self, k: int) -> Message:
        u = self.update
        if u.params.shape[1] != self.anchor.numel():
            raise StrategyError(
                "engine.keep_bytes",
                f"the updates of {len(self)} clients were too large to keep, and this strategy needs each update",
                fix="Raise engine.keep_bytes, or set a smaller algorithm.cohort.",
            )
        return Message(encode_update(u, k, self._codec), reply_to=self._sent[k])


def encode_update(u: CohortUpdate, k: int, codec: Codec, round_index: int | None = None) -> RecordDict:
    """Return the reply of the k-th client: its model, its measurements, and what faults changed in its data."""
    metrics = update_metrics(u, k)
    if round_index is not None:
        metrics[ROUND] = round_index
    content = RecordDict({ARRAYS: codec.encode(u.params[k], u.buffers[k]), METRICS: metrics})
    if u.extras:
        content[EXTRAS] = encode_vectors({n: v[k] for n, v in u.extras.items()})
    if u.fault_counts is not None:
        content[FAULTS] = _fault_record(u.fault_counts, k)
    return content


def encode_rows(update: CohortUpdate, codec: Codec, round_index: int) -> RecordDict:
    """Return the reply of a node to a message for several clients: one row for each."""
    u = update
    metrics = MetricRecord({
        "client": u.clients.tolist(),
        "num-examples": u.num_examples.tolist(),
        "local-steps": u.local_steps.tolist(),
        "train_loss": u.train_loss.tolist(),
        "train-errors": u.train_errors.tolist(),
        "client-drift": u.client_drift.tolist(),
        "gradient-norm": u.gradient_norm.tolist(),
        ROUND: round_index,
    })  # fmt: skip
    content = RecordDict({ARRAYS: codec.encode_rows(u.params, u.buffers), METRICS: metrics})
    if u.extras:
        content[EXTRAS] = encode_vectors(u.extras)
    if u.fault_counts is not None:
        names = list(u.fault_counts.changed)
        columns = (u.fault_counts.changed, u.fault_counts.effect)
        changed, effect = ([v for n in names for v in values[n].tolist()] for values in columns)
        content[FAULTS] = ConfigRecord({"names": names, "changed": changed, "effect": effect})
    return content


def encode_evaluations(found: CohortEvaluation, score_name: str) -> RecordDict:
    """Return the reply of a node to a message to evaluate several clients: one value for each."""
    metrics = MetricRecord({
        "client": found.clients.tolist(),
        "num-examples": found.num_examples.tolist(),
        "loss": found.loss.tolist(),
        score_name: found.score.tolist(),
    })  # fmt: skip
    if found.classes is not None:
        counts = (found.classes.right, found.classes.actual, found.classes.guessed)
        metrics.update({name: values.ravel().tolist() for name, values in zip(BY_CLASS, counts, strict=True)})
    return RecordDict({METRICS: metrics})


def _fault_record(counts: FaultCounts, k: int) -> ConfigRecord:
    """Return what faults changed in the data of client k."""
    names = list(counts.changed)
    changed, effect = ([float(values[n][k]) for n in names] for values in (counts.changed, counts.effect))
    return ConfigRecord({"names": names, "changed": changed, "effect": effect})


def update_metrics(u: CohortUpdate, k: int) -> MetricRecord:
    """Return the measurements of client k as Flower metrics."""
    return MetricRecord(
        {
            "num-examples": int(u.num_examples[k]),
            "client": int(u.clients[k]),
            "local-steps": int(u.local_steps[k]),
            "train_loss": float(u.train_loss[k]),
            "train-errors": int(u.train_errors[k]),
            "client-drift": float(u.client_drift[k]),
            "gradient-norm": float(u.gradient_norm[k]),
        }
    )


@dataclass(frozen=True)
class EvaluationReplies:
    """A federated evaluation on an in-process grid; iteration yields Flower replies.

    `by_class` adds counts by class, as our nodes do. It is off by default: Flower's strategies would average them.
    """

    sent: Sequence[Message]
    result: CohortEvaluation
    score_name: str
    by_class: bool = False
    _cache: list[Message] = field(default_factory=list)

    def __len__(self) -> int:
        """Clients that replied."""
        return len(self.result.clients)

    def __iter__(self) -> Iterator[Message]:
        """Make the replies, in order of client."""
        for k in range(len(self)):
            yield Message(self.content(k), reply_to=self.sent[k])

    def content(self, k: int) -> RecordDict:
        """Return the content of the k-th reply."""
        r = self.result
        metrics = MetricRecord(
            {"num-examples": int(r.num_examples[k]), "loss": float(r.loss[k]), self.score_name: float(r.score[k])}
        )
        if r.classes is not None and self.by_class:
            counts = (r.classes.right[k], r.classes.actual[k], r.classes.guessed[k])
            metrics.update({name: values.tolist() for name, values in zip(BY_CLASS, counts, strict=True)})
        return RecordDict({METRICS: metrics})
