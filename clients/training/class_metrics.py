"""Scores in which every class counts: recall by class, balanced accuracy, macro-F1; how well a score ranks two classes.

All follow from three counts for each class, which add up over clients. As in scikit-learn, balanced accuracy leaves
classes without examples out (`balanced_accuracy_score`), and macro-F1 leaves out classes that are neither held nor
guessed (`f1_score` with `average="macro"`, `zero_division=0`): a class that is only guessed counts as 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from clients.core.arrays import F64, I64, Bool

MOST_CLASSES = 32
"""With more classes than this, scores by class are not recorded; scores over classes still are."""
CLASS_SCORES = ("balanced_accuracy", "macro_f1")
"""The names of `class_metrics`, without its prefix."""


@dataclass(frozen=True)
class ClassCounts:
    """Counts by class, over all examples or for each of K clients.

    Attributes:
        right: examples of the class that were predicted correctly, int64 (..., classes).
        actual: examples of the class.
        guessed: examples predicted to be of the class.
    """

    right: I64
    actual: I64
    guessed: I64

    def total(self) -> ClassCounts:
        """Return the sums over clients, (classes,) each."""
        return ClassCounts(self.right.sum(0), self.actual.sum(0), self.guessed.sum(0))


def class_counts(predicted: Tensor, targets: Tensor, classes: int) -> ClassCounts:
    """Count the predictions [n] of examples by class, (classes,) each."""
    return _count(predicted.numpy(), targets.numpy(), classes)


def client_class_counts(predicted: Tensor, targets: Tensor, owner: I64, clients: int, classes: int) -> ClassCounts:
    """Count the predictions [n] of each client's examples by class, (clients, classes) each.

    Args:
        predicted: the predicted classes.
        targets: the true classes.
        owner: position of each example's client, int64 (n,).
        clients: number of clients, K.
        classes: number of classes.
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
    """Return the share of each class's examples predicted correctly; None for a class without examples.

    Example:
        >>> import torch
        >>> recalls(class_counts(torch.tensor([0, 0]), torch.tensor([0, 1]), 3))
        [1.0, 0.0, None]
    """
    pairs = zip(counts.right.tolist(), counts.actual.tolist(), strict=True)
    return [right / actual if actual else None for right, actual in pairs]


def balanced_accuracy(counts: ClassCounts) -> F64:
    """Return the mean recall over classes with examples, (...,); nan without examples.

    Example:
        >>> import torch
        >>> float(balanced_accuracy(class_counts(torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 0, 1]), 3)))
        0.5
    """
    return _mean_over(counts.actual > 0, counts.right / np.maximum(counts.actual, 1))


def macro_f1(counts: ClassCounts) -> F64:
    """Return the mean F1 over classes that are held or guessed, (...,); nan without examples.

    F1 of a class is 2 right / (actual + guessed), the harmonic mean of its precision and recall.

    Example:
        >>> import torch
        >>> float(macro_f1(class_counts(torch.tensor([0, 2]), torch.tensor([0, 0]), 4)))  # F1 2/3 and 0
        0.3333333333333333
    """
    both = counts.actual + counts.guessed
    return _mean_over(both > 0, 2 * counts.right / np.maximum(both, 1))


def _mean_over(chosen: Bool, scores: F64) -> F64:
    """Return the mean of the chosen scores along the last axis; nan where none is chosen."""
    number = chosen.sum(-1)
    mean = np.where(chosen, scores, 0.0).sum(-1) / np.maximum(number, 1)
    found: F64 = np.where(number > 0, mean, np.nan)
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
    """Return the size of the largest class divided by that of the smallest class that has examples."""
    held = counts.actual[counts.actual > 0]
    return float(held.max() / held.min()) if len(held) else 1.0


def ranking(scores: F64, positive: Bool) -> dict[str, float]:
    """Return how well scores rank positive examples above the others.

    Args:
        scores: of n examples, (n,); larger ones say positive.
        positive: which examples are, (n,).

    Returns:
        `auc`, the chance that a positive example has a larger score than another one (ties count half), and
        `average_precision`, as scikit-learn's; empty where the examples are all alike.

    Example:
        >>> ranking(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
        {'auc': 0.75, 'average_precision': 0.8333333333333333}
    """
    hits = int(positive.sum())
    if not 0 < hits < len(positive):
        return {}
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    auc = (ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * (len(positive) - hits))
    above = np.cumsum(count[::-1])  # examples at each distinct score or above, from the top
    found = np.cumsum(np.bincount(place, positive)[::-1])
    gained = np.diff(found, prepend=0.0)
    return {"auc": float(auc), "average_precision": float((found / above * gained).sum() / hits)}


def anomaly_scores(outputs: Tensor, targets: Tensor, anomalous: Bool) -> dict[str, float | int]:
    """Return how well the error of a reconstruction finds known anomalies.

    The error of an example is the mean square of what is left of it, and its relative error that divided by the mean
    square of the example itself, so that strong signals do not look like anomalies.

    Args:
        outputs: reconstructions [n, ...].
        targets: what they reproduce, of as many numbers.
        anomalous: which examples are anomalies, (n,).

    Returns:
        `examples` and `anomalies`; with both kinds of examples `auc` and `average_precision` of the error, and
        `relative_auc` and `relative_average_precision` of the relative error.
    """
    rows = targets.double().flatten(1)
    error = (outputs.double().flatten(1) - rows).square().mean(1).numpy()
    size = rows.square().mean(1).numpy()
    relative = np.divide(error, size, out=np.zeros_like(error), where=size > 0)
    found = ranking(error, anomalous) | {f"relative_{name}": v for name, v in ranking(relative, anomalous).items()}
    return {"examples": len(error), "anomalies": int(anomalous.sum()), **found}
