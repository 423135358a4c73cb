"""The weather of a generated world, hour by hour: storms, then how they and the season change everything else.

Every number comes from a hash of (seed, quantity, hour), so a longer world begins with the same hours, and setting an
option to zero removes its effect and changes no other draw. With g_q a stationary Gaussian AR(1) series of unit
variance and time constant tau_q, exp(-1/tau_q) its lag-one correlation, and s the angle of the year:

- storms: a storm starts in an hour with probability storms_per_month / 730.5 and has a length (4 to 14 h) and a
  strength (0.4 to 1); storm = strength sin(pi (h - start) / length)^2, the maximum where storms overlap.
- temperature = mean - swing/2 cos(s - 20 days) + 3 g_T (tau 72 h) + 4 (1 - 0.6 cloud) cos(2 pi (h - 15) / 24)
  - 3 storm: a seasonal harmonic with AR(1) residuals whose lag-one correlation a day apart is 0.7 (Richardson 1981,
  "Stochastic simulation of daily precipitation, temperature, and solar radiation", who finds 0.6 to 0.8), and a
  daily range that clouds damp, warmest in mid-afternoon.
- rain: a two-state Markov chain wet/dry (Gabriel and Neumann 1962; Richardson's occurrence model) with
  P(wet | wet) = 0.75 and the share of wet hours `rain_share`, exponential amounts of mean 1.2 mm/h (Richardson),
  plus 10 storm mm/h.
- cloud = logistic(1.6 g_C - 0.6) (tau 18 h), at least 0.85 while it rains, then storm^(1/4) of the way
  to 1 (cloud is not kept; sunshine is).
- sunshine = daylight (1 - 0.75 cloud^3.4): Kasten and Czeplak (1980), "Solar and terrestrial radiation dependent on
  the amount and type of cloud", equation 3.
- wind = 3.4 m/s times a Weibull variable of shape 2 and mean 1, by the quantile transform of g_W (tau 12 h) (Weibull
  winds: Justus et al. 1978), times 1 + 0.25 cos(2 pi (h - 15) / 24), plus 12 storm.
- wind_direction (where it blows from, radians clockwise from north) = prevailing + 0.9 g_D (tau 30 h).
- inversion = night x (0.55 + 0.45 cos(s)) x exp(-(wind / 3)^2) x (1 - cloud), smoothed over 2 h: strong on calm clear
  winter nights (Stull 1988, "An introduction to boundary layer meteorology", chapter 12).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clients.core import streams
from clients.core.arrays import F64, Bool
from clients.world import calendar
from clients.world.recursion import recursion

MONTH_HOURS = 24.0 * calendar.YEAR_DAYS / 12.0
STAY_WET = 0.75


@dataclass(frozen=True)
class Storm:
    """A storm over the whole city.

    Attributes:
        start: first hour.
        hours: how many hours it lasts.
        strength: at its height, 0..1.
    """

    start: int
    hours: int
    strength: float


@dataclass(frozen=True)
class Weather:
    """Hourly series, float64 (hours,); units as in `clients.world.world.World`."""

    storms: tuple[Storm, ...]
    storm: F64
    temperature: F64
    rain: F64
    wind: F64
    wind_direction: F64
    sunshine: F64
    inversion: F64


def make_weather(
    start: str,
    hours: int,
    seed: int,
    *,
    mean_temperature: float,
    seasonal_swing: float,
    storms_per_month: float,
    rain_share: float,
) -> Weather:
    """Make `hours` hours of weather from midnight of the ISO date `start`; equations are in the module's docstring."""
    hour = np.arange(hours, dtype=np.float64)
    season, daylight = calendar.season(start, hour), calendar.daylight(start, hour)
    afternoon = np.cos(2.0 * np.pi * (hour - 15.0) / 24.0)
    storms = _storms(hours, seed, storms_per_month)
    storm = _storm_level(storms, hours)

    wet = _wet(hours, seed, rain_share)
    amounts = -1.2 * np.log(hourly_uniforms(seed, "rain amount", hours))
    rain = np.where(wet, amounts, 0.0) + 10.0 * storm

    cloud = 1.0 / (1.0 + np.exp(0.6 - 1.6 * autoregression(seed, "cloud", hours, 18.0)))
    cloud = np.where(wet, np.maximum(cloud, 0.85), cloud)
    cloud = cloud + (1.0 - cloud) * storm**0.25

    wind = 3.4 * _weibull(autoregression(seed, "wind", hours, 12.0)) * (1.0 + 0.25 * afternoon) + 12.0 * storm
    prevailing = 2.0 * np.pi * float(streams.uniforms(streams.keys(seed, "world prevailing wind"), 1)[0])
    direction = np.mod(prevailing + 0.9 * autoregression(seed, "wind direction", hours, 30.0), 2.0 * np.pi)

    coldest = 2.0 * np.pi * 20.0 / calendar.YEAR_DAYS
    temperature = (
        mean_temperature
        - 0.5 * seasonal_swing * np.cos(season - coldest)
        + 3.0 * autoregression(seed, "temperature", hours, 72.0)
        + 4.0 * (1.0 - 0.6 * cloud) * afternoon
        - 3.0 * storm
    )
    calm_clear = np.exp(-((wind / 3.0) ** 2)) * (1.0 - cloud) * (daylight <= 0.0)
    inversion = recursion((0.55 + 0.45 * np.cos(season)) * calm_clear, 0.6, gain=0.4)
    return Weather(
        storms=storms,
        storm=storm,
        temperature=temperature,
        rain=rain,
        wind=wind,
        wind_direction=direction,
        sunshine=daylight * (1.0 - 0.75 * cloud**3.4),
        inversion=inversion,
    )


def hourly_uniforms(seed: int, what: str, hours: int, *address: int) -> F64:
    """Return one uniform number an hour, (hours,); the first ones do not depend on `hours`."""
    return streams.uniforms(streams.keys(seed, f"world {what}", *address, np.arange(hours)), 1)[:, 0]


def autoregression(seed: int, what: str, hours: int, tau: float) -> F64:
    """Return a stationary Gaussian AR(1) series of unit variance, (hours,), with correlation exp(-lag / tau)."""
    noise = streams.normals(streams.keys(seed, f"world {what}", np.arange(hours)), 1)[:, 0]
    stay = np.exp(-1.0 / tau)
    noise[1:] *= np.sqrt(1.0 - stay**2)
    return recursion(noise, stay)


def _storms(hours: int, seed: int, per_month: float) -> tuple[Storm, ...]:
    starts = np.flatnonzero(hourly_uniforms(seed, "storm", hours) < per_month / MONTH_HOURS)
    draws = streams.uniforms(streams.keys(seed, "world storm shape", starts), 2)
    return tuple(
        Storm(int(start), int(4 + 11 * u), float(0.4 + 0.6 * v)) for start, (u, v) in zip(starts, draws, strict=True)
    )


def _storm_level(storms: tuple[Storm, ...], hours: int) -> F64:
    level = np.zeros(hours)
    for storm in storms:
        stop = min(storm.start + storm.hours, hours)
        phase = (np.arange(storm.start, stop) - storm.start + 0.5) / storm.hours
        level[storm.start : stop] = np.maximum(level[storm.start : stop], storm.strength * np.sin(np.pi * phase) ** 2)
    return level


def _wet(hours: int, seed: int, share: float) -> Bool:
    """Two-state Markov chain with P(wet | wet) = STAY_WET and the stationary share `share`."""
    draws = hourly_uniforms(seed, "rain", hours)
    begin = share * (1.0 - STAY_WET) / (1.0 - share)
    wet = np.zeros(hours, np.bool_)
    now = bool(draws[0] < share)
    for hour, draw in enumerate(draws.tolist()):
        now = draw < (STAY_WET if now else begin)
        wet[hour] = now
    return wet


def _weibull(gaussian: F64) -> F64:
    """Weibull variables of shape 2 (Rayleigh) and mean 1, monotone in standard normal ones."""
    from scipy.special import ndtr  # the import takes a tenth of a second

    return np.asarray(np.sqrt(-np.log1p(-ndtr(gaussian) * (1.0 - 1e-12))) / (0.5 * np.sqrt(np.pi)))
