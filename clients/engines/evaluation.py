"""Evaluation of one model: on central examples, and on the examples of many clients at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.cards.transfer import sent
from clients.core.errors import UserError
from clients.core.examples import CohortData, Examples
from clients.core.parameters import tensors_of, write_tensors
from clients.core.population import CentralPart, Population
from clients.engines.progress import Progress
from clients.modules.randomness import Seeding, generators_restored, may_draw
from clients.training.class_metrics import ClassCounts, client_class_counts
from clients.training.losses import example_losses, example_scores, predictions, trained_losses
from clients.training.remedies import class_weight_table
from clients.training.task import LearningTask, cast_features, cast_targets, working_copy
from clients.training.work import CohortWork

CHUNK = 1024
"""Examples that pass through a model together, and the blocks in which central examples are dealt to workers: the same
number in every process. On one core an MLP and a GRU are as fast as with 4,096, and a CNN is a tenth faster."""
PIECE = 128
"""Examples that pass through 2-D convolutions together on a CPU, a part of a `CHUNK`: their activations fill a cache
where those of 1,024 examples fill memory. 500 examples of McMahan's CNN take two thirds of the time of one piece."""
KEPT_BYTES = 1 << 30
"""Central examples of at most so many bytes stay on a card."""


@dataclass(frozen=True)
class Evaluation:
    """A model's mean loss and score (`losses.SCORE_NAMES`), and its `losses.predictions` [n, ...]."""

    loss: float
    score: float
    predicted: Tensor


@dataclass(frozen=True)
class ExampleScores:
    """What a model makes of n examples, one after another.

    Attributes:
        losses: loss of each, [n].
        scores: score of each (`losses.SCORE_NAMES`), [n].
        predicted: `losses.predictions`, [n, ...].
    """

    losses: Tensor
    scores: Tensor
    predicted: Tensor

    def mean(self, weights: Tensor | None = None) -> Evaluation:
        """Return the means; `weights` [n], float64 with sum 1, None for 1 / n."""
        return Evaluation(_mean(self.losses, weights), _mean(self.scores, weights), self.predicted)


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
        self._layouts = task.parameters, task.buffers
        self._tensors = [tensors_of(self._module, layout) for layout in self._layouts]
        self._seeding = Seeding(self._module, task.device) if may_draw(self._module) else None
        self._key = int(streams.keys(task.seed, "module/evaluation"))
        convolves = any(isinstance(part, nn.Conv2d) for part in self._module.modules())
        self._piece = PIECE if convolves and self._seeding is None and task.device.type == "cpu" else CHUNK

    def load(self, params: Tensor, buffers: Tensor) -> None:
        """Load a model for the calls that follow."""
        if self.task.passes.is_stateful:
            self._renew()
        for tensors, layout, flat in zip(self._tensors, self._layouts, (params, buffers), strict=True):
            if tensors:
                write_tensors(tensors, layout, flat)

    def outputs(self, features: Tensor, chunk: int = 0) -> Tensor:
        """Return the loaded model's outputs for features [n, ...], in main memory.

        Numbers that it draws are seeded by the task for each `CHUNK` of examples; `chunk` is the number of the first.
        """
        return self._outputs(features, chunk).cpu()

    def _outputs(self, features: Tensor, chunk: int = 0) -> Tensor:
        """Return `outputs`, on the task's device; features may be there too."""
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if self._seeding is not None:
                stack.enter_context(generators_restored(self.task.device))
            parts = [self._chunk(part, chunk + n) for n, part in enumerate(torch.split(features, CHUNK))]
        return torch.cat(parts) if len(parts) != 1 else parts[0]

    def draw(self, number: int) -> Tensor:
        """Return samples [number, *feature_shape] of the loaded model, a game whose generator draws some.

        Raises:
            UserError: what it draws does not have the shape of the examples.
        """
        shape = (number, *self.task.population.feature_shape)
        with torch.no_grad():
            samples = self._module.draw(number)  # type: ignore[operator]
        if not isinstance(samples, Tensor) or tuple(samples.shape) != shape:
            got = tuple(samples.shape) if isinstance(samples, Tensor) else type(samples).__name__
            raise UserError("model", f"draw({number}) returns {got}, and samples need the shape {shape}")
        return samples.cpu()

    def _chunk(self, features: Tensor, number: int) -> Tensor:
        if self._seeding is not None:
            self._seeding.seed(self._key + number)
        there = self._there(cast_features(features, self.task.dtype))
        outputs: Tensor = torch.cat([self._module(piece) for piece in torch.split(there, self._piece)])
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
        return self.each(self._kept(examples)).mean(weights)

    def on_central(self, part: CentralPart, round_index: int) -> Evaluation:
        """Evaluate the loaded model on the server's examples of a round, which the population must have."""
        return self.central(self.task.population.during(round_index).central_examples(part))

    def each(self, examples: Examples, chunk: int = 0) -> ExampleScores:
        """Return loss, score and prediction of each example, in main memory.

        `chunk` is the number of the examples' first `CHUNK` in a set.
        """
        outputs, task = self._outputs(examples.features, chunk), self.task.population.task
        targets = self._there(cast_targets(examples.targets, self.task.dtype))
        predicted = predictions(outputs, task)
        losses = example_losses(outputs, targets, task, self.task.local.loss)
        scores = example_scores(predicted, targets, task)
        return ExampleScores(losses.cpu(), scores.cpu(), predicted.cpu())

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
        losses, scores, predicted, targets = self._of_clients(data)
        index = np.repeat(np.arange(len(clients)), data.sizes)
        sizes = data.sizes

        def mean(values: Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
            total = np.bincount(index, weights=values.double().numpy(), minlength=len(clients))
            return np.where(sizes > 0, total / np.maximum(sizes, 1), np.nan)

        where, classes = "test" if held_out is not None else "train", None
        if population.task == "classification":
            classes = client_class_counts(predicted, targets, index, len(clients), population.outputs)
        return CohortEvaluation(clients, sizes, mean(losses), mean(scores), where, classes)

    def _of_clients(self, data: CohortData) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return loss and score of each example and, for classification, predictions and targets."""
        device, classify = self.task.device, self.task.population.task == "classification"
        nothing, none = torch.zeros(0, device=device), torch.zeros(0, dtype=torch.int64, device=device)
        losses, scores, guessed, true = [nothing], [nothing], [none], [none]
        for rows in torch.split(torch.from_numpy(data.rows), CHUNK):
            outputs = self._outputs(data.features[rows])
            targets = self._there(cast_targets(data.targets[rows], self.task.dtype))
            losses.append(example_losses(outputs, targets, self.task.population.task, self.task.local.loss))
            predicted = predictions(outputs, self.task.population.task)
            scores.append(example_scores(predicted, targets, self.task.population.task))
            if classify:
                guessed.append(predicted)
                true.append(targets)
        return torch.cat(losses).cpu(), torch.cat(scores).cpu(), torch.cat(guessed).cpu(), torch.cat(true).cpu()

    def training_losses(self, blocks: Sequence[I64], round_index: int) -> Iterator[F64]:
        """Yield F_k of the loaded model for blocks of clients that have examples, float64 (K,) each; see `objective`.

        The examples are those of a round. A block's data are made when it is due.
        """
        population = self.task.population.during(round_index)
        for block in blocks:
            yield self._training_losses(population, block)

    def _training_losses(self, population: Population, clients: I64) -> F64:
        data = population.cohort(clients)
        owners = np.repeat(np.arange(len(clients)), data.sizes)
        if population.task == "objective":  # a quadratic's equal examples are one row, many times
            rows, places = np.unique(data.rows, return_inverse=True)
            losses = self._trained_losses(data, rows, None)[places]
        else:
            table = class_weight_table(self.task, data, of_objective=True)
            weights = None if table is None else table[torch.from_numpy(owners)]
            losses = self._trained_losses(data, data.rows, weights)
        sums = np.bincount(owners, weights=losses, minlength=len(clients))
        means: F64 = sums / np.maximum(data.sizes, 1)
        return means

    def _trained_losses(self, data: CohortData, rows: I64, weights: Tensor | None) -> F64:
        """Return the training loss of some rows (M,); `weights` [M, classes] are class weights, None for equal ones."""
        task, found = self.task, [np.zeros(0)]
        for places in torch.split(torch.arange(len(rows)), CHUNK):
            chosen = torch.from_numpy(rows)[places]
            targets = cast_targets(data.targets[chosen], task.dtype)
            outputs = self.outputs(data.features[chosen])
            remedy = {} if weights is None else {"scales": weights[places].gather(1, targets[:, None]).squeeze(1)}
            kind, local = task.population.task, task.local
            losses = trained_losses(outputs, targets, kind, local.focal_gamma, remedy, local.loss)
            found.append(losses.double().numpy())
        return np.concatenate(found)


def _mean(values: Tensor, weights: Tensor | None) -> float:
    return float(values.mean(dtype=torch.float64) if weights is None else values.double() @ weights)
