"""The numbers of a record as series to draw, short enough for a page.

Series that were measured in the same rounds share a table, and a table gives the place of its rounds on each axis. A
long record is thinned by stretches of rounds: each keeps its last round, and the rounds with the smallest and largest
values of the series in `WATCHED`, so that no spike is lost.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from dashboards.report.formats import rounded

Line = Mapping[str, Any]
Path = tuple[str, ...]
LEVELS = ("p05", "p25", "p50", "p75", "p95")
SCALARS = (
    "train_loss", "validation_loss", "federated_loss", "validation_accuracy", "federated_accuracy", "agreement",
    "validation_balanced_accuracy", "validation_macro_f1", "federated_balanced_accuracy",
    "validation_frechet_distance", "validation_sample_precision", "validation_sample_coverage",
    "test_frechet_distance", "test_sample_precision", "test_sample_coverage",
    "objective", "test_loss", "test_accuracy", "test_balanced_accuracy", "test_macro_f1",
    "optimality_gap", "distance_to_optimum", "update_dispersion", "gradient_dissimilarity", "gradient_diversity",
    "aggregate_norm",
    "step_norm", "relative_change", "largest_gradient_norm", "gradient_norm", "clients_per_second", "respondents",
    "failures",
)  # fmt: skip
BANDS: tuple[Path, ...] = (("client_drift",), ("cosine",), ("update_norm",), ("client_spread", "score"))
OF_A_REGRESSION = ("validation_error", "federated_error", "test_error")
"""Drawn for a regression only: of a classification the error is one minus the accuracy."""
NESTED: tuple[Path, ...] = (("rate", "factor"), ("rate", "low"), ("rate", "high"))
OF_A_LAYER = ("update_dispersion", "aggregate_norm")
"""Drawn of each layer: its dispersion, and its norm of the pseudo-gradient."""
WATCHED = ("validation_loss", "validation_accuracy", "train_loss", "client_drift.mean", "cosine.p50")
"""Series whose smallest and largest values survive thinning."""
MOST_LAYERS, MOST_FAULTS, MOST_DRIFTS = 12, 16, 8
DIGITS = 6


class Column(Protocol):
    """Numbers by row."""

    def __getitem__(self, row: int, /) -> float:
        """Return the number of a row."""


def paths_of(lines: Sequence[Line], *, bands: bool = True) -> list[Path]:
    """Return the paths of every series that is drawn of these lines.

    Args:
        lines: the record.
        bands: whether to include the outer quantiles, the layers, faults and concept drifts.
    """
    levels = (*LEVELS, "mean") if bands else ("p50", "mean")
    paths: list[Path] = [(name,) for name in SCALARS]
    paths += [(error,) for error in OF_A_REGRESSION if is_regression(lines, error)]
    paths += [(*band, level) for band in BANDS for level in levels] + list(NESTED)
    paths += [("criteria", name, "distance") for name in criteria_of(lines)]
    if bands:
        paths += [("by_layer", name, what) for name in layers_of(lines) for what in OF_A_LAYER]
        paths += [("faults", name, "changed") for name in names_in(lines, "faults")[:MOST_FAULTS]]
        paths += [("concept_drift", name, "level") for name in names_in(lines, "concept_drift")[:MOST_DRIFTS]]
    return paths


def is_regression(lines: Sequence[Line], error: str) -> bool:
    """Return whether an error such as `validation_error` is that of a regression, which has a mean absolute error too.

    Example:
        >>> is_regression([{"validation_mae": 0.3, "validation_error": 0.4}], "validation_error")
        True
    """
    beside = error.replace("_error", "_mae")
    return any(line.get(beside) is not None for line in lines)


def names_in(lines: Sequence[Line], section: str) -> list[str]:
    """Return the names that a section has in any round, in order of appearance.

    Example:
        >>> names_in([{"faults": {"spikes": {}}}, {}, {"faults": {"bias": {}, "spikes": {}}}], "faults")
        ['spikes', 'bias']
    """
    return list(dict.fromkeys(name for line in lines for name in line.get(section) or ()))


def criteria_of(lines: Sequence[Line]) -> list[str]:
    """Return the names of the criteria that were watched."""
    return list(lines[-1].get("criteria") or {}) if lines else []


def layers_of(lines: Sequence[Line]) -> list[str]:
    """Return the layers with the largest dispersion in the last round that measured it, in model order."""
    found: Mapping[str, Any] = next((line["by_layer"] for line in reversed(lines) if line.get("by_layer")), {})

    def size(name: str) -> float:
        value = found[name].get("update_dispersion")
        return value if isinstance(value, int | float) and not math.isnan(value) else math.inf

    kept = set(sorted(found, key=size, reverse=True)[:MOST_LAYERS])
    return [name for name in found if name in kept]


def at(line: Line, path: Path) -> Any:
    """Return the value at a path of a line; None where there is none.

    Example:
        >>> at({"cosine": {"p50": 0.25}}, ("cosine", "p50")), at({"cosine": None}, ("cosine", "p50"))
        (0.25, None)
    """
    value: Any = line
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def tables(lines: Sequence[Line], paths: Iterable[Path], most: int) -> list[dict[str, Any]]:
    """Return tables of series, each over the rounds in which its series were measured.

    Args:
        lines: the record.
        paths: the series; those that no round measured are left out.
        most: the most rounds of a table.

    Returns:
        Tables with `columns` (dotted name -> values, None where a value is not a finite number), `axes` (the
        places of the rounds: `round`, `simulated` seconds, `bytes` sent, `wall` seconds), and `of`, the number of
        rounds before thinning.
    """
    axes = _axes(lines)
    groups: dict[bytes, dict[str, _Series]] = {}
    for path, series in _gathered(lines, list(paths)).items():
        mask = bytes(series.mask)
        if any(mask):
            groups.setdefault(mask, {})[".".join(path)] = series
    return [_table(mask, columns, axes, most) for mask, columns in groups.items()]


class _Series:
    """The numbers of a series, 9 bytes a round, so that a long record fits into memory.

    Attributes:
        mask: for each round, whether it has a number.
        values: for each round, its number; nan without one.
        whole: whether every number is a whole number.
    """

    def __init__(self) -> None:
        self.mask, self.values, self.whole = bytearray(), array("d"), True

    def add(self, value: Any) -> None:
        """Add a round's value."""
        measured = isinstance(value, int | float)
        self.mask.append(measured)
        self.values.append(value if measured else math.nan)
        self.whole &= not measured or isinstance(value, int)

    def __getitem__(self, row: int) -> float:
        """Return a round's number."""
        return int(self.values[row]) if self.whole else self.values[row]


def _gathered(lines: Sequence[Line], paths: Sequence[Path]) -> dict[Path, _Series]:
    """Return all series in one pass over the lines."""
    found = {path: _Series() for path in paths}
    for line in lines:
        for path, series in found.items():
            series.add(at(line, path))
    return found


def not_finite(lines: Sequence[Line], names: Iterable[str]) -> dict[str, list[int]]:
    """Return the first round, the last and the number of rounds in which each named number was nan or infinite."""
    paths = {name: tuple(name.split(".")) for name in names}
    found: dict[str, list[int]] = {}
    for line in lines:
        for name, path in paths.items():
            if isinstance(value := at(line, path), float) and not math.isfinite(value):
                first, _, count = found.get(name, (line["round"], 0, 0))
                found[name] = [first, line["round"], count + 1]
    return {name: found[name] for name in paths if name in found}


def _axes(lines: Sequence[Line]) -> dict[str, list[Any]]:
    """Return the place of each round on each axis."""
    found: dict[str, list[Any]] = {"round": [], "simulated": [], "bytes": [], "wall": []}
    wall = 0.0
    for line in lines:
        wall += line.get("wall_seconds") or 0.0
        places = (line["round"], line.get("simulated_seconds_total"), line.get("bytes_total"), wall)
        for values, place in zip(found.values(), places, strict=True):
            values.append(place)
    return found


def _table(mask: bytes, columns: Mapping[str, _Series], axes: Mapping[str, list[Any]], most: int) -> dict[str, Any]:
    rows = [row for row, measured in enumerate(mask) if measured]
    kept = thinned(rows, [columns[name] for name in WATCHED if name in columns], most)
    return {
        "of": len(rows),
        "axes": {name: [_short(values[row]) for row in kept] for name, values in axes.items()},
        "columns": {name: [_short(values[row]) for row in kept] for name, values in columns.items()},
    }


def thinned(rows: Sequence[int], watched: Sequence[Column], most: int) -> Sequence[int]:
    """Return at most `most` of the rows, in order: stretches with their extremes, see the module.

    Args:
        rows: indices into each of `watched`.
        watched: columns whose extremes are kept.
        most: at least 2.

    Example:
        >>> thinned(range(12), [[0, 0, 9, 0, 0, 0, 0, 0, 0, -1, 0, 0]], 6)
        [0, 2, 9, 11]
    """
    if len(rows) <= most:
        return rows
    stretches = max(1, (most - 1) // (1 + 2 * len(watched)))
    kept = {rows[0]}
    for index in range(stretches):
        stretch = rows[index * len(rows) // stretches : (index + 1) * len(rows) // stretches]
        kept.add(stretch[-1])
        for column in watched:
            known = [row for row in stretch if math.isfinite(column[row])]
            if known:
                low, high = min(known, key=column.__getitem__), max(known, key=column.__getitem__)
                if column[low] < column[high]:
                    kept |= {low, high}
    return sorted(kept)


def _short(value: Any) -> Any:
    """Return a number with a few significant digits; None where it is not finite."""
    if isinstance(value, float):
        return rounded(value, DIGITS)
    return value


def criterion_spans(lines: Sequence[Line], name: str) -> list[list[Any]]:
    """Return the spans of rounds over which a criterion was in one state.

    Returns:
        [first round, last round, state] with state `waiting` (its condition is not met), `counting` (met, not yet in
        enough rounds), `holds`, or `unmeasured`.

    Example:
        >>> states = [{"held": 0, "distance": 1.0}, {"held": 1, "distance": 0.0}, {"held": 2, "holds": True}]
        >>> criterion_spans([{"round": r, "criteria": {"gap": state}} for r, state in enumerate(states)], "gap")
        [[0, 0, 'waiting'], [1, 1, 'counting'], [2, 2, 'holds']]
    """
    spans: list[list[Any]] = []
    for line in lines:
        state = _state(at(line, ("criteria", name)))
        if spans and spans[-1][2] == state:
            spans[-1][1] = line["round"]
        else:
            spans.append([line["round"], line["round"], state])
    return spans


def _state(state: Mapping[str, Any] | None) -> str:
    if not state or (state.get("distance") == math.inf and not state.get("held")):
        return "unmeasured"
    if state.get("holds"):
        return "holds"
    return "counting" if state.get("held") else "waiting"
