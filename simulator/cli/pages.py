"""The commands that show runs on pages of our own: report, watch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

PORT = 8600


def add_pages(verbs: Any) -> None:
    """Add the commands to the parser's.

    Args:
        verbs: what `ArgumentParser.add_subparsers` returned.
    """
    report = verbs.add_parser(
        "report", help="write the page of one run, or of several side by side",
        description="Write one HTML file with everything in it: it opens from disk, without a network.",
    )  # fmt: skip
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder")
    report.add_argument("--out", type=Path, metavar="FILE",
                        help="default: report.html in the run's folder; of several, compare.html here")  # fmt: skip
    report.set_defaults(command=_report)

    watch = verbs.add_parser(
        "watch", help="a local page that lists runs and shows them as they grow",
        description="Serve a page on this machine alone; Ctrl-C ends it, and touches no run.",
    )  # fmt: skip
    watch.add_argument("runs", nargs="?", type=Path, metavar="RUNS_FOLDER",
                       help="the folder of runs, or one run's (default: runs)")  # fmt: skip
    watch.add_argument("--port", type=int, default=PORT, help="0 takes a free one (default: %(default)s)")
    watch.set_defaults(command=_watch)


def say_report(path: Path | None) -> None:
    """Print where a finished run's report is, as one more row of what was reached; nothing where there is none."""
    file = path / "report.html" if path is not None else None
    if file is not None and file.is_file():
        print(f"  {'report':<13}   {file}")


def _report(options: argparse.Namespace) -> int:
    from dashboards.report.report import write_report

    print(write_report(options.runs, options.out))
    return 0


def _watch(options: argparse.Namespace) -> int:
    from dashboards.watch.server import watch

    watch(options.runs, options.port, lambda words: print(f"fedscape: {words}", flush=True))
    return 0
