"""deploy/submit.py and deploy/health.py: exit codes that tell the outcome, with a program in the place of `flwr`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from deploy_files import DEPLOY

FLWR = """\
import json, os, pathlib, sys
words = sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(words) + "\\n")
home = pathlib.Path(os.environ["FLWR_HOME"])
answers = json.loads(os.environ["ANSWERS"])
if words[0] == "run":
    answers["run"] |= {"config": (home / "config.toml").read_text(), "app": os.listdir(words[1])}
    pathlib.Path(os.environ["CALLS"] + ".run").write_text(json.dumps(answers["run"]))
found = answers.get(words[0], {})
print(found if isinstance(found, str) else json.dumps(found))
"""
STARTED = {"success": True, "run-id": "17"}


Submit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def submit(tmp_path: Path) -> Submit:
    """Return `(arguments, answers of flwr by command) -> finished process`; its calls are in `calls`."""
    (tmp_path / "flwr").write_text(f"#!{sys.executable}\n{FLWR}")
    (tmp_path / "flwr").chmod(0o755)

    def run(arguments: list[str], **answers: object) -> subprocess.CompletedProcess[str]:
        known = {"SUPERLINK": "superlink:8000", "CA": "/run/secrets/ca.crt", "CALLS": str(tmp_path / "calls")}
        known |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ANSWERS": json.dumps(answers)}
        command = [sys.executable, DEPLOY / "submit.py", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **known})

    return run


def runs(status: str) -> dict[str, object]:
    return {"success": True, "runs": [{"run-id": "17", "status": status}]}


@pytest.mark.parametrize(
    ("status", "code"), [("finished:completed", 0), ("finished:failed", 1), ("finished:stopped", 1)]
)
def test_outcome_of_the_run_is_the_exit_code(submit: Submit, status: str, code: int, tmp_path: Path) -> None:
    done = submit(["run", "my.toml", "--sets", 'a="b"; c=2', "--out", "runs/x"], run=STARTED, ls=runs(status))
    assert done.returncode == code, done.stderr
    first, log, ls = map(json.loads, (tmp_path / "calls").read_text().splitlines())
    assert first[0] == "run"
    assert first[2:4] == ["federation", "--run-config"]
    assert first[4] == 'scenario="my.toml" sets="a=\\"b\\"; c=2" out="runs/x"'
    assert log == ["log", "17", "federation", "--stream"]
    assert ls[:4] == ["ls", "federation", "--run-id", "17"]
    given = json.loads((tmp_path / "calls.run").read_text())
    assert given["app"] == ["pyproject.toml"]
    assert 'address = "superlink:8000"\nroot-certificates = "/run/secrets/ca.crt"' in given["config"]


def test_refused_run_is_another_exit_code_with_the_reason(submit: Submit) -> None:
    refusal = {"success": False, "error-message": "Connection to the SuperLink is unavailable."}
    done = submit(["run", "my.toml"], run=refusal)
    assert done.returncode == 2
    assert "unavailable" in done.stderr
    done = submit(["run", "my.toml"], run=STARTED, ls="no JSON")
    assert done.returncode == 2
    assert "no JSON" in done.stderr


def test_registered_keys_stay_registered(submit: Submit) -> None:
    known = {"success": False, "error-message": "\n[code: 23] Public key already in use."}
    assert submit(["register", "a.pub", "b.pub"], supernode=known).returncode == 0
    done = submit(["register", "a.pub"], supernode={"success": False, "error-message": "Exit Code: 500"})
    assert done.returncode == 2
    assert "a.pub: Exit Code: 500" in done.stderr


@pytest.fixture
def health() -> Iterator[str]:
    """A server whose `/health` is well and whose other paths are not; return its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def checked(url: str) -> int:
    command = [sys.executable, DEPLOY / "health.py"]
    return subprocess.run(command, env={**os.environ, "HEALTH_URL": url}, capture_output=True).returncode


def test_health_check_tells_well_from_ill(health: str) -> None:
    assert checked(f"{health}/health") == 0
    assert checked(f"{health}/other") == 1
    assert checked("http://127.0.0.1:1/health") == 1
    assert checked("") == 0
