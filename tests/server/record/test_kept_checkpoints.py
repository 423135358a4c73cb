"""Kept checkpoints stay as they were while the run goes on, and damage, a kill or a foreign folder is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clients.core.errors import RunFolderError, UserError
from clients.training.kept.lazy_rows import LazyRows
from server.record.checkpoint import CheckpointStore
from server.record.kept import checkpoints
from server.record.kept.checkpoints import CheckpointFolder


@pytest.fixture
def kept(tmp_path: Path) -> CheckpointFolder:
    """Return the kept checkpoints of rounds 3 and 6, beside a store that went on to round 9."""
    store, folder = CheckpointStore(tmp_path / "checkpoint"), CheckpointFolder(tmp_path / "checkpoints")
    for round_index in range(1, 10):
        clients = np.array([round_index % 4])
        rows = LazyRows.of(torch.full((1, 2), float(round_index)))
        store.save(round_index, {"parameters": torch.full((3,), float(round_index))}, {}, {"control": (clients, rows)})
        if round_index in (3, 6):
            folder.keep(store)
    return folder


def test_kept_checkpoint_has_the_state_and_every_client_of_its_round(kept: CheckpointFolder) -> None:
    assert kept.rounds() == [3, 6]
    found = kept.read(6)
    assert found.round_index == 6
    assert found.tensors["parameters"].tolist() == [6.0] * 3
    clients, rows = found.client_states["control"]
    assert clients.tolist() == [0, 1, 2, 3]
    assert rows.tensor()[:, 0].tolist() == [4.0, 5.0, 6.0, 3.0]


def test_missing_round_names_those_that_there_are(kept: CheckpointFolder) -> None:
    with pytest.raises(UserError, match=r"round: 4 has no kept checkpoint\. Rounds that have one: 3, 6\."):
        kept.read(4)


def test_checkpoint_is_kept_once(kept: CheckpointFolder) -> None:
    store = CheckpointStore(kept.path.parent / "checkpoint")
    store.load()
    kept.keep(store)
    before = (kept.entry(9) / "manifest.json").stat().st_mtime_ns
    kept.keep(store)
    assert (kept.entry(9) / "manifest.json").stat().st_mtime_ns == before


def test_file_system_without_links_gets_copies(kept: CheckpointFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(file: Path, name: Path) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(checkpoints.os, "link", refused)
    store = CheckpointStore(kept.path.parent / "checkpoint")
    store.load()
    kept.keep(store)
    assert kept.read(9).tensors["parameters"].tolist() == [9.0] * 3
    assert all(file.stat().st_nlink == 1 for file in kept.entry(9).iterdir())


def test_truncation_removes_later_rounds_and_unfinished_folders(kept: CheckpointFolder) -> None:
    (kept.path / ".round-00000007.tmp").mkdir()
    kept.truncate(3)
    assert [path.name for path in kept.path.iterdir()] == ["round-00000003"]
    kept.truncate(3)
    assert kept.read(3).round_index == 3


def test_truncation_leaves_what_is_no_checkpoint_and_removes_a_link_alone(
    kept: CheckpointFolder, tmp_path: Path
) -> None:
    kept.entry(6).rename(tmp_path / "elsewhere")
    kept.entry(6).symlink_to(tmp_path / "elsewhere")
    kept.entry(8).write_text("a file of the user's")
    kept.truncate(3)
    assert sorted(path.name for path in kept.path.iterdir()) == ["round-00000003", "round-00000008"]
    assert (tmp_path / "elsewhere" / "manifest.json").is_file()


def test_damaged_checkpoint_is_refused(kept: CheckpointFolder) -> None:
    state = next(kept.entry(3).glob("state-*"))
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.unlink()
    state.write_bytes(content)
    with pytest.raises(RunFolderError, match="checksum differs"):
        kept.read(3)
    assert kept.read(6).round_index == 6


def test_checkpoint_under_the_name_of_another_round_is_refused(kept: CheckpointFolder) -> None:
    kept.entry(6).rename(kept.entry(5))
    with pytest.raises(RunFolderError, match="it is not the checkpoint of round 5"):
        kept.read(5)


def test_linked_folder_is_refused(kept: CheckpointFolder, tmp_path: Path) -> None:
    kept.entry(6).rename(tmp_path / "elsewhere")
    kept.entry(6).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match="is a symbolic link"):
        kept.read(6)
