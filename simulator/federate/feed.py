"""What the ServerApp's process passes on of its run: the moments of observers, as lines of JSON in a private folder.

The process that started the federation reads them, so it shows, exports and judges the run as if it had played it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clients.core.errors import FedscapeError
from server.record.jsonlines import from_json, to_json

FEED, STOP = "feed.jsonl", "stop"
RETURNED, FAILED = "returned", "failed"
"""The last moment: the run is over and its files are written, or an error ended it."""


class FeedWriter:
    """An observer that passes on each moment of a run. It is critical: without it the run would be lost from sight.

    Args:
        folder: the private folder.
    """

    critical = True

    def __init__(self, folder: Path) -> None:
        self._stop = folder / STOP
        self._handle = os.open(folder / FEED, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def stop_asked(self) -> bool:
        """Return whether the run is to end after this round."""
        return self._stop.exists()

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Pass on how the run inside ends."""
        try:
            yield
        except BaseException as error:
            mistake = isinstance(error, FedscapeError)
            self._write(FAILED, {"text": str(error), "kind": type(error).__name__, "mistake": mistake})
            raise
        self._write(RETURNED, {})

    def run_started(self, facts: dict[str, Any]) -> None:
        """Pass on the start."""
        self._write("run_started", facts)

    def recorded_before(self, lines: Sequence[dict[str, Any]]) -> None:
        """Pass on the lines of a resumed run."""
        self._write("recorded_before", list(lines))

    def progress(self, facts: dict[str, Any]) -> None:
        """Pass on the progress inside a round."""
        self._write("progress", facts)

    def round_finished(self, line: dict[str, Any]) -> None:
        """Pass on a round's line."""
        self._write("round_finished", line)

    def event(self, event: dict[str, Any]) -> None:
        """Pass on an event."""
        self._write("event", event)

    def run_finished(self, outcome: dict[str, Any]) -> None:
        """Pass on the outcome."""
        self._write("run_finished", outcome)

    def _write(self, moment: str, what: Any) -> None:
        rest = memoryview(to_json({"moment": moment, "what": what}).encode() + b"\n")
        while rest:
            rest = rest[os.write(self._handle, rest) :]


class FeedReader:
    """Reads a feed while it grows.

    Args:
        folder: the private folder.
        observers: receives the moments, such as `server.rounds.observers.Observers`.

    Attributes:
        started: whether the run has begun.
        outcome: the run's outcome; None before its end.
        ended: whether the run is over and its files are written.
        failure: the error that ended it, with `text`, `kind` and `mistake`; None without one.
    """

    def __init__(self, folder: Path, observers: object) -> None:
        self._folder, self._observers = folder, observers
        self._position, self._rest = 0, b""
        self.started = self.ended = False
        self.outcome: dict[str, Any] | None = None
        self.failure: dict[str, Any] | None = None

    def ask_to_stop(self) -> None:
        """Let the run end after this round."""
        (self._folder / STOP).touch(mode=0o600)

    def note(self, event: dict[str, Any]) -> None:
        """Pass on an event that is not of the ServerApp."""
        self._receive("event", event)

    def read(self) -> bool:
        """Pass on what is new; return whether there was anything."""
        try:
            with (self._folder / FEED).open("rb") as file:
                file.seek(self._position)
                read = file.read()
        except FileNotFoundError:
            return False
        self._position += len(read)
        *lines, self._rest = (self._rest + read).split(b"\n")
        for line in lines:
            found = from_json(line)
            self._take(found["moment"], found["what"])
        return bool(lines)

    def _take(self, moment: str, what: Any) -> None:
        if moment == RETURNED:
            self.ended = True
        elif moment == FAILED:
            self.failure = what
        else:
            self.started = self.started or moment == "run_started"
            self.outcome = what if moment == "run_finished" else self.outcome
            self._receive(moment, what)

    def _receive(self, moment: str, what: Any) -> None:
        receive: Callable[[Any], object] = getattr(self._observers, moment)
        receive(what)
