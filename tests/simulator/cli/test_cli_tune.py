"""`fedscape tune`: trials, findings and the best scenario; mistakes are reported before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

import fedscape as fs
from simulator.cli.main import main

SETS = ("run.rounds=6", "convergence.settled=", "engine.kind=plain", "engine.threads=1", "engine.workers=1")
BASE = ["tune", "quadratic-two-clients", "--measure", "optimality_gap", *(f"--set={change}" for change in SETS)]


def test_tune_prints_trials_and_findings_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*BASE, "--param", "local_lr=log:0.001:0.4", "--seeds", "1", "--out", str(tmp_path / "out")]
    assert main([*command, "--trials", "2"]) == 0
    first = capsys.readouterr().out
    assert first.count("\ntrial ") + first.startswith("trial ") == 2
    assert "local.local_lr 0.05" in first.splitlines()[0]
    assert "2 trials (2 complete), median of the optimality gap" in first
    assert main([*command, "--trials", "3"]) == 0
    second = capsys.readouterr().out
    assert second.startswith("trial   2")
    assert "3 trials (3 complete)" in second
    best = tmp_path / "out" / "best.toml"
    assert f"the scenario with the best values: {best}" in second
    assert fs.load_scenario(best).run.rounds == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "params: names nothing to tune"),
        (["--param", "local_lr"], "params: must be KEY=RANGE or KEY=CHOICES"),
        (["--param", "local_lr=0.1:1", "--seeds", "x"], "seeds: must be a number of seeds or a list of them, got 'x'"),
        (["--param", "local_lr=0.1:1", "--sampler", "best"], "sampler: 'best' is not a sampler"),
    ],
)
def test_mistake_is_one_line_and_nothing_runs(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BASE, *options, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("rounds.jsonl"))


def test_tuning_without_a_score_has_the_exit_code_of_failed_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--param", "local_lr=0.1,0.2", "--sampler", "grid", "--seeds", "1", "--out", str(tmp_path / "out")]
    assert main([*BASE, "--measure", "test_accuracy", *command]) == 1
    assert "No trial is complete with a finite value: nothing was found." in capsys.readouterr().out


def test_login_on_the_command_line_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = "postgresql://me:s3cretword@127.0.0.1:1/tuning"
    assert main([*BASE, "--param", "local_lr=0.1:0.2", "--storage", url, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "--storage has a login" in error
    assert "s3cretword" not in error
