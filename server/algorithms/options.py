"""Options of every algorithm: section [algorithm] of a scenario."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from clients.core.errors import require
from clients.core.options import STRICT

Weighting = Literal["examples", "uniform", "unbiased"]


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
