"""Client states in pieces: each checkpoint adds a piece with the changed clients; pieces are merged when due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import I64
from server.record.tensor_files import TensorFile

ClientStates = Mapping[str, tuple[I64, Tensor]]
"""Name of the state -> clients int64 [K], each once, and their values [K, ...]."""

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


def as_tensors(states: ClientStates) -> dict[str, Tensor]:
    """Return client states as the named tensors of one file."""
    named: dict[str, Tensor] = {}
    for name, (clients, values) in states.items():
        assert len(clients) == len(values) == len(np.unique(clients)), f"{name}: one row a client, each client once"
        named[name + _CLIENTS] = torch.from_numpy(np.ascontiguousarray(clients, np.int64))
        named[name + _VALUES] = values
    return named


def from_tensors(named: Mapping[str, Tensor]) -> dict[str, tuple[I64, Tensor]]:
    """Reverse `as_tensors`."""
    names = [name.removesuffix(_CLIENTS) for name in named if name.endswith(_CLIENTS)]
    return {name: (named[name + _CLIENTS].numpy(), named[name + _VALUES]) for name in names}


def merge(pieces: Sequence[ClientStates]) -> dict[str, tuple[I64, Tensor]]:
    """Return each client's state from the last piece that has it, clients in increasing order.

    Args:
        pieces: oldest first; a state has the same shape and dtype in all of them.

    Example:
        >>> old = {"control": (np.array([5, 2]), torch.tensor([50.0, 20.0]))}
        >>> new = {"control": (np.array([2]), torch.tensor([21.0]))}
        >>> merge([old, new])
        {'control': (array([2, 5]), tensor([21., 50.]))}
    """
    return {
        name: _latest([piece[name] for piece in pieces if name in piece])
        for name in dict.fromkeys(name for piece in pieces for name in piece)
    }


def _latest(pieces: list[tuple[I64, Tensor]]) -> tuple[I64, Tensor]:
    """Merge one state."""
    newest_first = np.concatenate([clients for clients, _ in pieces])[::-1]
    merged, position = np.unique(newest_first, return_index=True)
    rows = len(newest_first) - 1 - position  # index of each client's last value among all rows, oldest first
    like = pieces[0][1]
    values = torch.empty((len(merged), *like.shape[1:]), dtype=like.dtype)
    start = 0
    for clients, piece in pieces:
        assert (piece.shape[1:], piece.dtype) == (like.shape[1:], like.dtype), "a client state keeps its shape"
        mine = np.flatnonzero((rows >= start) & (rows < start + len(clients)))
        values[torch.from_numpy(mine)] = piece.detach().cpu()[torch.from_numpy(rows[mine] - start)]
        start += len(clients)
    return merged, values


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
    if sum(sizes) > 2 * live:
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
