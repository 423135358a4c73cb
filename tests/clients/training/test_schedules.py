"""Schedules of the learning rate: the documented table, refusals, and rounds that are too late."""

from __future__ import annotations

import math
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from clients.core.errors import UserError
from clients.training.options import LocalOptions
from clients.training.schedule_options import SCHEDULE_READERS, ScheduleOptions

PAGE = Path(__file__).parents[3] / "docs" / "scenarios.md"
ROW = re.compile(r"^\| `(kind = [^`]*)` \|(.*)\|$", re.MULTILINE)
TABLE = [(keys, [float(cell) for cell in cells.split("|")]) for keys, cells in ROW.findall(PAGE.read_text("utf-8"))]


def schedule(keys: str) -> ScheduleOptions:
    given: dict[str, Any] = tomllib.loads(f"schedule = {{ {keys} }}")["schedule"]
    options: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
    return ScheduleOptions(**options)


@pytest.mark.parametrize(("keys", "factors"), TABLE)
def test_documented_factors_are_those_of_the_first_rounds(keys: str, factors: list[float]) -> None:
    options = LocalOptions(local_lr=1.0, schedule=schedule(keys))
    assert [round(options.lr(r), 3) for r in range(1, 6)] == factors


def test_documented_table_has_every_kind_with_and_without_a_warm_up() -> None:
    seen = {(options.kind, options.warmup_rounds > 0) for options in (schedule(keys) for keys, _ in TABLE)}
    assert seen == {(kind, warm) for kind in ("constant", "step", "cosine", "inverse_time") for warm in (False, True)}


def test_rounds_of_at_and_rounds_are_those_of_the_run() -> None:
    warm = ScheduleOptions(kind="step", at=(4,), factor=0.5, warmup_rounds=2)
    assert [warm.scale(r) for r in range(3, 7)] == [1.0, 1.0, 0.5, 0.5]
    cosine = ScheduleOptions(kind="cosine", rounds=6, floor=0.25, warmup_rounds=2)
    assert cosine.scale(3) == 1.0
    assert cosine.scale(6) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "step", "at": (0,)}, "schedule.at: must name rounds, which count from 1, got [0]"),
        ({"kind": "step", "at": (-1,)}, "schedule.at: must name rounds, which count from 1, got [-1]"),
        ({"kind": "step", "at": (3, 2), "warmup_rounds": 2}, "schedule.at: must name rounds after the warm-up, > 2"),
        ({"kind": "step", "every": 0}, "schedule.every: must be >= 1, got 0"),
        ({"every": -1}, "schedule.every: must be >= 1, got -1"),
        ({"kind": "step", "every": 1, "at": (1,)}, "needs either `every` or `at`"),
        ({"factor": math.inf}, "schedule.factor: must be > 0 and finite, got inf"),
        ({"factor": 0.0}, "schedule.factor: must be > 0 and finite, got 0.0"),
        ({"decay": math.inf}, "schedule.decay: must be >= 0 and finite, got inf"),
        ({"decay": math.nan}, "schedule.decay"),
        ({"floor": math.nan}, "schedule.floor"),
        ({"kind": "cosine"}, "schedule.rounds: must be at least 2 for a cosine schedule, got None"),
        ({"kind": "cosine", "rounds": 4, "warmup_rounds": 3}, "must be at least 5 (warmup_rounds + 2)"),
        ({"warmup_rounds": -1}, "schedule.warmup_rounds: must be >= 0, got -1"),
    ],
)
def test_schedule_without_a_meaning_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        ScheduleOptions(**given)


@pytest.mark.parametrize(
    ("given", "key", "words"),
    [
        ({"kind": "step", "at": (3, 10, 12)}, "at", "the last round is 10, so no step follows rounds 10, 12"),
        ({"kind": "step", "every": 10}, "every", "the last round is 10, so no step is taken"),
        ({"kind": "step", "every": 8, "warmup_rounds": 2}, "every", "so no step is taken"),
        ({"kind": "cosine", "rounds": 19}, "rounds", "the last round is 10, where the factor is 0.5 and not 0"),
        ({"warmup_rounds": 10}, "warmup_rounds", "so local_lr never reaches its full value"),
    ],
)
def test_schedule_beyond_the_last_round_is_stated(given: dict[str, Any], key: str, words: str) -> None:
    late = ScheduleOptions(**given).late(10)
    assert list(late) == [key]
    assert words in late[key]
    assert ScheduleOptions(**given).late(30) == {}


def test_every_key_has_a_kind_that_reads_it() -> None:
    for key, kinds in SCHEDULE_READERS.items():
        for kind in kinds:
            more: dict[str, Any] = {"step": {"every": 1}, "cosine": {"rounds": 9}}.get(kind, {})
            assert key not in ScheduleOptions(kind=kind, **more).unread()  # type: ignore[arg-type]
        assert key in ScheduleOptions().unread()
