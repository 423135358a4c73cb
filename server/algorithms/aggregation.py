"""Aggregation: combines the updates of a cohort into one pseudo-gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, I64
from clients.core.checks import require_shape
from clients.core.errors import StrategyError, UserError, require_kind, require_numbers, unknown_name
from clients.core.numbers.norms import square_sums
from clients.training.optimizers import gradient_weights
from clients.training.options import LocalOptions
from server.algorithms.options import Weighting

SUMS_TO_ONE = 1e-12
"""A sum of weights that is 1 up to this much is 1 up to rounding."""


@dataclass(frozen=True)
class ClientFacts:
    """The facts of K respondents from which weights follow.

    Attributes:
        num_examples: training examples, int64 (K,).
        draws: how often each was drawn (more than once only with replacement), int64 (K,).
        local_steps: steps taken, int64 (K,).
        total_examples: training examples of the population.
        population: number of clients N that have data.
        cohort: size of the cohort, with repeated draws.
        local_lr: local learning rate of the round.
        shares: weights p_k of the clients in the objective, (K,), where they are given; None where p_k is
            `num_examples` over `total_examples`.
    """

    num_examples: I64
    draws: I64
    local_steps: I64
    total_examples: int
    population: int
    cohort: int
    local_lr: float
    shares: F64 | None = None


Weights = Callable[[ClientFacts], F64]
"""facts -> the coefficient of each update in the sum, >= 0, (K,). A coefficient of 0 excludes the update."""


@dataclass(frozen=True)
class Aggregation:
    """How updates are combined.

    Attributes:
        name: for display.
        weights: see `Weights`.
        map_update: pseudo-gradients [K, P] -> [K, P], each row independently, such as clipping; None changes nothing.
        reduce: (pseudo-gradients [K, P], weights [K]) -> [P], over the updates whose weight is not 0; None takes their
            weighted sum.
        needs_steps: whether the weights need local steps, which a user's ClientApp does not return.
        weighting: the weighting that `weights` follow; None for weights of your own.
        shares: the clients' weights before they are normalised by local work, with which buffers are averaged; None
            takes `weights`.
    """

    name: str
    weights: Weights
    map_update: Callable[[Tensor], Tensor] | None = None
    reduce: Callable[[Tensor, Tensor], Tensor] | None = None
    needs_steps: bool = False
    weighting: Weighting | None = None
    shares: Weights | None = None

    @property
    def needs_rows(self) -> bool:
        """Whether all updates must be kept: a sum can be computed as tiles arrive, a median cannot."""
        return self.reduce is not None

    def weights_of(self, facts: ClientFacts) -> F64:
        """Return the coefficients of the updates, float64 (K,).

        Raises:
            StrategyError: the function returned something else.
        """
        found, count = self.weights(facts), len(facts.num_examples)
        try:
            weights = np.asarray(found, np.float64)
        except (TypeError, ValueError):
            weights = np.full(1, np.nan)
        if weights.shape == (count,) and np.isfinite(weights).all() and (weights >= 0).all():
            return weights
        got = f"an array of shape {weights.shape}" if weights.shape != (count,) else f"{found!r:.80}"
        problem = f"weights of {self.name!r} must be {count} finite numbers >= 0, one for each client; got {got}"
        raise StrategyError("algorithm", problem, fix="Return one coefficient for each of facts.num_examples.")

    def buffer_weights_of(self, facts: ClientFacts, weights: F64) -> F64:
        """Return the weights of the clients' buffers, float64 (K,): see `convex`; 0 where `weights` are."""
        return convex(weights if self.shares is None else np.where(weights != 0, self.shares(facts), 0.0))

    def mapped(self, rows: Tensor) -> Tensor:
        """Return updates [K, P] as `map_update` changes them.

        Raises:
            StrategyError: the function returned something else than [K, P].
        """
        return rows if self.map_update is None else require_shape(self.map_update(rows), rows, self.name, "map_update")

    def reduced(self, rows: Tensor, weights: Tensor) -> Tensor:
        """Return the pseudo-gradient [P] that `reduce` makes of updates [K, P].

        Raises:
            StrategyError: the function returned something else than [P].
        """
        assert self.reduce is not None, "the aggregation has a reduce"
        return require_shape(self.reduce(rows, weights), rows[0], self.name, "reduce")


def weighted_mean(weighting: Weighting = "examples") -> Aggregation:
    """Average pseudo-gradients.

    Args:
        weighting: "examples" gives n_k over the respondents' examples; "uniform" gives 1/K; "unbiased" gives
            n_k / n x N / K without normalisation (scheme II of Li et al. 2020, ICLR, applied to pseudo-gradients; the
            weights need not sum to 1). Where the data give p_k, it replaces n_k / n.

    Raises:
        UserError: there is no such weighting.
    """
    if weighting not in get_args(Weighting):
        raise UserError("weighting", unknown_name(weighting, get_args(Weighting), "a weighting"))

    def weights(s: ClientFacts) -> F64:
        if weighting == "unbiased":
            shares = s.draws * s.num_examples / s.total_examples if s.shares is None else s.draws * s.shares
            unbiased: F64 = shares * (s.population / max(1, s.cohort))
            return unbiased
        by_objective = s.num_examples if s.shares is None else s.shares
        raw = s.draws * (by_objective if weighting == "examples" else np.ones(len(s.draws)))
        normalised: F64 = raw / max(raw.sum(), 1e-300)
        return normalised

    return Aggregation(
        f"mean by {weighting}" if weighting != "uniform" else "uniform mean", weights, weighting=weighting
    )


def normalised_mean(weighting: Weighting, local: LocalOptions, mu: float = 0.0) -> Aggregation:
    """FedNova: tau_eff p_k / |a_k|, with |a_k| the total weight that a client's optimiser gives to its gradients.

    |a_k| results from the client's own recursion on gradients of 1, so momentum, Nesterov and the proximal term are
    exact. For optimisers that are not linear in the gradient it is the number of steps. tau_eff = sum p_k |a_k| /
    sum p_k, also where the p_k of "unbiased" do not sum to 1. Then sum p_k g_k / |a_k| is unbiased over cohorts. Its
    product with tau_eff, a mean over the same cohort, is unbiased where all |a_k| are equal.
    Source: Wang et al. 2020 (NeurIPS), equations 6 to 9, section 4.
    """
    base = weighted_mean(weighting).weights

    def weights(s: ClientFacts) -> F64:
        p = base(s)
        a = gradient_weights(local, s.local_lr, int(s.local_steps.max(initial=0)), mu)[s.local_steps]
        total = p.sum() if weighting == "unbiased" else 1.0
        normalised: F64 = (p * a).sum() / max(total, 1e-300) * p / np.maximum(a, 1e-300)
        return normalised

    return Aggregation("normalised mean", weights, needs_steps=True, weighting=weighting, shares=base)


def mean_gradient(weighting: Weighting) -> Aggregation:
    """Average updates that are one step of SGD each, divided by `local_lr`: the mean of the steps' gradients."""
    base = weighted_mean(weighting).weights

    def weights(s: ClientFacts) -> F64:
        scaled: F64 = base(s) / s.local_lr
        return scaled

    return Aggregation("mean gradient of the last steps", weights, weighting=weighting, shares=base)


def coordinate_median() -> Aggregation:
    """Take the median of each coordinate over the clients, unweighted (Yin et al. 2018, ICML, definition 1).

    For an even number of clients it is the mean of the two middle values.
    """

    def reduce(rows: Tensor, weights: Tensor) -> Tensor:
        ordered, k = rows.sort(dim=0).values, len(rows)
        middle: Tensor = (ordered[(k - 1) // 2] + ordered[k // 2]) / 2
        return middle

    return replace(weighted_mean("uniform"), name="coordinate median", reduce=reduce)


def clipped(aggregation: Aggregation, norm: float) -> Aggregation:
    """Scale every update down to at most `norm` before it is aggregated.

    Raises:
        UserError: the norm is not positive, or `aggregation` is none.
    """
    require_kind(aggregation, Aggregation, "aggregation", fix="Pass fs.clipped(fs.weighted_mean(), norm).")
    require_numbers(norm=norm)
    if not norm > 0:
        raise UserError("norm", f"must be > 0, got {norm}")
    inner = aggregation.map_update

    def clip(rows: Tensor) -> Tensor:
        rows = rows if inner is None else inner(rows)
        size = square_sums(rows).sqrt().to(rows)[:, None]
        scaled: Tensor = rows * (norm / size.clamp_min(1e-30)).clamp_max(1.0)
        return scaled

    return replace(aggregation, name=f"{aggregation.name}, updates clipped to {norm:g}", map_update=clip)


def convex(weights: F64) -> F64:
    """Return weights of a mean, which are >= 0 and sum to 1, from coefficients of updates.

    Running means and variances are averaged and not stepped along, so coefficients that sum to something else are
    divided by their sum.

    Example:
        >>> convex(np.array([0.5, 1.5, 0.0])).tolist()
        [0.25, 0.75, 0.0]
    """
    total = weights.sum()
    return weights if not total or abs(total - 1.0) <= SUMS_TO_ONE else weights / total


def weighted_sum(weights: F64, rows: Tensor) -> Tensor:
    """Return sum_k weights[k] rows[k], rows [K, P] -> [P]. A weight of 0 leaves its row out, also one of nan."""
    if not rows.shape[1]:  # a model without buffers
        return rows.new_zeros(0)
    counted = weights != 0
    if not counted.all():
        rows = torch.where(torch.from_numpy(counted).to(rows.device)[:, None], rows, 0.0)
    total: Tensor = torch.from_numpy(weights).to(rows) @ rows
    return total
