"""What Flower's processes find on disk and in their environment: a home of their own, an app, a connection."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import tomli_w

from clients.core.shown.secrets import child_environment
from simulator.federate.cert_files import CertFolder
from simulator.federate.dealing import LOOPBACK
from simulator.federate.short_waits import look_seconds

CONNECTION = "fedscape"
"""The name of the connection to the SuperLink in Flower's configuration."""
SERVER_APP, CLIENT_APP = "simulator.apps:server_app", "simulator.apps:client_app"
_EXPORTS = ("FEDSCAPE_METRICS_", "FEDSCAPE_REMOTE_WRITE", "FEDSCAPE_GRAFANA_")
"""Variables of exporters, tokens among them: exporters run in this process, so no other needs them."""
_FOR_DATA = ("HF_TOKEN",)
"""Secrets that nodes need to read data."""


def write_app(folder: Path) -> Path:
    """Write a Flower app without code: the installed fedscape is what runs. Return its folder."""
    app = folder / "app"
    app.mkdir()
    project = {
        "project": {
            "name": "fedscape-federation",
            "version": "0.1.0",
            "description": "A scenario of fedscape",
            "license": "Apache-2.0",
            "dependencies": [],
        },
        "tool": {"flwr": {"app": {
            "publisher": "fedscape",
            "components": {"serverapp": SERVER_APP, "clientapp": CLIENT_APP},
            "config": dict.fromkeys(("scenario", "sets", "out", "resume", "feed"), ""),
        }}},
    }  # fmt: skip
    (app / "pyproject.toml").write_text(tomli_w.dumps(project))
    return app


def write_home(folder: Path, port: int, certs: CertFolder) -> Path:
    """Write a home for Flower with the connection to the SuperLink; return the home."""
    home = folder / "flwr"
    home.mkdir()
    connection = {"address": f"{LOOPBACK}:{port}", "root-certificates": str(certs.ca.resolve())}
    config = {"superlink": {"default": CONNECTION, CONNECTION: connection}}
    (home / "config.toml").write_text(tomli_w.dumps(config))
    return home


def environment(
    home: Path, programs: Path | None = None, *, nodes: int = 1, given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment of Flower's processes.

    Args:
        home: Flower's home.
        programs: a folder with programs that go before Flower's of the same names.
        nodes: number of SuperNodes: the more there are, the less often their SuperExecs look for a task.
        given: the environment to start from; by default this process's, without secrets but the one for data.
    """
    if given is None:
        of_data = {name: os.environ[name] for name in _FOR_DATA if name in os.environ}
        given = child_environment() | of_data
    made = {name: value for name, value in given.items() if not name.startswith(_EXPORTS)}
    # Flower starts its programs by name: those beside this Python must be found first, as must this fedscape.
    made["PATH"] = _before(str(Path(sys.executable).parent), made.get("PATH", os.defpath))
    if programs is not None:
        made["PATH"] = _before(str(programs), made["PATH"])
    made["PYTHONPATH"] = _before(str(Path(__file__).resolve().parents[2]), made.get("PYTHONPATH", ""))
    proxies = {
        "NO_PROXY": _with_loopback(made.get("NO_PROXY", "")),
        "no_proxy": _with_loopback(made.get("no_proxy", "")),
    }
    return made | proxies | {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": str(look_seconds(nodes)),
        "PYTHONUNBUFFERED": "1",
    }  # fmt: skip


def _before(first: str, paths: str) -> str:
    return os.pathsep.join(dict.fromkeys([first, *filter(None, paths.split(os.pathsep))]))


def _with_loopback(hosts: str) -> str:
    return ",".join(dict.fromkeys([*filter(None, hosts.split(",")), LOOPBACK, "localhost"]))


def superlink_command(port: int, certs: CertFolder) -> list[str]:
    """Return the command of the SuperLink; it holds paths of keys, and no key."""
    return [
        "flower-superlink",
        "--host", LOOPBACK, "--port", str(port),
        *_tls(certs.ca, certs.superlink_cert, certs.superlink_key),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
    ]  # fmt: skip


def supernode_command(
    node: int, port: int, superlink: int, certs: CertFolder, config: Path, *, key: Path | None = None
) -> list[str]:
    """Return the command of a SuperNode.

    Args:
        node: its number, which names its keys.
        port: the port of the loopback at which it serves its own apps.
        superlink: the SuperLink's port.
        certs: the certificates and keys.
        config: a TOML file with its `--node-config`.
        key: the private key with which it proves who it is; None takes that of `certs`.
    """
    return [
        "flower-supernode",
        "--superlink", f"{LOOPBACK}:{superlink}",
        "--root-certificates", str(certs.ca.resolve()),
        "--auth-supernode-private-key", str((key or certs.node_key(node)).resolve()),
        "--host", LOOPBACK, "--port", str(port),
        *_tls(certs.ca, certs.node_cert(node), certs.node_cert_key(node)),
        "--node-config", str(config),
    ]  # fmt: skip


def _tls(ca: Path, cert: Path, key: Path) -> list[str]:
    files = {"--ssl-ca-certfile": ca, "--ssl-certfile": cert, "--ssl-keyfile": key}
    return [word for option, file in files.items() for word in (option, str(file.resolve()))]
