"""The one writer of a run's folder: the observer that fills it, and the lock that refuses a second process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from clients.core.arrays import Array
from clients.core.errors import RunFolderError
from server.record.checked.seals import checksum
from server.record.client_table import ClientTable
from server.record.files import writing
from server.record.jsonlines import RoundWriter
from server.record.records import RunFolder


@contextmanager
def sole_writer(path: Path | None) -> Iterator[None]:
    """Hold a run's folder for writing. The system releases it when the process ends, however it ends.

    Args:
        path: the run's folder; None for a run without a record.

    Raises:
        RunFolderError: another run writes to the folder.
    """
    if path is None or sys.platform == "win32":
        yield
        return
    import fcntl

    folder = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fix = "Wait for its end, or stop it with Ctrl-C and resume it then."
            raise RunFolderError(str(path), "is still running: another process writes its record", fix=fix) from None
        except OSError:  # a file system without locks: nothing can be known
            pass
        yield
    finally:
        os.close(folder)


class Recorder:
    """The observer that fills a run's folder. It is critical: an error in it stops the run.

    Args:
        folder: a new folder, or one cut back with `truncate`.

    Attributes:
        clients: the rows by client and round; the round loop adds to it.
    """

    critical: ClassVar[bool] = True

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.clients = ClientTable(folder.clients)
        self._scores: ClientTable | None = None
        self._rounds, self._events = RoundWriter(folder.rounds), RoundWriter(folder.events)
        self._certificate: RoundWriter | None = None

    def add_scores(self, round_index: int, columns: Mapping[str, Array]) -> None:
        """Add the scores of the clients that evaluated the model of a round; see `ClientTable.add`."""
        self._scores = self._scores or ClientTable(self.folder.scores)
        self._scores.add(round_index, columns)

    def run_started(self, facts: Mapping[str, Any]) -> None:
        """Write environment.json."""
        self.folder.write_environment(facts)

    def round_finished(self, line: Mapping[str, Any]) -> None:
        """Append to rounds.jsonl."""
        self._rounds.append(line)

    def certified(self, line: Mapping[str, Any]) -> None:
        """Append to certificate.jsonl, before the round's line: a kill between both leaves a line that resume cuts."""
        self._certificate = self._certificate or RoundWriter(self.folder.certificate)
        self._certificate.append(line)

    def event(self, event: Mapping[str, Any]) -> None:
        """Append to events.jsonl."""
        self._events.append(event)

    def run_finished(self, outcome: Mapping[str, Any]) -> None:
        """Write the last client rows, then outcome.json."""
        self.sync()
        models = _checksums(self.folder.model) | _checksums(self.folder.best_model)
        self.folder.write_outcome({**outcome, "seals": self.heads() | models})

    def sync(self) -> None:
        """Sync the record to disk. Call it before a checkpoint, so that none is ahead of its record."""
        self.clients.flush()
        if self._scores is not None:
            self._scores.flush()
        self._rounds.sync()
        self._events.sync()
        if self._certificate is not None:
            self._certificate.sync()

    def heads(self) -> dict[str, str]:
        """Return the heads of the chains over the lines so far, by file. A checkpoint and the outcome keep them."""
        return {"rounds.jsonl": self._rounds.head.hex(), "events.jsonl": self._events.head.hex()}

    def close(self) -> None:
        """Close the files; a second call does nothing."""
        self._rounds.close()
        self._events.close()
        self.clients.close()
        if self._certificate is not None:
            self._certificate.close()
        if self._scores is not None:
            self._scores.close()


def _checksums(file: Path) -> dict[str, str]:
    """Return a file's checksum by its name; nothing where the file is absent."""
    if not file.is_file():
        return {}
    with writing(file):
        return {file.name: checksum(file.read_bytes())}
