"""A folder of a run with one entry for each of some earlier rounds, named after the round."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from server.record.files import reading, temporary, writing


class RoundEntries:
    """Names, lists and truncates the entries of one folder; subclasses write and read them.

    The name of an entry is `round-`, the round in at least eight digits, and `suffix`. What has other names is
    left alone.

    Args:
        path: the folder; made with its first entry.
    """

    suffix: ClassVar[str] = ""
    folders: ClassVar[bool] = False
    """Whether each entry is a folder, not a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entry(self, round_index: int) -> Path:
        """Return the place of a round's entry."""
        return self.path / f"round-{round_index:08d}{self.suffix}"

    def rounds(self) -> list[int]:
        """Return the rounds whose entries are there, in order.

        Raises:
            RunFolderError: the folder cannot be read.
        """
        if not self.path.is_dir():
            return []
        name = re.compile(rf"round-(\d{{8,}}){re.escape(self.suffix)}")
        is_one = Path.is_dir if self.folders else Path.is_file
        with reading(self.path):
            found = [name.fullmatch(entry.name) for entry in self.path.iterdir() if is_one(entry)]
        return sorted(int(match[1]) for match in found if match is not None)

    def truncate(self, last_round: int) -> None:
        """Remove the entries of rounds after `last_round`, which are played again, and unfinished ones.

        Raises:
            RunFolderError: the system refused.
        """
        for unfinished in self.path.glob(".*.tmp"):
            with suppress(OSError):
                _remove(unfinished)
        for round_index in self.rounds():
            if round_index > last_round:
                entry = self.entry(round_index)
                with writing(self.path):
                    entry.rename(temporary(entry))  # a kill leaves no half of an entry under its name
                    _remove(temporary(entry))


def _remove(entry: Path) -> None:
    """Remove a file, a link or a folder with all it has."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()
