"""The examples of a loss that is a weighted sum over examples: of the global objective, or of central validation.

The loss of a model is sum_i a_i loss_i + penalty, with a_i >= 0 of sum 1. Of many examples a part may be drawn: then
all models are measured on the same part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.core import streams
from clients.core.arrays import F64, I64, Bool
from clients.core.errors import UserError
from clients.core.population import Population
from clients.engines.evaluation import CHUNK
from clients.engines.objective import blocks_of
from clients.training.remedies import class_weight_table
from clients.training.task import LearningTask, cast_features, cast_targets


@dataclass(frozen=True)
class WeightedExamples:
    """Some examples of a loss, on the task's device.

    Attributes:
        features: [n, ...].
        targets: [n] or [n, outputs].
        weights: a_i, float64 [n].
        remedy: factors of the example losses by name, as `trained_losses` takes them; empty where they are 1. None for
            plain losses: validation has no remedies.
        owners: the place of each one's client in `ExampleSet.clients`, int64 [n]; empty for central examples.
    """

    features: Tensor
    targets: Tensor
    weights: Tensor
    remedy: dict[str, Tensor] | None
    owners: I64

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.weights)


@dataclass(frozen=True)
class ExampleSet:
    """The examples on which models are compared.

    Attributes:
        task: the model and the data.
        round_index: the round whose data count.
        shares: p_k of the global objective, float64 (N,) with sum 1; None for the central validation examples.
        chosen: whether each example counts, bool (n,): client after client, or in the order of the validation examples.
        by_client: whether the examples that count of client k have the weight p_k together, whatever their number; each
            client then has one. Otherwise each example has the weight it has among all, times one factor.
    """

    task: LearningTask
    round_index: int
    shares: F64 | None
    chosen: Bool
    by_client: bool = False

    @property
    def clients(self) -> I64:
        """The clients that have a weight, int64 (K,), increasing; none for central examples."""
        return np.flatnonzero(self.shares if self.shares is not None else []).astype(np.int64)

    @property
    def used(self) -> int:
        """How many examples count."""
        return int(self.chosen.sum())

    def __len__(self) -> int:
        """Return how many examples there are."""
        return len(self.chosen)

    def __iter__(self) -> Iterator[WeightedExamples]:
        """Yield the examples that count, at most `CHUNK` at a time; clients' data are made when they are due."""
        population = self.task.population.during(self.round_index)
        return self._of_clients(population) if self.shares is not None else self._central(population)

    def _central(self, population: Population) -> Iterator[WeightedExamples]:
        examples = population.central_examples("validation")
        weights = np.full(self.used, 1.0 / self.used)
        for rows in torch.split(torch.from_numpy(np.flatnonzero(self.chosen)), CHUNK):
            nobody = np.zeros(0, np.int64)
            yield self._sent(examples.features[rows], examples.targets[rows], weights[: len(rows)], None, nobody)

    def _of_clients(self, population: Population) -> Iterator[WeightedExamples]:
        assert self.shares is not None, "the examples are the clients'"
        clients = self.clients
        total, start, first = self._total(population, clients), 0, 0
        for block in blocks_of(clients, population.sizes):
            end = start + int(population.sizes[block].sum(dtype=np.int64))
            chosen, start, before = self.chosen[start:end], end, first
            first += len(block)
            if not chosen.any():
                continue
            data = population.cohort(block)
            owners = np.repeat(np.arange(len(block)), data.sizes)[chosen]
            rows = data.rows[chosen]
            counts = np.bincount(owners, minlength=len(block)) if self.by_client else data.sizes
            weights = self.shares[block][owners] / counts[owners] / total
            table = class_weight_table(self.task, data, of_objective=True)
            if population.task == "objective":  # a quadratic's equal examples are one row, many times
                (owners, rows), places = np.unique(np.stack([owners, rows]), axis=1, return_inverse=True)
                weights = np.bincount(places, weights=weights).astype(np.float64)
            for part in np.split(np.arange(len(rows)), range(CHUNK, len(rows), CHUNK)):
                index = torch.from_numpy(rows[part])
                targets = data.targets[index]
                scales = None if table is None else table[torch.from_numpy(owners[part])]
                yield self._sent(data.features[index], targets, weights[part], scales, before + owners[part])

    def _total(self, population: Population, clients: I64) -> float:
        """Return the weight of the examples that count, before it is made 1."""
        assert self.shares is not None, "the examples are the clients'"
        if self.by_client:
            return float(self.shares[clients].sum())
        sizes = population.sizes[clients].astype(np.int64)
        each = np.repeat(self.shares[clients] / sizes, sizes)
        return float(each[self.chosen].sum()) if self.used < len(self) else float(self.shares[clients].sum())

    def _sent(
        self, features: Tensor, targets: Tensor, weights: F64, table: Tensor | None, owners: I64
    ) -> WeightedExamples:
        """Return examples on the task's device; `table` [n, classes] are the class weights of each one's client."""
        task = self.task
        there = cast_targets(targets, task.dtype).to(task.device)
        remedy: dict[str, Tensor] | None = {} if self.shares is not None else None
        if table is not None:
            remedy = {"scales": table.to(task.device).gather(1, there[:, None]).squeeze(1)}
        weighed = torch.from_numpy(np.ascontiguousarray(weights)).to(task.device)
        sent = cast_features(features, task.dtype).to(task.device)
        return WeightedExamples(sent, there, weighed, remedy, owners)


def objective_examples(task: LearningTask, shares: F64, round_index: int, most: int | None = None) -> ExampleSet:
    """Return the examples of the global objective f(w) = sum p_k F_k(w) in a round.

    Args:
        task: the model and the data.
        shares: p_k, float64 (N,), with sum 1; a client of weight 0 is left out.
        round_index: the round whose data count.
        most: so many examples are drawn where there are more; None takes all.
    """
    sizes = task.population.during(round_index).sizes
    count = int(sizes[np.flatnonzero(shares)].sum(dtype=np.int64))
    return ExampleSet(task, round_index, shares, _drawn(count, most, task.seed))


def validation_examples(task: LearningTask, round_index: int, most: int | None = None) -> ExampleSet:
    """Return the central validation examples in a round; the arguments are those of `objective_examples`.

    Raises:
        UserError: there are none.
    """
    validation = task.population.during(round_index).validation
    if validation is None or not len(validation):
        fix = "Use of='objective', or keep examples for validation."
        raise UserError("of", "is 'validation', and the data have no central validation examples", fix=fix)
    return ExampleSet(task, round_index, None, _drawn(len(validation), most, task.seed))


def _drawn(count: int, most: int | None, seed: int) -> Bool:
    """Return which of `count` examples count: all, or `most` drawn without replacement."""
    chosen = np.ones(count, bool)
    if most is not None and count > most:
        drawn = streams.hashes(streams.keys(seed, "examples of many models"), count)
        chosen[:] = False
        chosen[np.argpartition(drawn, most)[:most]] = True
    return chosen
