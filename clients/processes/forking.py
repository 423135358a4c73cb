"""Worker processes on this machine, forked from the server's process: they hold its data and its model without a copy.

A forked process has one thread. OpenMP's threads of the forking thread are gone in it, and a parallel region that
looks for them would wait for ever. So the work runs in a new thread, which gets threads of its own. Locks that other
threads held at the fork stay locked: the work uses none of them, and a worker that does not come is left out.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress

_DEATH_SIGNAL = 1
"""prctl's PR_SET_PDEATHSIG, Linux."""


def can_fork() -> bool:
    """Return whether processes can be forked on this system."""
    return sys.platform == "linux"


def fork(body: Callable[[], object]) -> int:
    """Run `body` in a forked process, which ends with it, or when this process does; return its id.

    The process ignores Ctrl-C, which a terminal sends to all processes: the server decides.
    """
    parent = os.getpid()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: see above
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        gc.freeze()  # a collection would write to every object, and so copy the pages that it shares
        codes: list[int] = []
        thread = threading.Thread(target=lambda: codes.append(_code_of(body)), name="worker", daemon=True)
        thread.start()
        thread.join()
        code = codes[0]
    finally:
        os._exit(code)


def _code_of(body: Callable[[], object]) -> int:
    """Return the exit code of a process that runs `body`; an error is printed."""
    try:
        body()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    return 0


def exit_of(pid: int) -> str | None:
    """Return how a forked process ended, in words; None while it runs.

    Example:
        >>> pid = fork(lambda: None)
        >>> wait_for_exit(pid, 10.0)
        'ended'
    """
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # something else in this process has waited for it
        return "is gone"
    if not found:
        return None
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    code = os.WEXITSTATUS(status)
    return "ended" if code == 0 else f"ended with code {code}"


def wait_for_exit(pid: int, seconds: float) -> str | None:
    """Wait for the end of a forked process, at most some seconds; see `exit_of`."""
    until = time.monotonic() + seconds
    while (how := exit_of(pid)) is None and time.monotonic() < until:
        time.sleep(0.005)
    return how


def kill(pid: int) -> None:
    """Kill a process that this one has forked and not waited for."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
