"""One writer for each run folder: a second process that wants to write the record of a running run is refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clients.core.errors import RunFolderError


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
