"""Which models can be trained with Newton's method and L-BFGS."""

from __future__ import annotations

from torch import Tensor, nn

from clients.core.errors import UserError
from clients.core.examples import Examples, Task
from clients.core.parameters import Layout, buffer_layout, read_vector
from clients.core.user_code import described
from clients.modules.players import TwoPlayer
from clients.modules.trial import PassFacts
from clients.training.options import SECOND_ORDER, LocalOptions
from clients.training.second_order.hessians import LossHessians

MOST_PARAMETERS = 1500
"""The most parameters of a model that Newton's method takes. A step of 1,500 parameters solves 1,500 linear equations
in a tenth of a second, and a Hessian of float64 has 18 MB for each client."""


KINKED = ("hinge", "perceptron")
"""Losses of straight pieces, whose second derivative is 0."""


def check_second_order(
    local: LocalOptions, module: nn.Module, layout: Layout, facts: PassFacts, probe: Examples, task: Task
) -> None:
    """Refuse a model whose loss is no fixed function of its parameters, or too large for its Hessian.

    Args:
        local: the optimiser.
        module: the model, in training mode.
        layout: its parameters.
        facts: what trial passes showed.
        probe: a few examples.
        task: what the model's outputs are.

    Raises:
        UserError: of the field `optimizer`.
    """
    if local.optimizer not in SECOND_ORDER:
        return
    name = local.optimizer
    if isinstance(module, TwoPlayer):
        problem = f"{name!r} minimises one function, and the model is a game of two players with a loss each"
        raise UserError("optimizer", problem, fix="Use a first-order optimizer, such as 'sgd' or 'adam'.")
    drawn = "dropout" if facts.sites else facts.draws[0] if facts.draws else ""
    if drawn:
        problem = f"{name!r} needs a loss that is the same function in every evaluation, and the model draws: {drawn}"
        raise UserError("optimizer", problem, fix="Use a model without it, or a first-order optimizer such as 'adam'.")
    if facts.is_stateful or buffer_layout(module).size:
        problem = f"{name!r} needs a loss that depends on parameters alone, and the model keeps running statistics"
        raise UserError("optimizer", problem, fix="Use group normalisation or none, or a first-order optimizer.")
    if name != "newton":
        return
    if layout.size > MOST_PARAMETERS:
        problem = (
            f"'newton' solves a linear system of the model's {layout.size:,} parameters in each step, and takes at "
            f"most {MOST_PARAMETERS:,}"
        )
        raise UserError("optimizer", problem, fix="Use 'lbfgs', which needs no Hessian, or a smaller model.")
    if local.loss in KINKED:
        problem = f"'newton' needs a loss with a curvature, and {local.loss!r} consists of straight pieces"
        raise UserError("optimizer", problem, fix="Use a first-order optimizer, such as 'sgd', or another local.loss.")
    features, targets = probe.features[:2], probe.targets[:2]
    try:
        hessians = LossHessians(module, layout, task, local.focal_gamma, loss=local.loss)
        hessians.of(_row(module, layout), features[None], targets[None])
    except (RuntimeError, NotImplementedError) as error:
        problem = f"'newton' needs second derivatives, and the model has none: {described(error)}"
        raise UserError("optimizer", problem, fix="Use 'lbfgs', which needs gradients alone.") from error


def _row(module: nn.Module, layout: Layout) -> Tensor:
    """Return the model's parameters as those of one client, [1, P]."""
    return read_vector(module, layout)[None]
