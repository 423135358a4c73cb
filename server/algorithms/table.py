"""The algorithm table: an algorithm is a row, local rule x aggregation x server transform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from clients.core.errors import require
from clients.core.options import STRICT
from clients.training import rules
from clients.training.local import LocalOptions
from clients.training.rules import LocalRule
from server.algorithms import transforms
from server.algorithms.aggregation import Coefficients, Weighting, normalised, weighted
from server.algorithms.transforms import ServerTransform


@dataclass(frozen=True, kw_only=True)
class CohortOptions:
    """Who takes part; every algorithm has these.

    Attributes:
        cohort: clients asked each round; None asks all.
        sampling: "uniform" without replacement, or "by_examples" with replacement, in proportion to examples (scheme I
            of Li et al. 2020, ICLR; pair it with weighting "uniform").
        partial_work: whether clients that did less than their full local work are kept, or dropped as stragglers.
    """

    __pydantic_config__: ClassVar = STRICT
    cohort: int | None = None
    sampling: Literal["uniform", "by_examples"] = "uniform"
    partial_work: Literal["keep", "drop"] = "keep"

    def __post_init__(self) -> None:
        require(self.cohort is None or self.cohort >= 1, "cohort", f"must be >= 1, got {self.cohort}")
        for name in ("server_lr", "tau", "alpha"):
            value = getattr(self, name, 1.0)
            require(0 < value < float("inf"), name, f"must be > 0, got {value}")
        for name in ("beta1", "beta2", "server_momentum"):
            value = getattr(self, name, 0.0)
            require(0 <= value < 1, name, f"must be in [0, 1), got {value}")
        require(0 <= getattr(self, "mu", 0.0) < float("inf"), "mu", f"must be >= 0, got {getattr(self, 'mu', 0.0)}")


@dataclass(frozen=True, kw_only=True)
class FedAvgOptions(CohortOptions):
    """FedAvg (McMahan et al. 2017)."""

    kind: Literal["fedavg"] = "fedavg"
    weighting: Weighting = "examples"
    server_lr: float = 1.0


@dataclass(frozen=True, kw_only=True)
class FedSgdOptions(CohortOptions):
    """FedSGD (McMahan et al. 2017): one full-batch local step a round, whatever [local] leaves unsaid."""

    kind: Literal["fedsgd"] = "fedsgd"
    weighting: Weighting = "examples"
    server_lr: float = 1.0


@dataclass(frozen=True, kw_only=True)
class FedAvgMOptions(CohortOptions):
    """FedAvgM (Hsu et al. 2019)."""

    kind: Literal["fedavgm"] = "fedavgm"
    weighting: Weighting = "examples"
    server_lr: float = 1.0
    server_momentum: float = 0.9


@dataclass(frozen=True, kw_only=True)
class FedProxOptions(CohortOptions):
    """FedProx (Li et al. 2020, MLSys): local gradients get mu (w - anchor)."""

    kind: Literal["fedprox"] = "fedprox"
    weighting: Weighting = "examples"
    server_lr: float = 1.0
    mu: float = 0.01


@dataclass(frozen=True, kw_only=True)
class FedAdamOptions(CohortOptions):
    """FedAdam (Reddi et al. 2021)."""

    kind: Literal["fedadam"] = "fedadam"
    weighting: Weighting = "examples"
    server_lr: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3


@dataclass(frozen=True, kw_only=True)
class FedYogiOptions(CohortOptions):
    """FedYogi (Reddi et al. 2021)."""

    kind: Literal["fedyogi"] = "fedyogi"
    weighting: Weighting = "examples"
    server_lr: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3


@dataclass(frozen=True, kw_only=True)
class FedAdagradOptions(CohortOptions):
    """FedAdagrad (Reddi et al. 2021); their m keeps beta1, 0 by default as in their experiments."""

    kind: Literal["fedadagrad"] = "fedadagrad"
    weighting: Weighting = "examples"
    server_lr: float = 0.1
    beta1: float = 0.0
    tau: float = 1e-3


@dataclass(frozen=True, kw_only=True)
class ScaffoldOptions(CohortOptions):
    """SCAFFOLD (Karimireddy et al. 2020); clients count alike, as defined there."""

    kind: Literal["scaffold"] = "scaffold"
    option: Literal[1, 2] = 2
    server_lr: float = 1.0


@dataclass(frozen=True, kw_only=True)
class FedNovaOptions(CohortOptions):
    """FedNova (Wang et al. 2020); `mu` adds FedProx's term to the local gradients and to the normalisation."""

    kind: Literal["fednova"] = "fednova"
    weighting: Weighting = "examples"
    server_lr: float = 1.0
    mu: float = 0.0


@dataclass(frozen=True, kw_only=True)
class FedDynOptions(CohortOptions):
    """FedDyn (Acar et al. 2021); clients count alike, as defined there. Stable while local_lr (L + alpha) < 2."""

    kind: Literal["feddyn"] = "feddyn"
    alpha: float = 0.1


AlgorithmOptions = (
    FedAvgOptions
    | FedSgdOptions
    | FedAvgMOptions
    | FedProxOptions
    | FedAdamOptions
    | FedYogiOptions
    | FedAdagradOptions
    | ScaffoldOptions
    | FedNovaOptions
    | FedDynOptions
)


@dataclass(frozen=True)
class Algorithm:
    """A row of the table, ready to run."""

    name: str
    rule: LocalRule
    coefficients: Coefficients
    transform: ServerTransform


def _server(o: AlgorithmOptions) -> ServerTransform:
    match o:
        case FedAvgMOptions():
            return transforms.momentum(o.server_lr, o.server_momentum)
        case FedAdamOptions():
            return transforms.adaptive("adam", o.server_lr, o.beta1, o.beta2, o.tau)
        case FedYogiOptions():
            return transforms.adaptive("yogi", o.server_lr, o.beta1, o.beta2, o.tau)
        case FedAdagradOptions():
            return transforms.adaptive("adagrad", o.server_lr, o.beta1, 0.0, o.tau)
        case ScaffoldOptions():
            return transforms.control_variate(o.server_lr)
        case FedDynOptions():
            return transforms.dynamic(o.alpha)
        case _:
            return transforms.descent(o.server_lr)


Row = Callable[[AlgorithmOptions, LocalOptions], Algorithm]


def _averaging(rule: Callable[[AlgorithmOptions], LocalRule] = lambda o: rules.PLAIN) -> Row:
    return lambda o, local: Algorithm(o.kind, rule(o), weighted(getattr(o, "weighting", "uniform")), _server(o))


def _mu(o: AlgorithmOptions) -> float:
    return float(getattr(o, "mu", 0.0))


ALGORITHMS: dict[str, tuple[type[AlgorithmOptions], Row]] = {
    "fedavg": (FedAvgOptions, _averaging()),
    "fedsgd": (FedSgdOptions, _averaging()),
    "fedavgm": (FedAvgMOptions, _averaging()),
    "fedprox": (FedProxOptions, _averaging(lambda o: rules.proximal(_mu(o)))),
    "fedadam": (FedAdamOptions, _averaging()),
    "fedyogi": (FedYogiOptions, _averaging()),
    "fedadagrad": (FedAdagradOptions, _averaging()),
    "scaffold": (ScaffoldOptions, _averaging(lambda o: rules.control_variate(getattr(o, "option", 2)))),
    "fednova": (
        FedNovaOptions,
        lambda o, local: Algorithm(
            o.kind, rules.proximal(_mu(o)), normalised(getattr(o, "weighting", "examples"), local, _mu(o)), _server(o)
        ),
    ),
    "feddyn": (FedDynOptions, _averaging(lambda o: rules.dynamic(getattr(o, "alpha", 0.1)))),
}


def build_algorithm(options: AlgorithmOptions, local: LocalOptions) -> Algorithm:
    """Return the row that `options` name."""
    row = ALGORITHMS[options.kind][1](options, local)
    if options.partial_work == "drop" and row.rule.own:
        return replace(row, rule=replace(row.rule, forgets_partial_work=True))
    return row


def local_for(options: AlgorithmOptions, local: LocalOptions) -> LocalOptions:
    """Return the local training an algorithm runs: FedSGD's is one full-batch step, the others' as configured."""
    if options.kind == "fedsgd":
        return replace(local, batch_size="full", local_steps=1, local_epochs=None, partial_work=0.0)
    return local
