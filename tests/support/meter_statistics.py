"""Statistics of hourly household loads, named as in city_figures/meters.json."""

from __future__ import annotations

import numpy as np

from clients.core.arrays import F64, Bool


def homes(load: F64, season: F64) -> dict[str, float]:
    """Figures of homes over a whole year: kW (K, hours) from a midnight on, `season` the angle of the year (hours,)."""
    winter, summer = winter_and_summer(season)
    mean = load.mean(axis=1)
    day = by_hour(load.mean(axis=0, keepdims=True))[0]
    cold = by_hour(load[:, winter]).argmax(axis=1)
    lower, upper = np.percentile(mean, [25, 75])
    together = load.mean(axis=0).max()
    return {
        "mean_kwh_a_year": 8766.0 * float(mean.mean()),
        "upper_over_lower_quartile": float(upper / lower),
        "lowest_hour_kw": float(day.min()),
        "highest_hour_kw": float(day.max()),
        "highest_hour": float(day.argmax()),
        "evening_over_morning": float(day[16:].max() / day[6:10].max()),
        "share_peaking_16_to_20h": float(((cold >= 16) & (cold < 20)).mean()),
        "share_peaking_10_to_15h": float(((cold >= 10) & (cold < 15)).mean()),
        "winter_over_summer": float(load[:, winter].mean() / load[:, summer].mean()),
        "diversified_peak_kw": float(together),
        "coincidence": float(together / load.max(axis=1).mean()),
    }


def heating(power: F64) -> dict[str, float]:
    """Figures of the electric heating of heated homes over a year: kW (K, hours)."""
    together = power.mean(axis=0)
    days = together.reshape(-1, 24)
    fortnight = np.convolve(days.sum(axis=1), np.ones(14), "valid").argmax()
    coldest = days[fortnight : fortnight + 14].mean(axis=0)
    return {
        "diversified_peak_kw": float(together.max()),
        "peak_hour": float(coldest.argmax()),
        "night_over_peak": float(coldest.min() / coldest.max()),
    }


def winter_and_summer(season: F64) -> tuple[Bool, Bool]:
    """Whether hours are in December to February and in June to August, whole days."""
    months = 6.0 / np.pi * np.mod(np.repeat(season[::24], 24), 2.0 * np.pi)
    return (months < 2.0) | (months >= 11.0), (months >= 5.0) & (months < 8.0)


def by_hour(load: F64) -> F64:
    """Mean of each hour of the day, (K, 24)."""
    return load.reshape(len(load), -1, 24).mean(axis=1)
