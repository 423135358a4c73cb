"""What a round is measured by: the replies before they are aggregated, the model after."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from flwr.app import ArrayRecord, Message
from torch import Tensor

from clients.core.arrays import F64, I64, Array
from clients.core.population import Examples, Population
from clients.engines.evaluation import CohortEvaluation, Evaluator
from clients.flower.codec import Codec
from clients.flower.decoding import read_evaluation, stack_replies
from clients.flower.messages import CohortMessages, CohortReplies, EvaluationReplies
from clients.training.class_metrics import MOST_CLASSES, balanced_accuracy, class_counts, class_metrics, recalls
from clients.training.losses import SCORE_NAMES, agreement, metrics
from clients.training.work import CohortUpdate
from server.dispersion.histograms import EDGES, counted
from server.dispersion.measures import Drift, gradient_dissimilarity, measure_drift
from server.dispersion.summary import quantiles, summary, worst
from server.rounds.data_metrics import data_line

PROBE_SIZE = 1000
ALL_LEFT_OUT = "drift: every update of the round was left out of the aggregate"
Line = dict[str, Any]


class Clock(Protocol):
    """Turns a round's work into simulated seconds."""

    def round_seconds(self, local_steps: I64, bytes_down: float, bytes_up: float) -> float:
        """Return how long a round lasts; bytes are those of one client, each way."""


@dataclass(frozen=True)
class LocalRound:
    """What the replies say, measured before a strategy takes them apart: for the record, and one row a client."""

    line: Line
    columns: dict[str, Array]


class RoundMeter:
    """Measures rounds.

    Args:
        codec: how models travel.
        population: whose clients.
        clock: simulated time.
        client_of: node id -> client.
        evaluator: evaluates centrally; None where there is no model to load.
        gradients: (round, params, buffers) -> every (or a sample of) client's full-batch gradients [K, P] and weights
            [K]; None where they cannot be had.
        gradient_every: rounds between gradient passes; 0 never.
    """

    def __init__(
        self,
        codec: Codec,
        population: Population,
        clock: Clock,
        *,
        client_of: Callable[[int], int],
        evaluator: Evaluator | None = None,
        gradients: Callable[[int, Tensor, Tensor], tuple[Tensor, F64]] | None = None,
        gradient_every: int = 0,
    ) -> None:
        self.codec, self.population, self.clock, self.evaluator = codec, population, clock, evaluator
        self._client_of, self._gradients, self._every = client_of, gradients, gradient_every
        self._objectives = _objectives(population, evaluator)
        self._probe: Tensor | None = None

    def local(
        self,
        params: Tensor,
        asked: Sequence[Message],
        replies: Sequence[Message],
        coefficients: Callable[[CohortUpdate], F64] | None,
        *,
        round_index: int = 0,
    ) -> LocalRound:
        """Measure what came back from a cohort in a round."""
        line: Line = {"cohort": len(asked), "respondents": len(replies), "failures": 0}
        update: CohortUpdate | None
        if isinstance(replies, CohortReplies):
            update, why = replies.update, ""
        else:
            line["failures"] = sum(1 for m in replies if m.has_error())
            line["respondents"] -= line["failures"]
            update, why = self._stack(replies)
        line |= self._traffic(asked, replies, update, line["respondents"])
        if update is None or not len(update.clients):
            return LocalRound(line | ({"not_measured": why} if why else {}), {})
        weights = coefficients(update) if coefficients is not None else update.num_examples.astype(np.float64)
        drift, names = self._drift(params, replies, update, weights), self.population.federation.client_name
        parts = [_training(update, names)]
        parts += [summary(drift, update.clients, names) if drift is not None else {"not_measured": ALL_LEFT_OUT}]
        said = [part.pop("not_measured") for part in parts if "not_measured" in part]
        for part in parts:
            line |= part
        columns = _columns(update, drift, weights)
        line |= data_line(self.population.during(round_index), columns, update.fault_counts)
        line["histograms"] = counted({name: columns.get(name) for name in EDGES if line.get(name) is not None})
        return LocalRound(line | ({"not_measured": "; ".join(said)} if said else {}), columns)

    def happenings(self, round_index: int) -> Sequence[dict[str, Any]]:
        """Return events of what changes in the data as a round starts."""
        return self.population.history.events(round_index) if self.population.history.events is not None else ()

    def _drift(self, params: Tensor, replies: Sequence[Message], update: CohortUpdate, weights: F64) -> Drift | None:
        """Measure how the updates lie to each other; None where every one of them has weight 0."""
        if not weights.any():
            return None
        if isinstance(replies, CohortReplies) and replies.reduction is not None:
            assert isinstance(replies.reduction.drift, Drift)
            return replies.reduction.drift
        rows = replies.pseudo_gradients if isinstance(replies, CohortReplies) else params - update.params
        return measure_drift(rows, weights, layers=self.codec.layers)

    def server(self, round_index: int, before: tuple[Tensor, Tensor] | None, now: tuple[Tensor, Tensor]) -> Line:
        """Measure the model after a round (or the initial one, `before` None)."""
        line: Line = {}
        if before is not None:
            change = torch.linalg.vector_norm(now[0] - before[0]).item()
            size = torch.linalg.vector_norm(before[0]).item()
            line |= {"step_norm": change, "relative_change": change / size if size else None}
        if self._gradients is not None and self._every and round_index % self._every == 0:
            rows, weights = self._gradients(round_index, *now)
            found = gradient_dissimilarity(rows, weights)
            mean = torch.from_numpy(weights / weights.sum()).to(rows.dtype) @ rows
            line |= {
                "gradient_dissimilarity": found.gradient_dissimilarity,
                "gradient_dissimilarity_b_squared": found.b_squared,
                "gradient_norm": torch.linalg.vector_norm(mean).item(),
            }
        return line | self._evaluated(round_index, *now)

    def federated(self, replies: Sequence[Message] | EvaluationReplies) -> Line:
        """Measure a federated evaluation: means by examples, scores over classes, and the spread over clients."""
        task = self.population.task
        if isinstance(replies, EvaluationReplies):
            found: CohortEvaluation | None = replies.result
        else:
            found = read_evaluation(replies, self._client_of, SCORE_NAMES[task])
        if found is None or not (found.num_examples > 0).any():
            return {}
        known = found.num_examples > 0
        clients, sizes = found.clients[known], found.num_examples[known].astype(np.float64)
        losses, scores = found.loss[known], found.score[known]
        loss, score = np.average(losses, weights=sizes), np.average(scores, weights=sizes)
        shown = np.sqrt(losses) if task == "regression" else scores  # root mean squared error, as federated_error
        spread: Line = {
            "evaluated_on": found.evaluated_on,
            "clients": len(sizes),
            "variance": _variance(shown),
            "score": _with_tenths(shown),
            "loss": quantiles(losses),
            "worst": _named(
                worst(clients, shown, lowest=task == "classification"), self.population.federation.client_name
            ),
        }
        line: Line = dict(metrics("federated", float(loss), float(score), task))
        if found.classes is not None:
            spread["balanced_accuracy"] = _with_tenths(balanced_accuracy(found.classes)[known])
            line |= class_metrics("federated", found.classes.total())
        return line | {"client_spread": spread}

    def _stack(self, replies: Sequence[Message]) -> tuple[CohortUpdate | None, str]:
        try:
            return stack_replies(replies, self.codec, self._client_of), ""
        except (ValueError, KeyError, TypeError) as error:
            return None, f"drift: the replies do not hold the model's arrays ({error})"

    def _traffic(
        self, asked: Sequence[Message], replies: Sequence[Message], update: CohortUpdate | None, respondents: int
    ) -> Line:
        """Bytes of arrays sent each way, and how long the round lasted in simulated seconds."""
        if isinstance(asked, CohortMessages):
            down = _record_bytes(asked.arrays) + sum(_size(t) for t in asked.work.shared.values())
        else:
            down = max((_array_bytes(m) for m in asked[:1]), default=0)
        if isinstance(replies, CohortReplies):
            extras = len(replies.update.extras) * _size(replies.anchor)
            up = _size(replies.anchor) + self.codec.buffers.size * replies.anchor.element_size() + extras
        else:
            up = max((_array_bytes(m) for m in replies if m.has_content()), default=0)
        steps = update.local_steps if update is not None else np.zeros(1, np.int64)
        return {
            "bytes_down": down * len(asked),
            "bytes_up": up * respondents,
            "simulated_seconds": self.clock.round_seconds(steps, down, up),
        }

    def _evaluated(self, round_index: int, params: Tensor, buffers: Tensor) -> Line:
        """Central validation, agreement of predictions with the round before, optimality gap."""
        central = self._objectives or self.population.during(round_index).validation
        if self.evaluator is None or central is None:
            return {}
        self.evaluator.load(params, buffers)
        result = self.evaluator.central(central)
        task = self.population.task
        line: Line = dict(metrics("validation", result.loss, result.score, task))
        if task == "classification":
            counts = class_counts(result.predicted, central.targets, self.population.outputs)
            line |= class_metrics("validation", counts)
            if self.population.outputs <= MOST_CLASSES:
                line["class_accuracy"] = recalls(counts)
        if self.population.objective is not None:
            line["optimality_gap"] = result.loss - self.population.objective.optimal_value
        if task != "objective":
            probe = result.predicted[:PROBE_SIZE]
            if self._probe is not None:
                line["agreement"] = agreement(self._probe, probe, task)
            self._probe = probe
        return line


def _objectives(population: Population, evaluator: Evaluator | None) -> Examples | None:
    """Return every client's objective, once an example, where that is what central evaluation runs on."""
    if evaluator is None or population.task != "objective":
        return None
    data = population.cohort(np.arange(population.num_clients))
    rows = torch.from_numpy(data.rows)
    return Examples(data.features[rows], data.targets[rows])


def _training(update: CohortUpdate, names: Callable[[int], str]) -> Line:
    """Losses, steps and the local path of a cohort."""
    known = np.isfinite(update.train_loss) | (update.local_steps > 0)
    weights = update.num_examples * known
    loss = float(np.average(np.where(known, update.train_loss, 0.0), weights=weights)) if weights.any() else None
    line: Line = {"train_loss": loss, "local_steps": int(update.local_steps.sum())}
    if (update.train_errors >= 0).all():
        line["train_errors"] = int(update.train_errors.sum())
    if not np.isnan(update.client_drift).all() or (update.local_steps > 0).any():
        line["client_drift"] = {"mean": float(update.client_drift.mean())} | quantiles(update.client_drift)
        line["worst_client_drift"] = _named(worst(update.clients, update.client_drift), names)
        line["largest_gradient_norm"] = float(update.gradient_norm.max())
    else:
        line["client_drift"] = line["local_steps"] = None
        line["not_measured"] = "client_drift and local_steps: the clients return only where they ended, not the path"
    return line


def _columns(update: CohortUpdate, drift: Drift | None, weights: F64) -> dict[str, Array]:
    columns: Mapping[str, Array | None] = {
        "client": update.clients,
        "num_examples": update.num_examples,
        "local_steps": update.local_steps,
        "weight": weights,
        "train_loss": update.train_loss,
        "client_drift": update.client_drift,
        "gradient_norm": update.gradient_norm,
        "update_norm": drift.update_norm if drift is not None else None,
        "cosine": drift.cosine if drift is not None else None,
        "distance": drift.distance if drift is not None else None,
    }
    return {name: values for name, values in columns.items() if values is not None}


def _named(found: list[tuple[int, float]], names: Callable[[int], str]) -> list[dict[str, Any]]:
    return [{"client": client, "name": names(client), "value": value} for client, value in found]


def _with_tenths(values: F64) -> dict[str, float]:
    """Return the quantiles of one value a client, and the first and last decile."""
    with np.errstate(invalid="ignore"):  # a diverged model's may be infinite
        tenths = np.quantile(values, (0.1, 0.9)).tolist()
    return quantiles(values) | dict(zip(("p10", "p90"), tenths, strict=True))


def _variance(values: F64) -> float:
    with np.errstate(invalid="ignore"):  # nan where one is infinite
        return float(values.var())


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _array_bytes(message: Message) -> int:
    return sum(_record_bytes(record) for record in message.content.array_records.values())


def _record_bytes(record: ArrayRecord) -> int:
    """Return the bytes of a record's numbers, without what a serialisation puts around them."""
    return sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in record.values())
