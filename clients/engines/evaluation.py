"""Evaluation of one model: on central examples, and on the examples of many clients at once."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.cards.transfer import sent
from clients.core.examples import CohortData, Examples
from clients.core.parameters import write_vector
from clients.engines.progress import Progress
from clients.modules.randomness import Seeding, generators_restored, may_draw
from clients.training.class_metrics import ClassCounts, client_class_counts
from clients.training.losses import example_losses, example_scores, predictions
from clients.training.task import LearningTask, cast_features, cast_targets, working_copy
from clients.training.work import CohortWork

CHUNK = 4096
KEPT_BYTES = 1 << 30
"""Central examples of at most so many bytes stay on a card."""


@dataclass(frozen=True)
class Evaluation:
    """A model's mean loss and score (`losses.SCORE_NAMES`), and its `losses.predictions` [n, ...]."""

    loss: float
    score: float
    predicted: Tensor


@dataclass(frozen=True)
class CohortEvaluation:
    """Federated evaluation: one row for each client.

    Attributes:
        clients: int64 (K,).
        num_examples: examples evaluated on, int64 (K,).
        loss: mean example loss, float64 (K,).
        score: mean example score (accuracy, absolute error or objective), float64 (K,).
        evaluated_on: "test" where clients have held-out examples, else "train"; "client" where nodes report it.
        classes: counts by class of each client's examples, (K, classes) each; None where unknown.
    """

    clients: I64
    num_examples: I64
    loss: F64
    score: F64
    evaluated_on: str
    classes: ClassCounts | None = None


class Evaluator:
    """Evaluates parameters of a task, in evaluation mode, on a copy of its module."""

    def __init__(self, task: LearningTask) -> None:
        self.task = task
        self.progress: Progress | None = None
        self._central: list[tuple[Examples, Examples]] = []
        self._renew()

    def _renew(self) -> None:
        """Take a copy of the task's module to evaluate."""
        task = self.task
        self._module = working_copy(task.module).eval().to(task.device)
        self._seeding = Seeding(self._module, task.device) if may_draw(self._module) else None
        self._key = int(streams.keys(task.seed, "module/evaluation"))

    def load(self, params: Tensor, buffers: Tensor) -> None:
        """Load a model for the calls that follow."""
        if self.task.passes.is_stateful:
            self._renew()
        write_vector(self._module, self.task.parameters, params)
        write_vector(self._module, self.task.buffers, buffers)

    def outputs(self, features: Tensor) -> Tensor:
        """Return the loaded model's outputs for features [n, ...], in main memory.

        Numbers that it draws are seeded by the task.
        """
        return self._outputs(features).cpu()

    def _outputs(self, features: Tensor) -> Tensor:
        """Return `outputs`, on the task's device; features may be there too."""
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if self._seeding is not None:
                stack.enter_context(generators_restored(self.task.device))
                self._seeding.seed(self._key)
            parts = [self._chunk(part) for part in torch.split(features, CHUNK)]
        return torch.cat(parts) if len(parts) != 1 else parts[0]

    def _chunk(self, features: Tensor) -> Tensor:
        outputs: Tensor = self._module(self._there(cast_features(features, self.task.dtype)))
        if self.progress is not None:
            self.progress.add(len(features))
        return outputs

    def _there(self, tensor: Tensor) -> Tensor:
        """Return a tensor on the task's device."""
        return tensor if tensor.device == self.task.device else sent(tensor, self.task.device)

    def _kept(self, examples: Examples) -> Examples:
        """Return examples that are evaluated again and again on the task's device, where a card keeps small ones."""
        if self.task.device.type == "cpu" or examples.features.nbytes > KEPT_BYTES:
            return examples
        if not any(known is examples for known, _ in self._central):
            there = Examples(self._there(examples.features), self._there(examples.targets))
            self._central = [*self._central[-1:], (examples, there)]
        return next(there for known, there in self._central if known is examples)

    def _begin(self, examples: int) -> None:
        if self.progress is not None:
            self.progress.begin("evaluation", examples, "examples")

    def central(self, examples: Examples, weights: Tensor | None = None) -> Evaluation:
        """Evaluate the loaded model on examples; `weights` [n], float64 with sum 1, of their means; None for 1 / n."""
        self._begin(len(examples))
        examples, task = self._kept(examples), self.task.population.task
        outputs, weights = self._outputs(examples.features), None if weights is None else self._there(weights)
        targets = self._there(cast_targets(examples.targets, self.task.dtype))
        predicted = predictions(outputs, task)
        losses, scores = example_losses(outputs, targets, task), example_scores(predicted, targets, task)
        return Evaluation(_mean(losses, weights), _mean(scores, weights), predicted.cpu())

    def evaluate(self, work: CohortWork) -> CohortEvaluation:
        """Evaluate the broadcast model of `work` on each of its clients' examples; see `clients`."""
        self.load(work.params, work.buffers)
        return self.clients(work.clients, work.round_index)

    def clients(self, clients: I64, round_index: int = 0) -> CohortEvaluation:
        """Evaluate the loaded model on the clients' held-out examples, or on training examples if none are held out.

        Loss and score of a client without examples are nan. The examples are those of `round_index`.
        """
        population = self.task.population.during(round_index)
        held_out = population.clients.held_out
        data = held_out(clients) if held_out is not None else population.cohort(clients)
        self._begin(len(data.rows))
        losses, scores, predicted, targets = self._each(data)
        index = np.repeat(np.arange(len(clients)), data.sizes)
        sizes = data.sizes

        def mean(values: Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
            total = np.bincount(index, weights=values.double().numpy(), minlength=len(clients))
            return np.where(sizes > 0, total / np.maximum(sizes, 1), np.nan)

        where, classes = "test" if held_out is not None else "train", None
        if population.task == "classification":
            classes = client_class_counts(predicted, targets, index, len(clients), population.outputs)
        return CohortEvaluation(clients, sizes, mean(losses), mean(scores), where, classes)

    def _each(self, data: CohortData) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return loss and score of each example and, for classification, predictions and targets."""
        device, classify = self.task.device, self.task.population.task == "classification"
        nothing, none = torch.zeros(0, device=device), torch.zeros(0, dtype=torch.int64, device=device)
        losses, scores, guessed, true = [nothing], [nothing], [none], [none]
        for rows in torch.split(torch.from_numpy(data.rows), CHUNK):
            outputs = self._outputs(data.features[rows])
            targets = self._there(cast_targets(data.targets[rows], self.task.dtype))
            losses.append(example_losses(outputs, targets, self.task.population.task))
            predicted = predictions(outputs, self.task.population.task)
            scores.append(example_scores(predicted, targets, self.task.population.task))
            if classify:
                guessed.append(predicted)
                true.append(targets)
        return torch.cat(losses).cpu(), torch.cat(scores).cpu(), torch.cat(guessed).cpu(), torch.cat(true).cpu()


def _mean(values: Tensor, weights: Tensor | None) -> float:
    return float(values.mean(dtype=torch.float64) if weights is None else values.double() @ weights)
