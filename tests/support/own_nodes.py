"""A real federation whose SuperNodes have an environment each, so that one of them can run other code than the rest.

The bundle that Flower sends to nodes holds no code: each node runs the fedscape that it finds. A hostile node finds
another `simulator.apps` first, which wraps the real one's ClientApp (`hostile_app`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from hostile_app import DEEDS
from waiting import eventually

import simulator
from server.record.records import RunFolder
from simulator.federate.certs import make_certs
from simulator.federate.dealing import LOOPBACK, free_ports
from simulator.federate.processes import Processes
from simulator.federate.workspace import (
    CONNECTION,
    environment,
    superlink_command,
    supernode_command,
    write_app,
    write_home,
)

_PATIENCE = 400.0
_REAL = Path(simulator.__file__).parent
_PACKAGE = f"__path__.append({str(_REAL)!r})\n"
_APPS = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("simulator.real_apps", {str(_REAL / "apps.py")!r})
real = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(real)
from hostile_app import hostile
server_app, client_app = real.server_app, hostile(real.client_app)
"""


def hostile_environment(folder: Path, deeds: Sequence[str]) -> dict[str, str]:
    """Return what a SuperNode's environment has besides, so that it runs `hostile_app`; see there for the deeds."""
    package = folder / "simulator"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(_PACKAGE)
    (package / "apps.py").write_text(_APPS)
    paths = [str(folder), str(Path(__file__).parent), str(_REAL.parent)]
    return {DEEDS: ",".join(deeds), "PYTHONPATH": os.pathsep.join(paths)}


def run_on_own_nodes(
    folder: Path, scenario: str, nodes: Sequence[tuple[Mapping[str, Any], Mapping[str, str]]]
) -> RunFolder:
    """Run a scenario as a federation, with TLS and registered keys, until its outcome is written; return its record.

    Args:
        folder: a new folder; the processes' logs are in it.
        scenario: the scenario's text.
        nodes: the node config of each SuperNode, and what its environment has besides.
    """
    certs = make_certs(folder / "certs", nodes=len(nodes))
    port, *ports = free_ports(len(nodes) + 1)
    env, record = environment(write_home(folder, port, certs)), RunFolder(folder / "run")
    (folder / "scenario.toml").write_text(scenario)
    (folder / "run-config.toml").write_text(
        tomli_w.dumps({"scenario": str(folder / "scenario.toml"), "out": str(record.path)})
    )
    register = [["supernode", "register", str(certs.node_public(n)), CONNECTION] for n in range(len(nodes))]
    submit = ["run", str(write_app(folder)), CONNECTION, "--run-config", str(folder / "run-config.toml")]
    results = folder / "results.jsonl"
    orders = {"address": [LOOPBACK, port], "commands": [*register, submit], "results": str(results)}
    (folder / "commands.json").write_text(json.dumps(orders))
    with Processes("flwr-serverapp") as processes:

        def start(name: str, command: Sequence[str], more: Mapping[str, str] | None = None) -> None:
            processes.start(name, command, env={**env, **(more or {})}, log=folder / f"{name}.log")

        def goes_on() -> bool:
            processes.poll(0.0)
            failed = [f"{name} {end.words}" for name, end in processes.ended.items() if end.code or name != "flwr"]
            assert not failed, failed
            return True

        def registered() -> bool:
            return goes_on() and results.exists() and results.read_bytes().count(b"\n") >= len(nodes)

        start("superlink", superlink_command(port, certs))
        start("flwr", [sys.executable, "-m", "simulator.federate.flower_commands", str(folder / "commands.json")])
        eventually(registered, seconds=_PATIENCE)
        for n, (config, more) in enumerate(nodes):
            file = folder / f"node-{n}.toml"
            file.write_text(tomli_w.dumps({**config, "states": str(folder / "states")}))
            start(f"supernode-{n}", supernode_command(n, ports[n], port, certs, file), more)
        eventually(lambda: goes_on() and record.read_outcome() is not None, seconds=_PATIENCE)
    return record
