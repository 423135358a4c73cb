"""Options of every algorithm: the cohort, the weights of updates, and the algorithm's own constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clients.core.errors import require
from clients.core.numbers.bounds import AtMost
from clients.core.options import check_at_least, check_below_one, check_not_negative, check_positive

Weighting = Literal["examples", "uniform", "unbiased"]
"""Coefficients of the mean of updates; `server.algorithms.aggregation.weighted_mean` defines each."""


@dataclass(frozen=True, kw_only=True)
class AlgorithmOptions:
    """The cohort of a round; every algorithm has these options.

    Attributes:
        cohort: number of clients in a round; None takes all.
        sampling: "uniform" without replacement, or "by_examples" with replacement, in proportion to examples (scheme I
            of Li et al. 2020, ICLR; it needs the weighting "uniform", as clients are drawn by their weight already).
        partial_work: "keep" or "drop" the updates of stragglers, which did less than their full local work.
        kind: the algorithm.
    """

    cohort: AtMost | None = None
    sampling: Literal["uniform", "by_examples"] = "uniform"
    partial_work: Literal["keep", "drop"] = "keep"
    kind: str = ""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "cohort")


@dataclass(frozen=True, kw_only=True)
class AveragingOptions(AlgorithmOptions):
    """Options of algorithms that average updates and take a server step.

    Attributes:
        weighting: coefficients of the mean of updates: by "examples" of the respondents, "uniform", or "unbiased" (by
            the shares of all examples, so that its expectation over cohorts is the mean over all clients).
        server_lr: learning rate of the server's step, > 0.
    """

    weighting: Weighting = "examples"
    server_lr: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "server_lr")
        check_weighting(self.sampling, self.weighting, "weighting", "algorithm.weighting = 'uniform'")


def check_weighting(sampling: str, weighting: str | None, field: str, uniform: str) -> None:
    """Refuse weights by examples for clients that are drawn by their examples: large clients would count twice.

    Args:
        sampling: see `AlgorithmOptions`.
        weighting: see `AveragingOptions`; None for weights of a user's own.
        field: the name of the weighting, for the message.
        uniform: how to set uniform weights, for the message.

    Raises:
        UserError: the expectation of a round over cohorts is not the mean over all clients.
    """
    require(
        sampling != "by_examples" or weighting in ("uniform", None),
        field,
        f"is {weighting!r}, and sampling is 'by_examples', which already draws clients in proportion to their examples:"
        " large clients would count twice",
        fix=f"Set {uniform}, or algorithm.sampling = 'uniform'.",
    )


@dataclass(frozen=True, kw_only=True)
class AdaptiveOptions(AveragingOptions):
    """Options of FedAdam and FedYogi (Reddi et al. 2021, algorithm 2).

    Attributes:
        beta1: decay rate of the first moment, per round.
        beta2: decay rate of the second moment, per round.
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
    """FedSGD (McMahan et al. 2017): one full-batch local step in a round, instead of the work in [local]."""

    kind: Literal["fedsgd"] = "fedsgd"


@dataclass(frozen=True, kw_only=True)
class FedAvgMOptions(AveragingOptions):
    """FedAvgM (Hsu et al. 2019).

    Attributes:
        server_momentum: momentum of the server's step.
        nesterov: whether the step looks ahead along the velocity, as torch's SGD with `nesterov` does.
    """

    kind: Literal["fedavgm"] = "fedavgm"
    server_momentum: float = 0.9
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_below_one(self, "server_momentum")


@dataclass(frozen=True, kw_only=True)
class FedProxOptions(AveragingOptions):
    """FedProx (Li et al. 2020, MLSys): mu (w - anchor) is added to local gradients.

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
    """FedAdagrad (Reddi et al. 2021).

    Attributes:
        beta1: decay rate of the first moment, per round; 0 by default, as in their experiments.
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
class ReptileOptions(AveragingOptions):
    """Reptile (Nichol et al. 2018): the server moves a part of the way towards the clients' adapted parameters.

    With `server_lr` 1 it is FedAvg with uniform weights. What it learns is a start for local training.

    Attributes:
        server_lr: the part of the way, > 0.
    """

    kind: Literal["reptile"] = "reptile"
    weighting: Weighting = "uniform"
    server_lr: float = 0.5


@dataclass(frozen=True, kw_only=True)
class FomamlOptions(AveragingOptions):
    """First-order MAML (Finn et al. 2017): the server descends the gradients that clients have after they adapted.

    A client takes all but the last of its local steps to adapt. The gradient of the last one, on the next batch, is
    what it sends. Batches of an epoch do not overlap, so with local_steps x batch_size at most a client's examples the
    last batch is new to it.

    Attributes:
        server_lr: learning rate of the server's step, > 0.
    """

    kind: Literal["fomaml"] = "fomaml"
    weighting: Weighting = "uniform"
    server_lr: float = 0.1


@dataclass(frozen=True, kw_only=True)
class ScaffoldOptions(AlgorithmOptions):
    """SCAFFOLD (Karimireddy et al. 2020); all clients have the same weight, as in the paper.

    Attributes:
        option: update of a client's control variate: option I or II of algorithm 1 in the paper.
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
        mu: weight of the proximal term, >= 0, in the local gradients and in the normalisation.
    """

    kind: Literal["fednova"] = "fednova"
    mu: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(self, "mu")


@dataclass(frozen=True, kw_only=True)
class FedDynOptions(AlgorithmOptions):
    """FedDyn (Acar et al. 2021); all clients weigh the same, as in the paper. Stable while local_lr (L + alpha) < 2.

    Attributes:
        alpha: weight of the dynamic regulariser, > 0.
    """

    kind: Literal["feddyn"] = "feddyn"
    alpha: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "alpha")
