"""Client states in memory and in files are the same states, and what is staged never touches what is current."""

from __future__ import annotations

import errno
import gc
import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clients.core.errors import RunFolderError
from clients.training.client_states import ClientStates
from clients.training.kept import mapped_file
from clients.training.kept.slots import Slots

WIDTH = 5
ROW = WIDTH * 4


def rows_of(clients: list[int], mark: float) -> Tensor:
    return torch.arange(WIDTH) + 10.0 * torch.tensor(clients)[:, None] + mark


def filled(folder: Path, clients: int, *, most_in_memory: int) -> ClientStates:
    states = ClientStates(most_in_memory=most_in_memory)
    states.folder = folder
    every = np.arange(clients)
    states.put("control", every, rows_of(every.tolist(), 0.0))
    states.commit()
    return states


def handles_in(folder: Path) -> list[int]:
    """Return the open handles of files in a folder, with or without a name."""
    links = {n: f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd")}
    inside = str(folder.resolve())
    return [int(n) for n, link in links.items() if os.path.islink(link) and os.readlink(link).startswith(inside)]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A disk with as many bytes for a file as the list's one number says."""
    room = [10**9]
    real = mapped_file.reserve

    def reserve(handle: int, start: int, end: int) -> None:
        if end > room[0]:
            real(handle, start, room[0])  # a system may have reserved a part before it finds no more
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle, start, end)

    monkeypatch.setattr(mapped_file, "reserve", reserve)
    return room


CLIENTS = st.lists(st.integers(0, 40), min_size=1, max_size=6, unique=True)
STEPS = st.lists(st.tuples(st.sampled_from(["put", "commit", "rollback"]), st.sampled_from("ab"), CLIENTS), max_size=40)


@given(STEPS, st.sampled_from([0, ROW, 7 * ROW, 10**6]))
@settings(max_examples=150, deadline=None)
def test_states_are_a_mapping_wherever_they_lie(steps: list[tuple[str, str, list[int]]], most_in_memory: int) -> None:
    """A dictionary is the oracle. Rows may be in memory, in a file, or move from one to the other."""
    current: dict[tuple[str, int], Tensor] = {}
    staged: dict[tuple[str, int], Tensor] = {}
    every = np.arange(45)
    with closing(ClientStates(most_in_memory=most_in_memory)) as states:
        for number, (step, name, clients) in enumerate(steps):
            if step == "put":
                rows = rows_of(clients, 1000.0 * number)
                states.put(name, np.array(clients), rows)
                staged |= {(name, client): row for client, row in zip(clients, rows, strict=True)}
            elif step == "commit":
                changed = {n: {c for m, c in staged if m == n} for n, _ in staged}
                assert {n: set(found.tolist()) for n, found in states.commit().items()} == changed
                current, staged = current | staged, {}
            else:
                states.rollback()
                staged = {}
            for each in "ab":
                held = states.gather(each, every, WIDTH, torch.float32)
                zero = torch.zeros(WIDTH)
                assert torch.equal(held, torch.stack([current.get((each, c), zero) for c in every.tolist()]))
                assert states.has(each, every).tolist() == [(each, c) in current for c in every.tolist()]
        assert sorted(states.names()) == sorted({name for name, _ in current})
        for each in states.names():
            mine = np.array([client for name, client in current if name == each])
            rows = torch.stack([current[each, client] for client in mine.tolist()])
            assert torch.equal(states.rows(each, mine), rows)
            assert torch.equal(torch.cat(list(states.lazy_rows(each, mine).blocks(2 * ROW))), rows)


@given(st.lists(st.tuples(CLIENTS, st.booleans()), max_size=60))
def test_slots_are_reused_and_never_shared(steps: list[tuple[list[int], bool]]) -> None:
    slots, seen, most = Slots(), set[int](), 0
    for clients, commits in steps:
        staged = slots.stage(np.array(clients))
        current = slots.of(np.array(sorted(seen), np.int64))
        assert (current >= 0).all()
        assert len({*staged.tolist(), *current.tolist()}) == len(staged) + len(current)
        most = max(most, len(seen | set(clients)) + len(clients))
        if commits:
            slots.commit()
            seen |= set(clients)
        else:
            slots.rollback()
        assert slots.needed <= most


def test_large_state_lies_in_a_file_without_a_name_in_the_folder(tmp_path: Path) -> None:
    with closing(filled(tmp_path, 100, most_in_memory=10 * ROW)) as states:
        assert states.in_files == ["control"]
        assert not list(tmp_path.iterdir())
        assert handles_in(tmp_path)
    assert not handles_in(tmp_path)


def test_small_state_stays_in_memory(tmp_path: Path) -> None:
    with closing(filled(tmp_path, 10, most_in_memory=10 * ROW)) as states:
        assert states.in_files == []
        assert not handles_in(tmp_path)
    assert torch.equal(states.rows("control", np.array([3])), rows_of([3], 0.0))


def test_closed_file_is_named_when_its_states_are_read(tmp_path: Path) -> None:
    states = filled(tmp_path, 100, most_in_memory=10 * ROW)
    states.close()
    states.close()
    with pytest.raises(AssertionError, match="the run is over"):
        states.gather("control", np.array([3]), WIDTH, torch.float32)
    with pytest.raises(AssertionError, match="the run is over"):
        states.put("control", np.array([3]), rows_of([3], 0.0))


def test_unclosed_file_is_a_resource_warning(tmp_path: Path) -> None:
    states = filled(tmp_path, 100, most_in_memory=10 * ROW)
    del states
    with pytest.warns(ResourceWarning, match="unclosed file"):
        gc.collect()


def test_file_takes_room_for_rows_and_one_round(tmp_path: Path) -> None:
    with closing(filled(tmp_path, 1000, most_in_memory=10 * ROW)) as states:
        for index in range(50):
            clients = np.arange(index, index + 100)
            states.put("control", clients, rows_of(clients.tolist(), index))
            states.commit()
        assert max(os.fstat(handle).st_size for handle in handles_in(tmp_path)) <= (1100 + 10) * ROW


def test_full_disk_is_an_error_that_keeps_the_current_rows(tmp_path: Path, full_disk: list[int]) -> None:
    with closing(filled(tmp_path, 100, most_in_memory=10 * ROW)) as states:
        full_disk[0] = 120 * ROW
        states.put("control", np.arange(10), rows_of(list(range(10)), 0.5))
        with pytest.raises(RunFolderError, match=r"No space left on device; [0-9,]+ bytes more are needed") as refused:
            states.put("control", np.arange(10, 60), rows_of(list(range(10, 60)), 0.5))
        assert str(tmp_path) in str(refused.value)
        assert "Free some space" in str(refused.value)
        states.rollback()
        assert torch.equal(states.rows("control", np.arange(100)), rows_of(list(range(100)), 0.0))
        states.put("control", np.arange(10, 20), rows_of(list(range(10, 20)), 0.5))  # which fits
        states.commit()
        assert torch.equal(states.rows("control", np.arange(10, 20)), rows_of(list(range(10, 20)), 0.5))
        full_disk[0] = 10**9
        states.put("control", np.arange(100), rows_of(list(range(100)), 0.75))
        states.commit()
        assert torch.equal(states.rows("control", np.arange(100)), rows_of(list(range(100)), 0.75))


def test_disk_without_room_for_the_first_file_keeps_the_rows_in_memory(tmp_path: Path, full_disk: list[int]) -> None:
    with closing(filled(tmp_path, 10, most_in_memory=20 * ROW)) as states:
        full_disk[0] = 0
        with pytest.raises(RunFolderError, match="No space left on device"):
            states.put("control", np.arange(50), rows_of(list(range(50)), 0.5))
        states.rollback()
        assert torch.equal(states.rows("control", np.arange(10)), rows_of(list(range(10)), 0.0))
        assert not handles_in(tmp_path)


def test_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"gone: cannot hold what clients keep between rounds: No such file"):
        filled(tmp_path / "gone", 100, most_in_memory=10 * ROW)


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_system_that_cannot_reserve_gets_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refused(handle: int, start: int, count: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", refused)
    with (tmp_path / "file").open("w+b") as file:
        file.write(b"abc")
        file.flush()
        mapped_file.reserve(file.fileno(), 3, 3 * 2**20)
        assert (tmp_path / "file").read_bytes() == b"abc" + bytes(3 * 2**20 - 3)
