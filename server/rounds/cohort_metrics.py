"""Metrics of a cohort's local work: losses, client drift, dispersion, bytes and simulated time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from flwr.app import ArrayRecord, Message
from torch import Tensor

from clients.core.arrays import F64, I64, Array
from clients.core.population import Population
from clients.core.population_parts import FederationFacts
from clients.flower.array_bytes import number_bytes
from clients.flower.codec import Codec
from clients.flower.decoding import DecodedReplies
from clients.flower.messages import CohortMessages, CohortReplies
from clients.training.work import CohortUpdate
from server.dispersion.histograms import EDGES, counted
from server.dispersion.measures import Dispersion
from server.dispersion.summary import named, quantiles, summary, worst
from server.record.jsonlines import Line
from server.rounds.cohort_sum import CohortResult
from server.rounds.data_metrics import data_line

ALL_LEFT_OUT = "dispersion: every update of the round was left out of the aggregate"
Replies = CohortReplies | DecodedReplies


class Clock(Protocol):
    """Turns a round's work into simulated seconds."""

    def round_seconds(self, local_steps: I64, bytes_down: float, bytes_up: float) -> float:
        """Return how long a round lasts; bytes are those of one client, each way."""


@dataclass(frozen=True)
class CohortMetrics:
    """Metrics of a cohort's replies: a line of the record, and one row for each client."""

    line: Line
    columns: dict[str, Array]


def measure_cohort(
    sent: Sequence[Message],
    replies: Replies,
    total: CohortResult | None,
    *,
    population: Population,
    codec: Codec,
    clock: Clock,
) -> CohortMetrics:
    """Measure the replies of a cohort.

    Args:
        sent: the messages of the round.
        replies: the replies.
        total: the sum of the updates; None where there are none, or they cannot be decoded.
        population: the population of that round.
        codec: encodes and decodes models.
        clock: simulated time.
    """
    line = _counts(sent, replies)
    respondents = line["respondents"]
    line |= _traffic(sent, replies, respondents, codec, clock)
    if total is None:
        problem = replies.problem if isinstance(replies, DecodedReplies) else ""
        why = f"client_drift and dispersion: the replies do not hold the model's arrays ({problem})"
        return CohortMetrics(line | ({"not_measured": why} if problem else {}), {})
    update, names = total.update, population.federation.client_name
    dispersion, used = total.dispersion, total.weights != 0  # an update that is left out does not count
    parts = [_training(update, population.federation)]
    if dispersion is None:
        parts.append({"not_measured": ALL_LEFT_OUT})
    else:
        parts.append(summary(dispersion.over(used), update.clients[used], names))
    not_measured = [part.pop("not_measured") for part in parts if "not_measured" in part]
    for part in parts:
        line |= part
    columns = _columns(update, dispersion, total.weights)
    line |= data_line(population, columns, update.fault_counts)
    binned = {name: columns.get(name) for name in EDGES if line.get(name) is not None}
    line["histograms"] = counted(
        {name: v if v is None or name == "client_drift" else v[used] for name, v in binned.items()}
    )
    return CohortMetrics(line | ({"not_measured": "; ".join(not_measured)} if not_measured else {}), columns)


def _counts(sent: Sequence[Message], replies: Replies) -> Line:
    """Return how many clients were sent work, and how many of them replied, failed, or were rejected."""
    if isinstance(replies, CohortReplies):
        return {"cohort": len(sent), "respondents": len(replies), "failures": 0}
    if not isinstance(sent, CohortMessages):
        return {"cohort": len(sent), "respondents": len(replies) - replies.failures, "failures": replies.failures}
    failures = sum(len(sent.clients_of(m)) for m in replies if m.has_error())
    rejected = sum(len(sent.clients_of(one.reply)) for one in replies.rejected)
    answered = sum(len(sent.clients_of(m)) for m in replies if m.has_content())
    respondents = answered - rejected
    return {"cohort": sent.num_clients, "respondents": respondents, "failures": failures, "rejected": rejected}


def _training(update: CohortUpdate, facts: FederationFacts) -> Line:
    """Return losses, steps, client drift and gradient norms of a cohort."""
    known = np.isfinite(update.train_loss) | (update.local_steps > 0)
    weights = facts.weights_of(update.clients, update.num_examples) * known
    loss = float(np.average(np.where(known, update.train_loss, 0.0), weights=weights)) if weights.any() else None
    line: Line = {"train_loss": loss, "local_steps": int(update.local_steps.sum())}
    if (update.train_errors >= 0).all():
        line["train_errors"] = int(update.train_errors.sum())
    if not np.isnan(update.client_drift).all() or (update.local_steps > 0).any():
        line["client_drift"] = {"mean": float(update.client_drift.mean())} | quantiles(update.client_drift)
        line["worst_client_drift"] = named(worst(update.clients, update.client_drift), facts.client_name)
        line["largest_gradient_norm"] = float(update.gradient_norm.max())
    else:
        line["client_drift"] = line["local_steps"] = None
        line["not_measured"] = "client_drift and local_steps: the clients return only their final parameters"
    return line


def _columns(update: CohortUpdate, dispersion: Dispersion | None, weights: F64) -> dict[str, Array]:
    columns: Mapping[str, Array | None] = {
        "client": update.clients,
        "num_examples": update.num_examples,
        "local_steps": update.local_steps,
        "weight": weights,
        "train_loss": update.train_loss,
        "client_drift": update.client_drift,
        "gradient_norm": update.gradient_norm,
        "update_norm": dispersion.update_norm if dispersion is not None else None,
        "cosine": dispersion.cosine if dispersion is not None else None,
        "distance": dispersion.distance if dispersion is not None else None,
    }
    return {name: values for name, values in columns.items() if values is not None}


def _traffic(sent: Sequence[Message], replies: Replies, respondents: int, codec: Codec, clock: Clock) -> Line:
    """Return the bytes of arrays sent each way, and how long the round lasted in simulated seconds."""
    if isinstance(sent, CohortMessages):
        down = _record_bytes(sent.arrays) + sum(_size(t) for t in sent.work.broadcast.values())
    else:
        down = max((_array_bytes(m) for m in sent[:1]), default=0)
    up: float
    if isinstance(replies, CohortReplies) and isinstance(sent, CohortMessages):
        anchor, work = replies.anchor, sent.work
        up = work.uplink.size(anchor.numel(), anchor.element_size()) + len(work.rule.returns) * _size(anchor)
        up += codec.buffers.size * anchor.element_size()
    elif isinstance(replies, CohortReplies):
        up = _size(replies.anchor) + codec.buffers.size * replies.anchor.element_size()
    else:
        up = sum(_array_bytes(m) for m in replies if m.has_content()) / max(1, respondents)
    steps = replies.update.local_steps if replies.update is not None else np.zeros(1, np.int64)
    return {
        "bytes_down": down * len(sent),
        "bytes_up": round(up * respondents),
        "simulated_seconds": clock.round_seconds(steps, down, up),
    }


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _array_bytes(message: Message) -> int:
    return sum(_record_bytes(record) for record in message.content.array_records.values())


def _record_bytes(record: ArrayRecord) -> int:
    """Return the bytes of a record's numbers, without the overhead of serialisation."""
    return sum(number_bytes(array) for array in record.values())
