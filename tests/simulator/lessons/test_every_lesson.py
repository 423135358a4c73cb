"""Every lesson plays within a budget of rounds, shows what it claims, and has its numbers in its text."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from simulator.lessons.lesson import THEN, Lesson, fields_of
from simulator.lessons.page import PAGE, page
from simulator.lessons.play import HOLDS, NUMBERS, lesson_named, lessons, play_lesson, scenarios_of
from simulator.lessons.table import LESSONS, ROWS

MOST_ROUNDS, MOST_CLIENT_STEPS = 1700, 30_000
"""Over all arms: a round costs about 3 ms, and a step of a small network about 0.3 ms."""
every_lesson = pytest.mark.parametrize("name", LESSONS)


QUICK = ("learning-rate", "three-signs", "perceptron-bound", "rbf", "client-drift", "l1-zeros")
"""Lessons whose change every run of the tests plays, in about ten seconds; `-m slow` plays the others' too."""


def shown_numbers(row: Lesson) -> set[str]:
    """Return the names of the numbers that a lesson's texts have of the runs that were played."""
    return {
        name for text in (row.look, row.change, row.theory) for name in fields_of(text) if not name.startswith(THEN)
    }


@every_lesson
def test_lesson_shows_what_it_claims(name: str, tmp_path: Path) -> None:
    played = play_lesson(name, out=tmp_path / "lesson")
    assert [claim.words for claim in played.claims if not claim.holds] == [], dict(played.numbers)
    assert list(played.runs) == list(played.lesson.arms)
    written = json.loads((tmp_path / "lesson" / NUMBERS).read_text("utf-8"))
    assert written["numbers"] == {k: v if math.isfinite(v) else None for k, v in played.numbers.items()}
    assert set(played.numbers) == shown_numbers(played.lesson)
    assert "no number" not in played.texts["What theory says"]
    words = played.page.read_text("utf-8")
    assert all(claim.words in words for claim in played.claims)


@every_lesson
def test_change_that_a_lesson_proposes_is_valid_and_written_out_in_its_text(name: str) -> None:
    row = lesson_named(name)
    assert scenarios_of(row) != scenarios_of(row, row.trial)
    for change in row.trial:
        assert f"--set {change} " in row.change or f'--set "{change}" ' in row.change
    shown = {field.removeprefix(THEN) for field in fields_of(row.change) if field.startswith(THEN)}
    assert shown, "the text says with numbers what comes out"
    assert shown <= set(row.then)
    assert not any(field.startswith(THEN) for text in (row.look, row.theory) for field in fields_of(text))
    assert row.outcome


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in LESSONS])
def test_change_that_a_lesson_proposes_gives_what_its_text_says(name: str, tmp_path: Path) -> None:
    row = lesson_named(name)
    played = play_lesson(name, out=tmp_path / "lesson", sets=row.trial)
    outcome = played.claims[len(row.claims) :]
    assert [claim.words for claim in outcome] == [claim.words for claim in row.outcome]
    assert [claim.words for claim in outcome if claim.state != HOLDS] == [], dict(played.numbers)
    assert {key: played.numbers[key] for key in row.then} == pytest.approx(dict(row.then), rel=row.within, abs=1e-14)


@every_lesson
def test_claims_of_a_lesson_are_about_numbers_that_its_texts_show(name: str) -> None:
    row = LESSONS[name]
    numbers = dict.fromkeys(shown_numbers(row), 1.5)
    texts = row.texts(numbers)
    assert all("{" not in text for text in texts.values())
    for claim in (*row.claims, *row.outcome):
        claim.holds(numbers)  # raises KeyError for a number that no text has


@every_lesson
def test_lesson_stays_within_its_budget(name: str) -> None:
    made = scenarios_of(LESSONS[name])
    rounds = sum(scenario.run.rounds for scenario in made.values())
    assert rounds <= MOST_ROUNDS
    steps = 0
    for scenario in made.values():
        work = scenario.local.local_steps
        assert work is not None
        most = max(work) if isinstance(work, tuple) else work
        assert scenario.engine.kind == "stacked"
        assert scenario.engine.threads == scenario.engine.workers == 1
        steps += scenario.run.rounds * most
    assert steps <= MOST_CLIENT_STEPS


def test_names_are_distinct() -> None:
    assert len(LESSONS) == len(ROWS) == len(lessons())
    assert len({row.title for row in ROWS}) == len(ROWS)


def test_groups_stay_together() -> None:
    groups = [row.group for row in ROWS]
    assert [g for i, g in enumerate(groups) if i == 0 or groups[i - 1] != g] == list(dict.fromkeys(groups))


def test_page_of_lessons_is_current() -> None:
    if not PAGE.is_file():
        pytest.skip("docs/ is not installed beside the package")
    text = PAGE.read_text("utf-8")
    assert text == page(text), "run python -m simulator.lessons.page"
