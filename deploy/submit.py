"""Registers SuperNodes and submits runs, for the jobs of deploy/: what `flwr` does, with the outcome as exit code.

    python submit.py register KEY.pub ...      register public keys; those that are registered already stay so
    python submit.py run SCENARIO [--sets "run.rounds=20; ..."] [--out FOLDER] [--resume FOLDER]

SUPERLINK (host:port of the control API) and CA (its root certificate) are environment variables. Exit codes: 0 the run
finished, 1 it failed or was stopped, 2 the SuperLink refused or was not reached.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

APP = """\
[project]
name = "fedscape-app"
version = "1.0.0"
[tool.flwr.app]
publisher = "fedscape"
[tool.flwr.app.components]
serverapp = "simulator.apps:server_app"
clientapp = "simulator.apps:client_app"
[tool.flwr.app.config]
scenario = ""
sets = ""
out = ""
resume = ""
"""
"""No code: the nodes run the fedscape that is installed there."""
CONNECTION = '[superlink]\ndefault = "federation"\n[superlink.federation]\naddress = {}\nroot-certificates = {}\n'
POLL = 5.0
"""Seconds between two looks at a run."""
KNOWN = "[code: 23]"
"""What the SuperLink answers to a key that is registered."""


def flwr(*words: str) -> dict[str, Any]:
    """Return the JSON answer of a `flwr` command; a refusal has `success` false and a reason."""
    done = subprocess.run(["flwr", *words, "--format", "json"], capture_output=True, text=True)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return {"success": False, "error-message": (done.stderr or done.stdout).strip()}
    return answer


def refused(answer: dict[str, Any]) -> str:
    """Return why the SuperLink refused; empty where it did not."""
    return "" if answer.get("success") else str(answer.get("error-message") or "no answer")


def register(keys: list[str]) -> int:
    """Register public keys."""
    for key in keys:
        reason = refused(flwr("supernode", "register", key, "federation"))
        if reason and KNOWN not in reason:
            print(f"{key}: {reason}", file=sys.stderr)
            return 2
        print(f"{key}: registered")
    return 0


def run(app: Path, config: dict[str, str]) -> int:
    """Submit a run, follow its log, and return its outcome."""
    (app / "pyproject.toml").write_text(APP)
    changes = " ".join(f"{key}={json.dumps(value)}" for key, value in config.items() if value)
    started = flwr("run", str(app), "federation", "--run-config", changes)
    if reason := refused(started):
        print(reason, file=sys.stderr)
        return 2
    number = str(started["run-id"])
    print(f"run {number}", flush=True)
    subprocess.run(["flwr", "log", number, "federation", "--stream"])  # it ends with the run, or with a lost connection
    while True:
        found = flwr("ls", "federation", "--run-id", number)
        if reason := refused(found):
            print(reason, file=sys.stderr)
            return 2
        status = str(found["runs"][0]["status"])
        if status.startswith("finished"):
            print(f"run {number}: {status}")
            return 0 if status == "finished:completed" else 1
        time.sleep(POLL)


def main() -> int:
    """Read the command line; write the connection into a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("register").add_argument("keys", nargs="+")
    running = commands.add_parser("run")
    running.add_argument("scenario")
    for option in ("--sets", "--out", "--resume"):
        running.add_argument(option, default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"FLWR_HOME": folder, "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
        connection = CONNECTION.format(json.dumps(os.environ["SUPERLINK"]), json.dumps(os.environ["CA"]))
        (Path(folder) / "config.toml").write_text(connection)
        if given.command == "register":
            return register(given.keys)
        app = Path(folder) / "app"
        app.mkdir()
        config = {name: getattr(given, name) for name in ("scenario", "sets", "out", "resume")}
        return run(app, config)


if __name__ == "__main__":
    sys.exit(main())
