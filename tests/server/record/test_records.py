"""A run's folder is made once, filled line by line, cut back to a checkpoint, and refused when it is unusable."""

import errno
import json
import math
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clients.core.errors import RunFolderError
from server.record.checked.line_files import read_rounds, truncate_rounds
from server.record.environment import commit_of, environment
from server.record.files import whole_file
from server.record.jsonlines import RoundWriter, from_json, to_json
from server.record.recorder import Recorder
from server.record.records import RunFolder

NOW = datetime(2025, 11, 21, 7, 14)


def test_create_names_the_folder_after_scenario_and_time(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "runs", "my scenario/é", now=NOW)
    stem, digits = folder.path.name.rsplit("-", 1)
    assert stem == "my-scenario-1121-0714"
    assert len(digits) == 4
    int(digits, 16)
    assert {entry.name for entry in folder.path.iterdir()} == {"clients", "checkpoint", "rounds.jsonl", "events.jsonl"}
    assert RunFolder.create(tmp_path / "runs", "../..", now=NOW).path.parent == tmp_path / "runs"


def test_create_at_takes_an_empty_folder_and_refuses_one_with_files(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    RunFolder.create_at(tmp_path / "empty")
    with pytest.raises(
        RunFolderError, match=r"already holds files \(checkpoint\)\. Name another folder with --out\.$"
    ) as caught:
        RunFolder.create_at(tmp_path / "empty")
    assert caught.value.field == str(tmp_path / "empty")


def test_create_names_why_the_system_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFolderError, match=r"file.runs: cannot be written: Not a directory"):
        RunFolder.create_at(tmp_path / "file" / "runs")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_create_in_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RunFolderError, match="cannot be written: Permission denied"):
            RunFolder.create(tmp_path, "digits", now=NOW)
    finally:
        tmp_path.chmod(0o700)


def test_open_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no such folder"):
        RunFolder.open(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder.open(tmp_path / "file")
    folder = RunFolder.create_at(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"lacks scenario\.toml\. "):
        RunFolder.open(folder.path)
    folder.write_scenario("[run]\nseed = 7\n")
    assert RunFolder.open(folder.path).read_scenario() == "[run]\nseed = 7\n"
    folder.rounds.unlink()
    with pytest.raises(RunFolderError, match=r"lacks rounds\.jsonl\. "):
        RunFolder.open(folder.path)


def test_non_finite_numbers_survive_json(tmp_path: Path) -> None:
    line = {"round": 1, "loss": math.inf, "drift": {"mean": math.nan, "by_layer": [1.0, -math.inf]}, "name": "info"}
    with_writer(tmp_path / "rounds.jsonl", [line, {"round": 2, "loss": np.float32(0.5), "best": np.int64(3)}])
    first, second = (tmp_path / "rounds.jsonl").read_text().splitlines()
    strict = json.loads(first, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert strict["loss"] == "inf"
    (back, plain), truncated = read_rounds(tmp_path / "rounds.jsonl")
    assert not truncated
    assert back["loss"] == math.inf
    assert back["drift"]["by_layer"] == [1.0, -math.inf]
    assert math.isnan(back["drift"]["mean"])
    assert back["name"] == "info"
    assert plain == {"round": 2, "loss": 0.5, "best": 3}
    assert json.loads(second) == {**plain, "chain": json.loads(second)["chain"]}


@given(st.recursive(st.floats(allow_nan=False) | st.integers() | st.booleans() | st.none(), lambda x: st.lists(x)))
def test_numbers_survive_json_to_the_bit(value: object) -> None:
    assert from_json(to_json({"value": value})) == {"value": value}


def test_arrays_and_tensors_are_plain_lists() -> None:
    value = {"a": np.array([1.5, np.nan]), "b": torch.tensor([1, 2]), "c": torch.tensor(0.5)}
    assert to_json(value) == '{"a": [1.5, "nan"], "b": [1, 2], "c": 0.5}'
    with pytest.raises(TypeError, match="object cannot be written"):
        to_json({"a": object()})


def with_writer(path: Path, lines: list[dict[str, object]]) -> None:
    writer = RoundWriter(path)
    for line in lines:
        writer.append(line)
    writer.close()
    writer.close()


def test_line_is_written_before_append_returns(tmp_path: Path) -> None:
    writer = RoundWriter(tmp_path / "rounds.jsonl")
    for index in range(3):
        writer.append({"round": index})
        assert [line["round"] for line in read_rounds(tmp_path / "rounds.jsonl")[0]] == list(range(index + 1))
    writer.sync()
    writer.close()


@pytest.mark.parametrize("partial", [b'{"round": 3, "lo', b'{"round": 3', b"\0\0\0\0", b"\0\0\n", b'{"round": 3}'])
def test_partial_last_line_is_ignored_and_reported(tmp_path: Path, partial: bytes) -> None:
    path = tmp_path / "rounds.jsonl"
    with_writer(path, [{"round": index} for index in range(3)])
    with path.open("ab") as file:
        file.write(partial)
    lines, truncated = read_rounds(path)
    assert truncated
    assert [line["round"] for line in lines] == [0, 1, 2]
    assert truncate_rounds(path, 2) == 2
    assert read_rounds(path) == (lines, False)


def test_damage_before_the_last_line_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    path.write_text('{"round": 1}\n{"rou\n{"round": 3}\n')
    with pytest.raises(RunFolderError, match="line 2 of 3 is damaged"):
        read_rounds(path)
    with pytest.raises(RunFolderError, match=r"cannot be read: No such file"):
        read_rounds(tmp_path / "nothing.jsonl")


def test_truncate_rounds_keeps_the_bytes_of_remaining_lines(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    with_writer(path, [{"round": index, "loss": 0.1 * index} for index in range(6)])
    whole = path.read_bytes().splitlines(keepends=True)
    assert truncate_rounds(path, 3) == 3
    assert path.read_bytes() == b"".join(whole[:4])
    assert truncate_rounds(path, 9) == 3  # the record ends before the checkpoint, and the caller can detect it
    assert truncate_rounds(path, -1) is None
    assert path.read_bytes() == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full stands for a full disk on Linux only")
def test_full_disk_error_names_the_file_and_the_kept_lines() -> None:
    writer = RoundWriter(Path("/dev/full"))
    with pytest.raises(
        RunFolderError, match=r"/dev/full: cannot be written: No space left on device.*last checkpoint are"
    ):
        writer.append({"round": 1})
    writer.close()


def test_partly_written_line_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real_write = tmp_path / "rounds.jsonl", os.write
    writer = RoundWriter(path)
    writer.append({"round": 1})
    whole, room = path.read_bytes(), [5, 4]

    def write_some(handle: int, data: memoryview) -> int:
        if not room:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real_write(handle, data[: room.pop()])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write_some)
        with pytest.raises(RunFolderError, match="Input/output error"):
            writer.append({"round": 2})
    assert path.read_bytes() == whole
    writer.append({"round": 3})
    writer.close()
    assert read_rounds(path) == ([{"round": 1}, {"round": 3}], False)


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "outcome.json"
    path.write_text("old")

    def write_half() -> None:
        with whole_file(path) as file:
            file.write(b"new")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(RunFolderError, match=r"outcome\.json: cannot be written: No space"):
        write_half()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["outcome.json"]


def test_recorder_fills_the_folder_and_truncate_removes_later_rounds(tmp_path: Path) -> None:
    folder = RunFolder.create_at(tmp_path / "run")
    folder.write_scenario("seed = 7\n")
    recorder = Recorder(folder)
    recorder.run_started({"engine": "plain", "limit": math.inf})
    for index in range(1, 6):
        recorder.clients.add(index, {"client": np.array([index, 9])})
        recorder.round_finished({"round": index})
        recorder.event({"round": index, "kind": "fault", "message": "one client left"})
    recorder.run_finished({"outcome": "stopped", "round": 5, "rate": {"factor": math.nan}})
    recorder.close()
    assert (folder.read_environment() or {})["run"] == {"engine": "plain", "limit": math.inf}
    outcome = folder.read_outcome()
    assert outcome is not None
    assert outcome["outcome"] == "stopped"
    assert math.isnan(outcome["rate"]["factor"])

    folder.events.write_text(folder.events.read_text() + '{"kind": "torn')
    assert folder.truncate(3) == 3
    assert folder.truncate(3) == 3
    assert folder.read_outcome() is None
    assert [line["round"] for line in read_rounds(folder.events)[0]] == [1, 2, 3]
    again = Recorder(RunFolder.open(folder.path))
    again.clients.add(4, {"client": np.array([4])})
    again.round_finished({"round": 4})
    again.sync()
    again.close()
    assert [line["round"] for line in read_rounds(folder.rounds)[0]] == [1, 2, 3, 4]


def test_damaged_outcome_is_an_error(tmp_path: Path) -> None:
    folder = RunFolder.create_at(tmp_path / "run")
    assert folder.read_outcome() is None
    folder.outcome.write_text('{"outcome": "conv')
    with pytest.raises(RunFolderError, match=r"outcome\.json: is damaged"):
        folder.read_outcome()


def test_environment_has_versions_and_no_path(tmp_path: Path) -> None:
    facts = environment()
    assert facts["versions"]["torch"].startswith("2.")
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["cores"] >= 1
    assert facts["threads"] == torch.get_num_threads()
    assert str(Path.home()) not in to_json(facts)
    assert str(Path(__file__).parents[3]) not in to_json(facts)
    assert commit_of(tmp_path) is None


def test_append_costs_one_write_and_no_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = RoundWriter(tmp_path / "rounds.jsonl")
    line = {"round": 1, **{f"metric_{index}": math.sin(index) for index in range(100)}}
    calls: list[str] = []
    for name in ("write", "fsync", "open", "fstat", "rename"):
        monkeypatch.setattr(os, name, counted(name, getattr(os, name), calls))
    for _ in range(200):
        writer.append(line)
    monkeypatch.undo()
    writer.close()
    assert calls == ["write"] * 200


def counted(name: str, call: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    """Return a function that records its name before each call."""

    def noted(*arguments: Any) -> Any:
        calls.append(name)
        return call(*arguments)

    return noted
