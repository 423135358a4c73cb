"""Decoding of Flower messages: the work sent to clients, and their replies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import overload

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, RecordDict
from torch import Tensor

from clients.core.arrays import F64, I64
from clients.core.errors import StrategyError
from clients.core.examples import FaultCounts
from clients.engines.evaluation import CohortEvaluation
from clients.flower.codec import Codec, decode_vectors
from clients.flower.messages import ARRAYS, BROADCAST, BY_CLASS, EXTRAS, FAULTS, ROUND, RULE, UPLINK
from clients.training.class_metrics import ClassCounts
from clients.training.rules import proximal
from clients.training.uplink import IDENTITY
from clients.training.work import CohortUpdate, CohortWork, LocalWork, SummedUpdates

PROXIMAL = "proximal-mu"
"""The key under which Flower's FedProx sends mu to its clients."""


def decode_work(content: RecordDict, clients: I64, codec: Codec, own: LocalWork) -> CohortWork:
    """Decode the work in a message, for one client or for all that were sent the same.

    Args:
        content: the content of any strategy's message. Our messages name a local rule and an uplink; others get the
            plain rule, or FedProx where their config has `proximal-mu`.
        clients: the receivers, (K,).
        codec: decodes the model.
        own: the local rule and uplink with which this process was set up.

    Raises:
        StrategyError: the message names a local rule or uplink that differs from `own`, or has no round.
        ValueError: its arrays do not have the model's names and shapes.
    """
    config = {k: v for record in content.config_records.values() for k, v in record.items()}
    params, buffers = codec.decode(model_arrays(content))
    for key, value in ((RULE, own.rule.signature), (UPLINK, own.uplink.name)):
        named = config.get(key)
        if named not in (None, value):
            problem = f"sends the {key.replace('-', ' ')} {named!r}, and the clients were set up for {value!r}"
            raise StrategyError("algorithm", problem, fix="Start server and clients from the same scenario.")
    if not isinstance(config.get(ROUND), int):
        problem = f"sends messages whose config has no {ROUND!r}, which the choice of batches needs"
        fix = "Pass on the config that configure_train receives, as Flower's strategies do."
        raise StrategyError("strategy", problem, fix=fix)
    is_ours = RULE in config
    vectors = (
        decode_vectors(content.array_records[BROADCAST], own.rule.broadcast, codec.dtype)
        if (BROADCAST in content)
        else {}
    )
    return CohortWork(
        round_index=int(number(config[ROUND])),
        clients=clients,
        params=params,
        buffers=buffers,
        rule=own.rule if is_ours else proximal(_mu(config.get(PROXIMAL, 0.0))),
        uplink=own.uplink if is_ours else IDENTITY,
        broadcast=vectors,
    )


def _mu(value: object) -> float:
    """Return FedProx's mu of a message's config.

    Raises:
        StrategyError: it is no finite number of at least 0, of which nan would become the model.
    """
    mu = number(value)
    if isinstance(value, bool) or not (math.isfinite(mu) and mu >= 0):
        problem = f"sends {PROXIMAL!r} = {value!r:.60}, which must be a finite number of at least 0"
        raise StrategyError("strategy", problem, fix="FedProx(proximal_mu=0.1) sends one.")
    return mu


class DecodedReplies(Sequence[Message]):
    """Real replies: a sequence of their messages, with the content decoded once.

    Attributes:
        update: one row for each client, in order of client; None where no reply has content, or decoding failed.
        problem: why decoding failed; empty otherwise.
        failures: number of replies that are errors.
        total: the sum of the updates, once it is made.
    """

    def __init__(
        self, replies: Sequence[Message], codec: Codec, client_of: Callable[[int], int], extras: Sequence[str] = ()
    ) -> None:
        self._replies = replies
        self.failures = sum(1 for m in replies if m.has_error())
        self.update: CohortUpdate | None = None
        self.problem = ""
        self.total: SummedUpdates | None = None
        try:
            self.update = stack_replies(replies, codec, client_of, extras)
        except (ValueError, KeyError, TypeError) as error:
            self.problem = str(error)

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
    metrics = [_metrics(m) for m in good]

    def column(name: str, default: float) -> F64:
        return np.array([number(m.get(name, m.get(name.replace("-", "_"), default))) for m in metrics], np.float64)

    clients = np.array(
        [
            int(number(v["client"])) if "client" in v else client_of(m.metadata.src_node_id)
            for m, v in zip(good, metrics, strict=True)
        ],
        np.int64,
    )
    examples = column("num-examples", np.nan)
    if np.isnan(examples).any():
        raise ValueError(f"client {clients[np.isnan(examples)][0]} returned no number as 'num-examples'")
    vectors = [codec.decode(model_arrays(m.content)) for m in good]
    order = np.argsort(clients, kind="stable")
    index = torch.from_numpy(order)
    return CohortUpdate(
        clients=clients[order],
        params=torch.stack([p for p, _ in vectors])[index],
        buffers=torch.stack([b for _, b in vectors])[index],
        num_examples=examples.astype(np.int64)[order],
        local_steps=column("local-steps", 0).astype(np.int64)[order],
        train_loss=column("train-loss", np.nan)[order],
        train_errors=column("train-errors", -1).astype(np.int64)[order],
        client_drift=column("client-drift", np.nan)[order],
        gradient_norm=column("gradient-norm", np.nan)[order],
        extras={n: _extra(good, n, codec.dtype)[index] for n in extras},
        fault_counts=_fault_counts([good[k] for k in order]),
    )


def _fault_counts(messages: Sequence[Message]) -> FaultCounts | None:
    """Decode what faults changed in the clients' data; None unless all replies report it for the same faults."""
    records = [m.content.config_records.get(FAULTS) for m in messages]
    names = records[0].get("names") if records[0] is not None else None
    if not isinstance(names, list) or any(r is None or r.get("names") != names for r in records):
        return None
    changed, effect = (
        np.array([r[key] for r in records if r is not None], np.float64) for key in ("changed", "effect")
    )
    return FaultCounts(
        {str(n): changed[:, i] for i, n in enumerate(names)}, {str(n): effect[:, i] for i, n in enumerate(names)}
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
    metrics = [(m.metadata.src_node_id, _metrics(m)) for m in replies if m.has_content()]
    rows = sorted(((client_of(node), record) for node, record in metrics), key=lambda row: row[0])
    wanted = [("num-examples",), ("loss", "eval_loss"), (score_name, "eval_acc")]
    named = [n for names in wanted for n in [n for n in names if all(n in record for _, record in rows)][:1]]
    if not rows or len(named) != len(wanted):
        return None
    sizes, losses, scores = (np.array([number(record[n]) for _, record in rows]) for n in named)
    clients, counts = np.array([c for c, _ in rows], np.int64), _class_counts([record for _, record in rows])
    return CohortEvaluation(clients, sizes.astype(np.int64), losses, scores, "client", counts)


def _class_counts(records: Sequence[Mapping[str, object]]) -> ClassCounts | None:
    """Decode the counts by class of our own nodes; None unless all records have them, with equal lengths."""
    found = [[record.get(name) for name in BY_CLASS] for record in records]
    if not all(isinstance(values, list) for client in found for values in client):
        return None
    if len({len(values) for client in found for values in client if isinstance(values, list)}) != 1:
        return None
    right, actual, guessed = np.array(found, np.int64).swapaxes(0, 1)
    return ClassCounts(right, actual, guessed)


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


def _extra(messages: Sequence[Message], name: str, dtype: torch.dtype) -> Tensor:
    return torch.stack([decode_vectors(m.content.array_records[EXTRAS], [name], dtype)[name] for m in messages])


def number(value: object) -> float:
    """Return a number from a Flower record, or nan for any other value."""
    return float(value) if isinstance(value, int | float) else float("nan")
