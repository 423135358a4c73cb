"""Client states on a node, in files stamped by round, so that a run which goes on from a checkpoint finds them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from flwr.app import ArrayRecord, RecordDict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from clients.core.errors import StrategyError
from clients.flower.codec import decode_vectors, encode_vectors

STATE = "fedscape"
"""The record of `context.state` that holds the client state where the message names no run."""
_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class StoredStates:
    """The states of a run's clients: `<folder>/<run>/<client>/<round>.safetensors`.

    The server names the round whose state a client goes on from, so that an update which the server did not count
    leaves no trace. Of older states, the node keeps what a run needs that goes on from the server's checkpoint.

    Args:
        folder: the node's folder for states.
        run: the run's name, hashed into the name of a folder: it comes from another machine.
    """

    folder: Path
    run: str

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder / hashlib.blake2b(self.run.encode(), digest_size=12).hexdigest()

    def read(self, client: int, stamp: int, *, most: int) -> dict[str, Tensor] | None:
        """Return a client's vectors after round `stamp`; None where the node does not have them.

        Raises:
            StrategyError: the file cannot be read, or has more than `most` bytes.
        """
        file = self.path / str(client) / f"{stamp}{_SUFFIX}"
        if not file.exists():
            return None
        try:
            if (size := file.stat().st_size) > most:
                problem = f"{file.name} of client {client} has {size:,} bytes, and at most {most:,} are expected"
                raise StrategyError("states", problem, fix="Delete the folder of states: another program wrote there.")
            return load_file(file)
        except (OSError, SafetensorError) as error:
            raise StrategyError("states", f"{file.name} of client {client} cannot be read: {error}") from error

    def write(self, client: int, round_index: int, vectors: Mapping[str, Tensor], *, checkpoint: int) -> None:
        """Write a client's vectors after a round; drop those that no checkpoint from round `checkpoint` on needs.

        Raises:
            StrategyError: they cannot be written, such as on a full disk; the states before stay.
        """
        folder = self.path / str(client)
        file = folder / f"{round_index}{_SUFFIX}"
        part = file.with_suffix(f".{os.getpid()}.part")
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            save_file({name: vector.contiguous() for name, vector in vectors.items()}, part)
            part.replace(file)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                part.unlink()
            problem = f"of client {client} cannot be written in {self.folder}: {error}"
            raise StrategyError("states", problem, fix="Make room there, or name another folder: states=...") from error
        stamps = sorted(int(f.stem) for f in folder.glob(f"*{_SUFFIX}") if f.stem.isdigit())
        needed = max((s for s in stamps if s <= checkpoint), default=-1)
        for stamp in stamps:
            if stamp < needed:
                (folder / f"{stamp}{_SUFFIX}").unlink(missing_ok=True)

    def forget(self) -> None:
        """Delete the run's states: the run is over."""
        shutil.rmtree(self.path, ignore_errors=True)


def read_memory(memory: RecordDict, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the vectors in `context.state`."""
    held = memory.array_records.get(STATE, ArrayRecord())
    return decode_vectors(held, held, dtype)


def write_memory(memory: RecordDict, vectors: Mapping[str, Tensor]) -> None:
    """Keep vectors in `context.state`."""
    memory[STATE] = encode_vectors(vectors)
