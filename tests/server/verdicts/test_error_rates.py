"""The error rates that docs/verdicts.md states hold on a smaller fixed set of the same records."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from labelled_curves import MAKERS, Labelled, draw
from real_curves import cuts as real_cuts
from real_curves import label, read

from server.convergence.condition import Condition
from server.convergence.monitor import ConvergenceOptions
from server.verdicts.condition import condition_of
from server.verdicts.judging import contradicts

PAGE = Path(__file__).parents[3] / "docs" / "verdicts.md"
EACH = 12
REPORTED = 8
"""The seed of the real runs that the page reports: see tests/benchmarks/verdicts.py."""
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


def test_real_runs_get_their_label_as_often_as_the_page_says() -> None:
    stated = re.search(r"(\d+), of which (\d+) have a label and (\d+)% of these get it", PAGE.read_text("utf-8"))
    assert stated is not None
    cuts = [cut for curves in read() if curves["seed"] == REPORTED for cut in real_cuts(curves)]
    known = [one for one in cuts if one.truth != "unlabelled"]
    assert (len(cuts), len(known)) == (int(stated[1]), int(stated[2]))
    right = sum(one.truth == condition_of(one.lines, one.convergence).kind for one in known)
    assert right / len(known) >= int(stated[3]) / 100.0 - 0.01


def test_label_of_a_real_run_follows_from_the_rounds_after_its_cut() -> None:
    """A fall by 6% of the gain after the cut improves, one by 1% rests, and one by 3% has no label."""
    for left, truth in ((0.06, "improving"), (0.01, "converged"), (0.03, "unlabelled")):
        after = 0.1 * (1.0 - left * 9.0 * np.minimum(np.arange(80) / 20.0, 1.0))
        values = np.r_[1.0, np.full(40, 0.1), after]
        lines = [{"round": r, "validation_loss": float(v), "train_loss": float(v)} for r, v in enumerate(values)]
        assert label(lines, 40, ConvergenceOptions()) == truth


def test_same_index_draws_the_same_record() -> None:
    for kind in MAKERS:
        assert draw(kind, 3).lines == draw(kind, 3).lines or kind == "diverging"  # nan is not equal to itself
        assert draw(kind, 3).lines != draw(kind, 5).lines
