"""The documented levels of a concept drift in its first rounds."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.concept_drift.options import DriftOptions
from clients.concept_drift.table import DRIFTS, level

PAGE = (Path(__file__).parents[3] / "docs" / "drifts.md").read_text("utf-8")
ROWS = re.findall(r"^\| `(kind = [^`]*)` \|(.*)\|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("keys", "cells"), ROWS)
def test_documented_levels_are_those_of_the_first_rounds(keys: str, cells: str) -> None:
    given: dict[str, Any] = tomllib.loads(f"drift = {{ {keys} }}")["drift"]
    options = DriftOptions(start=2.0, **given)
    levels = [float(level(options, np.array([2.0]), float(r))[0]) for r in range(1, 6)]
    assert levels == [float(cell) for cell in cells.split("|")]


def test_documented_table_has_every_kind() -> None:
    assert [keys.split('"')[1] for keys, _ in ROWS] == list(DRIFTS)
