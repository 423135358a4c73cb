"""Server transforms: an aggregated pseudo-gradient becomes a step of the server's parameters.

All are pure functions of flat vectors. A pseudo-gradient is server minus client parameters, so a server optimiser
subtracts it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

Vectors = dict[str, Tensor]


@dataclass(frozen=True)
class Aggregate:
    """What a round's updates come to.

    Attributes:
        pseudo_gradient: the aggregated pseudo-gradient [P].
        extras: unweighted means of the extra vectors clients returned, each [P].
        share: respondents over population, |S| / N.
    """

    pseudo_gradient: Tensor
    extras: Mapping[str, Tensor]
    share: float


@dataclass(frozen=True)
class ServerTransform:
    """A server optimiser.

    Attributes:
        vectors: params -> the vectors it remembers, at the start.
        step: (params [P], vectors, aggregate) -> (new params, new vectors); inputs are not written to.
    """

    vectors: Callable[[Tensor], Vectors]
    step: Callable[[Tensor, Mapping[str, Tensor], Aggregate], tuple[Tensor, Vectors]]


def _nothing(params: Tensor) -> Vectors:
    return {}


def descent(server_lr: float) -> ServerTransform:
    """Plain descent, w - server_lr g. With server_lr 1 this is the weighted mean of the clients' parameters."""

    def step(w: Tensor, vectors: Mapping[str, Tensor], a: Aggregate) -> tuple[Tensor, Vectors]:
        return w - server_lr * a.pseudo_gradient, {}

    return ServerTransform(_nothing, step)


def momentum(server_lr: float, beta: float) -> ServerTransform:
    """FedAvgM: v = beta v + g, then w - server_lr v. Source: Hsu et al. 2019, section 4.3."""

    def step(w: Tensor, vectors: Mapping[str, Tensor], a: Aggregate) -> tuple[Tensor, Vectors]:
        v = beta * vectors["momentum"] + a.pseudo_gradient
        return w - server_lr * v, {"momentum": v}

    return ServerTransform(lambda w: {"momentum": w.new_zeros(w.shape)}, step)


def adaptive(kind: str, server_lr: float, beta1: float, beta2: float, tau: float) -> ServerTransform:
    """FedAdagrad, FedYogi and FedAdam: w - server_lr m / (sqrt(v) + tau), v started at tau squared.

    Source: Reddi et al. 2021 (ICLR), algorithm 2; no bias correction, as there (their code starts v at 0).

    Args:
        kind: "adagrad" (v + g^2), "yogi" (v - (1 - beta2) g^2 sign(v - g^2)) or "adam" (beta2 v + (1 - beta2) g^2).
        server_lr: step size.
        beta1: of m = beta1 m + (1 - beta1) g.
        beta2: of v; unused by adagrad.
        tau: degree of adaptivity, > 0.
    """

    def second(v: Tensor, square: Tensor) -> Tensor:
        if kind == "adagrad":
            return v + square
        if kind == "yogi":
            return v - (1 - beta2) * square * (v - square).sign()
        return beta2 * v + (1 - beta2) * square

    def step(w: Tensor, vectors: Mapping[str, Tensor], a: Aggregate) -> tuple[Tensor, Vectors]:
        g = a.pseudo_gradient
        m = beta1 * vectors["first_moment"] + (1 - beta1) * g
        v = second(vectors["second_moment"], g * g)
        return w - server_lr * m / (v.sqrt() + tau), {"first_moment": m, "second_moment": v}

    return ServerTransform(
        lambda w: {"first_moment": w.new_zeros(w.shape), "second_moment": w.new_full(w.shape, tau * tau)}, step
    )


def control_variate(server_lr: float) -> ServerTransform:
    """SCAFFOLD: w - server_lr g, and c + |S|/N x mean of the clients' variate changes.

    Source: Karimireddy et al. 2020, algorithm 1, lines 16 and 17 (the sum over S is divided by N, not by |S|).
    """

    def step(w: Tensor, vectors: Mapping[str, Tensor], a: Aggregate) -> tuple[Tensor, Vectors]:
        c = vectors["server_variate"] + a.share * a.extras["variate_change"]
        return w - server_lr * a.pseudo_gradient, {"server_variate": c}

    return ServerTransform(lambda w: {"server_variate": w.new_zeros(w.shape)}, step)


def dynamic(alpha: float) -> ServerTransform:
    """FedDyn: h + alpha |S|/N g, then w - g - h / alpha with g the unweighted mean pseudo-gradient.

    Source: Acar et al. 2021 (ICLR), algorithm 1; h has the sign of a gradient, as theirs.
    """

    def step(w: Tensor, vectors: Mapping[str, Tensor], a: Aggregate) -> tuple[Tensor, Vectors]:
        h = vectors["server_gradient"] + alpha * a.share * a.pseudo_gradient
        return w - a.pseudo_gradient - h / alpha, {"server_gradient": h}

    return ServerTransform(lambda w: {"server_gradient": w.new_zeros(w.shape)}, step)
