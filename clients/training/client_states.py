"""Client states: named vectors that clients keep between rounds, staged until their round is finished."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import I64, Bool
from clients.training.kept.lazy_rows import LazyRows
from clients.training.kept.mapped_file import MappedFile
from clients.training.kept.row_table import RowTable
from clients.training.kept.slots import Slots

BUFFERS = "buffers"
"""The name of the state in which clients keep their own buffers, where `local.buffers` is "local"."""
KEPT_IN_MEMORY = 64 << 20
"""Bytes of each state that stay in memory; beyond, its rows are in a mapped file."""


@dataclass(frozen=True)
class _State:
    """A state by its name: the table of its rows, and which client has which."""

    slots: Slots
    table: RowTable


class ClientStates:
    """The vectors that clients keep between rounds: name -> client -> [P].

    `put` stages rows; `commit` makes them current; `rollback` drops them. `gather` always returns copies, so the
    current rows never change during a round. A state of more than `most_in_memory` bytes lies in a file without a
    name, in `folder`, and takes room for the clients that have had a row and for those of one round.

    Args:
        most_in_memory: bytes of each state that stay in memory; `KEPT_IN_MEMORY` by default.

    Attributes:
        folder: where files are made; the system's folder for temporary files unless set.
    """

    def __init__(self, *, most_in_memory: int | None = None) -> None:
        self.folder: Path | None = None
        self.most_in_memory = KEPT_IN_MEMORY if most_in_memory is None else most_in_memory
        self._states: dict[str, _State] = {}
        self._named: list[str] = []  # states with a committed row, in the order of the first

    def gather(self, name: str, clients: I64, width: int, dtype: torch.dtype) -> Tensor:
        """Return the clients' vectors [K, width]; zeros for a client that has none yet."""
        state = self._states.get(name)
        if state is None:
            return torch.zeros(len(clients), width, dtype=dtype)
        slots = state.slots.of(clients)
        known = slots >= 0
        found = state.table.read(torch.from_numpy(slots[known])).to(dtype)
        if known.all():
            return found
        places = torch.from_numpy(np.flatnonzero(known))
        return torch.zeros(len(clients), width, dtype=dtype).index_copy_(0, places, found)

    def has(self, name: str, clients: I64) -> Bool:
        """Return for each client whether it has a vector of that name, bool (K,)."""
        state = self._states.get(name)
        return (state.slots if state is not None else Slots()).has(clients)

    def put(self, name: str, clients: I64, rows: Tensor) -> None:
        """Stage new vectors [K, width] for clients, each once.

        Raises:
            RunFolderError: the file of a large state cannot grow. Nothing staged before is lost.
        """
        state = self._states.get(name)
        if state is None:
            table = RowTable(rows.shape[1], rows.dtype, most_in_memory=self.most_in_memory, open_file=self._file)
            state = self._states[name] = _State(Slots(), table)
        assert (rows.shape[1], rows.dtype) == (state.table.width, state.table.dtype), "a client state keeps its shape"
        slots = state.slots.stage(clients)
        state.table.reserve(int(slots.max(initial=-1)) + 1)
        state.table.write(torch.from_numpy(slots), rows)

    def staged(self) -> dict[str, tuple[I64, LazyRows]]:
        """Return the staged vectors by name, as clients in increasing order and rows, to be read before `commit`."""
        found = {}
        for name, state in self._states.items():
            clients, slots = state.slots.staged()
            if len(clients):
                found[name] = clients, _rows_at(state.table, torch.from_numpy(slots))
        return found

    def commit(self) -> dict[str, I64]:
        """Make the staged vectors current; return the changed clients by name."""
        changed = {name: state.slots.commit() for name, state in self._states.items()}
        changed = {name: clients for name, clients in changed.items() if len(clients)}
        self._named += [name for name in changed if name not in self._named]
        return changed

    def rollback(self) -> None:
        """Drop the staged vectors."""
        for state in self._states.values():
            state.slots.rollback()

    def names(self) -> list[str]:
        """Return the names of the vectors."""
        return list(self._named)

    def rows(self, name: str, clients: I64) -> Tensor:
        """Return the current vectors of clients that have one, [K, width]."""
        return self.lazy_rows(name, clients).tensor()

    def lazy_rows(self, name: str, clients: I64) -> LazyRows:
        """Return the current vectors of clients that have one, [K, width], to be read before the next `commit`."""
        state = self._states[name]
        slots = torch.from_numpy(state.slots.of(clients))
        assert not len(slots) or int(slots.min()) >= 0, "clients that have a row"
        return _rows_at(state.table, slots)

    @property
    def in_files(self) -> list[str]:
        """The names of the states that lie in files."""
        return [name for name, state in self._states.items() if not state.table.in_memory]

    def close(self) -> None:
        """Drop the states that lie in files; a second call does nothing."""
        for state in self._states.values():
            state.table.close()

    @property
    def place(self) -> Path:
        """The folder of new files."""
        return self.folder if self.folder is not None else Path(tempfile.gettempdir())

    def _file(self) -> MappedFile:
        return MappedFile(self.place)


def _rows_at(table: RowTable, slots: Tensor) -> LazyRows:
    """Return the rows at some slots of a table."""
    return LazyRows((len(slots), table.width), table.dtype, lambda places: table.read(slots[places]))
