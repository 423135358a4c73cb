"""Mean and covariance of a round over draws of m of N clients, in units of their standard errors.

Without replacement and with uniform weights, the mean is the full average, and the covariance is (N - m) / (m (N - 1))
times the population covariance of the local results. With replacement by p_k it is the covariance under p, over m.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from federations import quadratics

from server.algorithms.options import FedAvgOptions

RNG = np.random.default_rng(2)
N, DIMENSION, DRAWS = 8, 3, 800
CURVATURES = RNG.uniform(0.5, 2.0, size=(N, DIMENSION))
CENTRES = RNG.normal(size=(N, DIMENSION)) + np.linspace(-1, 1, N)[:, None]
WEIGHTS = (1, 2, 3, 4, 5, 6, 9, 10)
P = np.array(WEIGHTS) / sum(WEIGHTS)
LR, STEPS = 0.4, 1
START = torch.full((DIMENSION,), 0.5, dtype=torch.float64)
LOCAL = CENTRES + (1 - LR * CURVATURES) ** STEPS * (START.numpy() - CENTRES)
"""Where each client ends from START."""


def results(algorithm, draws=DRAWS):
    """Play many first rounds from START, each with its own cohort; return the averages (draws, d)."""
    federation = quadratics(CURVATURES, CENTRES, algorithm=algorithm, local_lr=LR, local_steps=STEPS, weights=WEIGHTS)
    return np.stack([federation.probe(START, round_index=r).numpy() for r in range(1, draws + 1)])


def far(samples, mean, covariance):
    """Return the largest errors of the sample's mean and covariance in standard errors."""
    centred = samples - mean
    off_mean = np.abs(centred.mean(0)) / np.sqrt(np.diag(covariance) / len(samples))
    products = centred[:, :, None] * centred[:, None, :]
    error = products.std(0) / np.sqrt(len(samples))
    return off_mean.max(), (np.abs(products.mean(0) - covariance) / error).max()


def covariance(rows, p):
    centred = rows - p @ rows
    return np.einsum("k,ki,kj->ij", p, centred, centred)


UNIFORM = np.full(N, 1 / N)


def test_sampling_without_replacement_has_its_moments():
    m = 5
    found = results(FedAvgOptions(weighting="uniform", cohort=m))
    mean, population = LOCAL.mean(0), covariance(LOCAL, UNIFORM)
    off_mean, off_covariance = far(found, mean, (N - m) / (m * (N - 1)) * population)
    assert off_mean < 4
    assert off_covariance < 4
    assert far(found, mean, population / m)[1] > 6  # the covariance with replacement


def test_sampling_with_replacement_by_examples_has_its_moments():
    """Scheme I of Li et al. 2020: clients are drawn with probability p_k, and all draws have equal weights."""
    m = 3
    found = results(FedAvgOptions(sampling="by_examples", weighting="uniform", cohort=m))
    off_mean, off_covariance = far(found, P @ LOCAL, covariance(LOCAL, P) / m)
    assert off_mean < 4
    assert off_covariance < 4
    assert far(found, LOCAL.mean(0), covariance(LOCAL, P) / m)[0] > 6


def cohorts(m):
    return [list(c) for c in itertools.combinations(range(N), m)]


def test_renormalised_weights_are_biased_and_unbiased_ones_are_not():
    """Averages by examples within the cohort have a known expectation, which is not the full average."""
    m = 2
    renormalised = np.stack([P[c] @ LOCAL[c] / P[c].sum() for c in cohorts(m)])
    found = results(FedAvgOptions(weighting="examples", cohort=m))
    off_mean, off_covariance = far(found, renormalised.mean(0), covariance(renormalised, np.full(28, 1 / 28)))
    assert off_mean < 4
    assert off_covariance < 4
    assert far(found, P @ LOCAL, np.cov(found.T))[0] > 6

    start = START.numpy()
    unbiased = np.stack([start + N / m * (P[c] @ (LOCAL[c] - start)) for c in cohorts(m)])
    np.testing.assert_allclose(unbiased.mean(0), P @ LOCAL, rtol=1e-12)
    found = results(FedAvgOptions(weighting="unbiased", cohort=m))
    assert max(far(found, P @ LOCAL, covariance(unbiased, np.full(28, 1 / 28)))) < 4


def test_bias_falls_as_one_over_m():
    """By the exact expectations above, bias x m / (1 - (m - 1) / (N - 1)) hardly changes with m."""
    biases = []
    for m in range(1, N + 1):
        rows = np.stack([P[c] @ LOCAL[c] / P[c].sum() for c in cohorts(m)])
        biases.append(np.linalg.norm(rows.mean(0) - P @ LOCAL))
    assert biases[-1] < 1e-14
    scaled = np.array(biases[:-1]) * np.arange(1, N) / (1 - np.arange(N - 1) / (N - 1))
    assert scaled.max() / scaled.min() < 2
    assert biases[0] > 3 * biases[3]
    whole = results(FedAvgOptions(weighting="examples"), draws=1)
    np.testing.assert_allclose(whole[0], P @ LOCAL, rtol=1e-12)  # all clients: the average itself
