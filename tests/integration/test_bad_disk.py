"""Folders and disks that refuse writes: exit code 2, one clear message, and the record is kept."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from run_folders import DIGITS, Capture, assert_same_run, digits, mistake, stop_after

from server.record.checked.line_files import read_rounds
from simulator.cli.exit_codes import EXIT_MISTAKE, EXIT_OK
from simulator.cli.main import main
from simulator.runs.run import simulate


def run_arguments(folder: Path, *sets: str) -> list[str]:
    return ["run", *(a for s in (*DIGITS, *sets) for a in ("--set", s)), "--out", str(folder)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_folder_with_files_is_left_unchanged(capsys: Capture, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    simulate(digits("run.rounds=1"), out=folder)
    before = contents(folder)
    message = mistake(capsys, *run_arguments(folder))
    assert message.startswith(f"{folder}: already holds files (")
    assert message.endswith(f"Name another folder with --out, or look at the run in it: fedscape report {folder}")
    assert contents(folder) == before
    (tmp_path / "empty").mkdir()
    assert main(run_arguments(tmp_path / "empty", "run.rounds=1")) == EXIT_OK


@pytest.mark.parametrize("place", ["file/run", "file", "proc", "read-only/run"])
def test_impossible_folder_is_refused(place: str, capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    closed = tmp_path / "read-only"
    closed.mkdir(mode=0o555)
    folder = Path("/proc/fedscape") if place == "proc" else tmp_path / place
    if place == "proc" and not Path("/proc/self").exists():
        pytest.skip("there is no /proc here")
    if place == "read-only/run" and can_write(closed):
        pytest.skip("this user can write everywhere")
    message = mistake(capsys, *run_arguments(folder, "run.rounds=1"))
    start = f"out: must be a folder, new or empty, got the file '{folder}'"
    assert message.startswith(start if place == "file" else f"{folder}: cannot be written: ")
    assert "--out" in message
    assert (tmp_path / "file").read_text() == "mine"


def can_write(folder: Path) -> bool:
    try:
        (folder / "probe").mkdir()
    except OSError:
        return False
    shutil.rmtree(folder / "probe")
    return True


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """Make the system refuse writes beyond `size` bytes of a file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("hidden", "file"), [("[16]", "rounds.jsonl"), ("[200]", "checkpoint/state-00000003")])
def test_disk_full_during_a_run_keeps_the_record(hidden: str, file: str, capsys: Capture, tmp_path: Path) -> None:
    sets, limit = ("run.checkpoint_rounds=3", f"model.hidden={hidden}"), 28_000
    simulate(digits(*sets), out=tmp_path / "whole")
    folder = tmp_path / "run"
    with files_at_most(limit):
        assert main(run_arguments(folder, *sets)) == EXIT_MISTAKE
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert f"fedscape: {folder / file}" in err
    assert "cannot be written: File too large. The record so far and the last checkpoint are kept" in err
    lines, truncated = read_rounds(folder / "rounds.jsonl")
    assert not truncated, "the line that did not fit was not removed"
    assert 3 <= lines[-1]["round"] < 8, "the size limit of this test does not fit the files"
    assert main(["resume", str(folder)]) == EXIT_OK
    assert_same_run(folder, tmp_path / "whole")


def test_damaged_folder_error_names_what_remains(capsys: Capture, tmp_path: Path) -> None:
    simulate(digits("run.checkpoint_rounds=2"), out=tmp_path / "run", stop_asked=stop_after(5))
    states = sorted((tmp_path / "run" / "checkpoint").glob("state-*"))
    for file in states:
        file.write_bytes(file.read_bytes()[:50])
    message = mistake(capsys, "resume", str(tmp_path / "run"))
    assert "holds no whole checkpoint" in message
    assert "50 bytes" in message
    assert "The rounds recorded so far can still be read" in message
    lines = (tmp_path / "run" / "rounds.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 6


def test_record_damaged_in_the_middle_is_refused(capsys: Capture, tmp_path: Path) -> None:
    simulate(digits(), out=tmp_path / "run", stop_asked=stop_after(5))
    rounds = tmp_path / "run" / "rounds.jsonl"
    lines = rounds.read_text().splitlines(keepends=True)
    rounds.write_text("".join([*lines[:2], "{half a li\n", *lines[3:]]))
    message = mistake(capsys, "resume", str(tmp_path / "run"))
    assert message.startswith(f"{rounds}: line 3 of 6 is damaged")
    assert "Lines 1 to 2 are complete" in message


def test_resume_prints_the_round_it_continues_from(capsys: Capture, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    simulate(digits(), out=folder, stop_asked=stop_after(5))
    with (folder / "rounds.jsonl").open("a") as file:
        file.write('{"round": 6, "valid')
    assert main(["resume", str(folder)]) == EXIT_OK
    out = capsys.readouterr().out
    assert "resumed after round 5: the last line of the record was not whole" in out


def test_resume_refuses_a_changed_scenario_and_a_missing_folder(capsys: Capture, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    simulate(digits(), out=folder, stop_asked=stop_after(2))
    file = folder / "scenario.toml"
    file.write_text(file.read_text().replace("seed = 7", "seed = 8"))
    message = mistake(capsys, "resume", str(folder))
    assert message.startswith(f"{folder}: its checkpoint belongs to another scenario or algorithm.")
    (folder / "outcome.json").unlink()  # as after a kill
    message = mistake(capsys, *run_arguments(folder))
    assert message.endswith(f"Name another folder with --out, or continue the run in it: fedscape resume {folder}")
    assert ": no such folder. " in mistake(capsys, "resume", str(tmp_path / "nothing"))
    assert mistake(capsys, "report", str(tmp_path / "rum")).endswith(f"Nearest: {folder}.")
    assert mistake(capsys, "resume", str(tmp_path)).endswith(f"It holds runs; name one: {folder}.")
    assert mistake(capsys, "resume", str(file)).endswith(f"is a file, not a run's folder. Its run is {folder}.")
