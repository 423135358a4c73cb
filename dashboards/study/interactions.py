"""Two factors together: the mean of a measure for each pair of their values, with Student's interval over seeds.

Other factors are averaged for each seed first, so the interval is over seeds. Lines that are not parallel are an
interaction: the effect of one factor depends on the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dashboards.report.compared_measures import Measure
from dashboards.statistics.paired import student_interval
from dashboards.study.study_data import Row, StudyData, factor_value, value_of

MOST_VALUES = 12
"""Factors with more values are left out."""


def interactions_view(data: StudyData) -> list[dict[str, Any]]:
    """Return the cells of each two factors and measure, as JSON values.

    Returns:
        For each two factors and each measure `across` and `lines` (the factors), `measure` (its key), `columns` and
        `rows` (their values as text), `cells` (a list of `[mean, low, high, runs]` for each value of `lines`; None
        where no run has both values), and `bounded`: whether a run that missed its target counts at its bound.
    """
    factors = {name: values for name, values in data.factors.items() if len(values) <= MOST_VALUES}
    found = []
    for across, lines in itertools.combinations(factors, 2):
        for measure in sorted(data.measures, key=lambda m: m is not data.measure):
            cells = [
                [_cell(_rows(data, {across: x, lines: y}), measure) for x in factors[across]] for y in factors[lines]
            ]
            if sum(cell is not None for row in cells for cell in row) > 2:
                numbers = [value_of(row, measure) for row in data.rows]
                found.append({
                    "across": across, "lines": lines, "measure": measure.key, "cells": cells,
                    "columns": [factor_text(value) for value in factors[across]],
                    "rows": [factor_text(value) for value in factors[lines]],
                    "bounded": any(value is not None and not hit for value, hit in numbers),
                })  # fmt: skip
    return found


def factor_text(value: Any) -> str:
    """Return a factor's value as text.

    Example:
        >>> factor_text(None), factor_text(0.05), factor_text("scaffold"), factor_text(True)
        ('none', '0.05', 'scaffold', 'on')
    """
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _rows(data: StudyData, wanted: Mapping[str, Any]) -> list[Row]:
    """Return the rows of runs with these values of factors."""
    return [row for row in data.rows if all(factor_value(row, name) == value for name, value in wanted.items())]


def _cell(rows: Sequence[Row], measure: Measure) -> list[float | int | None] | None:
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        value, _ = value_of(row, measure)
        if value is not None:
            by_seed.setdefault(int(row["seed"]), []).append(value)
    if not by_seed:
        return None
    means = np.array([np.mean(values) for values in by_seed.values()], np.float64)
    low, high = student_interval(means) or (None, None)
    return [float(means.mean()), low, high, sum(map(len, by_seed.values()))]
