"""Aggregation: the coefficients with which pseudo-gradients are summed, and the sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, I64
from clients.training.options import LocalOptions
from server.algorithms.options import Weighting


@dataclass(frozen=True)
class Shares:
    """What coefficients are made from, for K respondents.

    Attributes:
        num_examples: training examples, int64 (K,).
        draws: how often each was drawn (1, or more when drawn with replacement), int64 (K,).
        local_steps: steps taken, int64 (K,).
        total_examples: of the population.
        population: clients N.
        cohort: clients asked, counting repeated draws.
        local_lr: the round's.
    """

    num_examples: I64
    draws: I64
    local_steps: I64
    total_examples: int
    population: int
    cohort: int
    local_lr: float


Coefficients = Callable[[Shares], F64]


def weighted(weighting: Weighting) -> Coefficients:
    """Return the coefficients of a weighted mean of pseudo-gradients.

    examples: n_k over the respondents' examples. uniform: 1/K. unbiased: n_k / n x N / K without renormalising
    (scheme II of Li et al. 2020, ICLR, on pseudo-gradients: their parameters' sum need not have weights of sum 1).
    """

    def coefficients(s: Shares) -> F64:
        if weighting == "unbiased":
            return s.draws * s.num_examples / s.total_examples * (s.population / max(1, s.cohort))
        raw = s.draws * (s.num_examples if weighting == "examples" else np.ones(len(s.draws)))
        return np.asarray(raw / max(raw.sum(), 1e-300), np.float64)

    return coefficients


def normalised(weighting: Weighting, local: LocalOptions, mu: float = 0.0) -> Coefficients:
    """FedNova: tau_eff p_k / |a_k|, with |a_k| the weight a client's optimiser gives to all its gradients together.

    |a_k| is found by running the client's own recursion on a gradient that is always 1, so momentum, Nesterov and the
    proximal term are exact; optimisers that are not linear in the gradient count steps. tau_eff = sum p_k |a_k|.
    Source: Wang et al. 2020 (NeurIPS), equations 6 to 9, section 4.
    """
    base = weighted(weighting)

    def coefficients(s: Shares) -> F64:
        p = base(s)
        a = gradient_weights(local, s.local_lr, int(s.local_steps.max(initial=0)), mu)[s.local_steps]
        return np.asarray((p * a).sum() * p / np.maximum(a, 1e-300), np.float64)

    return coefficients


def gradient_weights(local: LocalOptions, local_lr: float, longest: int, mu: float = 0.0) -> F64:
    """Return |a| after 0, 1, ..., `longest` local steps: how far unit gradients move a client, over local_lr.

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


def weighted_sum(coefficients: F64, rows: Tensor) -> Tensor:
    """Return sum_k coefficients[k] rows[k], rows [K, P] -> [P]."""
    return torch.from_numpy(coefficients).to(rows.dtype) @ rows
