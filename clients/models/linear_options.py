"""Options of linear classifiers under their own names: logistic regression, linear SVM, perceptron."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clients.core.options import LossName
from clients.models.options import ModelOptions


@dataclass(frozen=True, kw_only=True)
class LinearClassifierOptions(ModelOptions):
    """A linear classifier, started at zero. Two classes share one weight vector w: the score of class 1 is w'x + b.

    Attributes:
        bias: whether scores have a constant b. `local.l1` and `local.l2` penalise it like any other weight.
    """

    bias: bool = True


@dataclass(frozen=True, kw_only=True)
class LogisticOptions(LinearClassifierOptions):
    """Logistic regression: P(class 1) = 1 / (1 + exp(-(w'x + b))); softmax regression for three classes or more.

    It differs from `softmax` for two classes alone, where that has two weight vectors.
    """

    kind: Literal["logistic"] = "logistic"


@dataclass(frozen=True, kw_only=True)
class SvmOptions(LinearClassifierOptions):
    """A linear support vector machine: the hinge loss, and `local.l2` for the width of its margin.

    With n examples in all, `local.l2` is 1 / (n C) for the C of Cortes and Vapnik 1995. Three classes or more have the
    loss of Crammer and Singer 2001. `local.loss` replaces the loss.

    Attributes:
        squared: the squared hinge, which has a continuous gradient.
    """

    kind: Literal["svm"] = "svm"
    squared: bool = False

    @property
    def loss(self) -> LossName:
        """The hinge or its square."""
        return "squared_hinge" if self.squared else "hinge"


@dataclass(frozen=True, kw_only=True)
class PerceptronOptions(LinearClassifierOptions):
    """Rosenblatt's perceptron (1958): it learns from mistakes alone; Kesler's rule for three classes or more.

    With `local.local_lr = 1` and `local.batch_size = 1`, a step adds y x to w where the example is on the wrong side
    (or on the boundary), with y = 1 or -1, and otherwise leaves w. `error_free` of [convergence] counts the mistakes.
    """

    kind: Literal["perceptron"] = "perceptron"

    @property
    def loss(self) -> LossName:
        """The perceptron's loss, max(0, -margin)."""
        return "perceptron"
