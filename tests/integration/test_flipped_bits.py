"""One flipped bit in any file of a run's folder: the numbers are the same, or one line says what is damaged."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from run_folders import assert_same_run, client_rows, digits, recorded, stop_after

from clients.core.errors import UserError
from server.record.checked.line_files import read_rounds
from server.record.jsonlines import to_json
from server.record.records import RunFolder
from simulator.runs.record import open_run
from simulator.runs.run import resume, simulate

WITHOUT_NUMBERS = ("report.html", "load_model.py")
"""Files that nothing reads: `fedscape report` writes the page again."""
EVERY_FILE = [pytest.param(1, id="a bit a file"), pytest.param(6, id="six bits a file", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a whole run's folder, and one that stopped after round 5 with checkpoints at rounds 2, 4 and 5."""
    root = tmp_path_factory.mktemp("runs")
    scenario = digits("run.checkpoint_rounds=2", "algorithm.kind=scaffold", "algorithm.weighting=")
    simulate(scenario, out=root / "whole")
    simulate(scenario, out=root / "cut", stop_asked=stop_after(5))
    return root / "whole", root / "cut"


def flips(folder: Path, count: int) -> Iterator[tuple[Path, int, int]]:
    """Yield files of a folder, with a position and a bit to flip; of several, the first and the last byte."""
    draw = random.Random(7)
    for file in sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file()):
        size = (folder / file).stat().st_size
        if file.name in WITHOUT_NUMBERS or not size:
            continue
        ends = {0, size - 1} if count > 2 else set[int]()
        for position in sorted({*ends, *(draw.randrange(size) for _ in range(count - len(ends)))}):
            yield file, position, draw.randrange(8)


def flipped(folder: Path, copy: Path, file: Path, position: int, bit: int) -> Path:
    """Copy a folder and flip one bit of a file in the copy."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    content = bytearray((copy / file).read_bytes())
    content[position] ^= 1 << bit
    (copy / file).write_bytes(content)
    return copy


def mistake_of(act: Callable[[], object]) -> str:
    """Return the message of the mistake that an act reports; empty where it reports none."""
    try:
        act()
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("count", EVERY_FILE)
def test_resume_after_a_flipped_bit_gives_the_same_run_or_one_line(
    count: int, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    whole, cut = folders
    resumed = 0
    for file, position, bit in flips(cut, count):
        copy = flipped(cut, tmp_path / "copy", file, position, bit)
        where = f"{file} at {position}, bit {bit}"
        if message := mistake_of(lambda copy=copy: resume(copy)):
            assert "\n" not in message, where
            continue
        resumed += 1
        assert recorded(copy) == recorded(whole), where
        assert RunFolder(copy).model.read_bytes() == RunFolder(whole).model.read_bytes(), where
        messages = " ".join(event["message"] for event in read_rounds(RunFolder(copy).events)[0])
        if "clients/" not in messages and file.name != "environment.json":
            assert_same_run(copy, whole)
    assert resumed >= 10, "a flip in a file that resume does not need must not stop it"


@pytest.mark.parametrize("count", EVERY_FILE)
def test_reader_after_a_flipped_bit_has_the_same_numbers_or_says_so(
    count: int, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    whole, _ = folders
    expected, rows = open_run(whole), client_rows(whole)
    for file, position, bit in flips(whole, count):
        copy = flipped(whole, tmp_path / "copy", file, position, bit)
        where = f"{file} at {position}, bit {bit}"
        if message := mistake_of(lambda copy=copy: (open_run(copy).model(), client_rows(copy))):
            assert "\n" not in message, where
            continue
        found = open_run(copy)
        if found.problems or found.truncated:
            continue
        clients, model = client_rows(copy), found.model().state_dict()
        assert to_json(list(found.rounds.lines)) == to_json(list(expected.rounds.lines)), where
        assert to_json(found.outcome) == to_json(expected.outcome), where
        assert found.scenario == expected.scenario, where
        assert all((clients[name] == rows[name]).all() or name not in rows for name in clients), where
        assert all((model[name] == value).all() for name, value in expected.model().state_dict().items()), where


@pytest.mark.parametrize("file", ["manifest.json", "state", "clients"])
def test_damaged_checkpoint_is_replaced_by_the_one_before_and_stated(
    file: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    whole, cut = folders[0], Path(shutil.copytree(folders[1], tmp_path / "cut"))
    newest = sorted((cut / "checkpoint").glob(f"{file}*"))[-1 if file != "manifest.json" else 0]
    content = bytearray(newest.read_bytes())
    at = content.index(b'"round_index": 5') + 15 if file == "manifest.json" else len(content) // 2
    content[at] ^= 1  # round 4 for round 5, which the previous checkpoint is at
    newest.write_bytes(content)
    resume(cut)
    assert_same_run(cut, whole)
    message = read_rounds(RunFolder(cut).events)[0][0]["message"]
    assert message.startswith("resumed after round 4: the last checkpoint cannot be used (")
    assert newest.name in message
    assert "is damaged" in message
