"""Losses of many models on the same examples: a block of models is one tensor program."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from clients.core.user_code import described
from clients.engines.evaluation import CHUNK, Evaluator
from clients.engines.many.examples import ExampleSet, WeightedExamples
from clients.engines.recurrent import GruProgram, is_gru_forecaster
from clients.modules.copies import copy_module
from clients.modules.trial import evaluation_pass
from clients.training.losses import trained_losses
from clients.training.optimizers import penalties
from clients.training.task import LearningTask, probe_examples

BLOCK_BYTES = 256 * 2**20
"""What a block of models takes at most: their parameters, and what they make of a chunk of examples."""
AGREEMENT = {torch.float32: 1e-4, torch.float64: 1e-9}
"""The relative difference that outputs of stacked models may have from those of one model alone."""
GATES = 8
"""A recurrent pass keeps the gates of all time steps, which the module's own outputs do not show."""
Outputs = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(parameters [G, P], buffers [G, Q], features [n, ...]) -> outputs [G, n, ...]."""


class ManyModels:
    """Measures many models of one task, in evaluation mode.

    Args:
        task: the model and the data.
        block_bytes: what a block of models may take.

    Attributes:
        program: how: "vmap" of the module, the recurrence of "gru", or models "one by one".
        reason: why models are evaluated one by one; empty otherwise.
    """

    program: Literal["vmap", "gru", "one by one"]

    def __init__(self, task: LearningTask, block_bytes: int = BLOCK_BYTES) -> None:
        self.task, self._bytes = task, block_bytes
        self._module = copy_module(task.module).eval().to(task.device)
        self._each_example = _bytes_of_example(task)
        self.program, self.reason = "vmap", ""
        self._outputs: Outputs = self._by_vmap
        if is_gru_forecaster(task):
            self.program, self._outputs, self._gru = "gru", self._by_gru, GruProgram(task.population.task)
            self._each_example *= GATES
        if problem := self._problem():
            self.program, self.reason = "one by one", problem
            self._outputs, self._evaluator = self._one_by_one, Evaluator(task)

    def block(self, examples: int = CHUNK) -> int:
        """Return how many models are computed at once on chunks of so many examples."""
        item = self.task.dtype.itemsize
        each = (self.task.parameters.size + self.task.buffers.size) * (2 * item + 8)  # as made, in float64, and cast
        return max(1, self._bytes // (each + min(examples, CHUNK) * self._each_example))

    def losses(self, count: int, models: Callable[[int, int], tuple[Tensor, Tensor]], examples: ExampleSet) -> Tensor:
        """Return the loss of each of `count` models, float64 [count], with the penalties where it is the objective.

        Args:
            count: the number of models.
            models: (start, end) -> parameters [end - start, P] and buffers [end - start, Q] of these models.
            examples: the examples of the loss.
        """
        found, size = torch.zeros(count, dtype=torch.float64), self.block(examples.used)
        blocks = [(start, min(start + size, count)) for start in range(0, count, size)]
        with torch.no_grad():
            for chunk in examples:
                for start, end in blocks:
                    params, buffers = self._there(*models(start, end))
                    found[start:end] += self._sums(params, buffers, chunk).cpu()
            if examples.shares is not None and any(penalties(self.task.local)):
                for start, end in blocks:
                    found[start:end] += stacked_penalty(models(start, end)[0], *penalties(self.task.local)).cpu()
        return found

    def _there(self, params: Tensor, buffers: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(t.to(self.task.device, self.task.dtype) for t in (params, buffers))  # type: ignore[return-value]

    def _sums(self, params: Tensor, buffers: Tensor, chunk: WeightedExamples) -> Tensor:
        """Return sum_i a_i loss_i of each model over a chunk, float64 [G]."""
        gamma = self.task.local.focal_gamma if chunk.remedy is not None else 0.0
        kind = self.task.local.loss

        def each(outputs: Tensor) -> Tensor:
            return trained_losses(outputs, chunk.targets, self.task.population.task, gamma, chunk.remedy, kind)

        sums: Tensor = vmap(each)(self._outputs(params, buffers, chunk.features)).double() @ chunk.weights
        return sums

    def _by_vmap(self, params: Tensor, buffers: Tensor, features: Tensor) -> Tensor:
        def one(p: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
            out: Tensor = functional_call(self._module, {**p, **b}, (features,))
            return out

        named = self.task.parameters.views(params), self.task.buffers.views(buffers)
        if not self.task.buffers.names:
            outputs: Tensor = vmap(lambda p: one(p, {}))(named[0])
        else:
            outputs = vmap(one)(*named)
        return outputs

    def _by_gru(self, params: Tensor, buffers: Tensor, features: Tensor) -> Tensor:
        return self._gru.outputs(self.task.parameters.views(params), features)

    def _one_by_one(self, params: Tensor, buffers: Tensor, features: Tensor) -> Tensor:
        found = []
        for p, b in zip(params, buffers, strict=True):
            self._evaluator.load(p, b)
            found.append(self._evaluator.outputs(features))
        return torch.stack(found).to(self.task.device)

    def _problem(self) -> str:
        """Return why models cannot be stacked; empty where they can: a trial on a few examples decides."""
        task = self.task
        if task.passes.is_stateful:
            return "its outputs depend on earlier passes"
        features = probe_examples(task.population, task.dtype).features.to(task.device)
        if draws := evaluation_pass(self._module, features)[1]:
            return f"in evaluation mode it draws from {draws[0]}"
        params, buffers = self._there(*task.initial())
        try:
            with torch.no_grad():
                pair = torch.stack([params, params * 0.5]), torch.stack([buffers, buffers])
                stacked = self._outputs(*pair, features)
                alone = torch.stack([self._alone(p, b, features) for p, b in zip(*pair, strict=True)])
        except Exception as error:  # vmap refuses operators in many ways
            return described(error)
        if not torch.allclose(stacked, alone, rtol=AGREEMENT[task.dtype], atol=AGREEMENT[task.dtype]):
            return "stacked models have other outputs than one alone"
        return ""

    def _alone(self, params: Tensor, buffers: Tensor, features: Tensor) -> Tensor:
        named = self.task.parameters.views(params) | self.task.buffers.views(buffers)
        out: Tensor = functional_call(self._module, named, (features,))
        return out


def stacked_penalty(params: Tensor, l1: float, l2: float) -> Tensor:
    """Return l1 |w|_1 + l2 |w|^2 / 2 of each of some models [G, P], float64 [G].

    Example:
        >>> stacked_penalty(torch.tensor([[3.0, -4.0], [0.0, 1.0]]), 1.0, 2.0).tolist()
        [32.0, 2.0]
    """
    w = params.double()
    return l1 * w.abs().sum(1) + 0.5 * l2 * w.square().sum(1)


def _bytes_of_example(task: LearningTask) -> int:
    """Return the bytes that one model's pass takes for one example: inputs and outputs of all parts of the module."""
    features = probe_examples(task.population, task.dtype).features[:1].to(task.device)
    module, sizes = copy_module(task.module).eval().to(task.device), [3 * features.numel()]

    def count(_: nn.Module, given: object, made: object) -> None:
        tensors = [one for one in (*(given if isinstance(given, tuple) else ()), made) if isinstance(one, Tensor)]
        sizes.append(sum(math.prod(one.shape) for one in tensors))

    for part in module.modules():
        part.register_forward_hook(count)
    with torch.no_grad():
        module(features)
    return sum(sizes) * task.dtype.itemsize
