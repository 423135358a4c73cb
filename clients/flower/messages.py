"""A cohort as a lazy sequence of Flower messages.

Our strategy's messages are never made for a grid that recognises the sequence, and a grid's replies are made only for
a strategy that iterates them: Flower's floor is about 80 us a client, more than training a small model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from torch import Tensor

from clients.core.arrays import F64, I64
from clients.core.errors import StrategyError
from clients.engines.evaluation import CohortEvaluation
from clients.flower.codec import Codec, encode_vectors
from clients.training.work import CohortUpdate, CohortWork

ARRAYS, SHARED, EXTRAS, CONFIG, METRICS = "arrays", "shared", "extras", "config", "metrics"
TRAIN, EVALUATE, QUERY = MessageType.TRAIN, MessageType.EVALUATE, MessageType.QUERY
BY_CLASS = ("class-right", "class-examples", "class-guessed")
"""Names of an evaluation's counts by class, in the order of `clients.training.class_metrics.ClassCounts`."""
ROUND, RULE = "server-round", "local-rule"
"""Keys of a message's config: the first is Flower's own, the second names our local rule."""


class CohortMessages(Sequence[Message]):
    """What a strategy sends to a cohort: one message a client, made at the first look and then kept.

    Attributes:
        kind: `MessageType.TRAIN` or `MessageType.EVALUATE`.
        work: what the cohort is asked to do.
        arrays: the model as a record.
        combine: update -> coefficients (K,) with which pseudo-gradients are summed; lets a grid reduce a cohort too
            large to keep. None for evaluation.
    """

    def __init__(
        self,
        kind: str,
        work: CohortWork,
        arrays: ArrayRecord,
        config: ConfigRecord,
        nodes: Callable[[I64], list[int]],
        combine: Callable[[CohortUpdate], F64] | None = None,
    ) -> None:
        self.kind, self.work, self.arrays, self.combine = kind, work, arrays, combine
        self._config, self._nodes = config, nodes
        self._made: list[Message] | None = None

    def __len__(self) -> int:
        """Clients asked."""
        return self.work.num_clients

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | Sequence[Message]:
        """Return messages; they are made once and keep their identity."""
        if self._made is None:
            self._made = self._make()
        return self._made[index]

    def _make(self) -> list[Message]:
        shared = encode_vectors(self.work.shared) if self.work.shared else None
        config = ConfigRecord({**self._config, ROUND: self.work.round_index, RULE: self.work.rule.name})
        made = []
        for node in self._nodes(self.work.clients):
            content = RecordDict({ARRAYS: self.arrays, CONFIG: config})
            if shared is not None:
                content[SHARED] = shared
            made.append(Message(content, dst_node_id=node, message_type=self.kind, group_id=str(self.work.round_index)))
        return made


@dataclass(frozen=True)
class Reduction:
    """A cohort's updates summed as they came, where they were too large to keep.

    Attributes:
        pseudo_gradient: sum of coefficients x pseudo-gradients [P].
        buffers: mean buffers, weighted by examples [Q].
        extras: unweighted means of the extra vectors, each [P].
        drift: what was measured of the updates while they passed; see `server.dispersion.measures.DriftStream`.
    """

    pseudo_gradient: Tensor
    buffers: Tensor
    extras: Mapping[str, Tensor]
    drift: object


class CohortReplies(Sequence[Message]):
    """What a cohort returns: replies made afresh at each iteration, since some strategies take them apart.

    Attributes:
        update: one row a client; its `params` are empty where `reduction` stands for them.
        anchor: the parameters [P] that were broadcast.
        reduction: the sums, where the updates were too large to keep.
    """

    def __init__(
        self,
        asked: Sequence[Message],
        update: CohortUpdate,
        anchor: Tensor,
        codec: Codec,
        reduction: Reduction | None = None,
    ) -> None:
        self.update, self.anchor, self.reduction = update, anchor, reduction
        self._asked, self._codec = asked, codec
        self._pseudo_gradients: Tensor | None = None

    @property
    def pseudo_gradients(self) -> Tensor:
        """Server minus client parameters [K, P]."""
        if self._pseudo_gradients is None:
            assert self.reduction is None, "the updates were not kept"
            self._pseudo_gradients = self.anchor - self.update.params
        return self._pseudo_gradients

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
        if self.reduction is not None:
            raise StrategyError(
                "engine.keep_bytes",
                f"the updates of {len(self)} clients were too large to keep, and this strategy wants them one by one",
                fix="Raise engine.keep_bytes, or ask a smaller cohort.",
            )
        content = RecordDict({ARRAYS: self._codec.encode(u.params[k], u.buffers[k]), METRICS: update_metrics(u, k)})
        if u.extras:
            content[EXTRAS] = encode_vectors({n: v[k] for n, v in u.extras.items()})
        return Message(content, reply_to=self._asked[k])


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
    """A federated evaluation on an in-process grid; iterates as Flower replies.

    `by_class` sends counts by class along, as our nodes do: Flower's strategies would take their weighted means.
    """

    asked: Sequence[Message]
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
            yield Message(RecordDict({METRICS: metrics}), reply_to=self.asked[k])
