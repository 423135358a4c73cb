"""The start of the process: its streams are open, and Ctrl-C ends it without a traceback at any moment."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Run the command line as this process; return its exit code."""
    _open_streams()
    try:
        from simulator.cli.main import main as command

        return command()
    except KeyboardInterrupt:
        print("fedscape: interrupted before it began", file=sys.stderr)
        return 130
    finally:
        # The command is over: another Ctrl-C ends the process at once, with no traceback from the interpreter's exit.
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _open_streams() -> None:
    """Open a standard stream that the caller closed on the null device.

    Otherwise Python has none, and the next file that a run opens takes its number and gets what is printed.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is `number`
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))
