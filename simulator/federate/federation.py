"""A scenario run as a real federation on this machine: a SuperLink, SuperNodes, and the ServerApp among them."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tomli_w

from clients.core.errors import FedscapeError, UserError
from clients.core.shown.text import presentable
from clients.service.turns import setting
from server.record.files import folder_name
from server.rounds.observers import Observers
from simulator.federate.cert_checks import check_certs
from simulator.federate.cert_files import CertFolder
from simulator.federate.certs import make_certs
from simulator.federate.dealing import LOOPBACK, check_port, deal, free_ports
from simulator.federate.feed import FeedReader
from simulator.federate.forked_programs import is_ready, write_programs
from simulator.federate.nodes import Launcher, Nodes, Orders
from simulator.federate.processes import Processes, last_lines
from simulator.federate.short_waits import look_seconds
from simulator.federate.wanted import (
    Wanted,
    check_restarts,
    log_folder,
    new_folder,
    nodes_before,
    record_rest,
    scenario_of,
    write_facts,
)
from simulator.federate.workspace import (
    CONNECTION,
    environment,
    superlink_command,
    write_app,
    write_home,
)
from simulator.runs.building import Overrides, population_of
from simulator.scenario.sections import Scenario, to_toml

NODES = 3
"""SuperNodes where none are named, or fewer clients."""
WATCHED = "flwr-serverapp"
"""The program in which Flower runs the ServerApp."""
LOOK_SECONDS = 0.1
LEFT_SECONDS = 5.0
"""A ServerApp that has been gone for so long without a last word has failed."""
COME_SECONDS = 180.0
"""Flower must have started the ServerApp of a submitted run after so many seconds."""
SUPERLINK, COMMANDS, FORKER = "superlink", "flwr", "forker"
STOPPED = "federation_ended"
"""The kind of event of an error that ends the run."""


def federate(
    wanted: Wanted,
    *,
    observers: Sequence[object] = (),
    stop_asked: Callable[[], bool] = lambda: False,
    say: Callable[[str], object] = lambda line: None,
) -> tuple[Mapping[str, Any], Path]:
    """Run a scenario as a real federation; return its outcome and its folder.

    Args:
        wanted: what to run.
        observers: receive the moments of the run, as those of `simulate`.
        stop_asked: if it returns True, the run ends after its round and keeps its checkpoint.
        say: receives lines about the processes.

    Raises:
        UserError: an argument is not valid, a process could not be started, or the ServerApp failed.
        KeyboardInterrupt: `stop_asked` before the run had begun: there is nothing to keep.
    """
    scenario = scenario_of(wanted)
    if wanted.port is not None:
        check_port(wanted.port)
    clients = population_of(scenario, Overrides()).num_clients
    wished = wanted.nodes if wanted.nodes is not None else nodes_before(wanted)
    blocks = deal(clients, min(NODES, clients) if wished is None else wished)
    check_restarts(wanted.restarts)
    if wanted.certs is not None:
        checked = check_certs(wanted.certs, nodes=len(blocks), host=LOOPBACK)
        if checked.days_left() < 7:
            say(f"{checked.file} expires on {checked.expires:%Y-%m-%d %H:%M} UTC")
    record = wanted.resume or wanted.out or new_folder(scenario.name or "scenario")
    logs = log_folder(record, is_new=wanted.resume is None)
    write_facts(record, nodes=len(blocks))
    with ExitStack() as stack:
        private = Path(tempfile.mkdtemp(prefix="fedscape-federate-"))  # mode 0700
        stack.callback(shutil.rmtree, private, ignore_errors=True)
        certs = CertFolder(wanted.certs or make_certs(private / "certs", nodes=len(blocks), days=2).path)
        processes = stack.enter_context(Processes(WATCHED))
        processes.remove_at_end(private)
        run = _Federation(processes, private, certs, blocks, record, logs, wanted.port, wanted.restarts)
        say(f"starting a SuperLink and {len(blocks)} SuperNodes for {clients} clients; logs in {logs}")
        feed = FeedReader(private, Observers(observers))
        stack.callback(record_rest, record, feed)
        stack.callback(processes.close)  # the ServerApp writes no more
        try:
            outcome = run.play(scenario, feed, stop_asked, resume=wanted.resume)
        except FedscapeError as error:
            if feed.started:
                feed.note(STOPPED, str(error))
            raise
    return outcome, record


class _Federation:
    """The processes of one run: starts them, and watches until the ServerApp has ended."""

    def __init__(
        self, processes: Processes, private: Path, certs: CertFolder, blocks: Sequence[range], record: Path, logs: Path,
        port: int | None, restarts: int,
    ) -> None:  # fmt: skip
        self._processes, self._private, self._certs = processes, private, certs
        self._record, self._logs = record.resolve(), logs
        self._port = port or free_ports(1)[0]
        self._programs = private / "bin"
        self._programs.mkdir()
        write_programs(self._programs)
        self._env = environment(write_home(private, self._port, certs), self._programs, nodes=len(blocks))
        self._env |= setting(self._programs, len(blocks))
        self._launcher = Launcher(self._start, private, self._port, certs, logs / f"{SUPERLINK}.log")
        self._nodes = Nodes(self._launcher, blocks, self._record / "states", restarts)
        self._commands: Orders | None = None
        self._left_since: float | None = None
        self._server_app_seen = False

    def play(
        self, scenario: Scenario, feed: FeedReader, stop_asked: Callable[[], bool], *, resume: Path | None
    ) -> Mapping[str, Any]:
        """Start everything, and return the run's outcome."""
        self._start_superlink(scenario, resume)
        stopping = False
        while not feed.ended:
            self._processes.poll(LOOK_SECONDS)
            if feed.read():
                self._left_since = None
            if feed.failure is not None:
                raise self._failed(feed.failure)
            if not feed.ended:
                self._check(feed)
            if stop_asked() and not stopping:
                if not feed.started:
                    raise KeyboardInterrupt
                feed.ask_to_stop()
                stopping = True
        assert feed.outcome is not None, "a run that has ended has an outcome"
        return feed.outcome

    def _start_superlink(self, scenario: Scenario, resume: Path | None) -> None:
        """Start the SuperLink, and the commands that register the nodes and submit the run once it listens."""
        self._start(SUPERLINK, superlink_command(self._port, self._certs), {})
        config = {"feed": str(self._private)}
        if resume is not None:
            config["resume"] = str(self._record)
        else:
            file = self._private / f"{folder_name(scenario.name or 'scenario')}.toml"
            file.write_text(to_toml(scenario))
            config |= {"scenario": str(file), "out": str(self._record)}
        run_config = self._private / "run-config.toml"
        run_config.write_text(tomli_w.dumps(config))
        app = write_app(self._private)
        register = [["supernode", "register", str(self._certs.node_public(n).resolve()), CONNECTION]
                    for n in range(len(self._nodes))]  # fmt: skip
        submit = ["run", str(app), CONNECTION, "--run-config", str(run_config)]
        forker = [sys.executable, "-m", "simulator.federate.forked_programs", str(self._programs)]
        self._start(FORKER, [*forker, str(look_seconds(len(self._nodes)))], {})
        self._commands = self._launcher.order(COMMANDS, [*register, submit])

    def _start(self, name: str, command: Sequence[str], defaults: Mapping[str, str]) -> None:
        log = COMMANDS if name.startswith(COMMANDS) else name
        self._processes.start(name, command, env={**defaults, **self._env}, log=self._logs / f"{log}.log")

    def _check(self, feed: FeedReader) -> None:
        """Start the nodes when it is time; raise or report what has gone wrong."""
        ended = self._processes.ended
        if (end := ended.get(SUPERLINK)) is not None:
            raise UserError("SuperLink", end.words)
        assert self._commands is not None, "the SuperLink is started first"
        if (end := ended.get(COMMANDS)) is not None and end.code:
            raise UserError("flwr", self._commands.refusal() or end.words)
        if not self._nodes.are_started and (is_ready(self._programs) or FORKER in ended):
            known = self._commands.identities()
            if len(known) == len(self._nodes):
                self._nodes.start(known)
        self._nodes.check(ended, feed.note, is_running=feed.started)
        self._check_server_app()

    def _check_server_app(self) -> None:
        """Raise where no ServerApp came, or where its process has been gone for a while without a last word."""
        if self._processes.watched:
            self._server_app_seen, self._left_since = True, None
            return
        if not self._server_app_seen and COMMANDS not in self._processes.ended:
            return  # the run is not submitted yet
        now = time.monotonic()
        self._left_since = self._left_since or now
        log = self._logs / f"{SUPERLINK}.log"
        if self._server_app_seen and now - self._left_since > LEFT_SECONDS:
            raise UserError("ServerApp", f"ended without a verdict; its log {log} ends with: {last_lines(log)}")
        if now - self._left_since > COME_SECONDS:
            raise UserError("ServerApp", f"was not started in {COME_SECONDS:g} seconds; see {log}")

    def _failed(self, failure: Mapping[str, Any]) -> FedscapeError:
        if failure["mistake"]:
            return FedscapeError(presentable(str(failure["text"])))
        log = self._logs / f"{SUPERLINK}.log"
        return UserError("ServerApp", f"failed with {failure['kind']}: {failure['text']}; its log is {log}")
