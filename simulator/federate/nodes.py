"""The SuperNodes of a federation: started once their keys are registered, watched, and replaced where they end."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from clients.core.errors import UserError
from simulator.federate.cert_files import CertFolder
from simulator.federate.certs import write_identity
from simulator.federate.dealing import LOOPBACK, free_ports, node_config
from simulator.federate.processes import End, clock_hint
from simulator.federate.workspace import CONNECTION, supernode_command

ENDED, RESTARTED = "node_ended", "node_restarted"
"""Kinds of events."""
_REGISTERED = re.compile(r"SuperNode (\d+) registered")


@dataclass
class _Node:
    """One SuperNode: its clients, and what is left of its restarts.

    Attributes:
        number: 0, 1, ...; names its certificates.
        held: its clients.
        key: its private key.
        restarts: how often it may still be replaced.
        identity: Flower's id of it; empty where it is not known.
        orders: the commands that unregister it, and register its successor; None while it runs.
        is_gone: whether it has ended and nothing replaces it.
    """

    number: int
    held: range
    key: Path
    restarts: int
    identity: str = ""
    orders: Orders | None = None
    is_gone: bool = False
    past: int = field(default=0)

    @property
    def name(self) -> str:
        """The name of its process."""
        return f"supernode-{self.number}" + (f"-{self.past}" if self.past else "")


@dataclass(frozen=True)
class Orders:
    """Commands of `flwr` that run in one process.

    Attributes:
        name: the name of the process.
        results: the file with their results.
    """

    name: str
    results: Path

    def read(self) -> list[Mapping[str, Any]]:
        """Return the results so far, in the order of the commands: `code` and `output`."""
        if not self.results.exists():
            return []
        whole = self.results.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def identities(self) -> list[str]:
        """Return Flower's ids of the SuperNodes that the commands registered."""
        return [found[1] for result in self.read() if (found := _REGISTERED.search(result["output"]))]

    def refusal(self) -> str:
        """Return what the command printed that failed; empty where none did."""
        failed = next((result for result in self.read() if result["code"]), None)
        return f"refused: {' '.join(failed['output'].split())[-600:]}" if failed is not None else ""


class Launcher:
    """Starts Flower's programs of one federation.

    Args:
        start: (name, command, defaults of the environment) starts a process.
        private: the folder for files of the processes.
        port: the SuperLink's.
        certs: certificates and keys.
        superlink_log: the output of the SuperLink.
    """

    def __init__(
        self,
        start: Callable[[str, Sequence[str], Mapping[str, str]], None],
        private: Path,
        port: int,
        certs: CertFolder,
        superlink_log: Path,
    ) -> None:
        self.start, self.private, self.port, self.certs, self.superlink_log = start, private, port, certs, superlink_log

    def order(self, name: str, commands: Sequence[Sequence[str]]) -> Orders:
        """Run commands of `flwr` once the SuperLink listens."""
        orders = Orders(name, self.private / f"{name}.results")
        file = self.private / f"{name}.json"
        address = [LOOPBACK, self.port]
        file.write_text(json.dumps({"address": address, "commands": commands, "results": str(orders.results)}))
        self.start(name, [sys.executable, "-m", "simulator.federate.flower_commands", str(file)], {})
        return orders


class Nodes:
    """The SuperNodes of a federation.

    A SuperNode that ends during the run is unregistered: otherwise Flower would wait for its next sign of life, for up
    to a minute. Another takes its place, with a new key, as long as restarts are left: the SuperLink refuses a key that
    it holds for that of a living or an unregistered SuperNode.

    Args:
        launcher: starts their processes.
        blocks: the clients of each.
        states: the folder of client states.
        restarts: how often each may be replaced.
    """

    def __init__(self, launcher: Launcher, blocks: Sequence[range], states: Path, restarts: int) -> None:
        self._launcher, self._states, self.are_started = launcher, states, False
        key_of = launcher.certs.node_key
        self._nodes = [_Node(number, held, key_of(number), restarts) for number, held in enumerate(blocks)]

    def __len__(self) -> int:
        """Return how many SuperNodes there are to be."""
        return len(self._nodes)

    def start(self, identities: Sequence[str]) -> None:
        """Start all, whose keys are registered; `identities` are Flower's ids of them."""
        for node, identity, port in zip(self._nodes, identities, free_ports(len(self)), strict=True):
            node.identity = identity
            self._start(node, port)
        self.are_started = True

    def check(self, ended: Mapping[str, End], note: Callable[[str, str], object], *, is_running: bool) -> None:
        """Unregister SuperNodes that have ended, and start their successors.

        Args:
            ended: how processes ended, by name.
            note: (kind, message) passes on an event.
            is_running: whether the run has begun.

        Raises:
            UserError: a SuperNode ended before the run began, or the last one has ended.
        """
        for node in self._nodes:
            if node.is_gone:
                continue
            if node.orders is None and (end := ended.get(node.name)) is not None:
                self._lose(node, end, note, is_running=is_running)
            elif node.orders is not None and node.orders.name in ended:
                self._replace(node, note)

    def _lose(self, node: _Node, end: End, note: Callable[[str, str], object], *, is_running: bool) -> None:
        others = [other for other in self._nodes if other is not node and not other.is_gone]
        words = "; ".join(filter(None, (end.words, clock_hint(self._launcher.superlink_log))))
        if not is_running or not (node.restarts or others):
            raise UserError(f"SuperNode {node.number}", words)
        note(ENDED, f"SuperNode {node.number} with clients {_named(node.held)} {words}")
        commands = [["supernode", "unregister", node.identity, CONNECTION]] if node.identity else []
        if node.restarts:
            node.key = self._launcher.private / f"{node.name}-next.key"
            public = node.key.with_suffix(".pub")
            write_identity(node.key, public)
            commands.append(["supernode", "register", str(public), CONNECTION])
        node.is_gone = not node.restarts
        node.orders = self._launcher.order(f"flwr-{node.name}", commands)

    def _replace(self, node: _Node, note: Callable[[str, str], object]) -> None:
        assert node.orders is not None
        identities, refusal = node.orders.identities(), node.orders.refusal()
        node.orders, node.restarts, node.past = None, node.restarts - 1, node.past + 1
        if not identities:
            node.is_gone = True
            note(ENDED, f"SuperNode {node.number} is not replaced: {refusal or 'its new key was not registered'}")
            if all(other.is_gone for other in self._nodes):
                raise UserError(f"SuperNode {node.number}", f"is not replaced: {refusal}")
            return
        (node.identity,), (port,) = identities, free_ports(1)
        self._start(node, port)
        note(RESTARTED, f"SuperNode {node.number} is started again, with a new key; restarts left: {node.restarts}")

    def _start(self, node: _Node, port: int) -> None:
        launcher, count = self._launcher, len(self._nodes)
        threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
        file = launcher.private / f"node-{node.number}.toml"
        file.write_text(tomli_w.dumps(node_config(node.held, node.number, count) | {"states": str(self._states)}))
        command = supernode_command(node.number, port, launcher.port, launcher.certs, file, key=node.key)
        launcher.start(node.name, command, threads)


def _named(held: range) -> str:
    return f"{held[0]}-{held[-1]}" if len(held) > 1 else str(held[0])
