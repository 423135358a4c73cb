"""Local rules: what an algorithm changes in a client's gradient, and what the client remembers.

A rule is elementwise, so one function serves one client and a stack of them. This is the client half of an
algorithm; the server half is in `server.algorithms.table`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

Vectors = Mapping[str, Tensor]
Correct = Callable[[Tensor, Tensor, Tensor, Vectors, Vectors], Tensor]
"""(gradient, params, anchor, shared, own) -> the gradient to step along. The gradient may be overwritten.

`anchor` are the broadcast parameters, `shared` other broadcast vectors, `own` what the client remembers; all have
the shape of `params`, or broadcast to it where they have no client axis."""


@dataclass(frozen=True)
class LocalResult:
    """What a finished client (or a stack) hands to its rule: flat vectors, [K, P] or [P] as named.

    Attributes:
        anchor: broadcast parameters [P].
        params: local parameters [K, P].
        steps: local steps taken [K, 1], as a float tensor.
        local_lr: the round's local learning rate.
        shared: other broadcast vectors, each [P].
        own: what the clients remembered, each [K, P].
        anchor_gradient: the clients' full-batch gradients at the anchor [K, P]; None unless the rule asked.
    """

    anchor: Tensor
    params: Tensor
    steps: Tensor
    local_lr: float
    shared: Vectors
    own: Vectors
    anchor_gradient: Tensor | None


@dataclass(frozen=True)
class LocalRule:
    """How a client turns gradients into steps.

    Attributes:
        name: for people.
        correct: see `Correct`; None leaves gradients alone.
        shared: names of the broadcast vectors it reads.
        own: names of the vectors a client remembers from round to round; zeros before its first.
        finish: LocalResult -> (new own vectors, extra vectors to return), each [K, P]; None remembers nothing.
        needs_anchor_gradient: whether `finish` reads the full-batch gradient at the anchor.
        forgets_partial_work: whether a client that did less than its full local work remembers nothing of it, for
            servers that drop such updates: what server and clients remember must stay one round's.
    """

    name: str
    correct: Correct | None = None
    shared: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    finish: Callable[[LocalResult], tuple[dict[str, Tensor], dict[str, Tensor]]] | None = None
    needs_anchor_gradient: bool = False
    forgets_partial_work: bool = False


PLAIN = LocalRule("plain")


def proximal(mu: float) -> LocalRule:
    """FedProx: each gradient is pulled towards the broadcast parameters, g + mu (w - anchor).

    Source: Li et al. 2020 (MLSys), equation (2). mu = 0 is FedAvg, bit for bit.
    """
    if mu == 0:
        return PLAIN

    def correct(g: Tensor, w: Tensor, anchor: Tensor, shared: Vectors, own: Vectors) -> Tensor:
        return g.add_(w - anchor, alpha=mu)

    return LocalRule("proximal", correct)


def control_variate(option: int) -> LocalRule:
    """SCAFFOLD: g - c_i + c; the client's control variate c_i estimates its own gradient (descent sign).

    Option 1: c_i+ is the full-batch gradient at the broadcast parameters. Option 2: c_i+ = c_i - c +
    (anchor - w) / (steps x local_lr). Returned extra: `variate_change` = c_i+ - c_i.
    Source: Karimireddy et al. 2020, algorithm 1 and equation (4).
    """

    def correct(g: Tensor, w: Tensor, anchor: Tensor, shared: Vectors, own: Vectors) -> Tensor:
        return g.sub_(own["client_variate"]).add_(shared["server_variate"])

    def finish(r: LocalResult) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        old = r.own["client_variate"]
        if option == 1:
            assert r.anchor_gradient is not None
            new = r.anchor_gradient
        else:
            new = old - r.shared["server_variate"] + (r.anchor - r.params) / (r.steps * r.local_lr)
        return {"client_variate": new}, {"variate_change": new - old}

    return LocalRule("control_variate", correct, ("server_variate",), ("client_variate",), finish, option == 1)


def dynamic(alpha: float) -> LocalRule:
    """FedDyn: g - h_i + alpha (w - anchor), h_i+ = h_i - alpha (w - anchor).

    h_i tracks the client's gradient at its own last solution. Source: Acar et al. 2021 (ICLR), algorithm 1.
    """

    def correct(g: Tensor, w: Tensor, anchor: Tensor, shared: Vectors, own: Vectors) -> Tensor:
        return g.sub_(own["client_gradient"]).add_(w - anchor, alpha=alpha)

    def finish(r: LocalResult) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {"client_gradient": r.own["client_gradient"] - alpha * (r.params - r.anchor)}, {}

    return LocalRule("dynamic", correct, (), ("client_gradient",), finish)
