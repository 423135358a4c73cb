"""Measures the samples of a loaded model beside the examples that the server holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, I64
from clients.core.population import CentralPart, Population
from clients.engines.evaluation import Evaluator
from clients.engines.samples.quality import NEIGHBOURS, FeatureSpace, Quality, pairwise, quality_of
from clients.modules.players import draws
from clients.training.task import LearningTask

MOST = 2000
"""Examples that samples are compared with, at most: the first of the part, which holds them in no order of interest."""
PICTURED, MOST_NUMBERS = 40, 3 * 64 * 64
"""Samples of a picture, and the most numbers that one of them may have."""


@dataclass(frozen=True)
class HeldOut:
    """Real examples that samples are compared with.

    Attributes:
        features: (n, d).
        labels: their classes, (n,); None where they have none.
    """

    features: F64
    labels: I64 | None


class SampleMeter:
    """Draws as many samples as there are real examples, and measures them.

    The space of features is fixed for the run: the principal components of the validation examples, or of the test
    examples where there are no others. The clients' own examples are not looked at, since a server has none of them.

    Args:
        evaluator: has the model, loaded by its caller.
        population: has the central examples.
    """

    def __init__(self, evaluator: Evaluator, population: Population) -> None:
        self._evaluator, self._population = evaluator, population
        self._parts: dict[CentralPart, HeldOut] = {}

    @cached_property
    def space(self) -> FeatureSpace:
        """The space of features."""
        return FeatureSpace.of(self._flat(self._reference))

    def measure(self, part: CentralPart) -> dict[str, float]:
        """Return the measures of the loaded model's samples by the names of the record: see `measures_of`."""
        real = self._held_out(part)
        drawn = self.space.features(_rows(self._evaluator.draw(len(real.features))))
        return measures_of(part, quality_of(real.features, drawn, real.labels))

    def picture(self) -> dict[str, Any] | None:
        """Return a few samples as images, in the order of their classes; None where examples are no small images.

        Returns:
            `shape` (channels, height, width), and `images`: of each the numbers from 0 to 255, channel after channel,
            row after row. `classes` has the class of the nearest real example of each, where there are classes.
        """
        shape = image_shape(self._population.feature_shape)
        if shape is None:
            return None
        drawn = _rows(self._evaluator.draw(PICTURED))
        if not np.isfinite(drawn).all():
            return None
        found: dict[str, Any] = {"shape": list(shape)}
        real = self._held_out(self._reference)
        if real.labels is not None:
            classes = real.labels[pairwise(real.features, self.space.features(drawn)).argmin(0)]
            order = np.argsort(classes, kind="stable")
            drawn, found["classes"] = drawn[order], classes[order].tolist()
        return found | {"images": np.rint(255 * drawn.clip(0, 1)).astype(np.int64).tolist()}

    @property
    def _reference(self) -> CentralPart:
        """The part that the space is fitted to, and whose classes order the picture."""
        return "validation" if self._population.validation is not None else "test"

    def _held_out(self, part: CentralPart) -> HeldOut:
        if part not in self._parts:
            labelled = self._population.spec.generates
            labels = self._population.central_examples(part).targets[:MOST].numpy() if labelled else None
            self._parts[part] = HeldOut(self.space.features(self._flat(part)), labels)
        return self._parts[part]

    def _flat(self, part: CentralPart) -> F64:
        return _rows(self._population.central_examples(part).features[:MOST])


def draws_measured_samples(task: LearningTask) -> bool:
    """Return whether a task's model draws samples, and the server holds enough examples to compare them with."""
    population = task.population
    parts = [part for part in (population.validation, population.test) if part is not None]
    enough = bool(parts) and min(map(len, parts)) > NEIGHBOURS
    return enough and population.task == "objective" and draws(task.module)


def sample_meter(evaluator: Evaluator | None, population: Population) -> SampleMeter | None:
    """Return what measures the samples of a model; None where it draws none, or the server holds too few examples."""
    if evaluator is None or not draws_measured_samples(evaluator.task):
        return None
    return SampleMeter(evaluator, population)


def measures_of(part: CentralPart, quality: Quality) -> dict[str, float]:
    """Return measures by the names of the record.

    Example:
        >>> measures_of("test", Quality(0.5, 0.75, 0.25, None))
        {'test_frechet_distance': 0.5, 'test_sample_precision': 0.75, 'test_sample_coverage': 0.25}
    """
    found: dict[str, float] = {
        f"{part}_frechet_distance": quality.frechet_distance,
        f"{part}_sample_precision": quality.precision,
        f"{part}_sample_coverage": quality.coverage,
    }
    return found if quality.classes is None else found | {f"{part}_sample_classes": quality.classes}


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return the channels, height and width of examples that are small images; None for others.

    Example:
        >>> image_shape((64,)), image_shape((3, 8, 8)), image_shape((10,)), image_shape((5, 8, 8))
        ((1, 8, 8), (3, 8, 8), None, None)
    """
    numbers = math.prod(shape)
    if len(shape) == 1:
        channels, height, width = 1, math.isqrt(numbers), math.isqrt(numbers)
    elif len(shape) in (2, 3):
        channels, height, width = (1, 1, *shape)[-3:]
    else:
        return None
    fits = channels in (1, 3) and channels * height * width == numbers <= MOST_NUMBERS
    return (channels, height, width) if fits else None


def _rows(values: Tensor) -> F64:
    """Return examples as rows of float64, (n, D)."""
    found: F64 = values.detach().to("cpu", torch.float64).flatten(1).numpy()
    return found
