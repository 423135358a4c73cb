"""The page of a study: its words, notices and tables say what the table says, and it is one small file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from clients.core.errors import RunFolderError, UserError
from dashboards.study.page import StudyPage, write_study_page
from dashboards.study.study_data import read_study_data
from dashboards.study.study_view import study_view
from dashboards.study.tuning_view import tuning_view, tuning_words
from simulator.cli.main import main
from tests.support.made_studies import Row, made_facts, made_rows, row_of, without_numbers, write_study
from tests.support.run_folders import mistake

MOST_BYTES = 5_000_000
Capture = pytest.CaptureFixture[str]


def two_arms(seeds: int = 10) -> list[Row]:
    return made_rows(("fedavg", "scaffold"), (0.05,), seeds, misses=False)


def view_of(path: Path, rows: list[Row], **facts: Any) -> dict[str, Any]:
    return study_view(read_study_data(write_study(path, rows, made_facts(rows, **facts), records=False)))


def data_of(page: str) -> dict[str, Any]:
    """Return the data for the page's scripts."""
    found: dict[str, Any] = json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1]  # type: ignore[index]
    )
    return found


def test_answer_of_two_arms_is_the_sentence_of_their_comparison(tmp_path: Path) -> None:
    view = view_of(tmp_path / "s", two_arms())
    assert len(view["words"]) == 1
    assert re.fullmatch(
        r"scaffold needs \d+% fewer rounds to the target than fedavg \[\d+, \d+\], 10 of 10 pairs\.", view["words"][0]
    )
    assert view["facts"][:2] == ["2 arms × 10 seeds", "20 runs: 20 done"]
    assert view["comparisons"][0]["sentence"] + "." == view["words"][0]
    assert view["comparisons"][0]["low"] < view["comparisons"][0]["change"] < view["comparisons"][0]["high"] < 0
    assert {one["measure"] for one in view["others"]} == set(view["measures"]) - {"rounds_to_target"}


def test_answer_of_many_arms_names_the_first_and_its_runs(tmp_path: Path) -> None:
    view = view_of(tmp_path / "s", made_rows())
    assert view["words"][0].startswith("fednova, local_lr 0.05 is first of 8 arms in rounds to the target: median ")
    assert len(view["words"]) == 5
    assert view["ranks"][0][0] == "fednova, local_lr 0.05"
    assert view["ranks"][-1][3] == "7 of 10"
    assert f"median {view['ranks'][0][1]} ({view['ranks'][0][2]}) over 10 runs." in view["words"][0]
    assert "3 more comparisons are in the table of differences." in view["notes"]


def test_answer_of_groups_counts_the_pairs_that_differ(tmp_path: Path) -> None:
    rows = made_rows(kinds=("fedavg", "fedprox", "scaffold", "fednova"), rates=(0.05,), misses=False)
    pairs = [["fedavg", "scaffold"], ["fedprox", "fednova"]]
    groups = [["fedavg", "scaffold"], ["fedprox", "fednova"]]
    view = view_of(tmp_path, rows, pairs=pairs, groups=groups)
    assert view["words"][0] == "2 of 2 pairs of arms differ in rounds to the target."
    assert view["grouped"]
    assert not any("is first of" in words for words in view["words"])
    assert {(one["first"], one["second"]) for one in view["others"]} == {(0, 2), (1, 3)}


def test_answer_of_one_arm_is_its_estimate(tmp_path: Path) -> None:
    rows = [row_of("fedavg", seed, {"algorithm.kind": "fedavg"}, 10 + seed, 0.9) for seed in range(3)]
    assert view_of(tmp_path / "s", rows)["words"][0].startswith("fedavg: rounds to the target, mean 11 (8.5")
    missed = [row_of("fedavg", seed, {"algorithm.kind": "fedavg"}, None, 0.9) for seed in range(3)]
    assert view_of(tmp_path / "m", missed)["words"] == ["fedavg: 3 of 3 runs missed the target."]
    planned = [without_numbers(row, "planned") for row in rows]
    assert view_of(tmp_path / "p", planned)["words"] == ["No run has ended yet."]


def test_notices_name_what_has_no_numbers(tmp_path: Path) -> None:
    rows = two_arms(4)
    rows[0] = without_numbers(rows[0], "failed", "MemoryError")
    rows[1]["state"] = "diverged"
    rows[2] = without_numbers(rows[2], "running")
    rows[5] = without_numbers(rows[5], "stopped")
    rows[7] = without_numbers(rows[7], "stopped")
    facts = made_facts(rows, early={"kind": "racing"}, stopped={"scaffold": "it was worse"})
    view = study_view(read_study_data(write_study(tmp_path / "s", rows, facts)))
    assert view["notices"] == [
        "7 of 8 runs have ended. The page has the numbers of these.",
        "1 run failed and has no numbers: fedavg, seed 0.",
        "1 run diverged: scaffold, seed 0.",
        "scaffold was stopped early (racing): 2 runs not played, it was worse.",
    ]
    assert view["runs"][0]["verdict"] == "MemoryError"
    assert view["runs"][2]["rounds"] is None


def test_pairs_are_told_with_what_they_share(tmp_path: Path) -> None:
    rows = made_rows(("a", "b", "c"), (0.05,), 2)
    own = [
        {"arms": ["a", "b"], "parts": {"data": True, "model": True}},
        {"arms": ["a", "c"], "parts": {"data": True, "model": False}},
    ]
    assert view_of(tmp_path / "s", rows, shared=own)["shared"] == [
        {"pairs": "b and a", "shared": ["data", "initial model"], "differ": []},
        {"pairs": "c and a", "shared": ["data"], "differ": ["initial model"]},
    ]
    same = [{"arms": ["a", name], "parts": {"data": True}} for name in "bc"]
    assert view_of(tmp_path / "t", rows, shared=same)["shared"] == [
        {"pairs": "every pair", "shared": ["data"], "differ": []}
    ]


def test_notes_state_left_out_seeds_and_notices_of_arms(tmp_path: Path) -> None:
    rows = two_arms(2)
    kept = {"words": "stacked"}
    arms = [
        {"name": "fedavg", "notices": ["lr is fixed."], "engine": kept},
        {"name": "scaffold", "notices": ["lr is fixed.", "mine."], "engine": kept},
    ]
    notes = view_of(tmp_path / "s", rows, arms=arms, left_out_seeds=3)["notes"]
    assert notes == [
        "3 seeds are left out, so that the study stays within budget.runs.",
        "Every arm: lr is fixed.",
        "scaffold: mine.",
        "Engines: Every arm: stacked. Each was chosen once and kept for all seeds, so no bit depends on timing.",
    ]


def test_tuning_is_told_with_the_best_values_and_how_flat_they_are() -> None:
    trials = [
        {"number": 0, "state": "complete", "value": 0.5, "at_least": False, "values": {"local.local_lr": 0.1}},
        {"number": 1, "state": "complete", "value": 0.25, "at_least": True, "values": {"local.local_lr": 0.2}},
        {"number": 2, "state": "pruned", "value": None, "at_least": False, "values": {"local.local_lr": 0.4}},
    ]
    flat = [
        {
            "key": "local.local_lr",
            "best": 0.2,
            "low": 0.1,
            "high": 0.2,
            "choices": [],
            "at_edge": True,
            "importance": 0.75,
        }
    ]
    tuned = {"name": "digits", "measure": "validation_loss", "better": "lower", "seeds": [7, 8], "trials": trials,
             "best": {"local.local_lr": 0.2}, "value": 0.25, "at_least": True, "untuned": 0.5, "within": 0.05,
             "as_good": 1, "flatness": flat, "notes": ["A note."]}  # fmt: skip
    found = tuning_view({"arms": {"fedavg": tuned, "other": "no table"}})
    assert len(found) == 1
    assert found[0]["words"] == [
        "3 trials, 2 of them complete; each is the median of the validation loss over seeds 7, 8.",
        "Best: at least 0.25 with local.local_lr 0.2; the scenario's own values give 0.5.",
        "1 of 2 complete trials are within 5% of the best.",
        "A note.",
    ]
    assert found[0]["flat"] == [["local.local_lr", "0.2, at an end of its range", "0.1 to 0.2", "75%"]]
    assert [trial["values"] for trial in found[0]["trials"]] == [[0.1], [0.2]]
    assert tuning_view(None) == []
    assert tuning_words({"sentences": ["Each of 2 arms was tuned."]}) == ["Each of 2 arms was tuned."]
    assert tuning_words([1]) == []


def test_page_of_two_hundred_runs_is_small(tmp_path: Path) -> None:
    rows = made_rows(rates=(0.01, 0.02, 0.05, 0.1, 0.2))
    assert len(rows) == 200
    path = write_study(tmp_path / "s", rows, made_facts(rows), reports=True)
    file = write_study_page(path)
    assert file == path / "study.html"
    assert file.stat().st_size < MOST_BYTES
    view = data_of(file.read_text("utf-8"))
    assert len(view["runs"]) == 200
    assert view["runs"][0]["href"] == f"{rows[0]['run']}/report.html"
    assert [one["key"] for one in view["curves"]] == [
        "validation_loss",
        "validation_accuracy",
        "train_loss",
        "client_drift.mean",
    ]
    assert len(view["interactions"][0]["cells"]) == 5


def test_links_lead_from_another_folder_to_the_reports(tmp_path: Path) -> None:
    rows = two_arms(2)
    path = write_study(tmp_path / "the study", rows, made_facts(rows), reports=True)
    (tmp_path / "pages").mkdir()
    file = write_study_page(path, tmp_path / "pages" / "mine.html")
    href = data_of(file.read_text("utf-8"))["runs"][0]["href"]
    assert href == f"../the%20study/{rows[0]['run']}/report.html"
    assert (file.parent / href.replace("%20", " ")).is_file()


def test_page_without_javascript_has_the_words(tmp_path: Path) -> None:
    rows = two_arms(2)
    path = write_study(tmp_path / "s", rows, made_facts(rows, title="<b>x</b>"), records=False)
    text = write_study_page(path).read_text("utf-8")
    quiet = text[text.index("<noscript>") : text.index("</noscript>")]
    assert "&lt;b&gt;x&lt;/b&gt;" in quiet
    assert "scaffold" in quiet
    assert "<b>x" not in text


def test_page_is_rewritten_as_runs_end(tmp_path: Path) -> None:
    rows = two_arms(3)
    early = [without_numbers(row, "planned") if row["seed"] == 2 else row for row in rows]
    path = write_study(tmp_path / "s", early, made_facts(rows))
    page = StudyPage(path)
    first = data_of(page.write().read_text("utf-8"))
    write_study(path, rows, made_facts(rows))
    last = data_of(page.write().read_text("utf-8"))
    assert [one["curves"][0]["axes"]["round"][0]["runs"] for one in (first, last)] == [2, 3]
    assert last["notices"] == []


def test_other_files_are_not_replaced(tmp_path: Path) -> None:
    rows = two_arms(2)
    path = write_study(tmp_path / "s", rows, records=False)
    mine = tmp_path / "mine.html"
    mine.write_text("my own page")
    with pytest.raises(UserError, match="is no page of fedscape's"):
        write_study_page(path, mine)
    with pytest.raises(UserError, match=r"must end in \.html"):
        write_study_page(path, tmp_path / "mine.pdf")
    assert mine.read_text() == "my own page"
    with pytest.raises(RunFolderError, match="is not a study's folder"):
        write_study_page(tmp_path)


def test_report_command_writes_the_page_of_a_study(tmp_path: Path, capsys: Capture) -> None:
    rows = two_arms(2)
    path = write_study(tmp_path / "s", rows, made_facts(rows))
    assert main(["report", str(path)]) == 0
    assert capsys.readouterr().out.strip() == str(path / "study.html")
    assert (path / "study.html").is_file()
    words = mistake(capsys, "report", str(path), str(path / rows[0]["run"]))
    assert words.startswith("runs: must be runs' folders or one study's, got the study")
