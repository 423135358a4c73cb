"""Synthetic studies for tests: a folder with a table, facts and records, made without playing a run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dashboards.report.compared_measures import MEASURES
from server.record.jsonlines import RoundWriter
from server.record.records import RunFolder

BUDGET = 40
"""Rounds of each run."""
KINDS, RATES = ("fedavg", "fedprox", "scaffold", "fednova"), (0.02, 0.05)

Row = dict[str, Any]


def made_rows(
    kinds: Sequence[str] = KINDS, rates: Sequence[float] = RATES, seeds: int = 10, misses: bool = True
) -> list[Row]:
    """Return the rows of a study of two factors, all done: each kind is better than the one before.

    Args:
        kinds: values of `algorithm.kind`.
        rates: values of `local.local_lr`.
        seeds: how many.
        misses: whether the first kind misses its target in some runs of the lower rate.
    """
    rows = []
    for seed in range(seeds):
        for a, kind in enumerate(kinds):
            for b, rate in enumerate(rates):
                noise = float(np.random.default_rng([seed, a, b]).normal())
                shared = float(np.random.default_rng([seed, 99]).normal())
                needed = round(34 - 5 * a - 3 * b + 2 * shared + noise)
                hit = not (misses and a == 0 and b == 0 and seed % 4 == 0) and needed <= BUDGET
                accuracy = 0.90 + 0.01 * a + 0.005 * b + 0.004 * shared + 0.002 * noise
                rows.append(row_of(f"{kind}, local_lr {rate:g}" if len(rates) > 1 else kind, seed, {
                    "algorithm.kind": kind, "local.local_lr": rate}, needed if hit else None, accuracy,
                    sent=38_480 * BUDGET * (2 if kind == "scaffold" else 1)))  # fmt: skip
    return rows


def row_of(
    arm: str, seed: int, factors: Mapping[str, Any], needed: int | None, accuracy: float, *, sent: float = 1.5e6
) -> Row:
    """Return a row of a finished run; `needed` is the number of rounds to its target, None where it missed it."""
    key = f"{hash_of(arm, seed):016x}"
    values = {
        "test_accuracy": accuracy, "validation_loss": 1.2 - accuracy, "train_loss": 1.1 - accuracy,
        "rounds_played": float(BUDGET), "client_drift": 0.1 + 0.01 * (seed % 3), "bytes_sent": sent,
        "rounds_to_target": needed, "bytes_to_target": None if needed is None else sent / BUDGET * needed,
        "simulated_seconds_to_target": None if needed is None else 0.5 * needed,
    }  # fmt: skip
    bounds = {"rounds_to_target": float(BUDGET), "bytes_to_target": sent, "simulated_seconds_to_target": 0.5 * BUDGET}
    row: Row = {"arm": arm, "seed": seed, **factors, "run": f"runs/{key}", "key": key, "state": "done",
                "verdict": f"Stopped at round {BUDGET}", "rounds": BUDGET, "seconds": 0.5 + 0.01 * seed}  # fmt: skip
    for measure in MEASURES:
        value = values.get(measure.key)
        row[measure.key] = math.nan if value is None else float(value)
    for name, bound in bounds.items():
        row[f"{name}_at_least"] = bound if needed is None else math.nan
    return row


def hash_of(arm: str, seed: int) -> int:
    """Return a number for an arm and a seed, the same in every process."""
    return int.from_bytes(hashlib.blake2b(f"{arm}/{seed}".encode(), digest_size=8).digest(), "big")


def without_numbers(row: Row, state: str, verdict: str = "") -> Row:
    """Return a row of a run that has no numbers, such as a failed or a planned one."""
    factors = {key: value for key, value in row.items() if "." in key}
    kept = ("arm", "seed", "run", "key")
    numbers = {key: math.nan for key in row if key not in (*factors, *kept, "state", "verdict", "rounds")}
    return {**{key: row[key] for key in kept}, **factors, "state": state, "verdict": verdict, "rounds": 0, **numbers}


def write_study(
    path: Path,
    rows: Sequence[Row],
    facts: Mapping[str, Any] | None = None,
    *,
    tuning: Mapping[str, Any] | None = None,
    records: bool = True,
    reports: bool = False,
    change: Callable[[Row, dict[str, Any]], dict[str, Any]] | None = None,
) -> Path:
    """Write a study's folder.

    Args:
        path: the folder.
        rows: of the table.
        facts: of study.json; None writes none.
        tuning: of tuning/tuning.json; None writes none.
        records: whether runs that are done or diverged have a record.
        reports: whether they have a report.html.
        change: (row, line of a round) -> the line that is recorded instead.
    """
    path.mkdir(parents=True, exist_ok=True)
    columns = {key: [row.get(key) for row in rows] for key in rows[0]}
    pq.write_table(pa.table(columns), path / "study.parquet")
    if facts is not None:
        (path / "study.json").write_text(json.dumps(facts), "utf-8")
    if tuning is not None:
        (path / "tuning").mkdir(exist_ok=True)
        (path / "tuning" / "tuning.json").write_text(json.dumps(tuning), "utf-8")
    for row in rows if records else ():
        if row["state"] in ("done", "diverged"):
            folder = path / row["run"]
            if not folder.exists():
                _record(folder, row, change)
            if reports:
                (folder / "report.html").write_text("<!doctype html><title>a run · fedscape</title>", "utf-8")
    return path


def _record(folder: Path, row: Row, change: Callable[[Row, dict[str, Any]], dict[str, Any]] | None) -> None:
    """Write the rounds of a run whose last values are those of its row."""
    folder.mkdir(parents=True)
    (folder / "scenario.toml").write_text('title = "made up"\n', "utf-8")
    writer = RoundWriter(RunFolder(folder).rounds)
    rounds = int(row["rounds"])
    for r in range(rounds + 1):
        left = 0.9**r
        line: dict[str, Any] = {
            "round": r,
            "validation_loss": row["validation_loss"] + 2.0 * left,
            "validation_accuracy": row["test_accuracy"] * (1 - 0.8 * left),
            "bytes_total": row["bytes_sent"] * r / rounds if rounds else 0,
            "simulated_seconds_total": 0.5 * r,
        }
        if r:
            line |= {"train_loss": row["train_loss"] + 2.0 * left, "client_drift": {"mean": 0.1 + left}}
        writer.append(change(row, line) if change else line)
    writer.close()


def made_facts(rows: Sequence[Row], **own: Any) -> dict[str, Any]:
    """Return the facts of a study, as `fedscape study` writes them."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    parts = dict.fromkeys(("data", "partition", "faults", "drifts", "cohorts", "model", "batches"), True)
    return {
        "title": "Does SCAFFOLD need fewer rounds?",
        "name": "scaffold",
        "measure": "rounds_to_target",
        "arms": [{"name": name, "values": {}, "notices": []} for name in arms],
        "pairs": [[arms[0], name] for name in arms[1:]],
        "shared": [{"arms": [arms[0], name], "parts": parts} for name in arms[1:]],
        "early": {"kind": "off"},
        "stopped": {},
        **own,
    }
