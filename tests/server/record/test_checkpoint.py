"""Saved tensors load unchanged to the bit after interruptions, damage and merges."""

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clients.core.errors import RunFolderError
from clients.training.kept.lazy_rows import BLOCK, LazyRows
from server.record.checkpoint import Checkpoint, CheckpointStore
from server.record.client_pieces import first_to_merge
from server.record.tensor_files import read_tensors, write_tensors

CLIENTS = 12


def changed_in(round_index: int) -> np.ndarray:
    """Clients that train in a round, in no particular order."""
    return np.random.default_rng(round_index).permutation(CLIENTS)[:3]


def state_of(client: int, round_index: int) -> Tensor:
    return torch.arange(5) + 100.0 * client + 1e4 * round_index


def save(store: CheckpointStore, round_index: int) -> None:
    clients = changed_in(round_index)
    values = torch.stack([state_of(client, round_index) for client in clients])
    tensors = {"parameters": torch.full((7,), float(round_index)), "momentum": torch.tensor(-round_index)}
    store.save(
        round_index, tensors, {"rounds": round_index, "best": math.inf}, {"control": (clients, LazyRows.of(values))}
    )


def expected_states(last_round: int) -> dict[int, Tensor]:
    last = {int(client): index for index in range(1, last_round + 1) for client in changed_in(index)}
    return {client: state_of(client, last[client]) for client in sorted(last)}


def assert_is_round(checkpoint: Checkpoint | None, round_index: int) -> None:
    assert checkpoint is not None
    assert checkpoint.round_index == round_index
    assert checkpoint.facts == {"rounds": round_index, "best": math.inf}
    assert torch.equal(checkpoint.tensors["parameters"], torch.full((7,), float(round_index)))
    assert torch.equal(checkpoint.tensors["momentum"], torch.tensor(-round_index))
    clients, values = checkpoint.client_states["control"]
    expected = expected_states(round_index)
    assert clients.tolist() == list(expected)
    assert torch.equal(values.tensor(), torch.stack(list(expected.values())))


def test_empty_store_loads_none(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "checkpoint").load() is None


@pytest.mark.parametrize("most_pieces", [1, 2, 3, 16])
def test_saved_rounds_load_while_pieces_are_merged(tmp_path: Path, most_pieces: int) -> None:
    store = CheckpointStore(tmp_path, most_pieces=most_pieces)
    for index in range(1, 30):
        save(store, index)
        checkpoint = CheckpointStore(tmp_path).load()
        assert_is_round(checkpoint, index)
        assert checkpoint is not None
        assert checkpoint.note == ""
        if index % 7 == 0:  # continue as a resumed run does
            store = CheckpointStore(tmp_path, most_pieces=most_pieces)
            store.load()
    live = CLIENTS * (5 * 4 + 8)
    stored = sum(path.stat().st_size for path in tmp_path.glob("clients-*"))
    assert stored < 2 * (2 * live + live) + 20 * 200  # two checkpoints and headers, never all 29 rounds


def test_save_writes_only_changed_clients(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, {}, {}, {"control": (np.arange(1000), LazyRows.of(torch.zeros(1000, 100)))})
    before = set(tmp_path.glob("clients-*"))
    store.save(2, {}, {}, {"control": (np.array([7]), LazyRows.of(torch.ones(1, 100)))})
    (new,) = set(tmp_path.glob("clients-*")) - before
    assert new.stat().st_size < 1000
    store.save(3, {}, {}, {"control": (np.array([], np.int64), LazyRows.of(torch.ones(0, 100)))})
    assert set(tmp_path.glob("clients-*")) == {*before, new}
    checkpoint = CheckpointStore(tmp_path).load()
    assert checkpoint is not None
    values = checkpoint.client_states["control"][1].tensor()
    assert values.sum().item() == 100
    assert values[7].sum().item() == 100


def test_lazy_rows_make_the_same_file_as_a_tensor(tmp_path: Path) -> None:
    values = torch.arange(7 * 6.0).reshape(7, 3, 2)
    whole = write_tensors(tmp_path / "whole", {"before": values[:2], "control": values})
    lazy = write_tensors(tmp_path / "lazy", {"before": values[:2], "control": LazyRows.of(values)})
    assert (lazy.size, lazy.crc32) == (whole.size, whole.crc32)
    assert (tmp_path / "lazy").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("merges", [False, True])
def test_client_states_are_written_in_blocks_and_each_row_once(tmp_path: Path, merges: bool) -> None:
    """So no checkpoint holds all client states in memory."""
    read: list[Tensor] = []
    values = torch.arange(40.0)[:, None].expand(40, 1 << 18)  # rows of a megabyte

    def take(places: Tensor) -> Tensor:
        read.append(places)
        return values[places]

    store = CheckpointStore(tmp_path, most_pieces=1)
    if merges:
        store.save(1, {}, {}, {"control": (np.array([3, 70]), LazyRows.of(values[[0, 0]] + 0.5))})
    store.save(2, {}, {}, {"control": (np.arange(40), LazyRows(tuple(values.shape), values.dtype, take))})
    assert torch.cat(read).tolist() == list(range(40))
    assert max(map(len, read)) <= BLOCK >> 20
    checkpoint = CheckpointStore(tmp_path).load()
    assert checkpoint is not None
    clients, saved = checkpoint.client_states["control"]
    assert clients.tolist() == [*range(40), *([70] if merges else [])]
    firsts = torch.cat([block[:, 0] for block in saved.blocks()]).tolist()
    assert firsts == [*range(40), *([0.5] if merges else [])]


def test_several_states_and_every_dtype_load_unchanged(tmp_path: Path) -> None:
    shared = torch.arange(12, dtype=torch.float64).reshape(3, 4)
    tensors = {
        "view": shared[1:],
        "transposed": shared.t(),
        "same": shared,
        "half": torch.ones(3, dtype=torch.bfloat16) / 3,
        "flags": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
        "count": torch.tensor(2**40),
        "nan": torch.tensor([math.nan, -0.0, math.inf]),
    }
    states = {
        "control": (np.array([9, 4]), LazyRows.of(torch.ones(2, 2, 3))),
        "dual/x": (np.array([4]), LazyRows.of(torch.tensor([2**40]))),
    }
    CheckpointStore(tmp_path).save(5, tensors, {"é": [1, {"a": None}]}, states)
    checkpoint = CheckpointStore(tmp_path).load()
    assert checkpoint is not None
    assert checkpoint.facts == {"é": [1, {"a": None}]}
    assert checkpoint.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        back = checkpoint.tensors[name]
        assert back.dtype == tensor.dtype
        assert back.shape == tensor.shape
        assert back.contiguous().view(-1).view(torch.uint8).equal(tensor.contiguous().view(-1).view(torch.uint8)), name
    assert checkpoint.client_states["control"][0].tolist() == [4, 9]
    assert checkpoint.client_states["dual/x"][1].tensor().tolist() == [2**40]


def test_loaded_tensors_do_not_depend_on_the_file(tmp_path: Path) -> None:
    file = write_tensors(tmp_path / "state.safetensors", {"parameters": torch.ones(1000)})
    tensors = read_tensors(tmp_path, file)
    (tmp_path / file.name).write_bytes(b"\0" * file.size)
    assert torch.equal(tensors["parameters"], torch.ones(1000))


def test_facts_that_are_not_json_are_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    with pytest.raises(TypeError, match="not JSON serializable"):
        store.save(1, {}, {"parameters": torch.ones(2)}, {})
    assert CheckpointStore(tmp_path).load() is None


def test_save_over_an_unloaded_checkpoint_fails_an_assertion(tmp_path: Path) -> None:
    save(CheckpointStore(tmp_path), 1)
    with pytest.raises(AssertionError, match="load"):
        save(CheckpointStore(tmp_path), 2)


def latest(folder: Path, kind: str) -> Path:
    return max(folder.glob(f"{kind}-*.safetensors"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("kind", ["state", "clients"])
def test_damaged_file_falls_back_to_the_checkpoint_before(
    tmp_path: Path, kind: str, damage: Callable[[Path], None]
) -> None:
    store = CheckpointStore(tmp_path)
    for index in (1, 2, 3):
        save(store, index)
    damaged = latest(tmp_path, kind)
    damage(damaged)
    store = CheckpointStore(tmp_path)
    checkpoint = store.load()
    assert_is_round(checkpoint, 2)
    assert checkpoint is not None
    assert "the last checkpoint cannot be used" in checkpoint.note
    assert damaged.name in checkpoint.note
    assert checkpoint.note.endswith("round 2's is used")
    save(store, 3)  # the run continues from there, and the damaged files do no harm
    assert_is_round(CheckpointStore(tmp_path).load(), 3)
    cut(latest(tmp_path, "state"))
    assert_is_round(CheckpointStore(tmp_path).load(), 2)


@pytest.mark.parametrize(
    "content", [None, b"", b'{"format": 1, "round_ind', b"[]", b'{"format": 1}', b"\xff\xfe", b'{"format": 9}']
)
def test_damaged_manifest_falls_back_to_the_checkpoint_before(tmp_path: Path, content: bytes | None) -> None:
    store = CheckpointStore(tmp_path)
    for index in (1, 2, 3):
        save(store, index)
    manifest = tmp_path / "manifest.json"
    manifest.unlink() if content is None else manifest.write_bytes(content)
    checkpoint = CheckpointStore(tmp_path).load()
    assert_is_round(checkpoint, 2)
    assert checkpoint is not None
    assert "manifest.json" in checkpoint.note


def test_error_names_the_damage_of_each_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 1)
    cut(latest(tmp_path, "state"))
    with pytest.raises(
        RunFolderError, match=r"holds no whole checkpoint: state-.*-000001\.safetensors is damaged: .* bytes"
    ):
        CheckpointStore(tmp_path).load()
    save(store, 2)
    cut(latest(tmp_path, "clients"))
    with pytest.raises(
        RunFolderError, match=r"clients-.*-000002\.safetensors is damaged.*; state-.*-000001\.safetensors is"
    ):
        CheckpointStore(tmp_path).load()


def test_save_removes_unneeded_files(tmp_path: Path) -> None:
    (tmp_path / "notes-by-hand.safetensors").touch()
    store = CheckpointStore(tmp_path)
    for index in range(1, 6):
        save(store, index)
    assert len(list(tmp_path.glob("state-*"))) == 2
    assert (tmp_path / "notes-by-hand.safetensors").exists()
    assert not list(tmp_path.glob(".*"))


class Killed(BaseException):
    """Simulates the end of the process."""


@pytest.mark.parametrize("most_pieces", [1, 16])
def test_stop_at_any_step_leaves_the_old_or_the_new_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_pieces: int
) -> None:
    """Stop before and after every fsync, rename and removal in turn."""
    outcomes = []
    for steps in range(100):
        folder = tmp_path / str(steps)
        store = CheckpointStore(folder, most_pieces=most_pieces)
        for index in range(1, 5):
            save(store, index)
        left = [steps]

        def stopping(real: Callable[..., object], left: list[int] = left) -> Callable[..., object]:
            def step(*arguments: object, **named: object) -> object:
                for moment in range(2):
                    left[0] -= 1
                    if left[0] < 0:
                        raise Killed
                    if moment == 0:
                        result = real(*arguments, **named)
                return result

            return step

        with monkeypatch.context() as patched:
            for owner, name in ((os, "fsync"), (os, "replace"), (Path, "unlink")):
                patched.setattr(owner, name, stopping(getattr(owner, name)))
            try:
                save(store, 5)
                finished = True
            except Killed:
                finished = False
        resumed = CheckpointStore(folder, most_pieces=most_pieces)
        checkpoint = resumed.load()
        assert checkpoint is not None
        outcomes.append(checkpoint.round_index)
        assert_is_round(checkpoint, 5 if finished else checkpoint.round_index)
        assert checkpoint.note == ""
        for index in range(checkpoint.round_index + 1, 8):
            save(resumed, index)
        assert_is_round(CheckpointStore(folder).load(), 7)
        save_after_interrupt(store, folder)
        if finished:
            break
    assert finished
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {4, 5}
    assert outcomes.count(4) >= 10


def save_after_interrupt(store: CheckpointStore, folder: Path) -> None:
    """The interrupted process may continue (after Ctrl-C) and save again."""
    if store.load() is not None:
        save(store, 8)
        assert_is_round(CheckpointStore(folder).load(), 8)


def test_store_interrupted_in_save_can_save_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 1)
    real = os.replace

    def replace_then_interrupt(source: Path, target: Path) -> None:
        real(source, target)
        if target.name == "manifest.json":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace_then_interrupt)
        with pytest.raises(KeyboardInterrupt):
            save(store, 2)
    clients = np.concatenate((changed_in(2), changed_in(3)))
    last = {int(c): 3 if c in changed_in(3) else 2 for c in clients}
    values = torch.stack([state_of(c, index) for c, index in last.items()])
    tensors = {"parameters": torch.full((7,), 3.0), "momentum": torch.tensor(-3)}
    store.save(3, tensors, {"rounds": 3, "best": math.inf}, {"control": (np.array(list(last)), LazyRows.of(values))})
    assert_is_round(CheckpointStore(tmp_path).load(), 3)


def test_refused_write_keeps_the_checkpoint_and_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 1)

    def full(handle: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RunFolderError, match=r"state-00000002-.*cannot be written: No space left on device"):
            save(store, 2)
    assert not list(tmp_path.glob(".*"))
    assert_is_round(CheckpointStore(tmp_path).load(), 1)
    save(store, 2)
    assert_is_round(CheckpointStore(tmp_path).load(), 2)


def test_impossible_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot be written"):
        CheckpointStore(tmp_path / "file" / "checkpoint")


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=30), st.integers(1, 16))
@settings(max_examples=100)
def test_merge_happens_when_due(sizes: list[int], most: int) -> None:
    first = first_to_merge(sizes, sum(sizes), most)
    if len(sizes) <= most:
        assert first is None
        return
    assert first is not None
    assert 0 <= first <= len(sizes) - 2
    assert all(sizes[index] > sum(sizes[index + 1 :]) for index in range(min(first, len(sizes) - 2)))
    assert first_to_merge(sizes, sum(sizes) // 2 - 1, most) == 0


def test_few_changed_clients_do_not_rewrite_all(tmp_path: Path) -> None:
    """With a large population and few changed clients, the bytes written stay near the bytes changed."""
    sizes, written = [100_000], 0
    for _ in range(500):
        sizes.append(10)
        first = first_to_merge(sizes, live=sum(sizes), most=16)
        if first is not None:
            sizes[first:] = [sum(sizes[first:])]
        written += sizes[-1]
        assert len(sizes) <= 16
    assert written < 6 * 500 * 10
