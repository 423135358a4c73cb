"""The error surface of a run as the page draws it: places, losses, levels of the contours, words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dashboards.report.client_grid import FEWEST_CELLS
from dashboards.report.formats import is_number, number, rounded
from dashboards.report.run_data import RunData

TOO_MANY = "Error surfaces are not drawn on a page of this many runs."
DIGITS = 5
"""Digits of the losses and places on the page; surface.json has all."""
CONTOURS = 12
LOGARITHMIC = 10.0
"""From this ratio of the largest loss to the smallest on, colours and contours are on a logarithmic scale."""
DEEPEST = 1e-6
"""The lowest colour of a logarithmic scale, as a share of the largest loss."""
PLANES = {
    "path": "the principal plane of the server's path, through its last state",
    "clients": "the principal plane of the clients' ends, through the state that they start from",
    "random": "two random directions with the norms of the last state's filters, about the last state",
    "states": "the plane through three states",
}
AXES = {
    "path": ("first principal direction", "second principal direction"),
    "clients": ("first principal direction", "second principal direction"),
    "random": ("first random direction", "second random direction"),
    "states": ("from the first state to the second", "across it, towards the third"),
}
LOSSES = {"objective": "objective", "validation": "validation loss"}


def surface_view(run: RunData, cells: int) -> dict[str, Any] | None:
    """Return what the page draws of a run's error surface; None where none was measured.

    Args:
        run: the run.
        cells: the cells that a client grid of the run may have, as a measure of the room on the page.
    """
    found = run.surface
    if not found:
        return None
    empty = {"picture": None, "line": None, "curvature": None}
    if cells < FEWEST_CELLS:
        return {**empty, "left_out": [TOO_MANY]}
    name = LOSSES.get(found["of"], str(found["of"]))
    return {
        "picture": _picture(found, name),
        "line": _line(found.get("line"), name),
        "curvature": _curvature(found.get("curvature") or ()),
        "left_out": [],
    }


def _picture(found: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Return the picture; None where its parts do not fit together."""
    x, y, loss = found["x"], found["y"], found["loss"]
    if len(loss) != len(y) or any(len(row) != len(x) for row in loss):
        return None
    known = [value for row in loss for value in row if is_number(value)]
    low, high, log = _scale(known)
    plane = found["plane"]
    return {
        "name": name,
        "words": _words(found, name),
        "axes": AXES.get(plane, AXES["path"]),
        "unit": "norms of the filters" if plane == "random" else "distance between parameters",
        "x": _short(x),
        "y": _short(y),
        "loss": [_short(row) for row in loss],
        "low": low,
        "high": high,
        "log": log,
        "levels": _short(_levels(low, high, log=log)),
        "server": _points(found["server"]),
        "ends": _points(found.get("ends")),
        "start": _short(found.get("start") or ()),
        "states": _points(found.get("states")),
        "round": found["round"],
    }


def _scale(known: Sequence[float]) -> tuple[float, float, bool]:
    """Return the ends of the colours, and whether their scale is logarithmic.

    Example:
        >>> _scale([0.1, 3.0, 2.0]), _scale([0.0, 1.0]), _scale([1.0, 2.0])
        ((0.1, 3.0, True), (0.0, 1.0, False), (1.0, 2.0, False))
        >>> _scale([1e-30, 1.0])
        (1e-06, 1.0, True)
    """
    if not known:
        return 0.0, 1.0, False
    low, high = min(known), max(known)
    log = low > 0 and high >= LOGARITHMIC * low
    return (max(low, DEEPEST * high) if log else low), high, log


def _levels(low: float, high: float, *, log: bool) -> list[float]:
    """Return the losses of the contours, evenly spaced on the scale of the colours.

    Example:
        >>> [round(level, 3) for level in _levels(0.0, 13.0, log=False)][:3], len(_levels(0.1, 10.0, log=True))
        ([1.0, 2.0, 3.0], 12)
    """
    parts = [(k + 1) / (CONTOURS + 1) for k in range(CONTOURS)]
    if not high > low:
        return []
    return [low * (high / low) ** part if log else low + part * (high - low) for part in parts]


def _words(found: Mapping[str, Any], name: str) -> str:
    """Return what is drawn, in sentences."""
    used, there = (found.get("examples") or [0, 0])[:2]
    count = f"{used:,} examples" if used == there else f"{used:,} of {there:,} examples"
    plane = PLANES.get(found["plane"], str(found["plane"]))
    words = [f"{name.capitalize()} over {plane}, on {count} of round {found['round']}."]
    if is_number(found.get("share")):
        words.append(f"The plane holds {100 * found['share']:.1f}% of the variance of the path.")
    words.append("Points show states at the nearest place of the plane; their own loss is in the tooltip.")
    return " ".join([*words, *map(str, found.get("notes") or ())])


def _points(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return points with their names; None where there are none, or their lists have other lengths."""
    if not found or not found["x"]:
        return None
    points = {key: list(found.get(key) or ()) for key in ("names", "x", "y", "away", "loss")}
    if any(len(values) != len(points["x"]) for values in points.values()):
        return None
    return {"names": points.pop("names"), **{key: _short(values) for key, values in points.items()}}


def _line(found: Mapping[str, Any] | None, name: str) -> dict[str, Any] | None:
    """Return the loss along a line; None without one."""
    if not found or len(found["t"]) != len(found["loss"]):
        return None
    ends, barrier = [str(end) for end in found["ends"][:2]], found.get("barrier")
    words = f"{name.capitalize()} of the models between {ends[0]} and {ends[1]}."
    if is_number(barrier):
        words += (
            f" It rises {number(barrier)} above the straight line between the ends: a barrier."
            if barrier > DEEPEST * max(abs(value) for value in found["loss"] if is_number(value))
            else " There is no barrier: it nowhere rises above the straight line between the ends."
        )
    return {"name": name, "ends": ends, "t": _short(found["t"]), "loss": _short(found["loss"]), "words": words}


def _curvature(found: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the largest eigenvalues by round; None where none were found."""
    if not found:
        return None
    count = max(len(one["values"]) for one in found)
    rows = [[one["values"][k] if k < len(one["values"]) else None for one in found] for k in range(count)]
    return {"rounds": [one["round"] for one in found], "values": [_short(row) for row in rows]}


def _short(values: Sequence[float | None]) -> list[float | None]:
    return [rounded(value, DIGITS) for value in values]
