"""Curves of the arms over rounds, bytes and simulated time: the median over seeds, and the band from 10% to 90%.

A run's measured values are joined by straight lines. A run that ended keeps its last value, which is what its model
would still have; a value that is not finite (of a run that diverged) counts as infinite.

Of each record only some lines are read, so that the page of 200 runs takes seconds; checksums are compared by the
report of a run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clients.core.arrays import F64
from clients.core.errors import RunFolderError
from clients.core.numbers.spacing import evenly_spaced
from dashboards.report.formats import count, is_number, rounded
from dashboards.report.round_series import at, is_regression
from dashboards.study.study_data import ENDED, StudyData
from server.record.checked.parsing import parse_json
from server.record.checked.regular_files import LARGEST_RECORD, LONGEST_LINE, open_regular
from server.record.checked.run_paths import RunPaths
from server.record.checked.seals import unchained
from server.record.hints import check_run

Line = Mapping[str, Any]

SERIES = {
    "validation_loss": ("validation loss", "mean loss of an example", "lower"),
    "validation_accuracy": ("validation accuracy", "share of examples that are right", "higher"),
    "validation_error": ("validation error", "error", "lower"),
    "validation_frechet_distance": ("Fréchet distance of samples", "squared distance", "lower"),
    "train_loss": ("training loss", "mean loss of an example", "lower"),
    "optimality_gap": ("optimality gap", "objective above its minimum", "lower"),
    "client_drift.mean": ("client drift", "mean squared distance of parameters", None),
    "cosine.mean": ("cosine to the mean update", "cosine, −1 to 1", None),
}
"""Series that are drawn: name, unit, and the direction that is better."""
LOSSES = (
    "validation_loss", "validation_error", "validation_frechet_distance", "train_loss", "optimality_gap",
    "client_drift.mean",
)  # fmt: skip
"""Series in which a value that is not finite is above all others."""
AXES = {"round": "round", "bytes": "bytes_total", "simulated": "simulated_seconds_total"}
SAMPLED = 80
"""Lines of a record that are read, about."""
STRIDES = tuple(step * 10**power for power in range(12) for step in (1, 2, 5))
MEASURED, UNMEASURED = b'"validation_loss":', b'"validation_loss": null'
POINTS = 120
"""Places of a curve at most."""
LEVELS = (0.1, 0.5, 0.9)
DIGITS = 5


@dataclass(frozen=True)
class RunCurves:
    """The series of one run.

    Attributes:
        axes: the place of each line on each axis [lines]; NaN where unknown.
        series: the values of each series [lines]; NaN where it was not measured, infinite where it was not finite.
    """

    axes: Mapping[str, F64]
    series: Mapping[str, F64]


@dataclass
class CurveReader:
    """Reads the curves of runs, each finished run once: while a study is played, its page is written often."""

    _problems: list[str] = field(default_factory=list)
    _known: dict[str, RunCurves] = field(default_factory=dict)

    def read(self, data: StudyData) -> dict[str, list[RunCurves]]:
        """Return the curves of the ended runs of each arm."""
        self._problems.clear()
        return {arm: [curves for row in rows if (curves := self._of(data, row)) is not None]
                for arm, rows in data.by_arm.items()}  # fmt: skip

    @property
    def problems(self) -> list[str]:
        """A sentence on the records that could not be read the last time; none where all could."""
        lost = len(self._problems)
        if not lost:
            return []
        return [f"Curves are without the {count(lost, 'record')} that cannot be read; the first: {self._problems[0]}."]

    def _of(self, data: StudyData, row: Mapping[str, Any]) -> RunCurves | None:
        name, folder = str(row.get("run") or ""), data.folder_of(row)
        if str(row["state"]) not in ENDED or folder is None:
            return None
        if name not in self._known:
            try:
                self._known[name] = run_curves(folder)
            except RunFolderError as error:
                self._problems.append(f"{row['arm']}, seed {row['seed']}: {error.problem}")
                return None
        return self._known[name]


def run_curves(folder: Path) -> RunCurves:
    """Read the series of a run.

    Raises:
        RunFolderError: its rounds cannot be read.
    """
    check_run(folder)
    lines = _sampled(RunPaths(folder).rounds)
    wanted = [key for key in SERIES if key != "validation_error" or is_regression(lines, key)]
    axes = {name: _column(lines, (key,)) for name, key in AXES.items()}
    series = {key: _column(lines, tuple(key.split(".")), infinite=key in LOSSES) for key in wanted}
    return RunCurves(axes, {key: values for key, values in series.items() if not np.isnan(values).all()})


def _sampled(path: Path) -> list[Line]:
    """Return at most about `SAMPLED` lines of a record: every n-th of those with a validation loss, and the last."""
    offsets, offset, all_offsets = [], 0, []
    with open_regular(path, most=LARGEST_RECORD) as file:
        while (raw := file.readline(LONGEST_LINE)).endswith(b"\n"):  # the last line may be half written
            all_offsets.append(offset)
            if MEASURED in raw and UNMEASURED not in raw:
                offsets.append(offset)
            offset += len(raw)
        found = []
        measured = offsets or all_offsets
        stride = next(n for n in STRIDES if len(measured) <= SAMPLED * n)
        for at in sorted({*measured[::stride], *measured[-1:]}):
            file.seek(at)
            found.append(_line(path, file.readline(LONGEST_LINE)))
    return found


def _line(path: Path, raw: bytes) -> Line:
    try:
        value = parse_json(unchained(raw.rstrip(b"\n"))[0])
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RunFolderError(str(path), "is damaged", fix="Its report says where: fedscape report RUN.")
    return value


def _column(lines: Sequence[Line], path: tuple[str, ...], *, infinite: bool = False) -> F64:
    """Return the numbers at a path; NaN where there is none."""
    found = np.full(len(lines), np.nan)
    for row, line in enumerate(lines):
        value = at(line, path)
        if is_number(value):
            found[row] = value
        elif infinite and value is not None:
            found[row] = math.inf
    return found


def curves_view(by_arm: Mapping[str, Sequence[RunCurves]]) -> list[dict[str, Any]]:
    """Return the curves of each series as JSON values.

    Args:
        by_arm: the runs of each arm, of `CurveReader.read`.

    Returns:
        For each series that a run has: `key`, `name`, `unit`, and for each axis a list of arms with `x`, `low`, `mid`,
        `high`, `runs`; an arm without the series is None.
    """
    found = []
    for key, (name, unit, _) in SERIES.items():
        if not any(key in run.series for runs in by_arm.values() for run in runs):
            continue
        axes = {axis: [_band(runs, key, axis) for runs in by_arm.values()] for axis in AXES}
        found.append({"key": key, "name": name, "unit": unit,
                      "axes": {axis: arms for axis, arms in axes.items() if any(arms)}})  # fmt: skip
    return found


def _band(runs: Sequence[RunCurves], key: str, axis: str) -> dict[str, Any] | None:
    """Return the quantiles of an arm's runs along an axis."""
    known = [pair for run in runs if key in run.series for pair in [_points(run, key, axis)] if len(pair[0])]
    if not known:
        return None
    places = _places([x for x, _ in known])
    stack = np.array([_along(places, x, y) for x, y in known])
    low, mid, high = (_quantile(np.sort(stack, axis=0), level) for level in LEVELS)
    band = {} if len(known) == 1 else {"low": _short(low), "high": _short(high)}
    return {"x": _short(places), "mid": _short(mid), "runs": len(known), **band}


def _quantile(ordered: F64, level: float) -> F64:
    """Return a quantile of each column [n, places] that is in order; NumPy's makes NaN of infinite neighbours."""
    place = level * (len(ordered) - 1)
    below = int(place)
    part = place - below
    if part == 0:
        return np.asarray(ordered[below])
    low, high = ordered[below], ordered[below + 1]
    known = np.isfinite(high)  # of a run that diverged, curves end at infinity
    return np.where(known, low + part * (np.where(known, high, 0.0) - np.where(known, low, 0.0)), np.inf)


def _points(run: RunCurves, key: str, axis: str) -> tuple[F64, F64]:
    """Return the places and values at which a run was measured."""
    x, y = run.axes[axis], run.series[key]
    measured = ~(np.isnan(x) | np.isnan(y))
    return x[measured], y[measured]


def _places(all_x: Sequence[F64]) -> F64:
    """Return the places of a curve: those of the runs where they are few, else evenly spread ones with the last."""
    found = np.unique(np.concatenate(all_x))
    if len(found) <= POINTS:
        return found
    shared = all_x[0]
    if all(len(np.setdiff1d(x, shared, assume_unique=True)) == 0 for x in all_x):  # one grid, such as rounds
        return np.asarray(found[evenly_spaced(len(found), POINTS)])
    return np.linspace(found[0], found[-1], POINTS)


def _along(places: F64, x: F64, y: F64) -> F64:
    """Return a run's values at places: straight lines between finite ones, and infinite next to an infinite one."""
    finite = np.isfinite(y)
    if not finite.any():
        return np.full(len(places), np.inf)
    found = np.interp(places, x[finite], y[finite])
    if not finite.all():
        after = np.clip(np.searchsorted(x, places), 0, len(x) - 1)
        before = np.clip(after - (x[after] > places), 0, None)
        found[~(finite[after] & finite[before])] = np.inf
    return np.asarray(found)


def _short(values: F64) -> list[float | None]:
    return [rounded(float(value), DIGITS) for value in values]
