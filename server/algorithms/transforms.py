"""Server transforms turn an aggregated pseudo-gradient into a step of the server's parameters.

They chain like optax's gradient transformations: each takes the aggregate of the one before and returns another. The
result of the last is subtracted from the parameters. All are pure functions of flat vectors. A pseudo-gradient is
server minus client parameters, so it has the sign of a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from clients.core import streams
from clients.core.arrays import U64
from clients.core.checks import require_shape
from clients.core.errors import StrategyError, UserError, require_kind, require_numbers
from clients.core.numbers.norms import square_sums
from clients.training.rules import Vectors
from server.algorithms.state import ServerState


@dataclass(frozen=True)
class Aggregate:
    """The aggregate of a round's updates.

    Attributes:
        pseudo_gradient: the aggregated pseudo-gradient [P].
        extras: unweighted means of the extra vectors of the clients, each [P].
        share: number of respondents divided by the clients that have data, |S| / N.
    """

    pseudo_gradient: Tensor
    extras: Mapping[str, Tensor]
    share: float


@dataclass(frozen=True)
class StepContext:
    """Further inputs of a transform.

    Attributes:
        params: the server's parameters before the step [P].
        round_index: the round, from 1.
        seed: root seed.
        place: place within chains, such as "/1"; each transform of a chain has another one.
    """

    params: Tensor
    round_index: int
    seed: int
    place: str = ""

    @property
    def key(self) -> U64:
        """A stream of random numbers of this round and this transform (`clients.core.streams`)."""
        return streams.keys(self.seed, f"server_transform{self.place}", self.round_index)


Init = Callable[[Tensor], Vectors]
"""params [P] -> the initial vectors of the transform."""
Update = Callable[[Aggregate, Vectors, StepContext], tuple[Aggregate, Vectors]]
"""(aggregate, vectors, context) -> (new aggregate, new vectors). It must not write to its inputs."""


@dataclass(frozen=True)
class ServerTransform:
    """A server optimiser, or a part of one.

    Attributes:
        name: for display.
        update: see `Update`.
        init: see `Init`.
        apply: (params, aggregate, new vectors) -> new params; None subtracts the pseudo-gradient.
    """

    name: str
    update: Update
    init: Init = field(default=lambda params: {})
    apply: Callable[[Tensor, Aggregate, Vectors], Tensor] | None = None

    def step(self, state: ServerState, aggregate: Aggregate, *, seed: int = 0) -> ServerState:
        """Take the server's step of the round after `state`; buffers stay as they are."""
        round_index = state.round_index + 1
        context = StepContext(state.params, round_index, seed)
        moved, vectors = self.moved(aggregate, state.vectors, context)
        self._check_memory(state.vectors, vectors)
        if self.apply is not None:
            params = require_shape(self.apply(state.params, moved, vectors), state.params, self.name, "apply")
        else:
            params = state.params - moved.pseudo_gradient
        return replace(state, round_index=round_index, params=params, vectors=vectors)

    def _check_memory(self, before: Vectors, after: Vectors) -> None:
        if set(before) != set(after):
            problem = (
                f"server transform {self.name!r} starts with the vectors {sorted(before)} and returns {sorted(after)}"
            )
            raise StrategyError("algorithm", problem, fix="Return every vector of init, also where it is unchanged.")
        for name, vector in after.items():
            require_shape(vector, before[name], self.name, f"update, for {name!r},")

    def moved(self, aggregate: Aggregate, vectors: Vectors, context: StepContext) -> tuple[Aggregate, Vectors]:
        """Return what `update` returns.

        Raises:
            StrategyError: it is no aggregate and vectors, or the pseudo-gradient has another shape.
        """
        found: object = self.update(aggregate, vectors, context)
        is_pair = isinstance(found, tuple) and len(found) == 2
        if not (is_pair and isinstance(found[0], Aggregate) and isinstance(found[1], Mapping)):  # type: ignore[index]
            problem = f"update of {self.name!r} must return (aggregate, vectors), returned {type(found).__name__}"
            raise StrategyError("algorithm", problem, fix="Return both: return aggregate, {}.")
        after: Aggregate = found[0]  # type: ignore[index]
        new: Vectors = found[1]  # type: ignore[index]
        require_shape(after.pseudo_gradient, context.params, self.name, "update")
        return after, new


def chain(*transforms: ServerTransform) -> ServerTransform:
    """Chain transforms: each takes the aggregate that the one before returns.

    Raises:
        UserError: one is no transform, or one before the last has `apply`. The chain's `init` raises where two keep a
            vector of the same name.

    Example:
        >>> chain(clip_norm(1.0), adam(0.01)).name
        'clip_norm 1, adam 0.01'
    """
    for i, transform in enumerate(transforms):
        fix = "Call it with its numbers, such as fs.clip_norm(1.0); several are separate arguments."
        require_kind(transform, ServerTransform, f"chain[{i}]", fix=fix)
    for before in transforms[:-1]:
        if before.apply is not None:
            raise UserError("chain", f"has {before.name!r} before its end, and it sets the parameters itself",
                            fix="Put it last.")  # fmt: skip

    def init(params: Tensor) -> Vectors:
        vectors: dict[str, Tensor] = {}
        for transform in transforms:
            new = transform.init(params)
            twice = sorted(vectors.keys() & new.keys())
            if twice:
                problem = f"has two transforms that keep a vector {twice[0]!r}"
                raise UserError("chain", problem, fix="Rename the vector of your own transform.")
            vectors |= new
        return vectors

    def update(a: Aggregate, vectors: Vectors, context: StepContext) -> tuple[Aggregate, Vectors]:
        new: dict[str, Tensor] = {}
        for i, transform in enumerate(transforms):
            a, changed = transform.moved(a, vectors, replace(context, place=f"{context.place}/{i}"))
            new |= changed
        return a, new

    last = transforms[-1].apply if transforms else None
    return ServerTransform(", ".join(t.name for t in transforms) or "chain", update, init, last)


def sgd(server_lr: float = 1.0) -> ServerTransform:
    """Step of server_lr g. With server_lr 1 the result is the weighted mean of the clients' parameters."""
    require_numbers(server_lr=server_lr)

    def update(a: Aggregate, vectors: Vectors, context: StepContext) -> tuple[Aggregate, Vectors]:
        return replace(a, pseudo_gradient=server_lr * a.pseudo_gradient), {}

    return ServerTransform(f"sgd {server_lr:g}", update)


def momentum(server_lr: float, beta: float, *, nesterov: bool = False) -> ServerTransform:
    """FedAvgM: v = beta v + g, and a step of server_lr v, or of server_lr (g + beta v) with `nesterov`.

    Source: Hsu et al. 2019, section 4.3; Sutskever et al. 2013 for Nesterov's step, as in torch.
    """
    require_numbers(server_lr=server_lr, beta=beta)

    def update(a: Aggregate, vectors: Vectors, context: StepContext) -> tuple[Aggregate, Vectors]:
        v = beta * vectors["momentum"] + a.pseudo_gradient
        step = a.pseudo_gradient + beta * v if nesterov else v
        return replace(a, pseudo_gradient=server_lr * step), {"momentum": v}

    name = f"{'nesterov' if nesterov else 'momentum'} {server_lr:g}"
    return ServerTransform(name, update, lambda w: {"momentum": w.new_zeros(w.shape)})


SecondMoment = Callable[[Tensor, Tensor], Tensor]
"""(v, g squared) -> new v."""


def adaptive(name: str, server_lr: float, beta1: float, tau: float, second_moment: SecondMoment) -> ServerTransform:
    """Step of server_lr m / (sqrt(v) + tau), with m = beta1 m + (1 - beta1) g and v initialised to tau squared.

    Source: Reddi et al. 2021 (ICLR), algorithm 2, without bias correction (their code initialises v to 0).
    """

    def update(a: Aggregate, vectors: Vectors, context: StepContext) -> tuple[Aggregate, Vectors]:
        g = a.pseudo_gradient
        m = beta1 * vectors["first_moment"] + (1 - beta1) * g
        v = second_moment(vectors["second_moment"], g * g)
        step = server_lr * m / (v.sqrt() + tau)
        return replace(a, pseudo_gradient=step), {"first_moment": m, "second_moment": v}

    def init(w: Tensor) -> Vectors:
        return {"first_moment": w.new_zeros(w.shape), "second_moment": w.new_full(w.shape, tau * tau)}

    return ServerTransform(f"{name} {server_lr:g}", update, init)


def adam(server_lr: float = 0.01, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3) -> ServerTransform:
    """FedAdam: v = beta2 v + (1 - beta2) g^2; see `adaptive`."""
    require_numbers(server_lr=server_lr, beta1=beta1, beta2=beta2, tau=tau)
    return adaptive("adam", server_lr, beta1, tau, lambda v, square: beta2 * v + (1 - beta2) * square)


def yogi(server_lr: float = 0.01, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3) -> ServerTransform:
    """FedYogi: v = v - (1 - beta2) g^2 sign(v - g^2); see `adaptive`."""
    require_numbers(server_lr=server_lr, beta1=beta1, beta2=beta2, tau=tau)
    return adaptive("yogi", server_lr, beta1, tau, lambda v, square: v - (1 - beta2) * square * (v - square).sign())


def adagrad(server_lr: float = 0.1, beta1: float = 0.0, tau: float = 1e-3) -> ServerTransform:
    """FedAdagrad: v = v + g^2; see `adaptive`."""
    require_numbers(server_lr=server_lr, beta1=beta1, tau=tau)
    return adaptive("adagrad", server_lr, beta1, tau, lambda v, square: v + square)


def clip_norm(norm: float) -> ServerTransform:
    """Scale the pseudo-gradient down to a norm of at most `norm`.

    Raises:
        UserError: the norm is not positive.
    """
    require_numbers(norm=norm)
    if not norm > 0:
        raise UserError("norm", f"must be > 0, got {norm}")

    def update(a: Aggregate, vectors: Vectors, context: StepContext) -> tuple[Aggregate, Vectors]:
        size = square_sums(a.pseudo_gradient[None]).sqrt().to(a.pseudo_gradient)
        return replace(a, pseudo_gradient=a.pseudo_gradient * (norm / size.clamp_min(1e-30)).clamp_max(1.0)), {}

    return ServerTransform(f"clip_norm {norm:g}", update)


def control_variate(server_lr: float) -> ServerTransform:
    """SCAFFOLD: step of server_lr g; c + |S|/N x the mean change of the clients' control variates.

    Source: Karimireddy et al. 2020, algorithm 1, lines 16 and 17 (the sum over S is divided by N, not by |S|).
    """

    def update(a: Aggregate, vectors: Vectors, context: StepContext) -> tuple[Aggregate, Vectors]:
        c = vectors["server_variate"] + a.share * a.extras["variate_change"]
        return replace(a, pseudo_gradient=server_lr * a.pseudo_gradient), {"server_variate": c}

    return ServerTransform(f"control variate {server_lr:g}", update, lambda w: {"server_variate": w.new_zeros(w.shape)})


def dynamic(alpha: float) -> ServerTransform:
    """FedDyn: h + alpha |S|/N g, then w - g - h / alpha where g is the unweighted mean pseudo-gradient.

    Source: Acar et al. 2021 (ICLR), algorithm 1; h has the sign of a gradient, as in the paper.
    """

    def update(a: Aggregate, vectors: Vectors, context: StepContext) -> tuple[Aggregate, Vectors]:
        return a, {"server_gradient": vectors["server_gradient"] + alpha * a.share * a.pseudo_gradient}

    def apply(w: Tensor, a: Aggregate, vectors: Vectors) -> Tensor:
        return w - a.pseudo_gradient - vectors["server_gradient"] / alpha

    return ServerTransform(f"dynamic {alpha:g}", update, lambda w: {"server_gradient": w.new_zeros(w.shape)}, apply)
