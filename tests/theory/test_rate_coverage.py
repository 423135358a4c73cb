"""The 90% interval of the fitted rate covers the true one, on FedAvg's own recursion on noisy quadratics.

`test_rate_of_known_curves` has other distances from the floor, and curves whose rate changes.
"""

from __future__ import annotations

import numpy as np
import pytest

from clients.core.streams import generator
from server.convergence.monitor import ConvergenceOptions
from server.convergence.outcome import Trend
from server.convergence.rates.families import fit_families
from server.convergence.rates.rate import Rate, fit_rate
from server.convergence.rates.recursion import regress

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


# Sublinear curves: power laws 1 + r^-p beside geometric ones


def shown_limits(values, *, least=-np.inf):
    """Return what the end of a run shows of a record: the family, and the interval of its limit."""
    trend = Trend(ConvergenceOptions(), least=None if np.isinf(least) else least)
    for value in values:
        trend.observe({"validation_loss": value})
    rate = trend.fit(whole=True)["rate"]
    return rate.get("family"), (rate.get("limit_low", np.nan), rate.get("limit_high", np.nan)), rate


@pytest.mark.parametrize("count", [30, 60, 200, 1000])
@pytest.mark.parametrize("p", [0.5, 1.0, 2.0])
def test_power_law_without_noise_gives_its_exponent_and_limit(p, count):
    family, (low, high), rate = shown_limits(1.0 + np.arange(1.0, count + 1.0) ** -p)
    assert family == "power"
    assert "factor" not in rate
    assert rate["exponent"] == pytest.approx(p, abs=1e-3)
    assert rate["limit"] == pytest.approx(1.0, abs=1e-4)
    assert low - 1e-6 <= 1.0 <= high + 1e-6
    assert high - low < 1e-3


@pytest.mark.parametrize("factor", [0.7, 0.9, 0.98])
def test_geometric_curve_without_noise_is_geometric(factor):
    family, (low, high), rate = shown_limits(1.0 + factor ** np.arange(200))
    assert family == "geometric"
    assert "exponent" not in rate
    assert low - 1e-6 <= 1.0 <= high + 1e-6


CURVES = {
    "r^-0.5": lambda r: r**-0.5, "r^-1": lambda r: 1.0 / r, "r^-2": lambda r: r**-2.0,
    "10 / (r + 9)": lambda r: 10.0 / (r + 9.0), "0.7^r": lambda r: 0.7**r, "0.9^r": lambda r: 0.9**r,
    "0.98^r": lambda r: 0.98**r,
}  # fmt: skip


@pytest.mark.parametrize(("noise", "echo"), [(0.003, 0.0), (0.03, 0.0), (0.01, 0.7)])
@pytest.mark.parametrize("name", CURVES)
def test_interval_of_the_limit_covers_it(name, noise, echo):
    """90% intervals of the limit 1, of whichever family is shown, with white and with correlated noise."""
    random, reps, count = generator(5, "limits", list(CURVES).index(name)), 60, 200
    curve = 1.0 + CURVES[name](np.arange(1.0, count + 1.0))
    fits = []
    for _ in range(reps):
        e = random.standard_normal(count)
        for i in range(1, count):
            e[i] = echo * e[i - 1] + np.sqrt(1.0 - echo**2) * e[i]
        fits.append(fit_families(curve + noise * e))
    own = "geometric" if "^r" in name else "power"
    covered = np.mean([low <= 1.0 <= high for low, high in (getattr(fit, own).limits for fit in fits)])
    assert covered >= 0.83, covered  # 0.9 less two standard errors of 60 runs
    wrong = {"geometric": "power", "power": "geometric"}[own]
    assert np.mean([fit.better == wrong for fit in fits]) <= 0.05
    if noise == 0.003:
        assert np.mean([fit.better == own for fit in fits]) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_interval_of_the_limit_covers_fedavgs_noise_floor(name):
    """The limit of FedAvg's loss is the stationary mean; with 12 rounds, or never at the floor, 0.8."""
    setting = SETTINGS[name]
    found, _ = losses(curvature=1.0, noise=0.3, clients=4, seeds=60, **setting)
    limit = 0.5 * setting["dimensions"] * setting["local_lr"] * 0.09 / (4 * (2.0 - setting["local_lr"]))
    fits = [fit_families(values) for values in found]
    covered = np.mean([low <= limit <= high for low, high in (fit.geometric.limits for fit in fits)])
    assert covered >= (0.7 if name in ("12 rounds", "50 dimensions, never at the floor") else 0.8), covered


def test_sum_of_two_geometric_falls_is_neither_family():
    """FedAvg's gap to a biased point has rho^r and rho^2r in it: a power law fits better, and is not claimed."""
    r = np.arange(40.0)
    family, _, rate = shown_limits(1.0 + 2.0 * 0.8**r + 0.7 * 0.64**r)
    assert family is None
    assert rate["factor"] == pytest.approx(0.8, abs=0.02)
