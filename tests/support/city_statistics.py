"""Statistics of a generated week, named as in city_figures/*.json, and their comparison with the bands there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from clients.city.source_types import SeriesSource
from clients.core.arrays import F32, F64, Bool
from clients.world.world import World

LEVELS = (0.10, 0.25, 0.50, 0.75, 0.90)
DAY = 288  # steps of five minutes


def figures(name: str) -> dict[str, Any]:
    """Read tests/support/city_figures/NAME.json."""
    path = Path(__file__).parent / "city_figures" / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def outside(made: dict[str, F64], statistics: dict[str, Any]) -> list[str]:
    """Return a message for each number of `made` outside its band; empty where all are inside."""
    wrong = []
    for name, band in statistics.items():
        value, low, high = (np.atleast_1d(v) for v in (made[name], band["low"], band["high"]))
        assert value.shape == low.shape == high.shape, name
        for i in np.flatnonzero(~((value >= low) & (value <= high))):
            wrong.append(f"{name}[{i}] = {value[i]:.3f}, band {low[i]} to {high[i]}")
    return wrong


def autocorrelation(series: F64, lags: list[int]) -> F64:
    """Mean over rows of the autocorrelation of each row (n, T) at lags, with the row's own mean and variance."""
    deviation = series - series.mean(axis=1, keepdims=True)
    variance = (deviation**2).mean(axis=1)
    return np.array([((deviation[:, lag:] * deviation[:, :-lag]).mean(axis=1) / variance).mean() for lag in lags])


def pair_correlations(speed: F64, distance: F64) -> dict[str, F64]:
    """Quantiles of the correlation of pairs, by the weight of their distance (see `adjacency` in traffic.json)."""
    first, second = np.triu_indices(len(speed), 1)
    correlation = np.asarray(np.corrcoef(speed))[first, second]
    apart = distance[first, second]
    weight = np.exp(-((apart / apart[apart < 10.0].std()) ** 2))
    parts = {"near": weight > 0.5, "middle": (weight <= 0.5) & (weight >= 0.1), "far": weight < 0.1}
    return {
        f"pair_correlation_{name}_quantiles_10_25_50_75_90": np.quantile(correlation[chosen], LEVELS)
        for name, chosen in parts.items()
    }


def traffic_statistics(speed: F64, distance: F64, weekend: Bool, lags: list[int]) -> dict[str, F64]:
    """Statistics of a week of speeds.

    Args:
        speed: mph, (sensors, 2016), every five minutes.
        distance: driving km, (sensors, sensors).
        weekend: whether each of the 7 days is one.
        lags: of the autocorrelation, in steps.
    """
    by_hour = speed.reshape(len(speed), 7, 24, 12)
    work = by_hour[:, ~weekend]
    made = {
        "mean_speed": speed.mean(),
        "sd_speed": speed.std(),
        "quantiles_speed_10_25_50_75_90": np.quantile(speed, LEVELS),
        "sensor_mean_quantiles_10_25_50_75_90": np.quantile(speed.mean(axis=1), LEVELS),
        "sensor_sd_quantiles_10_25_50_75_90": np.quantile(speed.std(axis=1), LEVELS),
        "weekday_hourly_mean": work.mean(axis=(0, 1, 3)),
        "weekend_hourly_mean": by_hour[:, weekend].mean(axis=(0, 1, 3)),
        "autocorrelation_mean_over_sensors": autocorrelation(speed, lags),
        "share_below_40_mph": (speed < 40.0).mean(),
        "share_below_20_mph": (speed < 20.0).mean(),
        "weekday_share_below_40_by_hour": (work < 40.0).mean(axis=(0, 1, 3)),
        **pair_correlations(speed, distance),
    }
    for minutes in (15, 30, 60):
        error = speed[:, minutes // 5 :] - speed[:, : -minutes // 5]
        made[f"persistence_rmse_minutes_{minutes}"] = np.sqrt((error**2).mean())
    return {name: np.asarray(value) for name, value in made.items()}


def checked_readings(
    source: SeriesSource, other_seed: SeriesSource, world: World, *, clients: int, some: list[int]
) -> F32:
    """Return all readings of an hourly source; assert that each depends on seed, client and hour alone, and fits."""
    whole = source.read(np.arange(clients), 0, world.hours)
    assert whole.shape == (clients, world.hours, len(source.channels))
    assert whole.dtype == np.float32
    for start, stop in ((0, 1), (23, 25), (100, 337), (600, world.hours)):
        part = source.read(np.array(some), start, stop)
        np.testing.assert_array_equal(part, whole[some, start:stop])
    assert not np.array_equal(whole, other_seed.read(np.arange(clients), 0, world.hours))
    assert np.isfinite(whole).all()
    for c, channel in enumerate(source.channels):
        assert whole[..., c].min() >= channel.low
        assert whole[..., c].max() <= channel.high
    return whole
