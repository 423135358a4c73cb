"""Scores that common classes cannot hide: recall by class, balanced accuracy, macro-F1.

All are read off three counts a class, which add up over clients. A class without examples counts for nothing, as in
scikit-learn's `balanced_accuracy_score`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from clients.core.arrays import F64, I64

MOST_CLASSES = 32
"""Classes above which no score by class is recorded; those over classes still are."""
CLASS_SCORES = ("balanced_accuracy", "macro_f1")
"""What `class_metrics` says, without its prefix."""


@dataclass(frozen=True)
class ClassCounts:
    """Counts by class, of examples taken together or of each of K clients.

    Attributes:
        right: examples of the class that were predicted so, int64 (..., classes).
        actual: examples of the class.
        guessed: examples predicted to be of the class.
    """

    right: I64
    actual: I64
    guessed: I64

    def total(self) -> ClassCounts:
        """Return the counts of all clients together: (classes,) each."""
        return ClassCounts(self.right.sum(0), self.actual.sum(0), self.guessed.sum(0))


def class_counts(predicted: Tensor, targets: Tensor, classes: int) -> ClassCounts:
    """Count the predictions [n] of examples by class, (classes,) each."""
    return _count(predicted.numpy(), targets.numpy(), classes)


def client_class_counts(predicted: Tensor, targets: Tensor, owner: I64, clients: int, classes: int) -> ClassCounts:
    """Count the predictions [n] of each client's examples by class, (clients, classes) each.

    Args:
        predicted: classes predicted.
        targets: the classes there are.
        owner: position of each example's client, int64 (n,).
        clients: how many, K.
        classes: how many.
    """
    first = owner * classes
    found = _count(first + predicted.numpy(), first + targets.numpy(), clients * classes)
    shape = (clients, classes)
    return ClassCounts(found.right.reshape(shape), found.actual.reshape(shape), found.guessed.reshape(shape))


def _count(guess: I64, truth: I64, cells: int) -> ClassCounts:
    return ClassCounts(
        np.bincount(truth[guess == truth], minlength=cells),
        np.bincount(truth, minlength=cells),
        np.bincount(guess, minlength=cells),
    )


def recalls(counts: ClassCounts) -> list[float | None]:
    """Return the share of each class's examples predicted right; None for a class without examples.

    Example:
        >>> import torch
        >>> recalls(class_counts(torch.tensor([0, 0]), torch.tensor([0, 1]), 3))
        [1.0, 0.0, None]
    """
    pairs = zip(counts.right.tolist(), counts.actual.tolist(), strict=True)
    return [right / actual if actual else None for right, actual in pairs]


def balanced_accuracy(counts: ClassCounts) -> F64:
    """Return the mean recall of the classes that have examples, (...,); nan where none has.

    Example:
        >>> import torch
        >>> float(balanced_accuracy(class_counts(torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 0, 1]), 3)))
        0.5
    """
    return _mean_present(counts.right / np.maximum(counts.actual, 1), counts.actual)


def macro_f1(counts: ClassCounts) -> F64:
    """Return the mean F1 of the classes that have examples, (...,); nan where none has.

    F1 of a class is 2 right / (actual + guessed), the harmonic mean of its precision and recall.
    """
    return _mean_present(2 * counts.right / np.maximum(counts.actual + counts.guessed, 1), counts.actual)


def _mean_present(scores: F64, actual: I64) -> F64:
    present = actual > 0
    held = present.sum(-1)
    mean = np.where(present, scores, 0.0).sum(-1) / np.maximum(held, 1)
    found: F64 = np.where(held > 0, mean, np.nan)
    return found


def class_metrics(prefix: str, counts: ClassCounts) -> dict[str, float]:
    """Return the two scores over classes under the record's names.

    Example:
        >>> import torch
        >>> class_metrics("test", class_counts(torch.tensor([0, 1]), torch.tensor([0, 1]), 2))
        {'test_balanced_accuracy': 1.0, 'test_macro_f1': 1.0}
    """
    return {
        f"{prefix}_balanced_accuracy": float(balanced_accuracy(counts)),
        f"{prefix}_macro_f1": float(macro_f1(counts)),
    }


def imbalance(counts: ClassCounts) -> float:
    """Return the examples of the largest class over those of the smallest that has any."""
    held = counts.actual[counts.actual > 0]
    return float(held.max() / held.min()) if len(held) else 1.0
