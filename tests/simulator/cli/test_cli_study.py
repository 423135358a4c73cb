"""The commands study and run --seeds: mistakes are one line, and the console prints progress and the answer."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from run_folders import mistake

from simulator.cli.main import main
from simulator.cli.study.console import StudyConsole
from simulator.studies.conducting import Progress
from simulator.studies.folder import StudyFolder
from simulator.studies.plan import StudyPlan
from simulator.studies.reading import read_study

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("study nonsens", "'nonsens' is not a scenario file or a built-in scenario"),
        ("study quadratic-two-clients --shard 3/2", "shard: must be K/N with K from 1 to N, got '3/2'"),
        ("study quadratic-two-clients --processes 0", "processes: must be a whole number of at least 1, got 0"),
        ("study quadratic-two-clients --factor local_lr", "--factor: must be section.key=value,value, got 'local_lr'"),
        ("study quadratic-two-clients --factor local_rl=1,2", "'local_rl' is not a key of any section"),
        ("study quadratic-two-clients --factor local_lr=1,1", "must have different values, got 1 twice"),
        ("study quadratic-two-clients --measure loss", "answer.measure: 'loss' is not a measure"),
        ("study quadratic-two-clients --seeds ten", "--seeds: must be a number of seeds or a list of them, got 'ten'"),
        ("run quadratic-two-clients --seeds ,", "--seeds: must be a number of seeds or a list of them, got ','"),
        ("run quadratic-two-clients --seeds 2 --seed 1", "--seed: cannot be used with --seeds"),
        ("run quadratic-two-clients --seeds 2 --tensorboard", "--seeds: plays several runs at once"),
    ],
)
def test_mistake_is_one_line_and_makes_no_folder(
    arguments: str, words: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in mistake(capsys, *arguments.split())
    assert list(tmp_path.iterdir()) == []


def test_run_with_seeds_is_the_smallest_study(capsys: Capture, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["run", "quadratic-two-clients", "--seeds", "4,2", "--set", "run.rounds=2", "--out", str(out)]) == 0
    words = capsys.readouterr().out
    assert "1 arm × 2 seeds" in words
    assert "quadratic-two-clients, seed 4: " in words
    assert "median" in words
    assert len(list(out.glob("runs/*/outcome.json"))) == 2
    assert main(["study", str(out)]) == 0
    assert "2 runs finished before" in capsys.readouterr().out


def plan() -> StudyPlan:
    factors = {"algorithm.kind": ["fedavg", "scaffold"]}
    return StudyPlan.of(read_study({"scenario": "quadratic-two-clients", "seeds": 2, "factors": factors}))


def state(of: StudyPlan) -> Progress:
    first, second = of.runs[:2]
    rows = {first.key: {"state": "done", "measures": {"optimality_gap": 0.25}, "verdict": "Converged at round 3"}}
    return Progress(1, 4, {second.key: (second, 0.5)}, 0, 65.0, rows)


def test_terminal_shows_what_is_played_and_the_ranking_so_far() -> None:
    stream, made = io.StringIO(), plan()
    console = StudyConsole(stream, live=True)
    console.study_started(made, StudyFolder(Path("studies/x")), 2, 1)
    console.progress(state(made))
    console.close()
    words = stream.getvalue()
    for part in ("1 of 4 runs", "about 1:05 left", "scaffold, seed 0: 50%", "optimality gap so far", "fedavg: 0.25"):
        assert part in words


def test_file_gets_plain_lines_now_and_then() -> None:
    stream, made, now = io.StringIO(), plan(), 0.0
    console = StudyConsole(stream, live=False, clock=lambda: now)
    for now in (0.0, 1.0, 29.0, 31.0):  # noqa: B007  # the console's clock reads it
        console.progress(state(made))
    console.run_ended(made.runs[0], {"state": "failed", "error": "no data"}, again=False)
    assert stream.getvalue().splitlines() == [
        "  1 of 4 runs · about 1:05 left", "  1 of 4 runs · about 1:05 left", "  fedavg, seed 0: failed: no data",
    ]  # fmt: skip
