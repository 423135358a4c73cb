"""Options of every algorithm: who takes part, how updates are weighted, and the algorithm's own constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from clients.core.options import STRICT, check_at_least, check_below_one, check_not_negative, check_positive

Weighting = Literal["examples", "uniform", "unbiased"]
"""Coefficients of the mean of updates; `server.algorithms.aggregation.weighted` defines each."""


@dataclass(frozen=True, kw_only=True)
class AlgorithmOptions:
    """Who takes part; every algorithm has these.

    Attributes:
        cohort: clients of a round; None takes all.
        sampling: "uniform" without replacement, or "by_examples" with replacement, in proportion to examples (scheme I
            of Li et al. 2020, ICLR; pair it with weighting "uniform").
        partial_work: whether clients that did less than their full local work are kept, or dropped as stragglers.
        kind: which algorithm.
    """

    __pydantic_config__: ClassVar = STRICT
    cohort: int | None = None
    sampling: Literal["uniform", "by_examples"] = "uniform"
    partial_work: Literal["keep", "drop"] = "keep"
    kind: str = ""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "cohort")


@dataclass(frozen=True, kw_only=True)
class AveragingOptions(AlgorithmOptions):
    """What algorithms that average updates and take a server step share.

    Attributes:
        weighting: coefficients of the mean of updates: by "examples", "uniform", or "unbiased" under sampling.
        server_lr: learning rate of the server's step, > 0.
    """

    weighting: Weighting = "examples"
    server_lr: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "server_lr")


@dataclass(frozen=True, kw_only=True)
class AdaptiveOptions(AveragingOptions):
    """What FedAdam and FedYogi share (Reddi et al. 2021, algorithm 2).

    Attributes:
        beta1: how much of the first moment is kept each round.
        beta2: how much of the second moment is kept each round.
        tau: added to the root of the second moment, > 0.
    """

    server_lr: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "tau")
        check_below_one(self, "beta1", "beta2")


@dataclass(frozen=True, kw_only=True)
class FedAvgOptions(AveragingOptions):
    """FedAvg (McMahan et al. 2017)."""

    kind: Literal["fedavg"] = "fedavg"


@dataclass(frozen=True, kw_only=True)
class FedSgdOptions(AveragingOptions):
    """FedSGD (McMahan et al. 2017): one full-batch local step a round, where [local] does not say so itself."""

    kind: Literal["fedsgd"] = "fedsgd"


@dataclass(frozen=True, kw_only=True)
class FedAvgMOptions(AveragingOptions):
    """FedAvgM (Hsu et al. 2019).

    Attributes:
        server_momentum: momentum of the server's step.
    """

    kind: Literal["fedavgm"] = "fedavgm"
    server_momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_below_one(self, "server_momentum")


@dataclass(frozen=True, kw_only=True)
class FedProxOptions(AveragingOptions):
    """FedProx (Li et al. 2020, MLSys): local gradients get mu (w - anchor).

    Attributes:
        mu: weight of the proximal term, >= 0; 0 is FedAvg.
    """

    kind: Literal["fedprox"] = "fedprox"
    mu: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(self, "mu")


@dataclass(frozen=True, kw_only=True)
class FedAdamOptions(AdaptiveOptions):
    """FedAdam (Reddi et al. 2021)."""

    kind: Literal["fedadam"] = "fedadam"


@dataclass(frozen=True, kw_only=True)
class FedYogiOptions(AdaptiveOptions):
    """FedYogi (Reddi et al. 2021)."""

    kind: Literal["fedyogi"] = "fedyogi"


@dataclass(frozen=True, kw_only=True)
class FedAdagradOptions(AveragingOptions):
    """FedAdagrad (Reddi et al. 2021); their m keeps beta1, 0 by default as in their experiments.

    Attributes:
        beta1: how much of the first moment is kept each round.
        tau: added to the root of the second moment, > 0.
    """

    kind: Literal["fedadagrad"] = "fedadagrad"
    server_lr: float = 0.1
    beta1: float = 0.0
    tau: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "tau")
        check_below_one(self, "beta1")


@dataclass(frozen=True, kw_only=True)
class ScaffoldOptions(AlgorithmOptions):
    """SCAFFOLD (Karimireddy et al. 2020); clients count alike, as defined there.

    Attributes:
        option: how a client's control variate is renewed: options I and II of algorithm 1 there.
        server_lr: learning rate of the server's step, > 0.
    """

    kind: Literal["scaffold"] = "scaffold"
    option: Literal[1, 2] = 2
    server_lr: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "server_lr")


@dataclass(frozen=True, kw_only=True)
class FedNovaOptions(AveragingOptions):
    """FedNova (Wang et al. 2020).

    Attributes:
        mu: >= 0; adds FedProx's term to the local gradients and to the normalisation.
    """

    kind: Literal["fednova"] = "fednova"
    mu: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(self, "mu")


@dataclass(frozen=True, kw_only=True)
class FedDynOptions(AlgorithmOptions):
    """FedDyn (Acar et al. 2021); clients count alike, as defined there. Stable while local_lr (L + alpha) < 2.

    Attributes:
        alpha: weight of the dynamic regulariser, > 0.
    """

    kind: Literal["feddyn"] = "feddyn"
    alpha: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "alpha")
