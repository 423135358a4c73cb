"""Hashes are of bits: equal bits have equal hashes, and one flipped bit changes the hash of its tensor alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clients.core.parameters import Layout
from clients.training.kept.lazy_rows import LazyRows
from clients.training.work import CohortUpdate, concatenate
from server.algorithms.state import ServerState
from server.certificate.certifier import Certifier, state_hashes
from server.certificate.hashing import in_hex, joined_hash, rows_hash, tensor_hash, update_hashes, vector_hashes

LAYOUT = Layout.of({"w": torch.zeros(2, 3), "b": torch.zeros(2)})
NOTHING = Layout.of({})


def update(*clients: int, width: int = 5, extras: bool = False) -> CohortUpdate:
    """Return an update whose rows follow from the clients."""
    draw = [torch.Generator().manual_seed(client) for client in clients]
    rows = torch.stack([torch.randn(width, generator=one) for one in draw])
    numbers = np.zeros(len(clients))
    whole = np.zeros(len(clients), np.int64)
    return CohortUpdate(
        clients=np.array(clients),
        params=rows,
        buffers=rows[:, :2] + 1,
        num_examples=whole,
        local_steps=whole,
        train_loss=numbers,
        train_errors=whole,
        client_drift=numbers,
        gradient_norm=numbers,
        extras={"control": rows + 2} if extras else {},
    )


def flipped(tensor: torch.Tensor, place: int, bit: int = 0) -> torch.Tensor:
    """Return a copy with one flipped bit."""
    copy = tensor.clone()
    copy.view(-1).view(torch.int32)[place] ^= 1 << bit
    return copy


@pytest.mark.parametrize("place", range(8))
@pytest.mark.parametrize("bit", [0, 22, 31])
def test_flipped_bit_changes_the_hash_of_its_tensor_alone(place: int, bit: int) -> None:
    flat = torch.linspace(-1, 1, 8)
    before, after = (vector_hashes("parameters", LAYOUT, v) for v in (flat, flipped(flat, place, bit)))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"parameters/w" if place < 6 else "parameters/b"}


def test_hashes_are_those_of_the_tensors_by_name() -> None:
    flat = torch.linspace(-1, 1, 8)
    found = vector_hashes("parameters", LAYOUT, flat)
    assert found == {"parameters/w": tensor_hash(flat[:6]), "parameters/b": tensor_hash(flat[6:])}
    assert vector_hashes("buffers", NOTHING, torch.zeros(0)) == {}


def test_hash_tells_signed_zeros_and_kinds_of_nan_apart() -> None:
    quiet = torch.tensor([float("nan")])
    assert len({tensor_hash(t) for t in (torch.zeros(1), -torch.zeros(1), quiet, flipped(quiet, 0))}) == 4


def test_hash_does_not_depend_on_strides() -> None:
    rows = torch.arange(12.0).reshape(3, 4)
    assert tensor_hash(rows.T.contiguous().T) == tensor_hash(rows)


@pytest.mark.parametrize("block", [4, 16, 1 << 20])
def test_rows_hash_does_not_depend_on_blocks(block: int) -> None:
    rows, clients = torch.arange(12.0).reshape(6, 2), np.arange(6)
    lazy = LazyRows.of(rows)

    class InBlocks(LazyRows):
        def blocks(self, most: int = block):  # type: ignore[no-untyped-def]
            return super().blocks(block)

    assert rows_hash(clients, InBlocks(lazy.shape, lazy.dtype, lazy.take)) == rows_hash(clients, lazy)
    assert rows_hash(clients[::-1].copy(), lazy) != rows_hash(clients, lazy)


@pytest.mark.parametrize("extras", [False, True])
def test_update_hash_does_not_depend_on_tiles(extras: bool) -> None:
    whole = update(1, 4, 6, 9, extras=extras)
    parts = concatenate([update(6, 9, extras=extras), update(1, 4, extras=extras)])
    assert (update_hashes(whole) == update_hashes(parts)).all()
    assert len(set(update_hashes(whole).tolist())) == 4


@pytest.mark.parametrize("part", ["params", "buffers", "control"])
def test_flipped_bit_of_an_update_changes_one_client(part: str) -> None:
    one, other = update(1, 4, 6, extras=True), update(1, 4, 6, extras=True)
    rows = other.extras[part] if part == "control" else getattr(other, part)
    rows[1].view(torch.int32)[1] ^= 1
    assert (update_hashes(one) != update_hashes(other)).tolist() == [False, True, False]


def test_hashes_survive_concatenation_only_if_every_part_has_them() -> None:
    one, other = update(1, 4), update(2)
    with_hashes = [replace(part, hashes=update_hashes(part)) for part in (one, other)]
    joined = concatenate(with_hashes)
    assert joined.hashes is not None
    assert (joined.hashes == update_hashes(joined)).all()
    assert concatenate([with_hashes[0], other]).hashes is None


def test_hex_has_sixteen_digits() -> None:
    assert in_hex(np.array([1, -2])) == ["0000000000000001", "fffffffffffffffe"]


def test_state_hash_covers_parameters_buffers_and_vectors() -> None:
    state = ServerState(3, torch.ones(8), torch.ones(1), {"momentum": torch.zeros(8)})
    layout = Layout.of({"mean": torch.zeros(1)})
    names = list(state_hashes(state, LAYOUT, layout))
    assert names == ["parameters/w", "parameters/b", "buffers/mean", "server/momentum"]
    certify = Certifier(LAYOUT, layout, None).certify
    hashes = {
        certify(state),
        certify(ServerState(3, flipped(state.params, 7), state.buffers, state.vectors)),
        certify(ServerState(3, state.params, flipped(state.buffers, 0), state.vectors)),
        certify(ServerState(3, state.params, state.buffers, {"momentum": flipped(torch.zeros(8), 2)})),
        certify(ServerState(3, state.params, state.buffers, {"velocity": torch.zeros(8)})),
    }
    assert len(hashes) == 5
    assert certify(state) == joined_hash(state_hashes(state, LAYOUT, layout))
