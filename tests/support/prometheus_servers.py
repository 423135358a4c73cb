"""A real Prometheus for tests, in the roles of `dashboards.prometheus`: started, killed, restarted, queried."""

from __future__ import annotations

import json
import random
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from waiting import eventually

from dashboards.prometheus import Role

Stored = dict[frozenset[tuple[str, str]], dict[int, str]]
"""Labels -> milliseconds -> the number as Prometheus writes it."""


def free_port() -> int:
    """Return a port for a program that binds it later: outside the range that the system assigns to other programs."""
    for port in random.SystemRandom().sample(range(10_000, 32_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


class PrometheusServer:
    """One role on a folder; its data outlives `kill`."""

    def __init__(self, role: Role, folder: Path) -> None:
        self.role, self.folder = role, folder
        self.data = folder / "data"
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "prometheus.yml"
        self._config.write_text(json.dumps(role.config))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def write_url(self) -> str:
        return f"{self.role.url}/api/v1/write"

    def start(self) -> PrometheusServer:
        command = [
            "prometheus", f"--config.file={self._config}", f"--storage.tsdb.path={self.data}",
            f"--web.listen-address=127.0.0.1:{self.role.port}", "--log.level=error", *self.role.flags,
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        eventually(self._ready, seconds=60)
        return self

    def kill(self) -> None:
        """Kill it, as a power cut does; a second call does nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _ready(self) -> bool:
        try:
            with urlopen(f"{self.role.url}/-/ready", timeout=1):
                return True
        except (URLError, OSError):
            return False

    def get(self, path: str, **parameters: str) -> Any:
        try:
            with urlopen(f"{self.role.url}/api/v1/{path}?{urlencode(parameters)}", timeout=60) as response:
                return json.load(response)["data"]
        except HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def query(self, expression: str, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """Return the result of an instant query."""
        found = self.get("query", query=expression, **({} if at is None else {"time": repr(at)}))
        return [(one["metric"], float(one["value"][1])) for one in found["result"]]

    def one(self, expression: str, at: float | None = None) -> float:
        """Return the one number that an instant query finds."""
        found = self.query(expression, at)
        assert len(found) == 1, f"{expression} at {at} finds {found}"
        return found[0][1]

    def stored(self, run_id: str) -> Stored:
        """Return every sample of a run as stored, ends of series left out."""
        found = self.get("query", query=f'{{run_id="{run_id}"}}[100y]')["result"]
        return {
            frozenset(one["metric"].items()): {round(1000 * at): word for at, word in one["values"]} for one in found
        }
