"""Real runs of the built-in scenarios, labelled by how they went on: the file of their curves, and its labels.

A record is cut at half of its budget, at three quarters and at the budget. What it is at the cut follows from twice as
many rounds after it, which the conditions do not see. Cuts between two labels have none, and are counted as such.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from labelled_curves import Labelled

import fedscape as fs
from server.convergence.targets import TargetTracker
from server.verdicts.course import scatter
from server.verdicts.reading import SCORES

FILE = Path(__file__).parents[1] / "benchmarks" / "verdict_curves.json.gz"
KEYS = ("validation_loss", "train_loss", "optimality_gap", "step_norm", "relative_change", *SCORES)
"""What is kept of a round, beside the target's metric and the mean levels of concept drifts."""
DIGITS = 5
SHARES = (0.5, 0.75, 1.0)
"""Where a record is cut, as shares of its budget."""
KNOWN = {"dirac-gan": "oscillating"}
"""What theory says of a scenario: tests/theory/test_dirac_gan.py has the circle and its period."""
LONGER = 3
"""A label follows from so many times the rounds of its cut."""
FEWEST_ROUNDS = 12
FALLS, RESTS = 0.05, 0.02
"""A cut still improves where the loss falls by this share of its gain afterwards; it rests below the other."""
SURE = 3.0
"""Standard errors of such a fall, beyond which it is one."""
FORGOT = 0.1
"""A drift counts as forgetting if it costs this share of what was gained."""
FLOOR, QUIET = 0.035, 0.018
"""At the noise floor noise is above the first share of the gain; a quiet record is below the other."""
Curves = dict[str, Any]


def packed(name: str, seed: int, lines: list[Mapping[str, Any]], metric: str | None) -> Curves:
    """Return what is kept of a record."""
    keys = (*KEYS, *((metric,) if metric and metric not in KEYS else ()))
    series = {key: [_short(line.get(key)) for line in lines] for key in keys}
    drifts = {name for line in lines for name in line.get("concept_drift") or {}}
    levels = {
        drift: [_short(((line.get("concept_drift") or {}).get(drift) or {}).get("level")) for line in lines]
        for drift in sorted(drifts)
    }
    kept = {key: values for key, values in series.items() if any(value is not None for value in values)}
    return {"scenario": name, "seed": seed, "series": kept, "drifts": levels}


def _short(value: Any) -> float | None:
    return None if value is None else float(f"{float(value):.{DIGITS}g}")


def lines_of(curves: Curves) -> list[dict[str, Any]]:
    """Return the lines of a kept record."""
    rounds = range(len(next(iter(curves["series"].values()))))
    lines: list[dict[str, Any]] = []
    for r in rounds:
        line: dict[str, Any] = {"round": r}
        line |= {key: values[r] for key, values in curves["series"].items() if values[r] is not None}
        levels = {name: {"level": values[r]} for name, values in curves["drifts"].items() if values[r] is not None}
        lines.append(line | ({"concept_drift": levels} if levels else {}))
    return lines


def read() -> list[Curves]:
    """Return all kept records."""
    found: list[Curves] = json.loads(gzip.decompress(FILE.read_bytes()))
    return found


def write(records: list[Curves]) -> int:
    """Write the file and return its bytes."""
    content = gzip.compress(json.dumps(records, separators=(",", ":")).encode(), mtime=0)
    FILE.write_bytes(content)
    return len(content)


def cuts(curves: Curves) -> Iterator[Labelled]:
    """Yield a record at `SHARES` of its budget, with its label; `unlabelled` where it has none."""
    scenario, lines = fs.load_scenario(curves["scenario"]), lines_of(curves)
    for at in (int(share * scenario.run.rounds) for share in SHARES):
        if LONGER * at < len(lines) and at >= FEWEST_ROUNDS:
            truth = KNOWN.get(curves["scenario"]) or label(lines, at, scenario.convergence)
            name = f"{curves['scenario']} at round {at}"
            yield Labelled(truth, lines[: at + 1], scenario.convergence, name=name)


def label(lines: list[dict[str, Any]], at: int, convergence: Any) -> str:
    """Return what a record is at a round, from the rounds up to `LONGER` times as many; or as theory has it."""
    key = "optimality_gap" if "optimality_gap" in lines[0] else "validation_loss"
    values = np.array([line.get(key, np.nan) for line in lines[: LONGER * at + 1]])
    if not np.isfinite(values).all():
        return "diverging"
    before, after = values[: at + 1], values[at + 1 :]
    newest, last = before[-max(5, at // 6) :], after[-max(5, at // 2) :]
    level, later = float(np.median(newest)), float(np.median(last))
    lowest = float(np.min(np.convolve(values, np.ones(5) / 5.0, "valid")))
    gained = values[0] - min(level, lowest)
    noise = scatter(before[-max(8, at // 3) :])
    if gained <= 2.0 * noise or level > values[0] - 0.1 * gained:
        scores = [line["validation_accuracy"] for line in lines[: at + 1] if "validation_accuracy" in line]
        return "unclear" if scores and np.median(scores[-5:]) > scores[0] + 0.1 else "stuck"
    train = [line["train_loss"] for line in lines[1 : LONGER * at + 1]]
    best = int(np.argmin(before))
    worse = float(level - np.min(np.convolve(before, np.ones(5) / 5.0, "valid")))
    if worse > max(FALLS * gained, 3.0 * noise) and later > level - RESTS * gained and best < 0.8 * at:
        return (
            "overfitted"
            if np.median(train[at - 5 : at]) <= np.median(train[max(best - 3, 0) : best + 3])
            else "unlabelled"
        )
    if (lost := _lost_to_drift(lines, at, values, level, later)) is not None:
        return lost
    fall = (level - later) / gained
    error = 1.25 * noise / gained * np.sqrt(1.0 / len(newest) + 1.0 / len(last))  # of a difference of two medians
    if fall >= max(FALLS, SURE * error):
        return _towards_target(lines, at, convergence.target)
    if abs(fall) > max(RESTS, error):
        return "unlabelled"
    if noise >= FLOOR * gained:
        return "noise_floor"
    if noise > QUIET * gained:
        return "unlabelled"
    return _beside_target(lines[: at + 1], convergence.target)


def _lost_to_drift(lines: list[dict[str, Any]], at: int, values: Any, level: float, later: float) -> str | None:
    """Return `forgetting` where a concept drift cost a share of what was gained that does not come back.

    It is None without a drift that cost as much at the cut, or where the loss comes back: it then still improves.
    """
    levels = [max((entry["level"] or 0.0 for entry in (line.get("concept_drift") or {}).values()), default=0.0)
              for line in lines[: at + 1]]  # fmt: skip
    began = next((r for r in range(1, at - 3) if levels[r] > 0.0 == levels[r - 1]), None)
    if began is None or began < 4:
        return None
    before = float(np.median(values[began - 4 : began]))
    gained = values[0] - before
    if level - before <= FORGOT * gained:
        return None
    return "forgetting" if later - before > FORGOT * gained else None


def _towards_target(lines: list[dict[str, Any]], at: int, target: Any) -> str:
    """Return `too_short` where a run that improves needs at least as many rounds to its target as it played."""
    if target is None:
        return "improving"
    tracker, reached = TargetTracker(target), None
    for r, line in enumerate(lines[: LONGER * at + 1]):
        found = tracker.observe(r, line.get(target.metric), seconds=0.0, sent=0.0)
        reached = found.rounds if found is not None else None
        if reached is not None:
            break
    return "too_short" if reached is None or reached >= 2 * at else "improving"


def _beside_target(lines: list[dict[str, Any]], target: Any) -> str:
    """Return whether a record at rest met its target at any time, or misses it."""
    if target is None:
        return "converged"
    up = target.at_least is not None
    values = np.array([line[target.metric] for line in lines if target.metric in line])
    met = values >= target.threshold if up else values <= target.threshold
    held = max((len(run) for run in "".join("x" if one else " " for one in met).split()), default=0)
    return "converged" if held >= target.hold else "plateaued"
