"""The lines of a record stay packed in memory, and read as they were."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedscape as fs
from server.record.checked.kept_lines import BLOCK, KeptLines
from server.record.checked.line_files import read_rounds
from server.record.jsonlines import RoundWriter
from server.record.round_table import RoundTable

MOST_BYTES = 2500
"""Bytes that a run may keep for each round: a line of the quadratic takes about 11,000 as Python objects."""


def line(round_index: int) -> dict[str, Any]:
    """Return a line with every kind of value that a record has."""
    return {
        "round": round_index, "train_loss": 1 / (round_index + 1), "name": f"client {round_index}", "absent": None,
        "drift": {"mean": math.inf if round_index == 3 else 0.5}, "worst": [{"client": 1, "value": round_index / 7}],
    }  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_kept_lines_read_as_a_list(count: int) -> None:
    plain = [line(r) for r in range(count)]
    kept = KeptLines(plain)
    assert len(kept) == count
    assert list(kept) == plain
    assert [kept[i] for i in range(count)] == plain
    assert kept[1:-1] == plain[1:-1]
    assert list(reversed(kept)) == plain[::-1]
    assert kept == KeptLines(plain)
    with pytest.raises(IndexError):
        kept[count]


def test_array_in_a_line_becomes_a_list() -> None:
    kept = KeptLines([{"round": r, "counts": np.arange(3), "mean": np.float64(0.5)} for r in range(BLOCK)])
    assert kept[0] == {"round": 0, "counts": [0, 1, 2], "mean": 0.5}


def test_copy_does_not_grow_with_its_original() -> None:
    kept = KeptLines(line(r) for r in range(BLOCK + 5))
    copied = kept.copy()
    kept.append(line(999))
    assert (len(kept), len(copied)) == (BLOCK + 6, BLOCK + 5)


@given(st.lists(st.fixed_dictionaries({}, optional={"a": st.integers() | st.none() | st.floats(), "b": st.text()})))
def test_columns_are_those_of_plain_lines(lines: list[dict[str, Any]]) -> None:
    table = RoundTable(KeptLines(lines))
    for name in table.columns:
        values = [one.get(name) for one in lines]
        found = table[name].tolist()
        if table[name].dtype == np.float64:
            values = [math.nan if value is None else float(value) for value in values]
        assert all(a == b or (a != a and b != b) for a, b in zip(found, values, strict=True))


def test_memory_does_not_grow_with_rounds(tmp_path: Path) -> None:
    first, rounds = BLOCK + 20, 2 * BLOCK + 20
    sizes: dict[int, int] = {}

    def ended() -> bool:
        played.append(None)
        if len(played) in (first, rounds):
            sizes[len(played)] = tracemalloc.get_traced_memory()[0]
        return False

    played: list[None] = []
    sets = {"convergence": {"stop": "never"}, "run.rounds": rounds}
    scenario = fs.load_scenario("quadratic-two-clients", sets=sets)
    tracemalloc.start()
    try:
        fs.simulate(scenario, out=tmp_path / "run", stop_asked=ended)
    finally:
        tracemalloc.stop()
    assert sizes[rounds] - sizes[first] < MOST_BYTES * (rounds - first)


def test_reading_a_record_keeps_it_packed(tmp_path: Path) -> None:
    writer = RoundWriter(tmp_path / "rounds.jsonl")
    wide = {f"metric {i}": float(i) for i in range(100)}
    for r in range(2000):
        writer.append({"round": r, **wide})
    writer.close()
    tracemalloc.start()
    try:
        lines, truncated = read_rounds(tmp_path / "rounds.jsonl")
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(lines), truncated, lines[-1]["round"]) == (2000, False, 1999)
    newest = 12_000 * BLOCK  # lines that are not packed yet
    assert kept < 200 * 2000 + newest
    assert peak < 200 * 2000 + 3 * newest
