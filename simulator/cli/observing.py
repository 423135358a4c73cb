"""The commands that put runs before people's eyes elsewhere: dashboards (list, write, push), observe."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from clients.core.errors import UserError

TOKEN = "FEDSCAPE_GRAFANA_TOKEN"
"""The environment variable that holds a Grafana service account's token."""

LIVE_PORT, RUNS_PORT, METRICS_PORT = 9090, 9099, 9464


def add_observing(verbs: Any) -> None:
    """Add the commands to the parser's.

    Args:
        verbs: what `ArgumentParser.add_subparsers` returned.
    """
    dashboards = verbs.add_parser("dashboards", help="Grafana dashboards: list, write to a folder, push to a server")
    actions = dashboards.add_subparsers(title="actions", required=True, metavar="ACTION")
    actions.add_parser("list", help="name the dashboards").set_defaults(command=_list)

    write = actions.add_parser("write", help="write their JSON", description="Write each dashboard's JSON to a folder.")
    write.add_argument("folder", type=Path, help="made if it is not there; files of the same names are replaced")
    write.set_defaults(command=_write)

    push = actions.add_parser(
        "push", help="set up a Grafana",
        description="Set up data sources, a folder, the dashboards and annotations; done again, it changes nothing.",
    )  # fmt: skip
    push.add_argument("--url", default="http://127.0.0.1:3000", help="where Grafana is served (default: %(default)s)")
    push.add_argument("--token", help=f"a service account's token; better in the environment, as {TOKEN}")
    push.add_argument("--folder", default="fedscape", help="title of the folder (default: %(default)s)")
    push.add_argument("--live-url", default=f"http://127.0.0.1:{LIVE_PORT}", metavar="URL",
                      help="the Prometheus that scrapes, as Grafana reaches it (default: %(default)s)")  # fmt: skip
    push.add_argument("--runs-url", default=f"http://127.0.0.1:{RUNS_PORT}", metavar="URL",
                      help="the Prometheus that keeps every round, likewise (default: %(default)s)")  # fmt: skip
    push.add_argument("--run", type=Path, action="append", default=[], dest="runs", metavar="RUN",
                      help="annotate what happened in this run; can be given again")  # fmt: skip
    push.add_argument("--timeout", type=float, default=10.0, help="seconds the server may stay silent (default: 10)")
    push.set_defaults(command=_push)
    _add_observe(verbs)


def _add_observe(verbs: Any) -> None:
    observe = verbs.add_parser(
        "observe", help="start a local Prometheus for runs",
        description="Start the locally installed prometheus twice: one scrapes a live run, one keeps every round.",
    )  # fmt: skip
    observe.add_argument("--live-port", type=int, default=LIVE_PORT, help="of the one that scrapes (%(default)s)")
    observe.add_argument("--runs-port", type=int, default=RUNS_PORT, help="of the one that keeps rounds (%(default)s)")
    observe.add_argument("--metrics-port", type=int, default=METRICS_PORT, help="the run's, to scrape (%(default)s)")
    observe.add_argument("--folder", type=Path, help="keep the data here (default: a temporary folder)")
    observe.set_defaults(command=_observe)


def _list(options: argparse.Namespace) -> int:
    from dashboards.grafana.push import committed

    for model in committed():
        print(f"{model['uid']:<28}{model['description']}")
    return 0


def _write(options: argparse.Namespace) -> int:
    from dashboards.grafana.push import COMMITTED

    try:
        options.folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(COMMITTED.glob("*.json")):
            shutil.copyfile(path, options.folder / path.name)
            print(options.folder / path.name)
    except OSError as error:
        raise UserError(str(options.folder), f"cannot be written to ({error.strerror})") from error
    return 0


def _push(options: argparse.Namespace) -> int:
    from dashboards.grafana.push import notes, push
    from dashboards.grafana.server import connect

    if options.timeout <= 0:
        raise UserError("--timeout", f"must be above 0, got {options.timeout:g}")
    token = options.token or os.environ.get(TOKEN, "")
    happened = [note for run in options.runs for note in notes(run)]
    with connect(options.url, token, timeout=options.timeout) as server:
        for what, done in push(
            server, title=options.folder, live_url=options.live_url, runs_url=options.runs_url, happened=happened
        ):
            print(f"{done:<10}{what}", flush=True)
    return 0


def _observe(options: argparse.Namespace) -> int:
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_ended_by_term())
            folder = options.folder
            if folder is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedscape-observe-")))
            _await_end(options, folder)
    except KeyboardInterrupt:
        return 0


def _await_end(options: argparse.Namespace, folder: Path) -> NoReturn:
    """Run both until Ctrl-C."""
    from dashboards.prometheus import RULES, live, running, runs

    rules = [str(RULES)] if RULES.is_file() else []
    roles = (live(options.live_port, scrape=options.metrics_port, rules=rules), runs(options.runs_port))
    with running(roles, folder) as alive:
        print(f"live  {roles[0].url}  scrapes a run with --metrics-port {options.metrics_port}, every second")
        print(f"runs  {roles[1].url}  keeps every round of a run with --remote-write {roles[1].url}/api/v1/write")
        kept = f"the data stays in {folder}" if options.folder else "the data goes with it: keep it with --folder"
        print(f"Ctrl-C stops both; {kept}", flush=True)
        while alive():
            time.sleep(0.5)
        raise UserError("prometheus", "one of them stopped", fix=f"Its log is in {folder}." if options.folder else "")


@contextlib.contextmanager
def _ended_by_term() -> Iterator[None]:
    """Let SIGTERM end it as Ctrl-C does, so that no Prometheus outlives it."""

    def ended(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, ended)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
