"""A local Prometheus: its two roles, and how they are started and stopped.

`live` scrapes a running simulation and evaluates alerts, on wall time. `runs` takes every round by remote write, on the
round clock: rounds lie a second apart from 2000-01-01, so runs overlay. That needs a database of its own, which
accepts old samples in any order and keeps them. deploy/observability has the same two roles as containers.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpcore

from clients.core.errors import UserError
from clients.core.shown.secrets import child_environment
from clients.core.shown.text import printable
from server.sinks.network import FAILURES, Deadline, DeadlineBackend

PROGRAM = "prometheus"
READY_SECONDS = 60.0
RULES = Path(__file__).parents[1] / "deploy/observability/rules/fedscape.yml"
"""Alert and recording rules; the file exists in a checkout of the repository only."""
_INSTALL = "Install it (Debian, Ubuntu: apt install prometheus), or start deploy/observability with `make observe`."


@dataclass(frozen=True)
class Role:
    """The job of one Prometheus.

    Attributes:
        name: `live` or `runs`.
        port: where it listens, on the loopback.
        config: its configuration; JSON is valid YAML.
        flags: what it needs on its command line.
    """

    name: str
    port: int
    config: dict[str, Any]
    flags: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


def live(port: int = 9090, *, scrape: int = 9464, rules: Sequence[str] = ()) -> Role:
    """Return the role that scrapes.

    Args:
        port: where it listens.
        scrape: the port of `fedscape run --metrics-port`.
        rules: files of alert and recording rules.
    """
    target = {"targets": [f"127.0.0.1:{scrape}"]}
    config: dict[str, Any] = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": list(rules),
        "scrape_configs": [{"job_name": "fedscape", "static_configs": [target]}],
    }
    return Role("live", port, config)


def runs(port: int = 9099) -> Role:
    """Return the role that keeps every round.

    A round is a second here, so the lookback is shorter than a second. A value that a round did not measure is missing,
    instead of being repeated for five minutes, and a run shows nothing after its end.
    """
    config = {"global": {"scrape_interval": "1s"}, "storage": {"tsdb": {"out_of_order_time_window": "100y"}}}
    flags = ("--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y", "--query.lookback-delta=999ms")
    return Role("runs", port, config, flags)


@contextmanager
def running(roles: Sequence[Role], folder: Path, *, program: str = PROGRAM) -> Iterator[Callable[[], bool]]:
    """Run a Prometheus for each role until the block is left; all are ready for queries when it begins.

    Args:
        roles: their ports must be free.
        folder: where their data lies, a folder each.
        program: the executable.

    Yields:
        A function that returns whether all of them still run.

    Raises:
        UserError: the program is not installed, a port is taken, or a Prometheus does not start.
    """
    executable = shutil.which(program)
    if executable is None:
        raise UserError(program, "is not installed", fix=_INSTALL)
    with ExitStack() as stack:
        processes = []
        for role in roles:
            _require_free(role)
            processes.append(stack.enter_context(_process(role, folder / role.name, executable)))
        yield lambda: all(process.poll() is None for process in processes)


def _require_free(role: Role) -> None:
    """Raise where another program listens on the role's port: it would answer in place of ours."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", role.port))
        except OSError as error:
            fix = f"Give --{role.name}-port another."
            raise UserError(f"port {role.port}", f"cannot be listened on ({error.strerror})", fix=fix) from None


@contextmanager
def _process(role: Role, folder: Path, executable: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run one Prometheus, stop it at the end and wait until it has stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "prometheus.json"
    config.write_text(json.dumps(role.config, indent=2))
    command = [
        executable, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{role.port}", "--log.level=warn", *role.flags,
    ]  # fmt: skip
    log = folder / "log"
    with log.open("wb") as output:
        # a session of its own: Ctrl-C in the terminal reaches this program alone, which stops Prometheus
        process = subprocess.Popen(
            command, stdout=output, stderr=output, start_new_session=True, env=child_environment()
        )
    try:
        _await_ready(role, process, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(role: Role, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until it answers."""
    until = time.monotonic() + READY_SECONDS
    deadline = Deadline()
    with httpcore.ConnectionPool(network_backend=DeadlineBackend(deadline)) as pool:
        while time.monotonic() < until:
            _require_running(role, process, log)
            deadline.begin(1.0)
            # The answer's status is enough, so its body is not read.
            with suppress(*FAILURES), pool.stream("GET", f"{role.url}/-/ready") as response:
                if 200 <= response.status < 300:
                    return
            time.sleep(0.05)
    raise UserError(PROGRAM, f"the {role.name} one was not ready in {READY_SECONDS:g} seconds", fix=f"See {log}.")


def _require_running(role: Role, process: subprocess.Popen[bytes], log: Path) -> None:
    """Raise where the process has stopped."""
    if process.poll() is not None:
        last = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
        problem = f"the {role.name} one stopped with code {process.returncode}: {printable(' '.join(last))}"
        raise UserError(PROGRAM, problem, fix="It needs version 2.42 or newer.")
