"""Local rules: how an algorithm changes a client's gradients, and the client state it keeps.

A rule is elementwise, so the same function works for one client and for a stack of clients. Rules are the client half
of an algorithm; the server half is in `server.algorithms`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import overload

from torch import Tensor

from clients.core.errors import UserError, require_numbers

Vectors = Mapping[str, Tensor]
Correct = Callable[[Tensor, Tensor, Tensor, Vectors, Vectors], Tensor]
"""(gradient, params, anchor, broadcast, state) -> the gradient to step along. The gradient may be overwritten.

`anchor` is the broadcast parameters, `broadcast` the other broadcast vectors, `state` the client state. All have the
shape of `params`, or broadcast to it where they have no client axis."""


@dataclass(frozen=True)
class LocalResult:
    """The input of a rule's `finish`, for one or several finished clients: flat vectors, [K, P] or [P].

    Attributes:
        anchor: broadcast parameters [P].
        params: local parameters [K, P].
        steps: local steps taken [K, 1], as a float tensor.
        local_lr: the round's local learning rate.
        broadcast: other broadcast vectors, each [P].
        state: the client states before the round, each [K, P].
        anchor_gradient: the clients' full-batch gradients at the anchor [K, P]; None unless the rule needs it.
        gradient_weight: |a| [K, 1], the total weight that the local optimiser gives to the gradients of its steps:
            `steps` for SGD, more with momentum. Divide `anchor - params` by `gradient_weight` x `local_lr` for a mean
            gradient. For Adam, AdamW, RMSprop and Adagrad, which have none, it is `steps`.
    """

    anchor: Tensor
    params: Tensor
    steps: Tensor
    local_lr: float
    broadcast: Vectors
    state: Vectors
    anchor_gradient: Tensor | None
    gradient_weight: Tensor


Finish = Callable[[LocalResult], tuple[dict[str, Tensor], dict[str, Tensor]]]
"""LocalResult -> (new client state, extra vectors to return), each [K, P]."""


@dataclass(frozen=True)
class LocalRule:
    """How a client turns gradients into steps.

    Attributes:
        name: for display, and for messages between machines.
        correct: see `Correct`; None leaves gradients unchanged.
        broadcast: names of the server's vectors that it reads.
        client_state: names of the vectors that a client keeps between rounds; zeros before its first round.
        returns: names of the extra vectors that a client returns to the server.
        finish: see `Finish`; None keeps and returns nothing.
        needs_anchor_gradient: whether `finish` reads the full-batch gradient at the anchor.
        sends_last_step: whether the update is the last local step alone; the steps before it only lead there.
        forgets_partial_work: whether a client that did less than its full local work keeps its old state. Servers that
            drop such updates need it: the states of server and clients must belong to the same round.
        options: the constants in its functions. Name and options identify the rule: another process builds its own
            rule from the scenario and compares them.
    """

    name: str
    correct: Correct | None = None
    broadcast: tuple[str, ...] = ()
    client_state: tuple[str, ...] = ()
    returns: tuple[str, ...] = ()
    finish: Finish | None = None
    needs_anchor_gradient: bool = False
    sends_last_step: bool = False
    forgets_partial_work: bool = False
    options: Mapping[str, float | int | str | bool] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if (self.client_state or self.returns) and self.finish is None:
            named = ", ".join((*self.client_state, *self.returns))
            raise UserError("finish", f"is missing, and the local rule {self.name!r} declares {named}",
                            fix="Pass finish=, a function LocalResult -> (new client state, extras).")  # fmt: skip

    @property
    def is_plain(self) -> bool:
        """Whether the rule changes nothing in local training."""
        return self.correct is None and self.finish is None and not self.sends_last_step

    @property
    def signature(self) -> str:
        """Its name and options as text, such as 'proximal {"mu": 0.01}'; equal for equal rules."""
        return f"{self.name} {json.dumps(dict(self.options), sort_keys=True)}" if self.options else self.name


@overload
def local_rule(correct: Correct, /) -> LocalRule: ...


@overload
def local_rule(
    *,
    name: str = "",
    broadcast: tuple[str, ...] = (),
    client_state: tuple[str, ...] = (),
    returns: tuple[str, ...] = (),
    finish: Finish | None = None,
    needs_anchor_gradient: bool = False,
    options: Mapping[str, float | int | str | bool] | None = None,
) -> Callable[[Correct], LocalRule]: ...


def local_rule(
    correct: Correct | None = None,
    /,
    *,
    name: str = "",
    broadcast: tuple[str, ...] = (),
    client_state: tuple[str, ...] = (),
    returns: tuple[str, ...] = (),
    finish: Finish | None = None,
    needs_anchor_gradient: bool = False,
    options: Mapping[str, float | int | str | bool] | None = None,
) -> LocalRule | Callable[[Correct], LocalRule]:
    """Make a local rule from an elementwise function (gradient, params, anchor, broadcast, state) -> gradient.

    Elementwise means that each number of the result depends only on the numbers at the same position. Then the same
    function runs for one client in the plain engine and for a stack of clients in the stacked engine.

    Args:
        correct: the function, where the decorator has no parentheses.
        name: the rule's name; the function's by default.
        broadcast: names of the server's vectors that it reads.
        client_state: names of the vectors that a client keeps between rounds; zeros before its first round.
        returns: names of the extra vectors that `finish` returns to the server.
        finish: LocalResult -> (new client state, extras), each [K, P]; called once a round.
        needs_anchor_gradient: whether `finish` reads the full-batch gradient at the broadcast parameters.
        options: the constants in the function; another process identifies the rule by name and options.

    Example:
        >>> @local_rule(options={"mu": 0.1})
        ... def pull(gradient, params, anchor, broadcast, state):
        ...     return gradient + 0.1 * (params - anchor)
        >>> pull.name, pull.signature
        ('pull', 'pull {"mu": 0.1}')
    """

    def decorate(correct: Correct) -> LocalRule:
        return LocalRule(
            name or getattr(correct, "__name__", "local_rule"),
            correct,
            broadcast,
            client_state,
            returns,
            finish,
            needs_anchor_gradient,
            options=MappingProxyType(dict(options or {})),
        )

    return decorate if correct is None else decorate(correct)


PLAIN = LocalRule("plain")
LAST_STEP = LocalRule("last_step", sends_last_step=True)
"""First-order MAML: a client adapts, and sends the step that it takes from there on its next batch, not its way.

Source: Finn et al. 2017 (ICML), section 5.2; Nichol et al. 2018, section 3."""


def proximal(mu: float) -> LocalRule:
    """FedProx: g + mu (w - anchor), which pulls clients towards the broadcast parameters.

    Source: Li et al. 2020 (MLSys), equation (2). mu = 0 is FedAvg, bit for bit.
    """
    require_numbers(mu=mu)
    if mu == 0:
        return PLAIN

    def correct(g: Tensor, w: Tensor, anchor: Tensor, broadcast: Vectors, state: Vectors) -> Tensor:
        return g.add_(w - anchor, alpha=mu)

    return local_rule(name="proximal", options={"mu": mu})(correct)


def control_variate(option: int) -> LocalRule:
    """SCAFFOLD: g - c_i + c; the control variate c_i estimates the client's own gradient.

    Option 1: c_i+ is the full-batch gradient at the broadcast parameters. Option 2: c_i+ = c_i - c +
    (anchor - w) / (|a| x local_lr), a mean of the gradients of the local steps. |a| is the number of steps for SGD, as
    in the paper, and `gradient_weights` with local momentum. It returns `variate_change` = c_i+ - c_i.
    Source: Karimireddy et al. 2020, algorithm 1 and equation (4).
    """

    def finish(r: LocalResult) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        old = r.state["client_variate"]
        if option == 1:
            assert r.anchor_gradient is not None
            new = r.anchor_gradient
        else:
            new = old - r.broadcast["server_variate"] + (r.anchor - r.params) / (r.gradient_weight * r.local_lr)
        return {"client_variate": new}, {"variate_change": new - old}

    def correct(g: Tensor, w: Tensor, anchor: Tensor, broadcast: Vectors, state: Vectors) -> Tensor:
        return g.sub_(state["client_variate"]).add_(broadcast["server_variate"])

    return local_rule(
        name="control_variate",
        broadcast=("server_variate",),
        client_state=("client_variate",),
        returns=("variate_change",),
        finish=finish,
        needs_anchor_gradient=option == 1,
        options={"option": option},
    )(correct)


def dynamic(alpha: float) -> LocalRule:
    """FedDyn: g - h_i + alpha (w - anchor), h_i+ = h_i - alpha (w - anchor).

    h_i tracks the client's gradient at its own last solution. Source: Acar et al. 2021 (ICLR), algorithm 1.
    """

    def finish(r: LocalResult) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {"client_gradient": r.state["client_gradient"] - alpha * (r.params - r.anchor)}, {}

    def correct(g: Tensor, w: Tensor, anchor: Tensor, broadcast: Vectors, state: Vectors) -> Tensor:
        return g.sub_(state["client_gradient"]).add_(w - anchor, alpha=alpha)

    return local_rule(name="dynamic", client_state=("client_gradient",), finish=finish, options={"alpha": alpha})(
        correct
    )
