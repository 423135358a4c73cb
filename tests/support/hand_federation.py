"""A federation whose parts a test starts one by one, with the commands of docs/federations.md, and may lose."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w
from flower_processes import PATIENCE, processes_naming
from waiting import eventually

from simulator.federate.cert_files import CertFolder
from simulator.federate.certs import make_certs
from simulator.federate.dealing import free_ports
from simulator.federate.processes import Processes
from simulator.federate.workspace import (
    CONNECTION,
    environment,
    superlink_command,
    supernode_command,
    write_app,
    write_home,
)


@dataclass
class HandFederation:
    """A SuperLink, SuperNodes and a run, each started when the test says so.

    Attributes:
        folder: has everything: keys, logs, the run in `run/`.
        processes: holds the processes; none is left at the end.
        certs: keys of all SuperNodes that may come.
        port: the SuperLink's.
        env: the environment of Flower's programs.
    """

    folder: Path
    processes: Processes
    certs: CertFolder
    port: int
    env: dict[str, str]
    database: Path | None = None
    _starts: dict[str, int] = field(default_factory=dict)

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / "run"

    def log(self, name: str) -> str:
        """Return what a process has printed."""
        file = self.folder / f"{name}.log"
        return file.read_text() if file.exists() else ""

    def start(self, name: str, command: Sequence[str], more: Mapping[str, str] | None = None) -> None:
        """Start a process and append its output to NAME.log."""
        self.processes.ended.pop(name, None)
        self.processes.start(name, command, env={**self.env, **(more or {})}, log=self.folder / f"{name}.log")

    def start_superlink(self) -> None:
        """Start the SuperLink, or start it again at the same port, and wait until it listens."""
        before = self.log("superlink").count("running on https://")
        keep = ["--database", str(self.database)] if self.database is not None else []
        self.start("superlink", [*superlink_command(self.port, self.certs), *keep])
        eventually(lambda: self.log("superlink").count("running on https://") > before, seconds=PATIENCE)

    def flwr(self, *arguments: str) -> str:
        """Run a command of `flwr` and return its output."""
        done = subprocess.run(
            ["flwr", *arguments], env=self.env, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def register(self, node: int) -> int:
        """Register the key of a SuperNode; return Flower's id of the node."""
        made = self.flwr("supernode", "register", str(self.certs.node_public(node)), CONNECTION, "--format", "json")
        return int(json.loads(made)["node-id"])

    def start_node(
        self, node: int, clients: str, states: Path | None = None, more: Mapping[str, str] | None = None
    ) -> None:
        """Start SuperNode `node` with its key; it holds some clients and keeps their states in a folder."""
        config = {"name": f"node-{node}", "clients": clients, "files": "/"}
        self.start_configured(node, config | ({} if states is None else {"states": str(states)}), more)

    def start_configured(self, node: int, config: Mapping[str, Any], more: Mapping[str, str] | None = None) -> None:
        """Start SuperNode `node` with its key and a node config; states are in the federation's folder by default."""
        (port,) = free_ports(1)
        file = self.folder / f"node-{node}.toml"
        file.write_text(tomli_w.dumps({"states": str(self.folder / "states"), **config}))
        self.start(f"supernode-{node}", supernode_command(node, port, self.port, self.certs, file), more)

    def wait_for_nodes(self, *nodes: int) -> None:
        """Wait until the SuperLink has admitted these SuperNodes."""
        eventually(lambda: all("SuperNode ID" in self.log(f"supernode-{n}") for n in nodes), seconds=PATIENCE)

    def submit(self, **config: str) -> int:
        """Submit a run with a run config; return Flower's id of it."""
        app = self.folder / "app"
        if not app.exists():
            write_app(self.folder)
        file = self.folder / "run-config.toml"
        file.write_text(tomli_w.dumps(config))
        made = self.flwr("run", str(app), CONNECTION, "--run-config", str(file), "--format", "json")
        return int(json.loads(made)["run-id"])

    def status(self, run: int) -> str:
        """Return Flower's status of a run."""
        listed = json.loads(self.flwr("ls", CONNECTION, "--format", "json"))["runs"]
        return next(str(entry["status"]) for entry in listed if int(entry["run-id"]) == run)

    def rounds(self) -> int:
        """Return how many rounds are recorded, without round 0; -1 before it."""
        file = self.run / "rounds.jsonl"
        return (file.read_bytes().count(b"\n") if file.exists() else 0) - 1

    def wait_for_round(self, count: int) -> None:
        """Wait until so many rounds are recorded."""
        eventually(lambda: self.rounds() >= count, seconds=PATIENCE)

    def kill(self, part: str) -> None:
        """SIGKILL the oldest process whose command has a part."""
        found = [pid for pid, command in processes_naming(self.folder).items() if part in command]
        assert found, f"no process has {part}"
        os.kill(min(found), signal.SIGKILL)

    def ended(self, name: str) -> bool:
        """Return whether a process has ended."""
        self.processes.poll(0.0)
        return name in self.processes.ended


@contextmanager
def federation_by_hand(folder: Path, nodes: int, *, database: Path | None = None) -> Iterator[HandFederation]:
    """Make keys for SuperNodes 0 to `nodes` - 1 and start a SuperLink; all processes end with the context."""
    certs = make_certs(folder / "certs", nodes=nodes)
    (port,) = free_ports(1)
    with Processes("flwr-serverapp") as processes:
        made = HandFederation(folder, processes, certs, port, environment(write_home(folder, port, certs)), database)
        made.start_superlink()
        yield made
