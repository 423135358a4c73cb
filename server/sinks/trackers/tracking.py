"""Sends a run to an experiment tracker, such as Weights & Biases or MLflow, through a process of its own.

The tracker's library lives in that process. So a server that is silent, a prompt, a hook at the end of the program or a
crash of the library costs the run nothing: at the end it waits for some seconds, then the process is ended. The round
loop only keeps references to its lines; a thread writes them to the process.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.core.errors import UserError
from clients.core.shown.secrets import Secrets, child_environment, secrets_of
from clients.core.shown.text import presentable
from clients.core.shown.urls import bare_urls
from server.sinks.background import BackgroundSink

PATIENCE = 30.0
"""Seconds that the end of a run waits for the tracker."""
PROGRAM: Sequence[str] = ()
"""What Python runs in the process, instead of the tracker's module: tests have a library of their own."""
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "DO_NOT_TRACK": "true",
}
"""Variables that keep the libraries from reporting their own use."""


@dataclass(frozen=True)
class Tracker:
    """An experiment tracker.

    Attributes:
        name: its name for people.
        word: its word in options, events and `export --to`.
        package: the package that must be installed.
        secrets: environment variables whose values no message may show.
        own: beginnings of the names of environment variables that its process gets though they may be secrets.
    """

    name: str
    word: str
    package: str
    secrets: tuple[str, ...]
    own: tuple[str, ...] = ()

    def require(self) -> None:
        """Refuse a tracker whose package is not installed.

        Raises:
            UserError: it is not.
        """
        if importlib.util.find_spec(self.package) is None:
            raise UserError(self.word, f"needs the package {self.package}, which is not installed",
                            fix=f"pip install 'fedscape[{self.word}]'.")  # fmt: skip


WANDB = Tracker("Weights & Biases", "wandb", "wandb", ("WANDB_API_KEY",), ("WANDB_",))
MLFLOW = Tracker(
    "MLflow", "mlflow", "mlflow",
    ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN", "AWS_SECRET_ACCESS_KEY"),
    ("MLFLOW_", "DATABRICKS_", "AWS_", "AZURE_", "GOOGLE_"),
)  # fmt: skip


class TrackerError(Exception):
    """What a tracker's process reports, or that it ended without a report."""


class TrackerProcess:
    """The process that holds a tracker's library.

    Args:
        tracker: the tracker.
        target: where the run goes: a project, or a URI.
    """

    def __init__(self, tracker: Tracker, target: str) -> None:
        hidden = [os.environ.get(name) for name in tracker.secrets]
        self._secrets = secrets_of(target, *hidden) if "://" in target else Secrets(hidden)
        root = str(Path(__file__).parents[3])
        paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
        own = {name: value for name, value in os.environ.items() if name.startswith(tracker.own)}
        self._process = subprocess.Popen(
            [sys.executable, "-P", *(PROGRAM or ("-m", f"server.sinks.trackers.{tracker.word}"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C of the terminal reaches the run alone
            env={**QUIET, **child_environment(), **own, "PYTHONPATH": paths},
        )
        self.send({"target": target})

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message.

        Raises:
            TrackerError: the process has failed.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message, default=str).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise TrackerError(self._failure()) from None

    def end(self) -> str:
        """Wait until the process has sent all, and return where the run is.

        Raises:
            TrackerError: it has failed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        with self._process.stdout as answers:
            line = answers.readline()
        code = self._process.wait()
        if not line:
            raise TrackerError(f"its process ended with code {code}")
        answer = json.loads(line)
        if "failed" in answer:
            raise TrackerError(self._shown(answer["failed"]))
        return self._shown(answer["done"])

    def kill(self) -> None:
        """End the process and those that it has started."""
        with suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()

    def _failure(self) -> str:
        try:
            self.end()
        except TrackerError as error:
            return str(error)
        return "its process ended early"

    def _shown(self, words: str) -> str:
        return presentable(bare_urls(self._secrets.hidden(words)))[:500]


class TrackerSink(BackgroundSink):
    """The observer.

    Args:
        tracker: the tracker.
        target: a project, or a URI.
        patience: seconds that the end of the run waits.

    Raises:
        UserError: the tracker's package is not installed.
    """

    def __init__(self, tracker: Tracker, target: str, *, patience: float = PATIENCE) -> None:
        tracker.require()
        super().__init__(tracker.word, patience)
        self._tracker, self._target = tracker, target
        self._process: TrackerProcess | None = None

    def deliver(self) -> None:
        """Send the run to the process."""
        self._process = TrackerProcess(self._tracker, self._target)
        self._process.send({"facts": dict(self.facts), "before": list(self.before)})
        for batch in self.batches():
            for line in batch:
                self._process.send({"line": line})
        if self.outcome is not None:
            self._process.send({"outcome": dict(self.outcome)})
        self._process.end()

    def late(self) -> str:
        """End the process, and return why the run is not in the tracker."""
        if self._process is not None:
            self._process.kill()
        return super().late()

    def failed(self, why: str) -> str:
        """Return what the tracker did not get."""
        return f"{self._tracker.name} did not get the run; the record has all of it: {why}. To send it from there:"


def send_recorded(
    tracker: Tracker,
    target: str,
    facts: Mapping[str, Any],
    lines: Iterable[Mapping[str, Any]],
    outcome: Mapping[str, Any] | None,
) -> str:
    """Send a recorded run to a tracker.

    Args:
        tracker: the tracker.
        target: a project, or a URI.
        facts: environment.json's `run`, with `run_id`.
        lines: the record.
        outcome: outcome.json, or None.

    Returns:
        Where the run is.

    Raises:
        UserError: the tracker's package is not installed, or it did not take the run.
    """
    tracker.require()
    process = TrackerProcess(tracker, target)
    try:
        process.send({"facts": dict(facts), "before": []})
        for line in lines:
            process.send({"line": line})
        if outcome is not None:
            process.send({"outcome": dict(outcome)})
        return process.end()
    except TrackerError as error:
        raise UserError(tracker.word, f"did not take the run: {error}") from None
    finally:
        process.kill()
