"""A cohort as a lazy sequence of Flower messages.

A grid that recognises the sequence never makes the messages, and replies are made only for a strategy that iterates
them. Flower's messages cost at least 80 us for each client, more than the training of a small model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from torch import Tensor

from clients.core.arrays import I64
from clients.core.errors import StrategyError
from clients.core.examples import FaultCounts
from clients.engines.evaluation import CohortEvaluation
from clients.flower.codec import Codec, encode_vectors
from clients.training.work import BeginSum, CohortUpdate, CohortWork, SummedUpdates

ARRAYS, BROADCAST, EXTRAS, CONFIG, METRICS = "arrays", "broadcast", "extras", "config", "metrics"
FAULTS = "faults"
"""The record of a reply with what faults changed in the client's data: `names`, `changed` and `effect`."""
TRAIN, EVALUATE, QUERY = MessageType.TRAIN, MessageType.EVALUATE, MessageType.QUERY
BY_CLASS = ("class-right", "class-examples", "class-guessed")
"""Names of an evaluation's counts by class, in the order of `clients.training.class_metrics.ClassCounts`."""
ROUND, RULE, UPLINK = "server-round", "local-rule", "uplink"
"""Keys of a message's config: the first is Flower's own; the others name the local rule and the uplink."""


class CohortMessages(Sequence[Message]):
    """The messages of a strategy to a cohort: one for each client, made at the first access and then kept.

    Attributes:
        kind: `MessageType.TRAIN` or `MessageType.EVALUATE`.
        work: the cohort's work.
        arrays: the model as a record.
        begin: starts the sum of the cohort's updates, to which a grid adds tiles as they arrive; None for evaluation.
        needs_rows: whether that sum needs all updates whole.
    """

    def __init__(
        self,
        kind: str,
        work: CohortWork,
        arrays: ArrayRecord,
        config: ConfigRecord,
        nodes: Callable[[I64], list[int]],
        begin: BeginSum | None = None,
        *,
        needs_rows: bool = False,
    ) -> None:
        self.kind, self.work, self.arrays, self.begin, self.needs_rows = kind, work, arrays, begin, needs_rows
        self._config, self._nodes = config, nodes
        self._made: list[Message] | None = None

    def __len__(self) -> int:
        """Return the number of clients in the cohort."""
        return self.work.num_clients

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | Sequence[Message]:
        """Return messages; the same objects at each access."""
        if self._made is None:
            self._made = self._make()
        return self._made[index]

    def _make(self) -> list[Message]:
        work = self.work
        broadcast = encode_vectors(work.broadcast) if work.broadcast else None
        config = ConfigRecord(dict(self._config))
        config.update({ROUND: work.round_index, RULE: work.rule.signature, UPLINK: work.uplink.name})
        made = []
        for node in self._nodes(self.work.clients):
            content = RecordDict({ARRAYS: self.arrays, CONFIG: config})
            if broadcast is not None:
                content[BROADCAST] = broadcast
            made.append(Message(content, dst_node_id=node, message_type=self.kind, group_id=str(self.work.round_index)))
        return made


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
        content = RecordDict({ARRAYS: self._codec.encode(u.params[k], u.buffers[k]), METRICS: update_metrics(u, k)})
        if u.extras:
            content[EXTRAS] = encode_vectors({n: v[k] for n, v in u.extras.items()})
        if u.fault_counts is not None:
            content[FAULTS] = _fault_record(u.fault_counts, k)
        return Message(content, reply_to=self._sent[k])


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
        r = self.result
        for k in range(len(self)):
            metrics = MetricRecord(
                {"num-examples": int(r.num_examples[k]), "loss": float(r.loss[k]), self.score_name: float(r.score[k])}
            )
            if r.classes is not None and self.by_class:
                counts = (r.classes.right[k], r.classes.actual[k], r.classes.guessed[k])
                metrics.update({name: values.tolist() for name, values in zip(BY_CLASS, counts, strict=True)})
            yield Message(RecordDict({METRICS: metrics}), reply_to=self.sent[k])
