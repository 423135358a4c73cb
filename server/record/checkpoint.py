"""Checkpoints that survive a kill at any moment: immutable files, and a manifest that is replaced atomically.

The manifest names the files of the checkpoint with their checksums, and has a checksum itself. A file gets its name
once it is complete, and never changes. The manifest is replaced last. Then files are removed that neither it nor the
previous manifest names. Pickle is never used.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from clients.core.arrays import I64
from clients.core.errors import RunFolderError
from clients.training.kept.lazy_rows import LazyRows
from server.record.checked.layouts import MANIFEST as MANIFEST_LAYOUT
from server.record.checked.regular_files import LARGEST_TEXT, read_regular
from server.record.checked.seals import UNLIKE, sealed_json, unsealed_json
from server.record.client_pieces import ClientStates, Piece, as_tensors, first_to_merge, from_tensors, merge
from server.record.files import sync_folder, whole_file, writing
from server.record.tensor_files import TensorFile, read_tensors, write_tensors

FORMATS = (1, 2)
"""Format 1 is format 2 without the manifest's checksum. The last one is written."""
_OURS = re.compile(r"(state|clients)-\d+-\d+\.safetensors")
MANIFEST, PREVIOUS = "manifest.json", "manifest.previous.json"


@dataclass(frozen=True)
class Checkpoint:
    """A run's state after a round.

    Attributes:
        round_index: the round.
        tensors: the server's state by name, on the CPU.
        facts: the facts given to `save`; tuples become lists.
        client_states: name of the state -> clients int64 [M] in increasing order, and their values [M, ...], which lie
            in the checkpoint's files until they are read.
        note: empty, or a sentence that explains why this is not the last checkpoint written.
    """

    round_index: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    client_states: dict[str, tuple[I64, LazyRows]]
    note: str = ""


@dataclass(frozen=True)
class _Manifest:
    """The content of manifest.json. `serial` grows with every save, so no file name is used twice."""

    round_index: int
    serial: int
    facts: dict[str, Any]
    state: TensorFile
    pieces: list[Piece] = field(default_factory=list)

    def to_json(self) -> bytes:
        # Python's own JSON with its nan and infinity: facts must load unchanged to the bit.
        return sealed_json(json.dumps({"format": FORMATS[-1], **asdict(self)})).encode()

    @classmethod
    def read(cls, path: Path) -> _Manifest:
        """Read a manifest.

        Raises:
            RunFolderError: it is damaged, or has another format.
        """
        raw = read_regular(path, most=LARGEST_TEXT, inside=path.parents[1])
        content, fits = unsealed_json(raw)
        if fits is False:
            raise RunFolderError(str(path), UNLIKE)
        try:
            table = json.loads(content)
            version = table.pop("format")
            if version in FORMATS:
                MANIFEST_LAYOUT(table)
                table["state"] = TensorFile(**table["state"])
                table["pieces"] = [Piece(TensorFile(**piece["file"]), piece["rows"]) for piece in table["pieces"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunFolderError(str(path), "is damaged: it is not a complete manifest") from error
        if version not in FORMATS:
            known = " and ".join(map(str, FORMATS))
            raise RunFolderError(str(path), f"has format {version!r:.20}, and this version of fedscape reads {known}")
        if version > 1 and fits is None:
            raise RunFolderError(str(path), "is damaged: it lost its checksum")
        try:
            manifest = cls(**table)
        except TypeError as error:
            raise RunFolderError(str(path), "is damaged: it is not a complete manifest") from error
        if any(not _OURS.fullmatch(name) for name in manifest.files()):
            raise RunFolderError(str(path), "is damaged: it names files that are no checkpoint's")
        return manifest

    def files(self) -> set[str]:
        return {self.state.name, *(piece.file.name for piece in self.pieces)}


class CheckpointStore:
    """The checkpoints of one run: the last, and the one before it in case the last is damaged.

    A store on a folder with a checkpoint must `load` it before the first `save`.

    Args:
        folder: the folder; made if it does not exist.
        most_pieces: the most files of client states before some are merged.

    Raises:
        RunFolderError: the folder cannot be made.

    Example:
        >>> import torch
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     store = CheckpointStore(Path(folder))
        ...     store.save(3, {"parameters": torch.ones(2)}, {"seed": 7}, {})
        ...     checkpoint = CheckpointStore(Path(folder)).load()
        >>> checkpoint.round_index, checkpoint.tensors["parameters"], checkpoint.facts
        (3, tensor([1., 1.]), {'seed': 7})
    """

    def __init__(self, folder: Path, *, most_pieces: int = 16) -> None:
        self.folder, self.most_pieces = folder, most_pieces
        self._manifest: _Manifest | None = None
        self._serial = 0
        self._clients: dict[str, I64] = {}  # clients that have a state
        self._row_bytes: dict[str, int] = {}
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def save(
        self, round_index: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], changed_clients: ClientStates
    ) -> None:
        """Commit the state after a round. A kill during the call leaves the previous checkpoint or this one.

        Args:
            round_index: the round.
            tensors: the server's whole state by name.
            facts: everything else (JSON): counters, seeds, the scenario's fingerprint. Keys are strings.
            changed_clients: the client states that changed since the last `save` that returned.

        Raises:
            RunFolderError: the system refused, or an older file to be merged is damaged. The previous checkpoint is
                kept.
        """
        assert self._manifest or not (self.folder / MANIFEST).exists(), "load() the checkpoint before adding to it"
        changed = {name: pair for name, pair in changed_clients.items() if len(pair[0])}
        self._serial += 1
        stem = f"{round_index:08d}-{self._serial:06d}.safetensors"
        state = write_tensors(self.folder / f"state-{stem}", tensors)
        known = {name: np.union1d(self._clients.get(name, clients), clients) for name, (clients, _) in changed.items()}
        self._clients = self._clients | known  # too many if this save fails, which only delays a merge
        self._row_bytes |= {name: values.row_bytes for name, (_, values) in changed.items()}
        pieces = self._add_piece(f"clients-{stem}", changed)
        self._commit(_Manifest(round_index, self._serial, dict(facts), state, pieces))

    def load(self, problem_of: Callable[[int, Mapping[str, Any]], str] = lambda *_: "") -> Checkpoint | None:
        """Return the last checkpoint; where it cannot be used, the previous one with a `note`.

        Args:
            problem_of: (round, facts) -> why a checkpoint cannot be used, as a clause; empty where it can.

        Returns:
            The checkpoint; None where none was committed.

        Raises:
            RunFolderError: there were checkpoints, and none can be used.
        """
        problems: list[str] = []
        for name in (MANIFEST, PREVIOUS):
            path = self.folder / name
            if not os.path.lexists(path):
                problems += [f"{name} is missing"] * (name == MANIFEST)
                continue
            try:
                manifest = _Manifest.read(path)
                problem = problem_of(manifest.round_index, manifest.facts)
                if not problem:
                    return self._read(manifest, problems)
                problems.append(problem)
            except RunFolderError as error:
                problems.append(f"{Path(error.field).name} {error.problem}")
        if problems == [f"{MANIFEST} is missing"]:
            return None
        fix = "The rounds recorded so far can still be read. Run the scenario again to train further."
        listed = "; ".join(dict.fromkeys(problems))
        raise RunFolderError(str(self.folder), f"holds no whole checkpoint: {listed}", fix=fix)

    @property
    def last_round(self) -> int | None:
        """The round of the last checkpoint that this store wrote or read; None without one."""
        return self._manifest.round_index if self._manifest is not None else None

    def last_files(self) -> list[str]:
        """Return the names of the files of that checkpoint, beside its manifest."""
        return sorted(self._manifest.files()) if self._manifest is not None else []

    @staticmethod
    def last_round_in(folder: Path) -> int | None:
        """Return the round of the last checkpoint with a whole manifest; None without one. It reads no tensors."""
        for name in (MANIFEST, PREVIOUS):
            with suppress(RunFolderError):
                return _Manifest.read(folder / name).round_index
        return None

    @staticmethod
    def rounds_in(folder: Path) -> list[int]:
        """Return the rounds of the checkpoints with a whole manifest, in order. It reads no tensors."""
        found = set()
        for name in (MANIFEST, PREVIOUS):
            with suppress(RunFolderError):
                found.add(_Manifest.read(folder / name).round_index)
        return sorted(found)

    def _read(self, manifest: _Manifest, problems: list[str]) -> Checkpoint:
        """Read the files of a manifest, and continue from it."""
        tensors = read_tensors(self.folder, manifest.state)
        states = merge([self._piece(piece) for piece in manifest.pieces])
        self._serial = max([manifest.serial, *(int(path.stem.rpartition("-")[2]) for path in self._ours())])
        self._manifest = manifest
        self._clients = {name: clients for name, (clients, _) in states.items()}
        self._row_bytes = {name: values.row_bytes for name, (_, values) in states.items()}
        note = ""
        if problems:
            note = f"the last checkpoint cannot be used ({'; '.join(problems)}); round {manifest.round_index}'s is used"
        return Checkpoint(manifest.round_index, tensors, manifest.facts, states, note)

    def _ours(self) -> list[Path]:
        """Return all tensor files that a store wrote here, whether or not a manifest names them."""
        return [path for path in self.folder.iterdir() if _OURS.fullmatch(path.name)]

    def _piece(self, piece: Piece) -> dict[str, tuple[I64, LazyRows]]:
        try:
            return from_tensors(read_tensors(self.folder, piece.file, mapped=True))
        except KeyError as error:
            raise RunFolderError(str(self.folder / piece.file.name), f"is damaged: it lacks {error}") from error

    def _size(self, rows: Mapping[str, int]) -> int:
        """Return the bytes of these numbers of rows of each state."""
        return sum(count * (8 + self._row_bytes[name]) for name, count in rows.items())

    def _add_piece(self, name: str, changed: ClientStates) -> list[Piece]:
        """Write the changed clients, merged with older pieces where a merge is due; return the new list."""
        old = self._manifest.pieces if self._manifest else []
        if not changed:
            return old
        rows = {state: len(clients) for state, (clients, _) in changed.items()}
        live = self._size({state: len(clients) for state, clients in self._clients.items()})
        sizes = [*(self._size(piece.rows) for piece in old), self._size(rows)]
        first = first_to_merge(sizes, live, self.most_pieces)
        if first is not None:
            changed = merge([*(self._piece(piece) for piece in old[first:]), changed])
            old = old[:first]
        file = write_tensors(self.folder / name, as_tensors(changed))
        return [*old, Piece(file, {state: len(clients) for state, (clients, _) in changed.items()})]

    def _commit(self, manifest: _Manifest) -> None:
        """Make `manifest` current and the current one previous; then remove files that neither names."""
        sync_folder(self.folder)
        if self._manifest:
            _replace(self.folder / PREVIOUS, self._manifest)
        _replace(self.folder / MANIFEST, manifest)
        sync_folder(self.folder)
        needed = manifest.files() | (self._manifest.files() if self._manifest else set())
        self._manifest = manifest
        for path in [*self._ours(), *self.folder.glob(".*.tmp")]:
            if path.name not in needed:
                with suppress(OSError):  # a leftover file does no harm
                    path.unlink()


def _replace(path: Path, manifest: _Manifest) -> None:
    with whole_file(path) as file:
        file.write(manifest.to_json())
