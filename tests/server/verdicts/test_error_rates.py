"""The error rates that docs/verdicts.md states hold on a smaller fixed set of the same records."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from labelled_curves import MAKERS, Labelled, draw

from server.convergence.condition import Condition
from server.verdicts.condition import condition_of
from server.verdicts.judging import contradicts

PAGE = Path(__file__).parents[3] / "docs" / "verdicts.md"
EACH = 12
MARGIN = 0.06
"""Three standard deviations of the accuracy of 120 records at 95%."""


@pytest.fixture(scope="module")
def judged() -> list[tuple[Labelled, Condition]]:
    records = [draw(kind, 2 * index + 1) for kind in MAKERS for index in range(EACH)]
    return [(one, condition_of(one.lines, one.convergence, diverged=one.diverged)) for one in records]


def test_conditions_are_as_often_right_as_the_page_says(judged: list[tuple[Labelled, Condition]]) -> None:
    stated = re.search(r"reporting half: (\d+), of which ([0-9.]+)%", PAGE.read_text("utf-8"))
    assert stated is not None
    assert int(stated[1]) >= 300
    right = sum(one.truth == condition.kind for one, condition in judged)
    assert right / len(judged) >= float(stated[2]) / 100.0 - MARGIN


def test_run_that_got_worse_is_hardly_ever_called_converged(judged: list[tuple[Labelled, Condition]]) -> None:
    worse = ("overfitted", "diverging", "oscillating", "forgetting", "stuck")
    missed = [one.truth for one, condition in judged if one.truth in worse and not contradicts(condition)]
    assert len(missed) <= 4, missed


def test_run_at_rest_is_hardly_ever_refused_the_word(judged: list[tuple[Labelled, Condition]]) -> None:
    rests = ("converged", "noise_floor")
    refused = [condition.words for one, condition in judged if one.truth in rests and contradicts(condition)]
    assert len(refused) <= 3, refused  # of 24; where 4% are refused, more than 3 have a probability of 2%


def test_same_index_draws_the_same_record() -> None:
    for kind in MAKERS:
        assert draw(kind, 3).lines == draw(kind, 3).lines or kind == "diverging"  # nan is not equal to itself
        assert draw(kind, 3).lines != draw(kind, 5).lines
