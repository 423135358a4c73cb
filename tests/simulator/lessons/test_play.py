"""A lesson is played with changes, its mistakes are named, and its page opens in a browser."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from needs import CHROMIUM

from clients.core.errors import ScenarioError, UserError
from simulator.cli.main import main
from simulator.lessons.fitting import SIGN_ARMS, SIGN_KEYS
from simulator.lessons.lesson import Claim
from simulator.lessons.play import CHANGED, PlayedLesson, play_lesson, scenarios_of
from simulator.lessons.table import LESSONS
from tests.support.chromium import chromium

NAME = "learning-rate"


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> PlayedLesson:
    """Return the lesson in which the rate above 2/L is brought below it."""
    folder = tmp_path_factory.mktemp("lesson") / "mine"
    return play_lesson(NAME, out=folder, sets=["too high:local.local_lr=0.19", "run.rounds=70"])


def test_change_ends_a_claim_and_moves_the_prediction(changed: PlayedLesson) -> None:
    ended = [claim.words for claim in changed.claims if claim.state == CHANGED]
    assert "Above 2/L it grows." in ended
    assert not changed.holds
    assert changed.numbers["theory_high"] == pytest.approx(0.9)
    assert changed.numbers["factor_high"] == pytest.approx(0.9, abs=1e-4)
    assert "0.9000" in changed.texts["What to look at"]


def test_change_of_one_arm_leaves_the_others() -> None:
    made = scenarios_of(LESSONS[NAME], {"too high:local_lr": 0.19, "rounds": 7})
    assert made["too high"].local.local_lr == 0.19
    assert made["too low"].local.local_lr == 0.02
    assert {scenario.run.rounds for scenario in made.values()} == {7}


def test_trial_given_as_a_table_is_the_lessons_trial(tmp_path: Path) -> None:
    row = LESSONS["unequal-work"]
    played = play_lesson(row.name, out=tmp_path / "lesson", sets={"local.local_steps": [20, 20]})
    assert [claim.words for claim in played.claims[len(row.claims) :]] == [claim.words for claim in row.outcome]


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'learning-rates' is not a lesson\. Nearest: 'learning-rate'"):
        play_lesson("learning-rates")
    row = LESSONS[NAME]
    with pytest.raises(UserError, match=r"is not an arm of 'learning-rate'\. Nearest: 'too high'"):
        scenarios_of(row, ["too hih:local_lr=1"])
    for key in ("local_lr", "local.local_lr"):
        with pytest.raises(UserError, match="what the arms of 'learning-rate' differ in"):
            scenarios_of(row, [f"{key}=1"])
    with pytest.raises(UserError, match="list of changes"):
        scenarios_of(row, "rounds=1")
    with pytest.raises(ScenarioError):
        scenarios_of(row, ["run.rouns=1"])
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="new or empty folder"):
        play_lesson(NAME, out=tmp_path)


def test_commands_list_and_play(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["lessons"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in LESSONS)
    assert main(["lesson", NAME, "--set", "run.rounds=80"]) == 0
    words = capsys.readouterr().out
    assert "What to look at" in words
    assert "+ Above 2/L it grows." in words
    assert (tmp_path / "lessons" / NAME / "lesson.html").is_file()
    assert main(["lesson", "no-such"]) == 2


@CHROMIUM.mark
@pytest.mark.parametrize("dark", [False, True])
def test_page_opens_with_the_text_above_the_runs(changed: PlayedLesson, dark: bool) -> None:
    with chromium() as browser:
        page = browser.open(changed.page.as_uri(), dark=dark)
        page.drawn()
        assert page.errors == []
        assert page.requests == [changed.page.as_uri()]
        words = page.evaluate("document.getElementById('introduction').innerText")
        assert all(text in words for text in changed.texts.values())
        assert "Changed: too high:local.local_lr=0.19, run.rounds=70" in words
        states = page.evaluate("[...document.querySelectorAll('#claims b')].map((one) => one.className)")
        assert states == ["converged" if claim.holds else "diverged" for claim in changed.claims]
        labels = page.evaluate("[...document.querySelectorAll('.key button span')].map((one) => one.innerText)")
        assert set(changed.lesson.arms) <= set(labels)
        assert page.evaluate("document.title") == f"{changed.lesson.title} · fedscape"


def test_three_signs_are_those_in_the_runs_records(tmp_path: Path) -> None:
    """The lesson's answers are read back from each outcome.json, and they disagree in two of the arms."""
    played = play_lesson("three-signs", out=tmp_path / "signs")
    disagreeing = []
    for arm, key in SIGN_ARMS.items():
        path = played.runs[arm].path
        assert path is not None
        signs = json.loads((path / "outcome.json").read_text("utf-8"))["signs"]
        said = [{"yes": 1.0, "no": 0.0}[sign["says"]] for sign in signs]
        assert said == [played.numbers[f"{name}_{key}"] for name in SIGN_KEYS.values()]
        assert [sign["name"] for sign in signs] == list(SIGN_KEYS)
        disagreeing += [arm] if len(set(said)) > 1 else []
    assert disagreeing == ["constant rate", "low rate"]
    assert "Where the rate falls too early: yes, yes, yes." in played.texts["What to look at"]


def test_suggested_change_is_played_and_what_the_text_says_of_it_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    row = LESSONS[NAME]
    assert main(["lesson", NAME, "--try"]) == 0
    words = capsys.readouterr().out
    assert all(f"+ {claim.words}" in words for claim in row.outcome)
    assert f"- Above 2/L it grows. ({CHANGED})" in words
    false = Claim("It flies.", lambda n: False)
    monkeypatch.setitem(LESSONS, NAME, replace(row, outcome=(*row.outcome, false)))  # type: ignore[arg-type]
    assert main(["lesson", NAME, "--try"]) == 1
    assert "- It flies. (does not hold)" in capsys.readouterr().out
