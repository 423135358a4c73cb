"""Client states in pieces: each checkpoint adds a piece with the changed clients; pieces are merged when due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import I64
from clients.training.kept.lazy_rows import LazyRows
from server.record.tensor_files import TensorFile

ClientStates = Mapping[str, tuple[I64, LazyRows]]
"""Name of the state -> clients int64 [K], each once, and their values [K, ...]."""

CHECKPOINT_COPIES = 2
"""The most that all pieces take, in multiples of the last values of all clients."""

_CLIENTS, _VALUES = "/clients", "/values"


@dataclass(frozen=True)
class Piece:
    """One file of client states.

    Attributes:
        file: the file.
        rows: name of the state -> number of clients with it in this file.
    """

    file: TensorFile
    rows: dict[str, int]


def as_tensors(states: ClientStates) -> dict[str, Tensor | LazyRows]:
    """Return client states as the named tensors of one file."""
    named: dict[str, Tensor | LazyRows] = {}
    for name, (clients, values) in states.items():
        assert len(clients) == len(values) == len(np.unique(clients)), f"{name}: one row a client, each client once"
        named[name + _CLIENTS] = torch.from_numpy(np.ascontiguousarray(clients, np.int64))
        named[name + _VALUES] = values
    return named


def from_tensors(named: Mapping[str, Tensor]) -> dict[str, tuple[I64, LazyRows]]:
    """Reverse `as_tensors`."""
    names = [name.removesuffix(_CLIENTS) for name in named if name.endswith(_CLIENTS)]
    return {name: (named[name + _CLIENTS].numpy().copy(), LazyRows.of(named[name + _VALUES])) for name in names}


def merge(pieces: Sequence[ClientStates]) -> dict[str, tuple[I64, LazyRows]]:
    """Return each client's state from the last piece that has it, clients in increasing order.

    Args:
        pieces: oldest first; a state has the same shape and dtype in all of them. Its rows are read when those of the
            result are.

    Example:
        >>> old = {"control": (np.array([5, 2]), LazyRows.of(torch.tensor([50.0, 20.0])))}
        >>> new = {"control": (np.array([2]), LazyRows.of(torch.tensor([21.0])))}
        >>> clients, values = merge([old, new])["control"]
        >>> clients, values.tensor()
        (array([2, 5]), tensor([21., 50.]))
    """
    return {
        name: _latest([piece[name] for piece in pieces if name in piece])
        for name in dict.fromkeys(name for piece in pieces for name in piece)
    }


def _latest(pieces: list[tuple[I64, LazyRows]]) -> tuple[I64, LazyRows]:
    """Merge one state."""
    newest_first = np.concatenate([clients for clients, _ in pieces])[::-1]
    merged, position = np.unique(newest_first, return_index=True)
    rows = len(newest_first) - 1 - position  # index of each client's last value among all rows, oldest first
    like, values = pieces[0][1], [piece for _, piece in pieces]
    for piece in values:
        assert (piece.shape[1:], piece.dtype) == (like.shape[1:], like.dtype), "a client state keeps its shape"

    def take(places: Tensor) -> Tensor:
        return _gathered(values, rows[places.numpy()])

    return merged, LazyRows((len(merged), *like.shape[1:]), like.dtype, take)


def _gathered(pieces: Sequence[LazyRows], rows: I64) -> Tensor:
    """Return rows of several pieces.

    Args:
        pieces: of the same shape but for the number of rows.
        rows: indices among the rows of all pieces, in their order, (K,).
    """
    out = torch.empty((len(rows), *pieces[0].shape[1:]), dtype=pieces[0].dtype)
    start = 0
    for piece in pieces:
        mine = np.flatnonzero((rows >= start) & (rows < start + len(piece)))
        if len(mine):
            out[torch.from_numpy(mine)] = piece.take(torch.from_numpy(rows[mine] - start))
        start += len(piece)
    return out


def first_to_merge(sizes: Sequence[int], live: int, most: int) -> int | None:
    """Return the index from which pieces are merged into one.

    A merge of all pieces each time would write all client states for a few changes. So a piece that is larger than all
    later ones together stays unchanged, and a state is rewritten at most about log2(number of checkpoints) times. Where
    more than half of all bytes are out of date, everything is merged.

    Args:
        sizes: bytes of each piece's values, oldest first, with the newest piece.
        live: bytes of the last values of all clients.
        most: the most pieces allowed.

    Returns:
        Index of the first piece to merge; None where no merge is due.

    Example:
        >>> first_to_merge([900, 10, 10, 10], live=920, most=3)
        1
        >>> first_to_merge([10, 10, 10], live=10, most=16)
        0
    """
    if sum(sizes) > CHECKPOINT_COPIES * live:
        return 0
    if len(sizes) <= most:
        return None
    rest = 0
    first = len(sizes) - 2
    for index in range(len(sizes) - 1, -1, -1):
        if sizes[index] <= rest:
            first = min(first, index)
        rest += sizes[index]
    return first
