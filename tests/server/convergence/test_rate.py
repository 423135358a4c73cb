"""Fitted rates agree with curves of known rate, and curves without a trend have none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clients.core.streams import generator
from server.convergence.rates.rate import FEWEST, NoTrend, Rate, fit_rate
from server.convergence.rates.recursion import carried, regress


@pytest.mark.parametrize("factor", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("count", [8, 20, 100])
def test_exponential_without_noise_gives_its_rate_and_limit(factor, count):
    rate = fit_rate(3.0 + 2.0 * factor ** np.arange(count))
    assert isinstance(rate, Rate)
    assert rate.factor == pytest.approx(factor, abs=1e-6)
    assert rate.limit == pytest.approx(3.0, abs=1e-6)
    assert rate.low <= rate.factor <= rate.high
    assert rate.high - rate.low < 1e-6


@given(
    factor=st.floats(0.05, 0.97),
    limit=st.floats(-100.0, 100.0),
    height=st.floats(1e-3, 1e3),
    count=st.integers(8, 100),
    scale=st.sampled_from([1e-12, 1.0, 1e12]),
)
@settings(max_examples=60)
def test_rate_does_not_depend_on_offset_or_unit(factor, limit, height, count, scale):
    rate = fit_rate(scale * (limit + height * factor ** np.arange(count)))
    if isinstance(rate, NoTrend):  # fell below the rounding of the offset within the window
        assert factor**count * height < 1e-9 * max(abs(limit), height)
        return
    assert rate.factor == pytest.approx(factor, abs=1e-6 + 1e-10 * abs(limit) / height)
    assert rate.limit == pytest.approx(scale * limit, abs=1e-6 * scale * max(abs(limit), height))


def test_rounds_to_a_value_are_those_of_the_path():
    path = 1.0 + 0.9 ** np.arange(30)
    rate = fit_rate(path)
    needed, low, high = rate.rounds_to(1.0 + 0.9**40)
    assert needed == pytest.approx(11.0, abs=1e-4)  # the newest value is that of round 29
    assert low <= needed <= high
    assert rate.rounds_to(1.5) == (0.0, 0.0, 0.0)  # already below
    assert rate.rounds_to(0.99) is None  # below the limit: never


def test_rounds_to_a_value_have_an_interval_that_follows_the_rate():
    random = generator(1, "rounds to")
    x = np.full((10, 300), 30.0)
    for r in range(1, 300):
        x[:, r] = 0.97 * x[:, r - 1] + random.standard_normal(10)
    loss = (x**2).sum(axis=0)
    rate = fit_rate(loss[:40])
    needed, low, high = rate.rounds_to(500.0)
    actual = int(np.argmax(loss <= 500.0)) - 39
    assert low < needed < high
    assert low <= actual <= high


def test_rounds_to_a_value_use_a_linear_fall_for_the_lower_bound():
    rate = Rate(0.9, 0.8, 1.0, 0.0, 10.0, 20, (20.0, 18.0))  # from 20 to 18 in a round, whatever the factor
    needed, low, high = rate.rounds_to(5.0)
    assert needed == pytest.approx(math.log(0.5) / math.log(0.9))
    assert low == pytest.approx(2.5)  # straight on, 2 a round
    assert high == math.inf  # with factor 0.8 the limit is 10


def test_limit_of_another_factor_keeps_the_pivot():
    rate = Rate(0.9, 0.8, 1.0, 0.0, 10.0, 20, (20.0, 18.0))
    assert rate.limit_at(0.9) == pytest.approx(0.0)
    assert rate.limit_at(0.8) == pytest.approx(10.0)
    assert rate.limit_at(1.0) == -math.inf


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1.0] * 30, "it does not change"),
        ([0.0] * 30, "it does not change"),
        (list(np.exp(-np.arange(FEWEST - 1.0))), "7 values are too few, 8 are needed"),
        ([], "0 values are too few, 8 are needed"),
        ([1.0 + 0.9**r for r in range(20)] + [math.nan], "a value is not finite"),
        ([1.0, math.inf] + [1.0 + 0.9**r for r in range(20)], "a value is not finite"),
        ([2.0 - 0.9**r for r in range(30)], "it rises"),
        ([1.1**r for r in range(30)], "it rises"),
        ([100.0 - r - 0.01 * r * r for r in range(30)], "it falls without slowing yet"),
    ],
)
def test_no_trend_has_a_reason(values, reason):
    assert fit_rate(values) == NoTrend(reason)


def test_noise_about_a_level_has_no_trend():
    noise = generator(2, "plateau").standard_normal((200, 60))
    assert sum(isinstance(fit_rate(2.0 + 0.1 * values), Rate) for values in noise) <= 2
    rising = fit_rate(0.05 * np.arange(60) + 0.1 * noise[0])
    assert isinstance(rising, NoTrend)


def test_measurement_noise_does_not_bias_the_rate():
    """A loss measured on few examples: regression on the noisy values alone gives about 0.85 here."""
    noise = generator(3, "measured").standard_normal((200, 60))
    curves = 1.0 + 2.0 * 0.9 ** np.arange(60) + 0.13 * noise
    rates = [fit for fit in map(fit_rate, curves) if isinstance(fit, Rate)]
    assert len(rates) >= 150
    assert np.median([carried(regress(curve, 1e-16)).value for curve in curves]) < 0.87
    assert np.median([rate.factor for rate in rates]) == pytest.approx(0.9, abs=0.01)
    assert 0.85 <= np.mean([rate.low <= 0.9 <= rate.high for rate in rates]) <= 0.97


def test_curve_that_slows_down_is_fitted_to_its_newest_part():
    """1/r slows down forever: near round r its factor is about 1 - 2/r, and not that of the first rounds."""
    curve = 1.0 / np.arange(1.0, 101.0)
    rate = fit_rate(curve)
    assert isinstance(rate, Rate)
    assert rate.rounds <= 25
    local = np.diff(curve)[-1] / np.diff(curve)[-2]
    assert rate.low <= local <= rate.high
    assert rate.factor > 0.95


def test_values_before_the_window_are_ignored():
    curve = np.concatenate([generator(4, "before").standard_normal(50), 1.0 + 0.8 ** np.arange(30)])
    assert fit_rate(curve, window=30) == fit_rate(curve[-30:])
    assert fit_rate(list(curve), window=30) == fit_rate(curve[-30:])


few = st.sampled_from([0.0, 1.0, -1.0, 1e-300, 1e300, 1.0 + 1e-15])


@given(st.one_of(st.lists(st.floats(), max_size=60), st.lists(few, max_size=60)))
@example([0.0] * 7 + [1.0])
@settings(max_examples=200)
def test_any_values_give_a_rate_in_its_interval_or_a_reason(values):
    fit = fit_rate(values)
    if isinstance(fit, NoTrend):
        assert fit.reason
    else:
        assert 0.0 <= fit.low <= fit.factor <= fit.high <= 1.0
        assert fit.factor < 1.0
