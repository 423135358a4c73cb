"""Checkpoints of earlier rounds in a run's folder, from which a run can be branched.

`checkpoints/round-00000010/` has the manifest and the files of the checkpoint after round 10. The files of a checkpoint
never change, so they are hard links to those of `checkpoint/`, or copies where the file system has no links: client
states that did not change between two kept checkpoints lie on the disk once.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from clients.core.errors import RunFolderError, UserError, listed
from server.record.checked.regular_files import is_link
from server.record.checkpoint import MANIFEST, Checkpoint, CheckpointStore
from server.record.files import sync_folder, temporary, writing
from server.record.kept.parameters import left_to_the_record
from server.record.kept.round_entries import RoundEntries


class CheckpointFolder(RoundEntries):
    """The kept checkpoints of one run.

    Args:
        path: the folder; made with its first checkpoint.

    Example:
        >>> import torch
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     store = CheckpointStore(Path(folder) / "checkpoint")
        ...     store.save(3, {"parameters": torch.ones(2)}, {}, {})
        ...     kept = CheckpointFolder(Path(folder) / "checkpoints")
        ...     kept.keep(store)
        ...     store.save(4, {"parameters": torch.zeros(2)}, {}, {})
        ...     kept.rounds(), kept.read(3).tensors["parameters"]
        ([3], tensor([1., 1.]))
    """

    folders = True

    def has_room(self, size: int, model: int) -> bool:
        """Return whether the disk has room for a checkpoint, beside what is left to the record.

        Args:
            size: bytes of the checkpoint.
            model: bytes of the model.
        """
        with writing(self.path.parent):
            return shutil.disk_usage(self.path.parent).free >= size + left_to_the_record(model)

    def keep(self, store: CheckpointStore) -> None:
        """Keep the last checkpoint of a store, unless its round is there already.

        Raises:
            RunFolderError: the system refused.
        """
        kept = store.last_round
        assert kept is not None, "a store with a checkpoint"
        folder = self.entry(kept)
        if folder.exists():
            return
        unfinished = temporary(folder)
        with writing(self.path):
            self.path.mkdir(exist_ok=True)
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            for name in store.last_files():
                _link(store.folder / name, unfinished / name)
            shutil.copyfile(store.folder / MANIFEST, unfinished / MANIFEST)  # its own: the store replaces this name
            sync_folder(unfinished)
            unfinished.rename(folder)
        sync_folder(self.path)

    def read(self, round_index: int) -> Checkpoint:
        """Return the checkpoint after a round.

        Raises:
            UserError: none of this round was kept.
            RunFolderError: it is damaged.
        """
        folder = self.entry(round_index)
        if not folder.is_dir():
            rounds = listed(map(str, self.rounds()), 12) or "none"
            raise UserError("round", f"{round_index} has no kept checkpoint", fix=f"Rounds that have one: {rounds}.")
        for place in (self.path, folder):
            if place.is_symlink():
                raise is_link(place)
        found = CheckpointStore(folder).load()
        if found is None or found.round_index != round_index:
            raise RunFolderError(str(folder), f"is damaged: it is not the checkpoint of round {round_index}")
        return found


def _link(file: Path, name: Path) -> None:
    """Give a file a second name, or copy it where the file system has no such links."""
    with suppress(OSError):
        os.link(file, name)
        return
    shutil.copyfile(file, name)
