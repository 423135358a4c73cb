"""Where a run's numbers go besides its record: the options of `run` and `resume`, and the command `export`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clients.core.errors import UserError
from server.metrics.timeline import CLOCKS

EVENTS = Path("runs/tensorboard")
SINKS = ("remote-write", "openmetrics", "tensorboard")


def add_sink_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that send a live run's numbers elsewhere."""
    sinks = parser.add_argument_group("watching it")
    sinks.add_argument("--metrics-port", type=int, metavar="N", help="serve /metrics there for Prometheus to scrape")
    sinks.add_argument("--metrics-host", default="127.0.0.1", metavar="HOST",
                       help="on this address; there is no login (default: %(default)s)")  # fmt: skip
    sinks.add_argument("--metrics-linger", type=float, default=15.0, metavar="SECONDS",
                       help="at the end, wait for a last scrape if there were any (default: %(default)g)")  # fmt: skip
    sinks.add_argument("--remote-write", metavar="URL", help="send every round to this receiver")
    sinks.add_argument("--remote-write-clock", choices=CLOCKS, default="round",
                       help="the time its samples carry (default: %(default)s)")  # fmt: skip
    sinks.add_argument("--tensorboard", action="store_true", help="write TensorBoard's event files")
    sinks.add_argument("--tensorboard-folder", type=Path, metavar="FOLDER",
                       help=f"write them in a folder of the run's own in this one (default: {EVENTS})")  # fmt: skip


@contextmanager
def sinks_of(options: argparse.Namespace) -> Iterator[list[object]]:
    """Make the observers that the options ask for, and let them finish.

    Raises:
        UserError: an option cannot be; before the run begins.
    """
    made: list[Any] = []
    if options.tensorboard or options.tensorboard_folder is not None:
        from server.sinks.tensorboard import TensorBoardWriter

        made.append(TensorBoardWriter(options.tensorboard_folder or EVENTS))
    remote = []
    if options.remote_write is not None:
        from server.sinks.remote_write import RemoteWriter

        remote.append(RemoteWriter(options.remote_write, clock=options.remote_write_clock, token=_token()))
        made += remote
    if options.metrics_port is not None:
        from server.sinks.prometheus import PrometheusExporter

        exporter = PrometheusExporter(
            options.metrics_port, host=options.metrics_host, sinks=remote, linger=options.metrics_linger
        )
        made.append(exporter)
        print(f"fedscape: {exporter.url} is served while the run lasts", file=sys.stderr)
    try:
        yield made
    except KeyboardInterrupt:
        raise  # at once: what was not sent is in the record
    except BaseException:
        _close(made)
        raise
    _close(made)


def _close(made: list[Any]) -> None:
    for sink in made:
        sink.close()


def add_export(verbs: Any) -> None:
    """Add the command `export`.

    Args:
        verbs: what `ArgumentParser.add_subparsers` returned.
    """
    export = verbs.add_parser(
        "export",
        help="send a recorded run elsewhere",
        description="Send a recorded run, finished or not: the same samples that it sent, or would have sent, live.",
    )
    export.add_argument("run", type=Path, help="the run's folder")
    export.add_argument("--to", choices=SINKS, required=True, help="remote-write: to --url; the others: to --out")
    export.add_argument("--url", help="the receiver, such as http://127.0.0.1:9099/api/v1/write")
    export.add_argument("--clock", choices=CLOCKS, default="round",
                        help="the time its samples carry (default: %(default)s)")  # fmt: skip
    export.add_argument("--out", type=Path, metavar="PATH",
                        help="openmetrics: a file, not standard output; tensorboard: not RUN/tensorboard")  # fmt: skip
    export.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    from server.sinks.export import read_recorded, to_openmetrics, to_remote_write, to_tensorboard, write_openmetrics

    recorded = read_recorded(options.run)
    if options.to == "remote-write":
        if not options.url:
            raise UserError("url", "is missing", fix="Such as --url http://127.0.0.1:9099/api/v1/write.")
        sent = to_remote_write(recorded, options.url, options.clock, token=_token()).sent
        print(f"sent {sent:,} samples of {len(recorded.lines):,} rounds")
    elif options.to == "tensorboard":
        folder = options.out or options.run / "tensorboard"
        to_tensorboard(recorded, folder)
        print(folder)
    elif options.out is not None:
        write_openmetrics(recorded, options.clock, options.out)
        print(options.out)
    else:
        sys.stdout.writelines(f"{line}\n" for line in to_openmetrics(recorded, options.clock))
    return 0


def _token() -> str | None:
    from server.sinks.receiver import TOKEN_VARIABLE

    return os.environ.get(TOKEN_VARIABLE)
