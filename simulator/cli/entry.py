"""Where the command starts: Ctrl-C while Python still imports ends it without a traceback."""

from __future__ import annotations

import sys


def main() -> int:
    """Import the command line, which takes a second or two, and run it."""
    try:
        from simulator.cli.main import main as command
    except KeyboardInterrupt:
        print("fedscape: interrupted before it began", file=sys.stderr)
        return 130
    return command()
