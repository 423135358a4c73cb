"""The expectation of a round over all cohorts, exactly: every cohort is played and weighted with its probability.

Uniform sampling without replacement draws each of the sets of m clients alike. Sampling by examples draws m times with
probability p_k, so a multiset of draws has a multinomial probability.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from federations import Federation, quadratics

import fedscape as fs
from clients.core.arrays import F64
from clients.core.errors import UserError
from server.algorithms.options import (
    AlgorithmOptions,
    FedAvgOptions,
    FedDynOptions,
    FedNovaOptions,
    FedProxOptions,
    ScaffoldOptions,
)
from server.rounds.sampling import Cohort

SIZES = np.array([30, 3, 3, 3, 3, 3])
N, M = 6, 2
P = SIZES / SIZES.sum()
LR = 0.1
CURVATURES, CENTRES = np.array([0.5, 1.0, 2.0, 0.8, 1.5, 3.0]), np.array([1.0, -2.0, 0.5, 4.0, -1.0, 2.0])
EQUAL, UNEQUAL = (4,) * N, (1, 2, 8, 3, 5, 12)
START = torch.full((1,), 2.5, dtype=torch.float64)


@dataclass(frozen=True)
class Fixed:
    """A sampler of one cohort."""

    cohort: Cohort
    size: int = M

    def draw(self, round_index: int) -> Cohort:
        return self.cohort


def cohorts(sampling: str) -> Iterator[tuple[float, Cohort]]:
    """Yield the probability of every cohort, and the cohort."""
    if sampling == "uniform":
        for chosen in itertools.combinations(range(N), M):
            yield 1 / math.comb(N, M), Cohort(np.array(chosen), np.ones(M, np.int64))
    else:
        for drawn in itertools.product(range(N), repeat=M):
            yield math.prod(P[list(drawn)]), Cohort(*np.unique(drawn, return_counts=True))


def federation_of(algorithm: AlgorithmOptions, steps: tuple[int, ...]) -> Federation:
    return quadratics(CURVATURES, CENTRES, algorithm=algorithm, local_lr=LR, local_steps=steps, weights=SIZES.tolist())


def expected_round(algorithm: AlgorithmOptions, steps: tuple[int, ...] = UNEQUAL) -> float:
    """Return the expectation of the parameters after one round from START."""
    federation, mean, total = federation_of(replace(algorithm, cohort=M), steps), 0.0, 0.0
    own = federation.strategy
    for probability, cohort in cohorts(algorithm.sampling):
        own.federation = replace(own.federation, sampler=Fixed(cohort))  # type: ignore[arg-type]
        mean += probability * federation.probe(START).item()
        total += probability
    assert total == pytest.approx(1.0, abs=1e-12)
    return mean


def updates(steps: tuple[int, ...] = UNEQUAL) -> F64:
    """Return each client's pseudo-gradient at START (N,)."""
    away: F64 = (1 - (1 - LR * CURVATURES) ** np.array(steps)) * (START.item() - CENTRES)
    return away


UNBIASED = {
    ("uniform", "uniform"): np.full(N, 1 / N),
    ("uniform", "unbiased"): P,
    ("by_examples", "uniform"): P,
}
"""Sampling and weighting, and the weights of the full mean that is the round's expectation."""


@pytest.mark.parametrize("pair", UNBIASED)
@pytest.mark.parametrize("row", [FedAvgOptions, FedProxOptions])
def test_expected_round_is_the_mean_over_all_clients(
    pair: tuple[str, str], row: type[FedAvgOptions] | type[FedProxOptions]
) -> None:
    more = {"mu": 0.0} if row is FedProxOptions else {}
    algorithm = row(sampling=pair[0], weighting=pair[1], **more)  # type: ignore[arg-type]
    assert expected_round(algorithm) == pytest.approx(START.item() - UNBIASED[pair] @ updates(), rel=1e-13)


def test_weights_by_examples_under_uniform_sampling_are_biased() -> None:
    """They are renormalised in each cohort: a ratio, whose expectation is off by a term of order 1 / m."""
    found = START.item() - expected_round(FedAvgOptions(weighting="examples"))
    ratio = np.mean([P[list(c)] @ updates()[list(c)] / P[list(c)].sum() for c in itertools.combinations(range(N), M)])
    assert found == pytest.approx(ratio, rel=1e-13)
    assert abs(found / (P @ updates()) - 1) > 0.1


@pytest.mark.parametrize("weighting", ["examples", "unbiased"])
def test_weights_by_examples_after_draws_by_examples_are_refused(weighting: str) -> None:
    """The expected coefficients would be far from p_k: N p_k^2 of "unbiased", for one."""
    for row in (FedAvgOptions, FedNovaOptions):
        with pytest.raises(UserError, match=f"weighting: is '{weighting}', and sampling is 'by_examples'"):
            row(sampling="by_examples", weighting=weighting)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"weighting: is 'examples'.*Set algorithm.weighting = 'uniform'"):
        fs.load_scenario(sets=["algorithm.sampling=by_examples"])
    own = fs.Algorithm("own", aggregation=fs.weighted_mean(weighting))  # type: ignore[arg-type]
    by_examples = fs.load_scenario(sets=["algorithm.sampling=by_examples", "algorithm.weighting=uniform"])
    with pytest.raises(UserError, match=r"aggregation.weighting: .*Set aggregation=fs.weighted_mean\('uniform'\)"):
        fs.simulate(by_examples, algorithm=own, record=False)


# FedNova.


@pytest.mark.parametrize("pair", UNBIASED)
def test_expected_fednova_round_at_equal_steps_is_fednovas_of_everyone(pair: tuple[str, str]) -> None:
    algorithm = FedNovaOptions(sampling=pair[0], weighting=pair[1])  # type: ignore[arg-type]
    expected = START.item() - UNBIASED[pair] @ updates(EQUAL)
    assert expected_round(algorithm, EQUAL) == pytest.approx(expected, rel=1e-13)


def fednova(p: F64, chosen: list[int]) -> tuple[float, float]:
    """Return tau_eff = sum p a / sum p and the direction sum p g / a of a cohort with coefficients p."""
    a = np.array(UNEQUAL, float)[chosen]
    return float(p @ a / p.sum()), float(p @ (updates()[chosen] / a))


def test_expected_fednova_round_at_unequal_steps_is_its_formula() -> None:
    """Its direction is unbiased; the product with tau_eff, a mean over the same cohort, has their covariance added."""
    taus, directions = [], []
    for chosen in map(list, itertools.combinations(range(N), M)):
        tau, direction = fednova(P[chosen] * N / M, chosen)
        taus.append(tau)
        directions.append(direction)
    assert np.mean(directions) == pytest.approx(P @ (updates() / UNEQUAL), rel=1e-13)
    covariance = np.mean(np.array(taus) * directions) - np.mean(taus) * np.mean(directions)
    expected = START.item() - (np.mean(taus) * np.mean(directions) + covariance)
    assert expected_round(FedNovaOptions(weighting="unbiased")) == pytest.approx(expected, rel=1e-13)


def test_unbiased_fednova_of_everyone_is_by_examples() -> None:
    pair = [federation_of(FedNovaOptions(weighting=w), UNEQUAL).step(3) for w in ("unbiased", "examples")]  # type: ignore[arg-type]
    torch.testing.assert_close(pair[0], pair[1], rtol=1e-13, atol=0)


@pytest.mark.parametrize("weighting", ["examples", "uniform", "unbiased"])
def test_fednova_is_linear_in_the_weights_of_its_clients(weighting: str) -> None:
    """A cohort whose unbiased weights sum to 2 takes twice the step of its mean, and not four times."""
    federation = federation_of(FedNovaOptions(cohort=M, weighting=weighting), UNEQUAL)  # type: ignore[arg-type]
    own = federation.strategy
    for _, cohort in cohorts("uniform"):
        own.federation = replace(own.federation, sampler=Fixed(cohort))  # type: ignore[arg-type]
        chosen = cohort.clients.tolist()
        p = {"examples": P[chosen] / P[chosen].sum(), "uniform": np.full(M, 1 / M), "unbiased": P[chosen] * N / M}
        tau, direction = fednova(p[weighting], chosen)
        assert START.item() - federation.probe(START).item() == pytest.approx(tau * direction, rel=1e-12)


@pytest.mark.parametrize("algorithm", [ScaffoldOptions(), ScaffoldOptions(option=1), FedDynOptions(alpha=1.0)],
                         ids=["scaffold II", "scaffold I", "feddyn"])  # fmt: skip
@pytest.mark.parametrize("sampling", ["uniform", "by_examples"])
def test_limit_of_algorithms_with_client_states_does_not_depend_on_sampling(
    algorithm: AlgorithmOptions, sampling: str
) -> None:
    """The clients' states cancel at the minimiser of the uniform mean, in whatever proportion clients are drawn."""
    drawn = replace(algorithm, sampling=sampling, cohort=2)
    federation = quadratics((1.0, 4.0, 2.0), (-1.0, 3.0, 8.0), algorithm=drawn, local_lr=0.05, local_steps=10,
                            weights=(5, 2, 1))  # fmt: skip
    assert federation.step(250)[-1].item() == pytest.approx(27 / 7, abs=1e-6)  # by examples it is 7 / 3
