"""`make same-records`: two runs of one tree are the same, and a change of a model is found, with and without texts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "same_records"
CASE = "algorithm-fedavg"


def same_records(*arguments: str) -> tuple[int, str]:
    """Return the exit status of the program on one case, and its last line."""
    command = [sys.executable, str(FOLDER), "--only", CASE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of the working tree's results. Keys of [engine] that no tree has are left out."""
    file = tmp_path_factory.mktemp("same-records") / "saved.json"
    assert same_records("--set", "engine.unknown=1", "--save", str(file)) == (0, "1 cases saved")
    return file


def test_two_runs_of_one_tree_are_the_same(saved: Path) -> None:
    assert same_records("--set", "engine.unknown=1", "--against", str(saved)) == (0, "1 same")


@pytest.mark.parametrize("options", [(), ("--numbers-only",)])
def test_other_bits_of_the_model_are_a_difference_of_numbers(
    saved: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    results = json.loads(saved.read_text())
    results["results"][CASE]["record"]["model"]["bytes"] = "0"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(results))
    assert same_records("--set", "engine.unknown=1", "--against", str(other), *options) == (1, "1 differs")
