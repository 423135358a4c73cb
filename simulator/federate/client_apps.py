"""Starts ClientApps by forking: Flower starts a process for each message, and importing Flower takes it a second.

Run as `python -m simulator.federate.client_apps FOLDER`. It has imported what a ClientApp imports. Where Flower runs
`flwr-clientapp`, the program that `write_program` made passes its arguments, environment and output to this process,
which forks: the fork runs Flower's own `flwr-clientapp`. The program waits for it, ends as it ends, and where the
program is killed, so is the fork. Without this process it runs Flower's program itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import selectors
import shlex
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from clients.service.owner import FORKED_FOR
from clients.service.place import peer
from simulator.federate.short_waits import shorten_retries

PROGRAM = "flwr-clientapp"
SOCKET = "socket"
"""The socket's name, in the program's folder: a socket's path has at most 107 bytes, so it is named by a handle."""
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""NumPy's library would start threads, which a fork lacks. A fork has the variables of its program."""
_BACKLOG = 1024
_SECONDS = 10.0
"""A program says within so many seconds what it wants: it has nothing to compute before."""
_MOST_BYTES = 1 << 24
_LENGTH = 4
_OUTPUTS = 3
_DEATH_SIGNAL = 1
"""prctl's PR_SET_PDEATHSIG, Linux."""
_SCRIPT = """import os, socket, sys
real, folder, name = {real!r}, {folder!r}, {socket!r}
link = socket.socket(socket.AF_UNIX)
try:
    link.connect(f"/proc/self/fd/{{os.open(folder, os.O_PATH)}}/{{name}}")
except OSError:
    os.execv(real, [real, *sys.argv[1:]])
words = b"\\0".join(os.fsencode(word) for word in [{program!r}, *sys.argv[1:]])
variables = b"\\0".join(name + b"=" + value for name, value in os.environb.items())
size = b"".join(len(part).to_bytes({length}, "little") for part in (words, variables))
socket.send_fds(link, [size], range({outputs}))
link.sendall(words + variables)
code = link.recv(1)
sys.exit(code[0] if code else 1)
"""


def write_program(folder: Path) -> None:
    """Write the program that Flower finds as `flwr-clientapp` where `folder` is first in PATH.

    Args:
        folder: where to write it; `main` makes its socket there.
    """
    script = folder / f"{PROGRAM}.py"
    script.write_text(_SCRIPT.format(
        real=str(Path(sys.executable).with_name(PROGRAM)), folder=str(folder), socket=SOCKET, program=PROGRAM,
        length=_LENGTH, outputs=_OUTPUTS,
    ))  # fmt: skip
    program = folder / PROGRAM
    # -I and -S: without the modules of `site` Python starts in a hundredth of a second.
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -S {shlex.quote(str(script))} "$@"\n')
    program.chmod(0o700)


class _Forker:
    """Forks a process for each program that connects."""

    def __init__(self, listener: socket.socket, run: Callable[[], object]) -> None:
        self._listener, self._run = listener, run
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._running: dict[socket.socket, tuple[int, int]] = {}

    def serve(self) -> None:
        """Fork for whoever connects, until this process is ended."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._take()
                elif key.data is None:
                    self._abandoned(key.fileobj)
                else:
                    self._ended(key.data)

    def _take(self) -> None:
        link, _ = self._listener.accept()
        try:
            link.settimeout(_SECONDS)
            asker, user = peer(link)
            if user != os.getuid():
                raise ConnectionError("of another user")
            words, variables, outputs = _received(link)
        except (OSError, ValueError) as error:
            print(f"a program could not be taken: {error}", file=sys.stderr, flush=True)
            link.close()
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, and there are none
            pid = os.fork()
        if pid == 0:
            _become(self._run, words, variables, outputs, asker)
        for handle in outputs:
            os.close(handle)
        ending = os.pidfd_open(pid)
        self._running[link] = (pid, ending)
        self._selector.register(link, selectors.EVENT_READ)
        self._selector.register(ending, selectors.EVENT_READ, data=link)

    def _ended(self, link: socket.socket) -> None:
        pid, ending = self._running.pop(link)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._selector.unregister(ending)
        os.close(ending)
        with contextlib.suppress(KeyError):  # of a program that was killed
            self._selector.unregister(link)
        with contextlib.suppress(OSError):
            link.sendall(bytes([code if 0 <= code < 256 else 1]))
        link.close()

    def _abandoned(self, link: Any) -> None:
        """Kill the fork of a program that is gone; it says nothing after its request."""
        self._selector.unregister(link)
        os.kill(self._running[link][0], signal.SIGKILL)


def _received(link: socket.socket) -> tuple[list[str], dict[str, str], list[int]]:
    """Return arguments, environment and outputs of a program."""
    head, outputs, _, _ = socket.recv_fds(link, 2 * _LENGTH, _OUTPUTS)
    sizes = [int.from_bytes(head[start : start + _LENGTH], "little") for start in (0, _LENGTH)]
    if len(head) != 2 * _LENGTH or len(outputs) != _OUTPUTS or sum(sizes) > _MOST_BYTES:
        raise ValueError("its request is none")
    data = bytearray()
    while len(data) < sum(sizes):
        part = link.recv(sum(sizes) - len(data))
        if not part:
            raise ConnectionError("its request is not whole")
        data += part
    words, variables = (os.fsdecode(bytes(part)).split("\0") for part in (data[: sizes[0]], data[sizes[0] :]))
    return words, dict(variable.partition("=")[::2] for variable in variables), outputs


def _become(
    run: Callable[[], object], words: list[str], variables: dict[str, str], outputs: list[int], asker: int
) -> None:
    """Be the program, in the fork; end the process."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
        for number, handle in enumerate(outputs):
            os.dup2(handle, number)
        os.environ.clear()
        os.environ.update(variables)
        os.environ[FORKED_FOR] = str(asker)
        sys.argv = words
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = _code_of(run)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _code_of(run: Callable[[], object]) -> int:
    try:
        run()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def serve(folder: Path, run: Callable[[], object]) -> None:
    """Fork for each run of a folder's program, until this process is ended; the fork calls `run`."""
    gc.collect()
    gc.freeze()  # a collection in a fork would copy the pages that it shares
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"/proc/self/fd/{os.open(folder, os.O_PATH)}/{SOCKET}")
    listener.listen(_BACKLOG)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Forker(listener, run).serve()


def main(folder: str) -> None:
    """Import what a ClientApp imports, then fork for each."""
    os.environ.update(_ONE_THREAD)
    (script,) = (entry for entry in entry_points(group="console_scripts") if entry.name == PROGRAM)
    run = script.load()
    import_module("simulator.apps")
    shorten_retries()
    serve(Path(folder), run)


if __name__ == "__main__":
    main(sys.argv[1])
