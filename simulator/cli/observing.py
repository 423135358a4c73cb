"""The commands for Prometheus and Grafana: observe, and dashboards (list, write, push)."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from clients.core.errors import UserError
from clients.core.shown.secrets import token_of

TOKEN = "FEDSCAPE_GRAFANA_TOKEN"
"""The environment variable that holds a Grafana service account's token."""
PLACE = f"Put it into {TOKEN}, or its file's path into {TOKEN}_FILE."

LIVE_PORT, RUNS_PORT, METRICS_PORT = 9090, 9099, 9464


@dataclass(frozen=True)
class PushOptions:
    """The Grafana to set up, and the addresses of its data sources.

    `token` is refused: every user of a machine can read command lines.
    """

    url: Annotated[str, typer.Option(metavar="URL", help="The address of Grafana.")] = "http://127.0.0.1:3000"
    token: Annotated[
        str | None,
        typer.Option(metavar="TOKEN", help=f"Refused: put it into {TOKEN}.", hidden=True),
    ] = None
    folder: Annotated[str, typer.Option(metavar="TITLE", help="The title of the folder in Grafana.")] = "fedscape"
    live_url: Annotated[
        str, typer.Option(metavar="URL", help="The Prometheus that scrapes, as Grafana reaches it.")
    ] = f"http://127.0.0.1:{LIVE_PORT}"
    runs_url: Annotated[
        str, typer.Option(metavar="URL", help="The Prometheus that keeps every round, as Grafana reaches it.")
    ] = f"http://127.0.0.1:{RUNS_PORT}"
    runs: Annotated[
        list[Path],
        typer.Option("--run", metavar="RUN", help="Annotate the events of this run. Repeatable."),
    ] = field(default_factory=list)
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait for an answer of the server.")] = (
        10.0
    )


def list_dashboards() -> None:
    """List the dashboards, one per line.

    Example:
    $ fedscape dashboards list
    """
    from dashboards.grafana.push import committed

    for model in committed():
        print(f"{model['uid']:<28}{model['description']}")


def write(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="The folder; created if missing. Files with the same names are replaced.",
            show_default=False,
        ),
    ],
) -> None:
    """Write each dashboard's JSON to a folder, for import or provisioning.

    Example:
    $ fedscape dashboards write grafana/
    """
    from dashboards.grafana.push import COMMITTED

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(COMMITTED.glob("*.json")):
            shutil.copyfile(path, folder / path.name)
            print(folder / path.name)
    except OSError as error:
        raise UserError(str(folder), f"cannot be written to ({error.strerror})") from error


def push(options: PushOptions) -> None:
    """Set up a Grafana: data sources, a folder, dashboards, annotations.

    Pushing again changes nothing: dashboards are matched by their uid.

    Examples:
    $ fedscape dashboards push --url http://127.0.0.1:3000
    $ fedscape dashboards push --run runs/first --run runs/second
    """
    from dashboards.grafana.push import notes_by_run
    from dashboards.grafana.push import push as set_up
    from dashboards.grafana.server import connect

    if options.timeout <= 0:
        raise UserError("--timeout", f"must be above 0, got {options.timeout:g}")
    for option, url in (("--live-url", options.live_url), ("--runs-url", options.runs_url)):
        if "@" in url:
            problem = "must not hold a login: Grafana shows the address of a data source to those who edit it"
            raise UserError(option, problem, fix="Give Grafana the login: Connections, Data sources, Basic auth.")
    if options.token is not None:
        problem = "is on the command line, which every user of this machine can read"
        raise UserError("--token", problem, fix=f"{PLACE} Make a new token: this one was shown.")
    token = grafana_token()
    runs = notes_by_run(options.runs)
    with connect(options.url, token, timeout=options.timeout) as server:
        for what, done in set_up(
            server, title=options.folder, live_url=options.live_url, runs_url=options.runs_url, runs=runs
        ):
            print(f"{done:<10}{what}", flush=True)


def grafana_token() -> str:
    """Return the token in the environment.

    Raises:
        UserError: there is none.
    """
    token = token_of(TOKEN)
    if token is None:
        raise UserError("token", "of Grafana is missing", fix=PLACE)
    return token


@dataclass(frozen=True)
class ObserveOptions:
    """The ports of both Prometheus servers, and the folder of their data."""

    live_port: Annotated[int, typer.Option(metavar="N", help="The port of the Prometheus that scrapes a live run.")] = (
        LIVE_PORT
    )
    runs_port: Annotated[int, typer.Option(metavar="N", help="The port of the Prometheus that keeps every round.")] = (
        RUNS_PORT
    )
    metrics_port: Annotated[int, typer.Option(metavar="N", help="The run's --metrics-port, to scrape.")] = METRICS_PORT
    folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep the data here.", show_default="a temporary folder")
    ] = None


def observe(options: ObserveOptions) -> None:
    """Start a local Prometheus for runs, until Ctrl-C.

    Starts the installed prometheus twice: one scrapes a live run,
    one keeps every round.

    Examples:
    $ fedscape observe
    $ fedscape observe --folder prometheus-data
    """
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        stack.enter_context(_ended_by_term())
        folder = options.folder
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedscape-observe-")))
        _run_until_end(options, folder)


def _run_until_end(options: ObserveOptions, folder: Path) -> NoReturn:
    """Run both servers until Ctrl-C."""
    from dashboards.prometheus import RULES, live, running, runs

    rules = [str(RULES)] if RULES.is_file() else []
    roles = (live(options.live_port, scrape=options.metrics_port, rules=rules), runs(options.runs_port))
    with running(roles, folder) as alive:
        print(f"live  {roles[0].url}  scrapes a run with --metrics-port {options.metrics_port}, every second")
        print(f"runs  {roles[1].url}  keeps every round of a run with --remote-write {roles[1].url}/api/v1/write")
        kept = f"the data stays in {folder}" if options.folder else "the data is temporary: keep it with --folder"
        print(f"Ctrl-C stops both; {kept}", flush=True)
        while alive():
            time.sleep(0.5)
        raise UserError("prometheus", "one of them stopped", fix=f"Its log is in {folder}." if options.folder else "")


@contextlib.contextmanager
def _ended_by_term() -> Iterator[None]:
    """Make SIGTERM stop the process as Ctrl-C does, so that both servers stop too."""

    def ended(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, ended)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
