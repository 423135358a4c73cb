"""Starts Flower's programs on nodes by forking: each imports Flower, which takes a second or two of a processor.

Run as `python -m simulator.federate.forked_programs FOLDER SECONDS`. It has imported what the programs import. Where
Flower runs one of them, the stand-in that `write_programs` made passes its arguments, environment and output to this
process, which forks: the fork runs Flower's own program. The stand-in waits for it, ends as it ends, and where the
stand-in is killed, so is the fork. Without this process it runs Flower's program itself.
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
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from clients.service.owner import FORKED_FOR
from clients.service.place import peer
from simulator.federate.flower_commands import exit_code_of
from simulator.federate.short_waits import shorten_looks, shorten_retries

PROGRAMS = ("flwr-clientapp", "flower-superexec", "flower-supernode")
"""What is forked: the ClientApp for each message, and the two programs of each node."""
Programs = Mapping[str, Callable[[], object]]
SOCKET = "socket"
"""The socket's name, in the folder of the programs. A socket's path has at most 107 bytes; a handle's name is short."""
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
_SCRIPT = """#!/bin/sh
'''exec' {python} -I -S "$0" "$@"
' '''
import os, socket, sys
name, real, folder = {name!r}, {real!r}, {folder!r}
link = socket.socket(socket.AF_UNIX)
try:
    link.connect(f"/proc/self/fd/{{os.open(folder, os.O_PATH)}}/{socket}")
except OSError:
    os.execv(real, [real, *sys.argv[1:]])
words = b"\\0".join(os.fsencode(word) for word in [name, *sys.argv[1:]])
variables = b"\\0".join(name + b"=" + value for name, value in os.environb.items())
size = b"".join(len(part).to_bytes({length}, "little") for part in (words, variables))
socket.send_fds(link, [size], range({outputs}))
link.sendall(words + variables)
code = link.recv(1)
sys.exit(code[0] if code else 1)
"""
"""Both a shell script and Python, since the line of an interpreter allows no space and no long path. With -I and -S
Python starts in a hundredth of a second."""


def write_programs(folder: Path) -> None:
    """Write the programs that Flower finds where `folder` is first in PATH; `main` makes its socket there."""
    for name in PROGRAMS:
        program, real = folder / name, str(Path(sys.executable).with_name(name))
        program.write_text(_SCRIPT.format(
            python=shlex.quote(sys.executable), name=name, real=real, folder=str(folder), socket=SOCKET, length=_LENGTH,
            outputs=_OUTPUTS,
        ))  # fmt: skip
        program.chmod(0o700)


def is_ready(folder: Path) -> bool:
    """Return whether the programs of a folder can be forked."""
    return (folder / SOCKET).exists()


class _Forker:
    """Forks a process for each program that connects."""

    def __init__(self, listener: socket.socket, programs: Programs) -> None:
        self._listener, self._programs = listener, programs
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
            if words[0] not in self._programs:
                raise ValueError(f"{words[0]!r:.60} is not among them")
        except (OSError, ValueError) as error:
            print(f"a program could not be taken: {error}", file=sys.stderr, flush=True)
            link.close()
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, and there are none
            pid = os.fork()
        if pid == 0:
            _become(self._programs[words[0]], words, variables, outputs, asker)
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
        if link in self._running:
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
        os.environ[FORKED_FOR] = ",".join([*filter(None, [variables.get(FORKED_FOR)]), str(asker)])
        sys.argv = words
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = exit_code_of(run)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def serve(folder: Path, programs: Programs) -> None:
    """Fork for each run of a folder's programs, until this process is ended; the fork calls the program's function."""
    gc.collect()
    gc.freeze()  # a collection in a fork would copy the pages that it shares
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"/proc/self/fd/{os.open(folder, os.O_PATH)}/{SOCKET}")
    listener.listen(_BACKLOG)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Forker(listener, programs).serve()


def main(folder: str, seconds: str) -> None:
    """Import what the programs import, then fork for each; idle SuperNodes look every so many seconds."""
    os.environ.update(_ONE_THREAD)
    scripts = {entry.name: entry for entry in entry_points(group="console_scripts")}
    programs = {name: scripts[name].load() for name in PROGRAMS}
    import_module("simulator.apps")
    shorten_looks(float(seconds))
    shorten_retries()
    serve(Path(folder), programs)


if __name__ == "__main__":
    main(*sys.argv[1:])
