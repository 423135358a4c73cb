"""Kept parameters: they come back to the bit, a flipped bit is found, and a disk that refuses ends nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from clients.core.errors import RunFolderError, UserError
from server.algorithms.state import ServerState
from server.record.kept.parameters import SPARE_BYTES, ParameterFolder
from server.rounds.checkpointer import ParameterSaver

TENSORS = {
    "0.weight": torch.tensor([[1.5, -2.0], [float("nan"), 0.0]]),
    "0.bias": torch.tensor([3.0], dtype=torch.float64),
    "1.num_batches_tracked": torch.tensor(7),
    "none": torch.zeros(0),
}


@pytest.fixture
def folder(tmp_path: Path) -> ParameterFolder:
    return ParameterFolder(tmp_path / "parameters")


def test_parameters_come_back_to_the_bit(folder: ParameterFolder) -> None:
    assert folder.rounds() == []
    folder.write(10, TENSORS)
    folder.write(5, {name: tensor + 1 for name, tensor in TENSORS.items()})
    assert folder.rounds() == [5, 10]
    back = folder.read(10)
    assert back.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name].nan_to_num(9.0), tensor.nan_to_num(9.0))
    assert load_file(folder.entry(10)).keys() == TENSORS.keys()  # any program that reads safetensors reads it


def test_every_flipped_bit_is_found(folder: ParameterFolder) -> None:
    folder.write(3, TENSORS)
    file, whole = folder.entry(3), folder.entry(3).read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        file.write_bytes(damaged)
        with pytest.raises(RunFolderError, match="is damaged"):
            folder.read(3)
    file.write_bytes(whole)
    assert folder.read(3).keys() == TENSORS.keys()


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_file_that_was_cut_short_is_damaged(size: int, folder: ParameterFolder) -> None:
    folder.write(3, TENSORS)
    folder.entry(3).write_bytes(folder.entry(3).read_bytes()[:size])
    with pytest.raises(RunFolderError, match=r"round-00000003\.safetensors: is damaged"):
        folder.read(3)


def test_file_of_another_round_is_damaged(folder: ParameterFolder) -> None:
    folder.write(3, TENSORS)
    shutil.copy(folder.entry(3), folder.entry(4))
    with pytest.raises(RunFolderError, match="is damaged"):
        folder.read(4)


def test_round_that_was_not_kept_names_those_that_were(folder: ParameterFolder) -> None:
    with pytest.raises(UserError, match=r"round: 2 has no kept parameters\. The run kept none: set run\.keep_param"):
        folder.read(2)
    for round_index in (0, 5):
        folder.write(round_index, TENSORS)
    with pytest.raises(UserError, match=r"Rounds with kept parameters: 0, 5\."):
        folder.read(2)


def test_truncating_removes_later_rounds_and_unfinished_files(folder: ParameterFolder) -> None:
    folder.truncate(3)
    for round_index in (0, 3, 6):
        folder.write(round_index, TENSORS)
    (folder.path / ".round-00000009.safetensors.tmp").write_bytes(b"half")
    (folder.path / "mine.txt").write_text("a user's file")
    folder.truncate(3)
    assert folder.rounds() == [0, 3]
    assert sorted(file.name for file in folder.path.iterdir())[0] == "mine.txt"


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_last_space_of_a_disk_is_left_to_the_record(folder: ParameterFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(tensor.nbytes for tensor in TENSORS.values())
    free = [3 * size + SPARE_BYTES - 1]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, free[0]))
    with pytest.raises(RunFolderError, match="bytes of the disk are free, which are left to the record"):
        folder.write(1, TENSORS)
    assert folder.rounds() == []
    free[0] += 1
    folder.write(1, TENSORS)
    assert folder.rounds() == [1]


def state(round_index: int) -> ServerState:
    return ServerState(round_index, torch.zeros(1), torch.zeros(0))


def saver(folder: ParameterFolder, events: list[dict[str, Any]], every: int = 4) -> ParameterSaver:
    return ParameterSaver(folder, every, lambda state: {"w": torch.full((2,), state.round_index)}, events.append)


def test_saver_saves_every_few_rounds_and_the_last(folder: ParameterFolder) -> None:
    events: list[dict[str, Any]] = []
    saving = saver(folder, events)
    for round_index in range(7):
        saving.save(state(round_index), is_last=round_index == 6)
    assert folder.rounds() == [0, 4, 6]
    assert folder.read(4)["w"].tolist() == [4, 4]
    assert events == []


def test_first_failure_of_a_row_is_an_event_and_later_rounds_are_tried_again(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    (tmp_path / "parameters").write_text("in the way")
    folder = ParameterFolder(tmp_path / "parameters")
    saving = saver(folder, events)
    for round_index in (0, 4):
        saving.save(state(round_index))
    assert [(event["round"], event["kind"]) for event in events] == [(0, "parameters_not_kept")]
    start = "parameters are not kept from here on, while this lasts"
    assert events[0]["message"].startswith(f"{start}: {tmp_path / 'parameters'} cannot be written: ")
    (tmp_path / "parameters").unlink()
    saving.save(state(8))
    assert folder.rounds() == [8]
    shutil.rmtree(folder.path)
    folder.path.write_text("in the way again")
    for round_index in (12, 16):
        saving.save(state(round_index))
    assert [event["round"] for event in events] == [0, 12]


def test_symbolic_link_is_refused(folder: ParameterFolder) -> None:
    folder.write(3, TENSORS)
    folder.entry(4).symlink_to(folder.entry(3))
    with pytest.raises(RunFolderError, match="symbolic link"):
        folder.read(4)
