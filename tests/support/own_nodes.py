"""A real federation whose SuperNodes have an environment each, so that one of them can run other code than the rest.

The bundle that Flower sends to nodes holds no code: each node runs the fedscape that it finds. A hostile node finds
another `simulator.apps` first, which wraps the real one's ClientApp (`hostile_app`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flower_processes import PATIENCE
from hand_federation import federation_by_hand
from hostile_app import DEEDS
from waiting import eventually

import simulator
from server.record.records import RunFolder

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
    folder.mkdir(exist_ok=True)
    (folder / "scenario.toml").write_text(scenario)
    record = RunFolder(folder / "run")
    with federation_by_hand(folder, len(nodes)) as made:

        def over() -> bool:
            made.processes.poll(0.0)
            failed = [f"{name} {end.words}" for name, end in made.processes.ended.items()]
            assert not failed, failed
            return record.read_outcome() is not None

        for n in range(len(nodes)):
            made.register(n)
        made.submit(scenario=str(folder / "scenario.toml"), out=str(record.path))
        for n, (config, more) in enumerate(nodes):
            made.start_configured(n, config, more)
        eventually(over, seconds=PATIENCE)
    return record
