"""The optimisers in two forms: `torch.optim` for one client, and the same steps in place for a stack of clients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from clients.core.arrays import F64
from clients.training.options import SECOND_ORDER, LocalOptions

LINEAR = ("gd", "sgd", "momentum", "nesterov")
"""Optimisers whose steps are sums of gradients with fixed factors."""
SQUARES = {"adam": "exp_avg_sq", "adamw": "exp_avg_sq", "rmsprop": "square_avg", "adagrad": "sum"}
"""torch's names for the second moments of adaptive optimisers, which are the last state of a `StackedOptimizer`."""
Step = Callable[[Tensor, Tensor, list[Tensor], int, float], None]
"""(params, gradient, state, step from 1, lr): updates params and state in place; may overwrite the gradient."""


@dataclass(frozen=True)
class StackedOptimizer:
    """An optimiser for tensors with a leading client axis: number of state tensors, and its in-place step."""

    num_states: int
    step: Step


class TorchOptimizer(Protocol):
    """The part of `torch.optim.Optimizer` that training uses."""

    @property
    def state(self) -> Mapping[Tensor, Mapping[str, Tensor]]:
        """Return the state of each parameter."""

    def zero_grad(self) -> None:
        """Drop the gradients."""

    def step(self) -> Any:
        """Take a step."""


class TorchSgd:
    """`torch.optim.SGD` through torch's function of the same steps: its class imports torch's compiler, for a second.

    Args:
        params: the parameters.
        lr: learning rate.
        weight_decay: factor of the parameters that are added to their gradients.
        momentum: factor of the velocity; 0 keeps none.
        nesterov: whether the step looks ahead along the velocity.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, *, weight_decay: float, momentum: float, nesterov: bool
    ) -> None:
        self._params = list(params)
        self._velocities: dict[nn.Parameter, Tensor | None] = {}
        self._lr, self._weight_decay, self._momentum, self._nesterov = lr, weight_decay, momentum, nesterov
        self.state: Mapping[Tensor, Mapping[str, Tensor]] = defaultdict(dict)

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for p in self._params:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take a step with the parameters that have a gradient."""
        moved = [p for p in self._params if p.grad is not None]
        velocities = [self._velocities.get(p) for p in moved] if self._momentum else []
        gradients = [p.grad for p in moved if p.grad is not None]
        sgd(
            [*moved], gradients, velocities, weight_decay=self._weight_decay, momentum=self._momentum, lr=self._lr,
            dampening=0.0, nesterov=self._nesterov, maximize=False,
        )  # fmt: skip
        self._velocities.update(zip(moved, velocities, strict=False))


def torch_optimizer(params: Iterable[nn.Parameter], local: LocalOptions, lr: float) -> TorchOptimizer:
    """Build torch's optimiser of one client. Decoupled weight decay is applied by the caller.

    Under "newton" and "lbfgs" it is SGD: `second_order` has made of the gradients what it steps along.
    """
    o, l2 = local, local.coupled_decay
    match o.optimizer:
        case "newton" | "lbfgs":
            return TorchSgd(params, lr, weight_decay=0.0, momentum=0.0, nesterov=False)
        case "gd" | "sgd":
            return TorchSgd(params, lr, weight_decay=l2, momentum=0.0, nesterov=False)
        case "momentum" | "nesterov":
            ahead = o.optimizer == "nesterov" and o.momentum > 0
            return TorchSgd(params, lr, weight_decay=l2, momentum=o.momentum, nesterov=ahead)
        case "adam" | "adamw":
            return torch.optim.Adam(params, lr=lr, weight_decay=l2, betas=(o.beta1, o.beta2), eps=o.epsilon)
        case "rmsprop":
            return torch.optim.RMSprop(params, lr=lr, weight_decay=l2, alpha=o.rho, eps=o.epsilon)
        case "adagrad":
            return torch.optim.Adagrad(params, lr=lr, weight_decay=l2, eps=o.epsilon)


def shrink(
    w: Tensor, local: LocalOptions, lr: float, step: int, state: Mapping[str, Tensor] | Sequence[Tensor]
) -> None:
    """Take the proximal step of the L1 penalty in place, after the optimiser's step (counted from 1).

    The threshold is l1 x how far this step moves w for a gradient of 1. So a minimiser of loss + l1 |w| is a fixed
    point of every optimiser; its zeros are exact. For adaptive optimisers it is the proximal step in their metric.
    Source: Yun et al. 2021 (NeurIPS), ProxGen, equation (3).

    Args:
        w: parameters.
        local: the optimiser and l1.
        lr: learning rate.
        step: the step.
        state: the optimiser's state for w: torch's, or of a `StackedOptimizer`.
    """
    if local.optimizer in LINEAR:
        rho = local.momentum if local.optimizer in ("momentum", "nesterov") else 0.0
        velocity = (1 - rho**step) / (1 - rho)
        reach = lr * local.l1 * (1 + rho * velocity if local.optimizer == "nesterov" else velocity)
        w.sub_(w.clamp(-reach, reach))
        return
    square = state[SQUARES[local.optimizer]] if isinstance(state, Mapping) else state[-1]
    scale = square.sqrt()
    if local.optimizer in ("adam", "adamw"):
        scale = scale / (1 - local.beta2**step) ** 0.5
    bound = lr * local.l1 / (scale + local.epsilon)
    w.sub_(torch.minimum(torch.maximum(w, -bound), bound))


def stacked_optimizer(local: LocalOptions) -> StackedOptimizer:
    """Build the same optimiser for stacked tensors [K, *shape]; all clients are at the same step number."""
    o = local

    def sgd(w: Tensor, g: Tensor, state: list[Tensor], step: int, lr: float) -> None:
        w.add_(g, alpha=-lr)

    def momentum(w: Tensor, g: Tensor, state: list[Tensor], step: int, lr: float) -> None:
        velocity = state[0].mul_(o.momentum).add_(g) if step > 1 else state[0].copy_(g)
        w.add_(
            g.add_(velocity, alpha=o.momentum) if o.optimizer == "nesterov" and o.momentum > 0 else velocity, alpha=-lr
        )

    def adam(w: Tensor, g: Tensor, state: list[Tensor], step: int, lr: float) -> None:
        mean, square = state
        mean.lerp_(g, 1 - o.beta1)
        square.mul_(o.beta2).addcmul_(g, g, value=1 - o.beta2)
        scale = (square.sqrt() / (1 - o.beta2**step) ** 0.5).add_(o.epsilon)
        w.addcdiv_(mean, scale, value=-lr / (1 - o.beta1**step))

    def rmsprop(w: Tensor, g: Tensor, state: list[Tensor], step: int, lr: float) -> None:
        square = state[0].mul_(o.rho).addcmul_(g, g, value=1 - o.rho)
        w.addcdiv_(g, square.sqrt().add_(o.epsilon), value=-lr)

    def adagrad(w: Tensor, g: Tensor, state: list[Tensor], step: int, lr: float) -> None:
        total = state[0].addcmul_(g, g)
        w.addcdiv_(g, total.sqrt().add_(o.epsilon), value=-lr)

    def with_l2(inner: Step) -> Step:
        if not o.coupled_decay or o.optimizer in SECOND_ORDER:
            return inner
        return lambda w, g, state, step, lr: inner(w, g.add_(w, alpha=o.coupled_decay), state, step, lr)

    rows: dict[str, tuple[int, Step]] = {
        "gd": (0, sgd),
        "sgd": (0, sgd),
        "momentum": (1, momentum),
        "nesterov": (1, momentum),
        "adam": (2, adam),
        "adamw": (2, adam),
        "rmsprop": (1, rmsprop),
        "adagrad": (1, adagrad),
        "newton": (0, sgd),
        "lbfgs": (0, sgd),
    }
    num_states, step = rows[o.optimizer]
    return StackedOptimizer(num_states, with_l2(step))


def penalties(local: LocalOptions) -> tuple[float, float]:
    """Return (l1, l2) of the penalties l1 |w|_1 + l2 |w|^2 / 2 that local steps descend.

    Decoupled weight decay under gd and sgd is the same step as l2; under the other optimisers it belongs to no
    objective and is left out.
    """
    return local.l1, local.coupled_decay + (local.decoupled_decay if local.optimizer in ("gd", "sgd") else 0.0)


def penalty(params: Tensor, local: LocalOptions) -> float:
    """Return the `penalties` l1 |w|_1 + l2 |w|^2 / 2 at `params` [P]; `penalty_gradient` is their gradient.

    Example:
        >>> penalty(torch.tensor([3.0, -4.0]), LocalOptions(l1=1.0, l2=2.0))
        32.0
    """
    w = params.double()
    l1, l2 = penalties(local)
    return float(l1 * w.abs().sum() + 0.5 * l2 * w.square().sum())


def penalty_gradient(local: LocalOptions, params: Tensor, gradient: Tensor) -> Tensor | None:
    """Return the gradient at `params` [P] of the `penalties` that local steps descend; None without penalties.

    At w_i = 0 the subgradient of |w_i| is the one that leaves the least of `gradient` + penalty, so that both sum to 0
    at a minimiser.

    Args:
        local: options of local training.
        params: where the gradient is taken [P].
        gradient: that of the objective without penalties [P].

    Example:
        >>> w, g = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([1.0, 0.3, -0.9])
        >>> g + penalty_gradient(LocalOptions(l1=0.5), w, g)
        tensor([ 1.5000,  0.0000, -0.4000])
    """
    l1, l2 = penalties(local)
    if not l2 and not l1:
        return None
    smooth = l2 * params
    if not l1:
        return smooth
    at_zero = -(gradient + smooth).clamp(-l1, l1)
    return smooth + torch.where(params == 0, at_zero, l1 * params.sign())


def gradient_weights(local: LocalOptions, local_lr: float, longest: int, mu: float = 0.0) -> F64:
    """Return |a| after 0, 1, ..., `longest` local steps: how far unit gradients move a client, divided by local_lr.

    An optimiser that is linear in the gradient moves a client by local_lr x the sum of a_j g_j, and |a| is the sum of
    the a_j (Wang et al. 2020, section 4). For the others (`LINEAR` lists those that are) it is the number of steps.

    Args:
        local: the optimiser.
        local_lr: the round's learning rate.
        longest: most local steps.
        mu: weight of a proximal term, which is part of a.

    Example:
        >>> gradient_weights(LocalOptions(optimizer="sgd"), 0.1, 3)
        array([0., 1., 2., 3.])
        >>> gradient_weights(LocalOptions(optimizer="momentum", momentum=0.5), 0.1, 3)
        array([0.  , 1.  , 2.5 , 4.25])
    """
    out = np.zeros(longest + 1)
    velocity = 0.0
    rho = local.momentum if local.optimizer in ("momentum", "nesterov") else 0.0
    for t in range(1, longest + 1):
        gradient = 1.0 - mu * local_lr * out[t - 1]
        velocity = rho * velocity + gradient
        step = gradient + rho * velocity if local.optimizer == "nesterov" else velocity
        out[t] = out[t - 1] + step
    return out
