"""The sinks of a run besides its record: the options of `run` and `resume`, and the command `export`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from clients.core.errors import UserError, require
from clients.core.shown.secrets import login_of, token_of
from server.metrics.timeline import Clock

EVENTS = Path("runs/tensorboard")
Sink = Literal["remote-write", "openmetrics", "tensorboard", "wandb", "mlflow"]
PANEL = "Export while it runs"
METRICS_PORT_VARIABLE = "FEDSCAPE_METRICS_PORT"
REMOTE_WRITE_VARIABLE = "FEDSCAPE_REMOTE_WRITE"


@dataclass(frozen=True)
class SinkOptions:
    """The sinks of a live run."""

    metrics_port: Annotated[
        int | None,
        typer.Option(metavar="N", help="Serve /metrics on this port for Prometheus to scrape.", rich_help_panel=PANEL),
    ] = None
    metrics_host: Annotated[
        str,
        typer.Option(metavar="HOST", help="Serve /metrics on this address; there is no login.", rich_help_panel=PANEL),
    ] = "127.0.0.1"
    metrics_names: Annotated[
        list[str],
        typer.Option(
            "--metrics-name",
            metavar="NAME",
            help="Serve /metrics also under this name of the machine; addresses and localhost are served. Repeatable.",
            rich_help_panel=PANEL,
        ),
    ] = field(default_factory=list)
    metrics_linger: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="At the end, wait this long for a last scrape, if there were any.",
            rich_help_panel=PANEL,
        ),
    ] = 15.0
    remote_write: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Send every round to this receiver.", rich_help_panel=PANEL),
    ] = None
    remote_write_clock: Annotated[
        Clock,
        typer.Option(
            metavar="CLOCK", help="The clock of the sent samples: round, simulated or wall.", rich_help_panel=PANEL
        ),
    ] = "round"
    tensorboard: Annotated[
        bool,
        typer.Option("--tensorboard", help="Write TensorBoard's event files.", rich_help_panel=PANEL),
    ] = False
    tensorboard_folder: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write event files in this folder, in a folder per run.",
            show_default=str(EVENTS),
            rich_help_panel=PANEL,
        ),
    ] = None
    wandb: Annotated[
        str | None,
        typer.Option(metavar="PROJECT", help="Log to this project of Weights & Biases.", rich_help_panel=PANEL),
    ] = None
    mlflow: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="Log to MLflow: a server's URL, or sqlite:///mlflow.db.", rich_help_panel=PANEL
        ),
    ] = None


def options_of(environment: Mapping[str, str] = os.environ) -> SinkOptions:
    """Return the sinks that environment variables name: a ServerApp has no command line.

    Args:
        environment: `FEDSCAPE_METRICS_PORT`, `FEDSCAPE_METRICS_HOST`, `FEDSCAPE_METRICS_NAME` (several with commas) and
            `FEDSCAPE_REMOTE_WRITE`; each acts as the option of its name, and an empty one as none.

    Raises:
        UserError: the port is not a number from 0 to 65535.

    Example:
        >>> options_of({"FEDSCAPE_METRICS_PORT": "9464", "FEDSCAPE_METRICS_NAME": "superlink"}).metrics_names
        ['superlink']
    """
    port = environment.get(METRICS_PORT_VARIABLE) or None
    wrong = f"must be a whole number from 0 to 65535, got {port!r}"
    require(port is None or (port.isdecimal() and int(port) <= 65535), METRICS_PORT_VARIABLE, wrong)
    names = environment.get("FEDSCAPE_METRICS_NAME", "").split(",")
    return SinkOptions(
        metrics_port=None if port is None else int(port),
        metrics_host=environment.get("FEDSCAPE_METRICS_HOST") or SinkOptions.metrics_host,
        metrics_names=[name.strip() for name in names if name.strip()],
        remote_write=environment.get(REMOTE_WRITE_VARIABLE) or None,
    )


@contextmanager
def sinks_of(options: SinkOptions) -> Iterator[list[object]]:
    """Create the observers of the options; at the end, let them send the rest.

    Raises:
        UserError: a sink cannot start. The run has not begun.
    """
    made: list[Any] = []
    if options.tensorboard or options.tensorboard_folder is not None:
        from server.sinks.tensorboard import TensorBoardWriter

        made.append(TensorBoardWriter(options.tensorboard_folder or EVENTS))
    made += _trackers(options)
    remote = []
    if options.remote_write is not None:
        from server.sinks.remote_write import RemoteWriter

        remote.append(RemoteWriter(_url(options.remote_write), clock=options.remote_write_clock, token=_token()))
        _warn_of_login("--remote-write", options.remote_write)
        made += remote
    if options.metrics_port is not None:
        from server.sinks.prometheus import PrometheusExporter

        exporter = PrometheusExporter(
            options.metrics_port,
            host=options.metrics_host,
            names=options.metrics_names,
            sinks=remote,
            linger=options.metrics_linger,
        )
        made.append(exporter)
        print(f"fedscape: {exporter.url} is served while the run lasts", file=sys.stderr)
    try:
        yield made
    except KeyboardInterrupt:
        raise  # without waiting: the record has the samples that were not sent
    except BaseException:
        _close(made)
        raise
    _close(made)


def _trackers(options: SinkOptions) -> list[object]:
    """Return the observers that log to Weights & Biases and MLflow.

    Raises:
        UserError: a package is not installed, or a target is empty.
    """
    if options.wandb is None and options.mlflow is None:
        return []
    from server.sinks.trackers.tracking import MLFLOW, WANDB, TrackerSink

    made: list[object] = []
    for tracker, target in ((WANDB, options.wandb), (MLFLOW, options.mlflow)):
        if target is not None:
            _warn_of_password(f"--{tracker.word}", target)
            made.append(TrackerSink(tracker, _target(tracker.word, target)))
    return made


def _target(field: str, target: str) -> str:
    """Return a project or a URI.

    Raises:
        UserError: it is empty.
    """
    fix = "Such as --wandb my-project." if field == "wandb" else "Such as --mlflow sqlite:///mlflow.db."
    require(bool(target.strip()), field, "must be a project" if field == "wandb" else "must be a URI", fix=fix)
    return target.strip()


def _warn_of_password(option: str, target: str) -> None:
    if "@" in target:
        fix = "MLflow reads MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        print(f"fedscape: {option} has a login, and every user of this machine can read it. {fix}", file=sys.stderr)


def _close(made: list[Any]) -> None:
    for sink in made:
        sink.close()


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.", show_default=False)],
    to: Annotated[
        Sink,
        typer.Option(
            metavar="SINK",
            help="The target: remote-write, openmetrics, tensorboard, wandb or mlflow.",
            show_default=False,
        ),
    ],
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="The receiver of remote-write, or the tracking URI of mlflow.")
    ] = None,
    project: Annotated[str | None, typer.Option(metavar="PROJECT", help="The project of wandb.")] = None,
    clock: Annotated[
        Clock, typer.Option(metavar="CLOCK", help="The clock of the samples: round, simulated or wall.")
    ] = "round",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The file of openmetrics, or the folder of tensorboard.",
            show_default="standard output, or RUN/tensorboard",
        ),
    ] = None,
) -> None:
    """Export a recorded run, finished or not.

    The samples are the same as those of a live run.

    Examples:
    $ fedscape export RUN --to remote-write --url http://HOST:9099/api/v1/write
    $ fedscape export RUN --to openmetrics --out run.om
    $ fedscape export RUN --to tensorboard
    $ fedscape export RUN --to mlflow --url sqlite:///mlflow.db
    """
    from server.sinks.export import (
        read_recorded,
        to_openmetrics,
        to_remote_write,
        to_tensorboard,
        to_tracker,
        write_openmetrics,
    )

    recorded = read_recorded(run)
    if to == "remote-write":
        if not url:
            raise UserError("url", "is missing", fix="Such as --url http://127.0.0.1:9099/api/v1/write.")
        target = _url(url)
        _warn_of_login("--url", url)
        sent = to_remote_write(recorded, target, clock, token=_token()).sent
        print(f"sent {sent:,} samples of {len(recorded.lines):,} rounds")
    elif to == "tensorboard":
        folder = out or run / "tensorboard"
        to_tensorboard(recorded, folder)
        print(folder)
    elif to in ("wandb", "mlflow"):
        from server.sinks.trackers.tracking import MLFLOW, WANDB

        tracker, field, place = (WANDB, "project", project) if to == "wandb" else (MLFLOW, "url", url)
        example = "--project my-project" if to == "wandb" else "--url sqlite:///mlflow.db"
        if not place:
            raise UserError(field, "is missing", fix=f"Such as {example}.")
        _warn_of_password(f"--{field}", place)
        print(to_tracker(recorded, tracker, place))
    elif out is not None:
        write_openmetrics(recorded, clock, out)
        print(out)
    else:
        sys.stdout.writelines(f"{line}\n" for line in to_openmetrics(recorded, clock))


def _url(url: str) -> str:
    """Return a receiver's URL with the login of the environment."""
    from server.sinks.receiver import LOGIN_VARIABLE, with_login

    return with_login(url, login_of(LOGIN_VARIABLE))


def _warn_of_login(option: str, url: str) -> None:
    """Say that a login in a URL on the command line is no secret on this machine.

    Raises:
        UserError: the URL is not valid.
    """
    from server.sinks.receiver import LOGIN_VARIABLE, Receiver

    if "@" in url and url != os.environ.get(REMOTE_WRITE_VARIABLE):
        Receiver(url).close()  # a URL that is malformed has an error of its own
        fix = f"Put user:password into {LOGIN_VARIABLE}, or its file's path into {LOGIN_VARIABLE}_FILE."
        print(f"fedscape: {option} has a login, and every user of this machine can read it. {fix}", file=sys.stderr)


def _token() -> str | None:
    from server.sinks.receiver import TOKEN_VARIABLE

    return token_of(TOKEN_VARIABLE)
