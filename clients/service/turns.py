"""Takes turns among the nodes of one machine: a message is answered when less than so many others are.

Fifty nodes that read data and train at once on two processors take as long as one after another, and meanwhile the
SuperLink gets no processor: Flower's requests pass their time limits.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedWriter
from pathlib import Path

TURNS = "FEDSCAPE_TURNS"
"""The variable with how many messages are answered at once, and a folder for their locks: "4:/tmp/turns"."""
_LOOK_SECONDS = 0.05


def setting(folder: Path, nodes: int) -> dict[str, str]:
    """Return the variable for some nodes of this machine; at most two messages for each processor, at least four."""
    most = max(4, 2 * (os.cpu_count() or 1))
    return {TURNS: f"{most}:{folder}"} if nodes > most else {}


@contextmanager
def turn() -> Iterator[None]:
    """Hold one of the turns, and wait for one; without the variable there is nothing to wait for.

    A turn is a lock on a file, so it ends with the process that holds it.
    """
    most, _, folder = os.environ.get(TURNS, "").partition(":")
    with ExitStack() as stack:
        paths = [Path(folder, f"turn-{number}") for number in range(int(most or 0))]
        files = [stack.enter_context(open(path, "ab", opener=_private)) for path in paths]
        while files and not any(map(_locked, files)):
            time.sleep(_LOOK_SECONDS)
        yield


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _locked(file: BufferedWriter) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
