"""Plays a lesson: a run for each arm, its numbers, whether the claims hold, and the page."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.core.errors import UserError, unknown_name
from dashboards.report.introduction import Introduction
from dashboards.report.report import write_report
from server.record.files import free_name, whole_file
from simulator.lessons.changes import changes_by_arm
from simulator.lessons.lesson import Lesson, Numbers, Runs
from simulator.lessons.table import LESSONS
from simulator.runs.run import Run, simulate
from simulator.scenario.sections import Scenario, load_scenario

FOLDER = Path("lessons")
"""Where lessons are played by default."""
PAGE, NUMBERS = "lesson.html", "lesson.json"
HOLDS, FAILED, CHANGED = "holds", "does not hold", "no longer holds after the change"


@dataclass(frozen=True)
class Checked:
    """A claim, and what became of it.

    Attributes:
        words: the claim.
        holds: whether the numbers show it.
        state: the same in words; of a changed lesson, a claim that does not hold is one that the change ended.
    """

    words: str
    holds: bool
    state: str


@dataclass(frozen=True)
class PlayedLesson:
    """A lesson that was played.

    Attributes:
        lesson: its row.
        runs: the finished run of each arm, by name.
        numbers: what the lesson measured, by name.
        texts: its paragraphs with the numbers, by heading.
        claims: each claim and whether it holds.
        page: the page.
    """

    lesson: Lesson
    runs: Runs
    numbers: Numbers
    texts: Mapping[str, str]
    claims: tuple[Checked, ...]
    page: Path

    @property
    def holds(self) -> bool:
        """Whether all claims hold."""
        return all(claim.holds for claim in self.claims)

    def __repr__(self) -> str:
        """Return the name, how many claims hold, and the page."""
        count = sum(claim.holds for claim in self.claims)
        return f"<PlayedLesson {self.lesson.name}: {count} of {len(self.claims)} claims hold, {self.page}>"


def lessons() -> tuple[Lesson, ...]:
    """Return all lessons, by groups."""
    return tuple(LESSONS.values())


def lesson_named(name: str) -> Lesson:
    """Return the lesson of a name.

    Raises:
        UserError: there is none; the message has the nearest name.
    """
    if name not in LESSONS:
        raise UserError("lesson", unknown_name(name, LESSONS, "a lesson"))
    return LESSONS[name]


def scenarios_of(lesson: Lesson, sets: Sequence[str] | Mapping[str, Any] = ()) -> dict[str, Scenario]:
    """Return the scenario of each arm.

    Args:
        lesson: the lesson.
        sets: changes of every arm, as after `--set`; "ARM:KEY=VALUE" changes one arm.

    Raises:
        UserError: a change names no arm, or a key in which the arms differ.
        ScenarioError: a changed scenario is not valid.
    """
    mine = changes_by_arm(lesson, sets)
    made = {}
    for arm, keys in lesson.arms.items():
        plain = load_scenario(dict(lesson.scene), sets={**keys, "title": f"{lesson.title}: {arm}", "name": _slug(arm)})
        made[arm] = load_scenario(plain, sets=mine[arm]) if mine[arm] else plain
    return made


def play_lesson(
    name: str, *, out: Path | str | None = None, sets: Sequence[str] | Mapping[str, Any] = ()
) -> PlayedLesson:
    """Play a lesson: run its arms, check its claims, and write its page.

    Args:
        name: of the lesson, such as "learning-rate"; `lessons()` has them all.
        out: the folder, new or empty; by default a new one in `lessons/`. It gets a run's folder for each arm,
            `lesson.html` and `lesson.json`.
        sets: changes of every arm's scenario, as after `--set`, such as "run.rounds=50" or {"rounds": 50};
            "ARM:KEY=VALUE" changes one arm. With the lesson's own `trial`, what it says of the outcome is checked, too.

    Returns:
        The runs, numbers, texts, claims and the page.

    Raises:
        UserError: there is no such lesson, or `out` or a change cannot be used.

    Example:
        >>> play_lesson("learning-rate").numbers["factor_right"]  # doctest: +SKIP
        0.923
    """
    row = lesson_named(name)
    scenarios = scenarios_of(row, sets)
    folder = _folder(row, out)
    runs = {arm: simulate(scenario, out=folder / _slug(arm)) for arm, scenario in scenarios.items()}
    numbers = {key: float(value) for key, value in row.numbers(runs).items()}
    changes = [f"{key}={value}" for key, value in sets.items()] if isinstance(sets, Mapping) else list(sets)
    claims = tuple(_checked(claim.words, claim.holds(numbers), changed=bool(sets)) for claim in row.claims)
    if _unspaced(changes) == _unspaced(row.trial):
        claims += tuple(_checked(claim.words, claim.holds(numbers), changed=False) for claim in row.outcome)
    texts = row.texts(numbers)
    introduction = Introduction(
        title=row.title, lead=row.question, sections=texts, claims=[(c.words, c.holds, c.state) for c in claims],
        changes=changes,
    )  # fmt: skip
    page = write_report(
        [_path(run) for run in runs.values()], folder / PAGE, introduction=introduction, labels=list(runs)
    )
    _write_numbers(folder / NUMBERS, row, numbers, claims, changes)
    return PlayedLesson(row, runs, numbers, texts, claims, page)


lesson = play_lesson
"""The public name of `play_lesson`."""


def _checked(words: str, holds: bool, *, changed: bool) -> Checked:
    return Checked(words, bool(holds), HOLDS if holds else CHANGED if changed else FAILED)


def _unspaced(changes: Sequence[str]) -> list[str]:
    """Return changes without spaces, which a list of a table has and one of a command need not have."""
    return [change.replace(" ", "") for change in changes]


def _path(run: Run) -> Path:
    assert run.path is not None  # `simulate` was called with `out`
    return run.path


def _folder(row: Lesson, out: Path | str | None) -> Path:
    """Make the lesson's folder.

    Raises:
        UserError: `out` is a file or has files.
    """
    folder = free_name(FOLDER / row.name) if out is None else Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("out", f"must be a new or empty folder, got {str(folder)!r}", fix="Name another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot be made: {error.strerror}, {str(folder)!r}"
        raise UserError("out", problem, fix="Name another folder.") from error
    return folder


def _write_numbers(
    file: Path, row: Lesson, numbers: Numbers, claims: Sequence[Checked], changes: Sequence[str]
) -> None:
    known = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
    content = {
        "lesson": row.name,
        "changes": list(changes),
        "numbers": known,
        "claims": [{"words": claim.words, "holds": claim.holds} for claim in claims],
    }
    with whole_file(file) as handle:
        handle.write(json.dumps(content, indent=1).encode())


def _slug(arm: str) -> str:
    """Return the name of an arm's folder.

    Example:
        >>> _slug("at 2/L")
        'at-2-l'
    """
    return re.sub(r"[^a-z0-9.]+", "-", arm.lower()).strip("-")
