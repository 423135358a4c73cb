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
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.core.errors import UserError
from clients.core.shown.secrets import Secrets, child_environment, secrets_of
from clients.core.shown.text import presentable
from clients.core.shown.urls import bare_urls

MOST_WAITING = 10_000
"""Rounds that may wait for the process; one more, and the oldest is dropped."""
GATHER_SECONDS, PATIENCE = 1.0, 30.0
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
        root = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
        own = {name: value for name, value in os.environ.items() if name.startswith(tracker.own)}
        self._process = subprocess.Popen(
            [sys.executable, "-P", *(PROGRAM or ("-m", f"server.sinks.{tracker.word}"))],
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


class TrackerSink:
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
        self._tracker, self._target, self._patience = tracker, target, patience
        self._queue: deque[Mapping[str, Any]] = deque(maxlen=MOST_WAITING)
        self._before: Sequence[Mapping[str, Any]] = ()
        self._facts: Mapping[str, Any] = {}
        self._outcome: Mapping[str, Any] | None = None
        self._closing = threading.Event()
        self._failure, self._failed = "", False
        self._round = self._dropped = 0
        self._process: TrackerProcess | None = None
        self._tell: Callable[[dict[str, Any]], object] = lambda event: None
        self._thread: threading.Thread | None = None

    def attached(self, tell: Callable[[dict[str, Any]], object]) -> None:
        """Take the function that announces events of the run."""
        self._tell = tell

    def run_started(self, facts: Mapping[str, Any]) -> None:
        """Take the facts, which name the run."""
        self._facts = facts

    def recorded_before(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Continue after the rounds that a resumed run has recorded."""
        self._before = lines

    def round_finished(self, line: Mapping[str, Any]) -> None:
        """Queue a round (about 1 us); announce a failure once."""
        self._round = int(line["round"])
        self._announce()
        self._dropped += len(self._queue) == MOST_WAITING
        self._queue.append(line)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._tracker.word, daemon=True)
            self._thread.start()

    def run_finished(self, outcome: Mapping[str, Any]) -> None:
        """Send the rest and the outcome."""
        self._outcome = outcome
        self.close()
        self._announce()

    def close(self) -> None:
        """Send the rest and end the process; a second call does nothing."""
        if self._thread is None or self._closing.is_set():
            return
        self._closing.set()
        self._thread.join(self._patience)
        if self._thread.is_alive():
            self._failure = f"it did not take the run within {self._patience:g} seconds"
            if self._process is not None:
                self._process.kill()

    def _work(self) -> None:
        """Send until the end: the thread's whole life."""
        try:
            self._process = TrackerProcess(self._tracker, self._target)
            self._process.send({"facts": dict(self._facts), "before": list(self._before)})
            while True:
                is_last = self._closing.is_set()  # read before the queue is emptied: no round comes after it
                while self._queue:
                    self._process.send({"line": self._queue.popleft()})
                if is_last:
                    break
                self._closing.wait(GATHER_SECONDS)
            if self._outcome is not None:
                self._process.send({"outcome": dict(self._outcome)})
            self._process.end()
        except Exception as error:  # the run goes on, whatever fails
            self._failure = self._failure or str(error) or type(error).__name__
        if self._dropped and not self._failure:
            self._failure = f"it was too slow: {self._dropped:,} rounds were left out"

    def _announce(self) -> None:
        """Announce the failure of the thread; only the thread of the run may announce."""
        if self._failure and not self._failed:
            self._failed = True
            name, word = self._tracker.name, self._tracker.word
            message = f"{name} did not get the run; the record has all of it: {self._failure.rstrip('.')}"
            again = f"To send it from there: fedscape export RUN --to {word}"
            self._tell({"round": self._round, "kind": f"{word}_failed", "message": f"{message}. {again}"})


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
