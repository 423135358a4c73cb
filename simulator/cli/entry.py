"""The start and the end of the process: a closed output does not stop a run, and Ctrl-C leaves no traceback."""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Any, TextIO

from simulator.cli.exit_codes import EXIT_INTERRUPTED, EXIT_MISTAKE


def main() -> int:
    """Run the command line as this process; return its exit code."""
    output, _ = _lasting_streams()
    try:
        from simulator.cli.main import main as command

        code = command()
    except KeyboardInterrupt:
        print("fedscape: interrupted before the start", file=sys.stderr)
        code = EXIT_INTERRUPTED
    finally:
        # The command is over: another Ctrl-C ends the process at once, with no traceback from the interpreter's exit.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.stdout.flush()
    if output.error is None or isinstance(output.error, BrokenPipeError):  # `fedscape show | head -1` is no mistake
        return code
    print(f"fedscape: standard output: cannot be written: {output.error.strerror}", file=sys.stderr)
    return code or EXIT_MISTAKE


class LastingFile(io.FileIO):
    """An output file that never raises: it drops bytes that cannot be written, and keeps the first error.

    Without it, a run would stop when the reader of its output exits, or when the disk is full.
    """

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write as much as possible; return the number of bytes taken, which is all of them after an error."""
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes


def _lasting_streams() -> tuple[LastingFile, LastingFile]:
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # The caller closed this stream. The next file that the run opens would get its number and all printed text.
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is `number`
    output, errors = LastingFile(1, "w", closefd=False), LastingFile(2, "w", closefd=False)
    sys.stdout, sys.stderr = _text(output, sys.stdout), _text(errors, sys.stderr)
    return output, errors


def _text(file: LastingFile, like: TextIO | None) -> io.TextIOWrapper:
    """Return a text stream on a file, with the settings of the one it replaces."""
    encoding, on_error = (like.encoding, like.errors) if like is not None else ("utf-8", None)
    by_line = file.isatty() or file.fileno() == 2 or getattr(like, "write_through", False)  # as after python -u
    return io.TextIOWrapper(io.BufferedWriter(file), encoding=encoding, errors=on_error, line_buffering=by_line)
