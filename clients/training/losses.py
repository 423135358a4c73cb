"""Losses and scores, one number for each example; callers choose the weighting of examples."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from clients.core.arrays import I64
from clients.core.examples import Task
from clients.core.population import ForecastSpec, Population

MANY_EXAMPLES, FEW_CLASSES = 128, 16
"""From this many examples, and up to this many classes, softmax over the first axis is five times as fast."""

MARGIN_LOSSES: tuple[str, ...] = ("hinge", "squared_hinge", "perceptron")
_WANTED = {"hinge": 1.0, "squared_hinge": 1.0, "perceptron": 0.0}  # the least margin without a loss


def example_losses(outputs: Tensor, targets: Tensor, task: Task, loss: str = "auto") -> Tensor:
    """Return the loss of each example.

    Args:
        outputs: model outputs, [n, classes] logits, [n, outputs] forecasts, or [n] objective values.
        targets: int64 [n] classes, or [n, outputs].
        task: classification has cross-entropy, regression the squared error averaged over outputs, an objective the
            output itself.
        loss: one of `LocalOptions.loss`; "auto" is the task's.

    Returns:
        Losses [n].
    """
    if loss in MARGIN_LOSSES:
        return margin_losses(outputs, targets, loss)
    if task == "classification":
        if len(outputs) >= MANY_EXAMPLES and outputs.shape[1] <= FEW_CLASSES:
            return functional.log_softmax(outputs.t(), 0).gather(0, targets.unsqueeze(0)).squeeze(0).neg()
        return functional.cross_entropy(outputs, targets, reduction="none")
    if task == "regression":
        return (outputs - targets.view_as(outputs)).square().flatten(1).mean(1)
    return outputs.flatten()


def trained_losses(
    outputs: Tensor,
    targets: Tensor,
    task: Task,
    gamma: float = 0.0,
    remedy: Mapping[str, Tensor] | None = None,
    loss: str = "auto",
) -> Tensor:
    """Return the training loss of each example: `example_losses` with the remedies for unequal classes.

    Args:
        outputs: as in `example_losses`.
        targets: as in `example_losses`.
        task: as in `example_losses`.
        gamma: exponent of the focal loss (classification only); 0 is cross-entropy.
        remedy: `scales` [n], the factor of each loss (class weight, and share under mixup). Under mixup also `others`
            [n], the class that each example was mixed with, and `other_scales` [n], the factor of the loss for it.
        loss: as in `example_losses`.

    Returns:
        Losses [n].
    """
    if not remedy and not gamma:
        return example_losses(outputs, targets, task, loss)
    log_p = None if loss in MARGIN_LOSSES else functional.log_softmax(outputs, -1)

    def of(classes: Tensor) -> Tensor:
        if log_p is None:
            return margin_losses(outputs, classes, loss)
        return focal(log_p.gather(-1, classes.unsqueeze(-1)).squeeze(-1), gamma)

    losses = of(targets)
    if not remedy:
        return losses
    losses = losses * remedy["scales"]
    return losses + of(remedy["others"]) * remedy["other_scales"] if "others" in remedy else losses


def margins(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return by how much the score of the true class exceeds that of its best rival, and which class that is.

    Args:
        outputs: scores [..., classes].
        targets: int64 [...] classes.

    Returns:
        Margins [...]; int64 rivals [...], the first of equals.
    """
    index = targets.unsqueeze(-1)
    rivals = outputs.detach().scatter(-1, index, -torch.inf).argmax(-1)
    own, best = outputs.gather(-1, index), outputs.gather(-1, rivals.unsqueeze(-1))
    return (own - best).squeeze(-1), rivals


def margin_losses(outputs: Tensor, targets: Tensor, loss: str) -> Tensor:
    """Return the loss of each example from its margin m.

    "hinge" is max(0, 1 - m) (Crammer and Singer 2001), "squared_hinge" its square, "perceptron" max(0, -m), whose
    gradient at m = 0 is that of a mistake, as in Rosenblatt's rule.

    Args:
        outputs: scores [..., classes].
        targets: int64 [...] classes.
        loss: see above.

    Returns:
        Losses [...].

    Example:
        >>> scores, classes = torch.tensor([[0.0, 0.25], [0.0, 3.0]]), torch.tensor([0, 1])
        >>> [margin_losses(scores, classes, loss).tolist() for loss in MARGIN_LOSSES]
        [[1.25, 0.0], [1.5625, 0.0], [0.25, 0.0]]
    """
    missing = (_WANTED[loss] - margins(outputs, targets)[0]).clamp_min(0)  # its gradient at 0 is 1
    return missing.square() if loss == "squared_hinge" else missing


def margin_error(outputs: Tensor, targets: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """Return `margin_losses` [...] and their derivative by the outputs [..., classes]."""
    away, rivals = margins(outputs, targets)
    missing = _WANTED[loss] - away
    counts = (missing >= 0).to(outputs.dtype)
    missing = missing.clamp_min(0)
    losses, slope = (missing.square(), 2 * missing) if loss == "squared_hinge" else (missing, counts)
    d = torch.zeros_like(outputs).scatter_(-1, rivals.unsqueeze(-1), slope.unsqueeze(-1))
    return losses, d.scatter_add_(-1, targets.unsqueeze(-1), -slope.unsqueeze(-1))


def focal(log_p: Tensor, gamma: float) -> Tensor:
    """Return -(1 - p)^gamma log p (Lin et al. 2017, equation 4) from log p, elementwise; cross-entropy if gamma is 0.

    Example:
        >>> focal(torch.tensor([0.5]).log(), 2.0).item() / -torch.tensor(0.5).log().item()
        0.25
    """
    return -log_p if not gamma else -(_miss(log_p) ** gamma) * log_p


def focal_slope(log_p: Tensor, gamma: float) -> Tensor:
    """Return A, where A (p - e_y) is the derivative of the focal loss by the logits; 1 where gamma is 0.

    A = (1 - p)^gamma - gamma p (1 - p)^(gamma - 1) log p, with p = p_y.
    """
    if not gamma:
        return torch.ones_like(log_p)
    miss = _miss(log_p)
    return miss**gamma - gamma * log_p.exp() * miss ** (gamma - 1) * log_p


def _miss(log_p: Tensor) -> Tensor:
    """Return 1 - p, bounded above 0, so that its powers stay finite where p rounds to 1 (log p is 0 there)."""
    return -torch.expm1(log_p).clamp_max(-(torch.finfo(log_p.dtype).tiny ** 0.5))


def predictions(outputs: Tensor, task: Task) -> Tensor:
    """Return the predictions for scores and for agreement between rounds: the classes [n], or the outputs."""
    return outputs.argmax(1) if task == "classification" else outputs


def example_scores(predicted: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Return the score of each prediction [n]: 1 for the right class else 0, absolute error, or the objective."""
    if task == "classification":
        return (predicted == targets).to(torch.float32)
    if task == "regression":
        return (predicted - targets.view_as(predicted)).abs().flatten(1).mean(1)
    return predicted.flatten()


SCORE_NAMES: dict[Task, str] = {"classification": "accuracy", "regression": "mae", "objective": "objective"}
"""The names of `example_scores` in records: accuracy, mean absolute error, objective."""


def metrics(prefix: str, loss: float, score: float, task: Task) -> dict[str, float]:
    """Return an evaluation by the names of the record: `_loss`, and `_accuracy` and `_error`, or `_mae` and `_error`.

    Example:
        >>> metrics("validation", 0.5, 0.75, "classification")
        {'validation_loss': 0.5, 'validation_accuracy': 0.75, 'validation_error': 0.25}
    """
    found = {f"{prefix}_loss": loss}
    if task == "classification":
        return found | {f"{prefix}_accuracy": score, f"{prefix}_error": 1.0 - score}
    if task == "regression":
        return found | {f"{prefix}_mae": score, f"{prefix}_error": loss**0.5}
    return found


def error_words(population: Population, *, scaled: bool = True) -> str:
    """Return a description of a regression's error and its unit; empty for other tasks.

    Args:
        population: has the task and the channels.
        scaled: whether readings were divided by their standard deviation.

    Example:
        >>> from clients.core.channels import Channel
        >>> from clients.core.population import ExampleSpec
        >>> def forecasts(*channels):
        ...     spec = ExampleSpec(task="regression", feature_shape=(), outputs=1, channels=channels)
        ...     return Population(spec=spec, federation=None, clients=None)
        >>> error_words(forecasts(Channel(name="speed", unit="mph", deviation=12.9)))
        'root mean squared error, in deviations of speed (1 is 12.9 mph)'
        >>> error_words(forecasts(Channel(name="load")))
        'root mean squared error, in deviations of the readings'
        >>> error_words(forecasts())
        "root mean squared error, in the targets' own unit"
    """
    if population.task != "regression":
        return ""
    if population.spec.forecast is not None:
        clients = np.flatnonzero(population.sizes).astype(np.int64)
        return "root mean squared error, " + _forecast_words(population.spec.forecast, clients)
    measured = [channel for channel in population.spec.channels if channel.measured]
    if not measured or not scaled:
        return "root mean squared error, in the targets' own unit"
    first = measured[0]
    if population.spec.reconstructs or not first.unit:
        return "root mean squared error, in deviations of the readings"
    return f"root mean squared error, in deviations of {first.name} (1 is {first.deviation:.3g} {first.unit})"


def _forecast_words(spec: ForecastSpec, clients: I64) -> str:
    """Return the unit of a forecast's error in words."""
    what = spec.quantity or "the readings"
    if spec.scaled_by == "none":
        return f"in {spec.unit}" if spec.unit else "in the unit of the readings; data.unit names it"
    whose = "each client's own deviations" if spec.scaled_by == "client" else "deviations"
    deviations = spec.scale(clients)[1]
    low, high = (f"{one:.3g}" for one in (deviations.min(initial=np.inf), deviations.max(initial=0.0)))
    one = low if low == high else f"{low} to {high}"
    unit = f" {spec.unit}" if spec.unit else "; data.unit names their unit"
    return f"in {whose} of {what} (1 is {one}{unit})"


def agreement(before: Tensor, after: Tensor, task: Task) -> float:
    """Return the share of examples whose prediction did not change.

    A forecast counts as unchanged where it moved by at most 1% of the standard deviation of the earlier forecasts.
    """
    if task == "classification":
        same = before.numpy() == after.numpy()
        return float(same.mean()) if same.size else math.nan
    scale = before.std(0, unbiased=False) if len(before) > 1 else before.abs().squeeze(0)
    return float(((after - before).abs() <= 0.01 * scale).to(torch.float64).mean())
