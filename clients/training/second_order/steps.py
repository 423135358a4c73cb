"""The steps of Newton's method and L-BFGS: a gradient becomes what the client steps along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from clients.training.options import SECOND_ORDER, LocalOptions
from clients.training.second_order.directions import SecantPairs, newton_directions
from clients.training.second_order.line_search import backtracked


@dataclass(frozen=True)
class StackedProblem:
    """What k clients minimise in a step: the loss of their batch with the algorithm's correction, without l2.

    Attributes:
        gradients: parameters [k, P] -> gradients [k, P].
        hessians: (parameters [k, P], gradients there [k, P]) -> Hessians [k, P, P], which may be overwritten.
    """

    gradients: Callable[[Tensor], Tensor]
    hessians: Callable[[Tensor, Tensor], Tensor]


class SecondOrderSteps:
    """The local steps of K clients in one round.

    Args:
        local: the optimiser and its constants.
        clients: K.
        like: a vector [P] with the type and the device of the parameters.
        lr: the round's learning rate.
    """

    def __init__(self, local: LocalOptions, clients: int, like: Tensor, lr: float) -> None:
        self._local, self._lr = local, lr
        self._pairs = SecantPairs(clients, local.history, like) if local.optimizer == "lbfgs" else None

    def preconditioned(self, params: Tensor, gradients: Tensor, problem: StackedProblem) -> Tensor:
        """Return what the first k clients step along: w - local_lr x it is where the step ends, [k, P].

        Args:
            params: where they are, [k, P].
            gradients: of `problem` there, [k, P].
            problem: their batch.
        """
        local, lr = self._local, self._lr

        def gradient_at(there: Tensor) -> Tensor:
            return problem.gradients(there).add_(there, alpha=local.l2)

        whole = gradients.add(params, alpha=local.l2)
        lengths = whole.new_full((len(whole),), lr)
        if self._pairs is not None:
            self._pairs.add(params, whole)
            directions = self._pairs.directions(whole)
            lengths *= self._pairs.first_lengths(whole)
        else:
            hessians = problem.hessians(params, gradients)
            hessians.diagonal(dim1=1, dim2=2).add_(local.l2 + local.damping)
            directions = newton_directions(hessians, whole)
        if local.line_search == "backtracking":
            lengths = backtracked(gradient_at, params, directions, whole, lengths)
        return -directions * (lengths / lr)[:, None]


def second_order_steps(local: LocalOptions, clients: int, like: Tensor, lr: float) -> SecondOrderSteps | None:
    """Return the steps of an optimiser that needs them; None for the others."""
    return SecondOrderSteps(local, clients, like, lr) if local.optimizer in SECOND_ORDER else None


def kept_vectors(local: LocalOptions, parameters: int) -> int:
    """Return how many vectors [P] a client's second-order step keeps: a few Hessians, or the secant pairs.

    Example:
        >>> kept_vectors(LocalOptions(optimizer="lbfgs", history=5), 100), kept_vectors(LocalOptions(), 100)
        (12, 0)
    """
    if local.optimizer == "newton":
        return 3 * parameters
    return 2 * local.history + 2 if local.optimizer == "lbfgs" else 0
