"""The 90% interval of the fitted rate covers the true one, on FedAvg's own recursion on noisy quadratics.

Over 283 such settings (rho 0.5 to 0.98; 1, 5, 10, 50 dimensions; starts of 10, 100 and 10,000 times the floor; 20 to
199 rounds; 300 runs each) the coverage had median 0.903 and lay in 0.85-0.95 for 92%. It is lowest in one dimension
close to the floor (0.86) and highest in 50 dimensions where a few rounds reach the floor (0.97).
"""

from __future__ import annotations

import numpy as np
import pytest

from clients.core.streams import generator
from server.convergence.rate import Rate, fit_rate
from server.convergence.recursion import regress

SEEDS = 200


def losses(*, dimensions, curvature, local_lr, steps, noise, clients, start, rounds, seeds, root=0):
    """Losses h/2 |x|^2 of FedAvg over identical quadratic clients with additive gradient noise, (seeds, rounds + 1).

    One local step is x <- x - eta (h x + s z), so a round multiplies x by rho = (1 - eta h)^K and the average of N
    clients adds a noise of variance eta^2 s^2 / N * sum_{j<K} (1 - eta h)^(2j). `start` is |x_0|^2 over the
    stationary mean of |x|^2.
    """
    shrink = 1.0 - local_lr * curvature
    scale = local_lr * noise * np.sqrt((shrink ** (2.0 * np.arange(steps))).sum() / clients)
    stationary = local_lr * noise**2 / (clients * curvature * (2.0 - local_lr * curvature))  # per coordinate
    random = generator(root, "rate coverage", dimensions, steps, rounds)
    x = np.full((seeds, dimensions), np.sqrt(start * stationary))
    found = np.empty((seeds, rounds + 1))
    for r in range(rounds + 1):
        found[:, r] = 0.5 * curvature * (x**2).sum(axis=1)
        x = shrink**steps * x + scale * random.standard_normal(x.shape)
    return found, shrink ** (2 * steps)


SETTINGS = {
    "far, 10 dimensions": {"dimensions": 10, "local_lr": 0.01, "steps": 5, "start": 1e3, "rounds": 60},
    "moderately far, 10 dimensions": {"dimensions": 10, "local_lr": 0.02, "steps": 5, "start": 10.0, "rounds": 60},
    "one dimension": {"dimensions": 1, "local_lr": 0.01, "steps": 5, "start": 1e3, "rounds": 80},
    "50 dimensions, never at the floor": {"dimensions": 50, "local_lr": 0.01, "steps": 5, "start": 1e4, "rounds": 30},
    "slow, 5 dimensions": {"dimensions": 5, "local_lr": 0.004, "steps": 5, "start": 30.0, "rounds": 180},
    "fast, 5 dimensions": {"dimensions": 5, "local_lr": 0.05, "steps": 8, "start": 1e3, "rounds": 30},
    "12 rounds": {"dimensions": 20, "local_lr": 0.02, "steps": 5, "start": 200.0, "rounds": 12},
    "one local step, 2 dimensions": {"dimensions": 2, "local_lr": 0.1, "steps": 1, "start": 1e3, "rounds": 100},
}


def coverage(setting, seeds, root=0):
    found, rate = losses(curvature=1.0, noise=0.3, clients=4, seeds=seeds, root=root, **setting)
    fits = [fit_rate(values, window=200) for values in found]
    # A run without a rate does not count as covered.
    return sum(isinstance(fit, Rate) and fit.low <= rate <= fit.high for fit in fits) / seeds, fits, rate


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_interval_covers_the_true_rate_in_85_to_95_of_100_runs(name):
    covered, fits, rate = coverage(SETTINGS[name], SEEDS)
    assert 0.85 <= covered <= 0.95, covered
    factors = [fit.factor for fit in fits if isinstance(fit, Rate)]
    widths = [fit.high - fit.low for fit in fits if isinstance(fit, Rate)]
    assert abs(np.median(factors) - rate) < 0.2 * np.median(widths)  # centred on the truth, not merely wide


@pytest.mark.slow
def test_run_that_starts_at_its_floor_has_no_trend():
    setting = {"dimensions": 10, "local_lr": 0.02, "steps": 5, "start": 1.0, "rounds": 100}
    _, fits, _ = coverage(setting, SEEDS)
    assert sum(isinstance(fit, Rate) for fit in fits) <= 2


def test_interval_covers_the_true_rate_in_60_runs():
    covered, fits, rate = coverage(SETTINGS["far, 10 dimensions"], 60)
    assert 0.8 <= covered <= 0.99
    assert abs(np.median([fit.factor for fit in fits]) - rate) < 0.005


def test_small_sample_bias_is_corrected():
    """Close to the floor an autoregression is 0.014 too low here, seven standard errors of the mean."""
    setting = {"dimensions": 10, "local_lr": 0.02, "steps": 5, "start": 10.0, "rounds": 40}
    found, rate = losses(curvature=1.0, noise=0.3, clients=4, seeds=400, **setting)
    slopes = [regress(values / values[0], 1e-16).slope for values in found]
    factors = [fit.factor for fit in map(fit_rate, found) if isinstance(fit, Rate)]
    assert len(factors) >= 390
    assert np.mean(slopes) < rate - 0.01
    assert np.mean(factors) == pytest.approx(rate, abs=0.005)


def test_recursion_equals_fedavgs():
    """The oracle itself: stationary loss = d h/2 * eta s^2 / (N h (2 - eta h)), whatever the number of local steps."""
    for steps in (1, 5):
        found, rate = losses(
            dimensions=200, curvature=2.0, local_lr=0.1, steps=steps, noise=0.5, clients=3, start=1.0, rounds=60,
            seeds=20,
        )  # fmt: skip
        expected = 200 * 0.1 * 0.25 / (3 * 2.0 * (2.0 - 0.2))
        np.testing.assert_allclose(found[:, 20:].mean(), expected, rtol=0.02)
        np.testing.assert_allclose(rate, 0.8 ** (2 * steps))
