"""A second-order step of stacked clients; the plain engine stacks one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from clients.core.parameters import Layout
from clients.engines.batch import Batch, Tensors
from clients.training.rules import LocalRule
from clients.training.second_order.hessians import LossHessians, rule_curvature
from clients.training.second_order.steps import SecondOrderSteps, StackedProblem
from clients.training.task import LearningTask


class StackedStep:
    """Turns the gradients of the first k clients of a tile into what they step along.

    Args:
        task: the learning task.
        steps: the optimiser's state for the tile.
        rule: the algorithm's local rule.
        anchor, broadcast, state: its other inputs, by name of the parameter; `state` has a row for each client.
    """

    def __init__(
        self,
        task: LearningTask,
        steps: SecondOrderSteps,
        rule: LocalRule,
        anchor: Mapping[str, Tensor],
        broadcast: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Mapping[str, Tensor]],
    ) -> None:
        self._steps, self._rule, self._layout = steps, rule, task.parameters
        self._anchor, self._broadcast, self._state = anchor, broadcast, state
        self._hessians = LossHessians(
            task.module,
            task.parameters,
            task.population.task,
            task.local.focal_gamma,
            task.device,
            task.local.loss,
        )

    def corrected(self, params: Tensors, gradients: Tensors) -> Tensors:
        """Return the rule's corrections of gradients [k, *shape], which may be overwritten."""
        if self._rule.correct is None:
            return gradients
        return {n: self._rule.correct(g, params[n], *self._inputs(n, len(g))) for n, g in gradients.items()}

    def preconditioned(
        self, params: Tensors, gradients: Tensors, batch: Batch, gradients_at: Callable[[Tensors], Tensors]
    ) -> Tensors:
        """Return what k clients step along, [k, *shape].

        Args:
            params: where they are [k, *shape].
            gradients: their corrected gradients there [k, *shape].
            batch: what they learn from in this step.
            gradients_at: parameters [k, *shape] -> gradients of the batch's losses.
        """
        layout = self._layout

        def slope(flat: Tensor) -> Tensor:
            there = layout.views(flat)
            return layout.flatten(self.corrected(there, gradients_at(there)), lead=1)

        def curvature(flat: Tensor, at: Tensor) -> Tensor:
            found = self._hessians.of(flat, batch.features, batch.targets, batch.weights, batch.remedy)
            return with_rule(found, self._rule, layout, flat, at, self._inputs)

        flat = layout.flatten(params, lead=1)
        problem = StackedProblem(slope, curvature)
        return layout.views(self._steps.preconditioned(flat, layout.flatten(gradients, lead=1), problem))

    def _inputs(self, name: str, k: int) -> tuple[Tensor, Tensors, Tensors]:
        """Return the other inputs of the rule for a parameter of the first k clients."""
        broadcast = {n: v[name] for n, v in self._broadcast.items()}
        return self._anchor[name], broadcast, {n: v[name][:k] for n, v in self._state.items()}


def with_rule(
    hessians: Tensor,
    rule: LocalRule,
    layout: Layout,
    params: Tensor,
    gradients: Tensor,
    inputs: Callable[[str, int], tuple[Tensor, Tensors, Tensors]],
) -> Tensor:
    """Add the curvature of a local rule to Hessians [k, P, P], in place; parameters and gradients are [k, P]."""
    if rule.correct is None:
        return hessians
    pairs = zip(layout.views(params).items(), layout.views(gradients).values(), strict=True)
    added = {n: rule_curvature(rule.correct, g, w, *inputs(n, len(w))) for (n, w), g in pairs}
    hessians.diagonal(dim1=1, dim2=2).add_(layout.flatten(added, lead=1))
    return hessians
