"""Statistics of hourly air quality at stations, for the twelve Beijing stations and for a generated city.

Every figure is a float named `pollutant.statistic`. Correlations between hours, stations and pollutants are of the raw
concentrations; hours with a gap are left out pair by pair. Distances are in kilometres, so that cities of other sizes
compare like with like: near pairs are closer than 10 km, far pairs 15 to 30 km apart.
"""

from __future__ import annotations

import io
import lzma
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from clients.core.arrays import F64

POLLUTANTS = ("pm25", "no2", "o3")
LAGS = (1, 3, 6, 12, 24, 48)
NEAR_KM, FAR_KM = 10.0, (15.0, 30.0)
START = date(2013, 3, 1)
STATIONS = {  # degrees north and east of the national monitoring stations, to about a kilometre; not in the files
    "Aotizhongxin": (39.98, 116.40),
    "Changping": (40.22, 116.23),
    "Dingling": (40.29, 116.22),
    "Dongsi": (39.93, 116.42),
    "Guanyuan": (39.93, 116.34),
    "Gucheng": (39.91, 116.18),
    "Huairou": (40.33, 116.63),
    "Nongzhanguan": (39.94, 116.46),
    "Shunyi": (40.13, 116.66),
    "Tiantan": (39.89, 116.41),
    "Wanliu": (39.99, 116.29),
    "Wanshouxigong": (39.88, 116.35),
}
MARGINS = {  # by how a figure's name ends: (factor either way, then plus or minus); see `bands`
    ".mean": (1.3, 0.0),
    "sd_over_mean": (1.2, 0.0),
    "q05_over_mean": (1.6, 0.0),
    "q50_over_mean": (1.15, 0.0),
    "q95_over_mean": (1.15, 0.0),
    "q99_over_mean": (1.25, 0.0),
    "autocorrelation_1h": (1.0, 0.02),
    "autocorrelation_3h": (1.0, 0.05),
    "h_over_sd": (1.2, 0.0),
    "diurnal_max_over_min": (1.2, 0.0),
    "diurnal_peak_hour": (1.0, 2.0),
    "weekend_over_weekday": (1.0, 0.08),
    "winter_over_summer": (1.3, 0.0),
    "station_spread": (1.6, 0.0),
    "near_correlation": (1.0, 0.05),
    "far_correlation": (1.0, 0.08),
    "share_above_150": (1.4, 0.0),
    "share_above_250": (1.6, 0.0),
    "share_above_100": (1.6, 0.0),
    "share_above_160": (1.6, 0.0),
    "": (1.0, 0.1),  # other correlations
}
COLUMNS = {"pm25": "PM2.5", "no2": "NO2", "o3": "O3", "temperature": "TEMP", "wind": "WSPM"}


@dataclass(frozen=True)
class Air:
    """Hourly readings of S stations over T hours that start at a midnight: each (S, T), gaps are NaN."""

    start: date
    places: F64  # (S, 2) km
    values: dict[str, F64]  # pm25, no2, o3 (ug/m3), temperature (deg C), wind (m/s)

    @property
    def hours(self) -> int:
        return next(iter(self.values.values())).shape[1]


def read_beijing(folder: Path) -> Air:
    """Read the twelve files of UCI 501 in `folder` (xz)."""
    from pyarrow import csv

    columns: dict[str, list[F64]] = {name: [] for name in COLUMNS}
    for station in STATIONS:
        (path,) = folder.glob(f"PRSA_Data_{station}_*.csv.xz")
        table = csv.read_csv(
            io.BytesIO(lzma.decompress(path.read_bytes())),
            convert_options=csv.ConvertOptions(
                include_columns=list(COLUMNS.values()),
                column_types=dict.fromkeys(COLUMNS.values(), "float64"),
                null_values=["NA"],
            ),
        )
        for name, column in COLUMNS.items():
            columns[name].append(np.asarray(table[column].to_numpy(), np.float64))
    degrees = np.array(list(STATIONS.values()))
    middle = degrees.mean(0)
    places = (degrees - middle)[:, ::-1] * 111.2 * np.array([np.cos(np.deg2rad(middle[0])), 1.0])
    return Air(START, places, {name: np.stack(series) for name, series in columns.items()})


def years(air: Air) -> Iterator[Air]:
    """Cut readings into whole years of 365 days."""
    step = 24 * 365
    for begin in range(0, air.hours - step + 1, step):
        values = {name: series[:, begin : begin + step] for name, series in air.values.items()}
        yield Air(date.fromordinal(air.start.toordinal() + begin // 24), air.places, values)


def figures(air: Air) -> dict[str, float]:
    """All figures of some readings (at least a year, for the seasons)."""
    found: dict[str, float] = {}
    for name in POLLUTANTS:
        for statistic, value in _of_one(air, name):
            found[f"{name}.{statistic}"] = float(value)
    pairs = (("o3", "no2"), ("pm25", "no2"), ("pm25", "o3"), ("pm25", "wind"), ("no2", "wind"), ("o3", "wind"))
    for a, b in (*pairs, ("o3", "temperature")):
        stations = zip(air.values[a], air.values[b], strict=True)
        found[f"{a}.with_{b}"] = float(np.mean([_correlation(x, y) for x, y in stations]))
    for name, limit in (("pm25", 150), ("pm25", 250), ("no2", 100), ("o3", 160)):
        known = air.values[name][np.isfinite(air.values[name])]
        found[f"{name}.share_above_{limit}"] = float((known > limit).mean())
    return found


def bands(air: Air) -> dict[str, dict[str, float]]:
    """Of each figure: `real` over all years, and the band from `low` to `high` that a generated city is held to.

    A generated year should look like one more year of such a city. So the band is the range of the real years, widened
    by a margin: by a factor for levels and ratios (30% for a mean, as between
    cities of one region; more for the shares above a limit, which move more than the mean does; 60% for the
    spread across stations, which depends on where twelve stations were put), by a plain difference for correlations.
    """
    whole, each = figures(air), [figures(year) for year in years(air)]
    found = {}
    for name, real in whole.items():
        factor, plus = next(margin for end, margin in MARGINS.items() if name.endswith(end))
        low, high = min(year[name] for year in each), max(year[name] for year in each)
        found[name] = {"real": real, "low": low / factor - plus, "high": high * factor + plus}
        if "correlation" in name or ".with_" in name:
            found[name] |= {"low": max(found[name]["low"], -1.0), "high": min(found[name]["high"], 1.0)}
        found[name] = {key: round(value, 4) for key, value in found[name].items()}
    return found


def profile(air: Air, name: str) -> F64:
    """Mean of each hour of the day over its mean, (24,)."""
    hourly = np.nanmean(air.values[name].reshape(len(air.places), -1, 24), axis=(0, 1))
    return np.asarray(hourly / hourly.mean())


def _of_one(air: Air, name: str) -> Iterator[tuple[str, float]]:
    series = air.values[name]
    known = series[np.isfinite(series)]
    yield "mean", known.mean()
    yield "sd_over_mean", known.std() / known.mean()
    for share in (5, 50, 95, 99):
        yield f"q{share:02}_over_mean", np.percentile(known, share) / known.mean()
    for lag in LAGS:
        yield f"autocorrelation_{lag}h", np.mean([_correlation(row[:-lag], row[lag:]) for row in series])
    for lag in (1, 3, 6):
        change = series[:, lag:] - series[:, :-lag]
        yield f"persistence_rmse_{lag}h_over_sd", np.sqrt(np.nanmean(change**2)) / known.std()
    by_hour = profile(air, name)
    yield "diurnal_max_over_min", by_hour.max() / by_hour.min()
    yield "diurnal_peak_hour", float(by_hour.argmax())
    with warnings.catch_warnings():  # a day without a reading stays NaN
        warnings.simplefilter("ignore", RuntimeWarning)
        days = np.nanmean(series.reshape(len(series), -1, 24), axis=2)
    dates = [date.fromordinal(air.start.toordinal() + day) for day in range(days.shape[1])]
    weekend = np.array([day.weekday() >= 5 for day in dates])
    month = np.array([day.month for day in dates])
    yield "weekend_over_weekday", np.nanmean(days[:, weekend]) / np.nanmean(days[:, ~weekend])
    winter, summer = np.isin(month, (12, 1, 2)), np.isin(month, (6, 7, 8))
    yield "winter_over_summer", np.nanmean(days[:, winter]) / np.nanmean(days[:, summer])
    means = np.nanmean(series, axis=1)
    yield "station_spread", means.std() / means.mean()
    near, far = _pairs(air, series)
    yield "near_correlation", near
    yield "far_correlation", far


def _pairs(air: Air, series: F64) -> tuple[float, float]:
    a, b = np.triu_indices(len(series), 1)
    distance = np.linalg.norm(air.places[a] - air.places[b], axis=1)
    likeness = np.array([_correlation(series[i], series[j]) for i, j in zip(a, b, strict=True)])
    far = (distance >= FAR_KM[0]) & (distance <= FAR_KM[1])
    return likeness[distance < NEAR_KM].mean(), likeness[far].mean()


def _correlation(a: F64, b: F64) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    return float(np.corrcoef(a[both], b[both])[0, 1])
