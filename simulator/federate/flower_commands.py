"""Runs several commands of Flower's `flwr` in one process: starting Python for each would take seconds.

Run as `python -m simulator.federate.flower_commands FILE`. FILE is JSON: `address` (host, port) to wait for, `commands`
(lists of arguments), `results` (a file, which gets one JSON line for each command: its exit code and its output).
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TextIO

CONNECT_SECONDS = 60.0


class _Both(io.StringIO):
    """Keeps what is printed, and passes it on."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(text)
        self._stream.flush()
        return super().write(text)


def main(file: str) -> int:
    """Run the commands in order, up to the first that fails; return its exit code."""
    orders = json.loads(Path(file).read_text())
    run = _flwr()
    _wait_for(*orders["address"])
    with open(orders["results"], "a", encoding="utf-8") as results:
        for arguments in orders["commands"]:
            printed = _Both(sys.stdout)
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                code = exit_code_of(partial(run, arguments))
            results.write(json.dumps({"code": code, "output": printed.getvalue()[-4_000:]}) + "\n")
            results.flush()
            if code:
                return code
    return 0


def _flwr() -> Any:
    """Return Flower's command, as its console script runs it."""
    (script,) = (entry for entry in entry_points(group="console_scripts") if entry.name == "flwr")
    return script.load()


def exit_code_of(run: Callable[[], object]) -> int:
    """Call the function of a console script, which ends with SystemExit, and return the exit code of the script."""
    try:
        run()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def _wait_for(host: str, port: int) -> None:
    until = time.monotonic() + CONNECT_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection((host, port), 1.0):
            return
        time.sleep(0.1)
    raise SystemExit(f"nothing listens on {host}:{port} after {CONNECT_SECONDS:g} seconds")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
