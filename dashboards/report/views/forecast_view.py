"""Forecasts against truth as the page draws them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dashboards.report.client_grid import FEWEST_CELLS
from dashboards.report.formats import is_number, number
from dashboards.report.run_data import RunData

TOO_MANY = "Forecasts against truth are not drawn on a page of this many runs."


def forecast_view(run: RunData, cells: int) -> dict[str, Any] | None:
    """Return what the page draws of a run's forecasts; None where it has none.

    Args:
        run: the run.
        cells: the cells that a client grid of the run may have, as a measure of the room on the page.
    """
    found = run.forecasts
    if not found or not isinstance(found.get("by_step"), list):
        return None
    if cells < FEWEST_CELLS:
        return {"left_out": [TOO_MANY], "clients": [], "by_step": []}
    unit, hours = str(found.get("unit") or ""), found.get("step_hours")
    clients = found.get("clients") or []
    first, last = found.get("lead") or (1, 1)
    ahead = lead_words(first, last, hours) if clients else ""
    return {
        "quantity": _quantity(found),
        "unit": unit,
        "origin": str(found.get("origin") or ""),
        "step_hours": hours,
        "by_step": found["by_step"],
        "persistence_by_step": found.get("persistence_by_step"),
        "steps": [lead_words(k, k, hours) for k in range(1, len(found["by_step"]) + 1)],
        "jump": found.get("jump") or 1,
        "clients": [_client(one, ahead, unit) for one in clients],
        "left_out": [str(found["left_out"])] if found.get("left_out") else [],
    }


def lead_words(first: int, last: int, step_hours: float | None) -> str:
    """Return how far ahead forecasts are made, in time where a step has one.

    Example:
        >>> lead_words(4, 6, 1.0), lead_words(1, 4, 0.25), lead_words(3, 3, None), lead_words(24, 24, 1.0)
        ('4 to 6 h ahead', '15 min to 1 h ahead', '3 steps ahead', '24 h ahead')
    """
    if not is_number(step_hours):
        return f"{first} to {last} steps ahead" if first != last else f"{last} step{'s' if last > 1 else ''} ahead"
    (low, unit), (high, high_unit) = _time(first * step_hours), _time(last * step_hours)
    if first == last:
        return f"{high} {high_unit} ahead"
    return f"{low} to {high} {unit} ahead" if unit == high_unit else f"{low} {unit} to {high} {high_unit} ahead"


def _time(hours: float) -> tuple[str, str]:
    """Return a time in minutes, hours or days, and the unit."""
    for size, unit in ((1 / 60, "min"), (1.0, "h")):
        if hours < (1.0 if unit == "min" else 48.0):
            return f"{hours / size:g}", unit
    return f"{hours / 24:.3g}", "days"


def _quantity(found: Mapping[str, Any]) -> str:
    name, unit = str(found.get("quantity") or "reading"), str(found.get("unit") or "")
    return f"{name}, {unit}" if unit else name


def _client(one: Mapping[str, Any], ahead: str, unit: str) -> dict[str, Any]:
    """Return one client's lines and the words above them."""
    errors = [f"{number(one[key])} {unit}".rstrip() for key in ("error_in_unit", "persistence_error_in_unit")]
    drawn, of = one["windows"]
    part = f"the first {drawn:,} of {of:,} windows of its test part" if drawn < of else "its test part"
    words = (
        f"{one['name']}: forecasts made {ahead}, in {part}. Error on its test windows {errors[0]} (root mean squared), "
        f"of persistence {errors[1]}."
    )
    keys = ("rank", "name", "steps", "hours", "truth", "forecast", "persistence")
    return {"words": words} | {key: one.get(key) for key in keys}
