"""What the ServerApp's process passes on of its run: the moments of observers, as lines of JSON in a private folder.

The process that started the federation reads them, so it shows, exports and judges the run as if it had played it. What
it sees of the federation's processes goes the other way, as events: the ServerApp alone writes the record.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clients.core.errors import FedscapeError
from clients.core.shown.text import presentable
from server.record.jsonlines import from_json, to_json

FEED, NOTES, STOP = "feed.jsonl", "notes.jsonl", "stop"
RETURNED, FAILED = "returned", "failed"
"""The last moment: the run is over and its files are written, or an error ended it."""


class FeedWriter:
    """An observer that passes on each moment of a run, and announces the events of the federation's processes.

    It is critical: without it the run would be lost from sight.

    Args:
        folder: the private folder.
    """

    critical = True

    def __init__(self, folder: Path) -> None:
        self._stop, self._notes = folder / STOP, _Lines(folder / NOTES)
        self._announce: Callable[[dict[str, Any]], object] = lambda event: None
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

    def attached(self, announce: Callable[[dict[str, Any]], object]) -> None:
        """Keep what announces an event to the record and all other observers."""
        self._announce = announce

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
        """Pass on a round's line, after the events of the processes up to here."""
        for event in self._notes.read():
            self._announce({**event, "round": line["round"]})
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
        round_index: the last finished round; None before round 0.
        outcome: the run's outcome; None before its end.
        ended: whether the run is over and its files are written.
        failure: the error that ended it, with `text`, `kind` and `mistake`; None without one.
    """

    def __init__(self, folder: Path, observers: object) -> None:
        self._folder, self._observers = folder, observers
        self._lines = _Lines(folder / FEED)
        self._unrecorded: list[dict[str, Any]] = []
        self.started = self.ended = False
        self.round_index: int | None = None
        self.outcome: dict[str, Any] | None = None
        self.failure: dict[str, Any] | None = None

    def ask_to_stop(self) -> None:
        """Let the run end after this round."""
        (self._folder / STOP).touch(mode=0o600)

    def note(self, kind: str, message: str) -> None:
        """Show an event of the federation's processes now, and hand it to the ServerApp, which records it."""
        round_index = 0 if self.round_index is None else self.round_index + 1
        event = {"round": round_index, "kind": kind, "message": presentable(message)}
        self._unrecorded.append(event)
        with (self._folder / NOTES).open("ab") as file:
            file.write(to_json(event).encode() + b"\n")
        self._receive("event", event)

    def take_unrecorded(self) -> list[dict[str, Any]]:
        """Return the events of `note` that the ServerApp has not recorded, and forget them."""
        events, self._unrecorded = self._unrecorded, []
        return events

    def read(self) -> bool:
        """Pass on what is new; return whether there was anything."""
        found = self._lines.read()
        for line in found:
            self._take(line["moment"], line["what"])
        return bool(found)

    def _take(self, moment: str, what: Any) -> None:
        if moment == RETURNED:
            self.ended = True
        elif moment == FAILED:
            self.failure = what
        elif moment == "event" and (noted := self._noted(what)) is not None:  # it was shown when it was noted
            self._unrecorded.remove(noted)
        else:
            self.started = self.started or moment == "run_started"
            if moment == "round_finished":
                self.round_index = what["round"]
            elif moment == "recorded_before" and what:
                self.round_index = what[-1]["round"]
            self.outcome = what if moment == "run_finished" else self.outcome
            self._receive(moment, what)

    def _noted(self, event: Mapping[str, Any]) -> dict[str, Any] | None:
        same = (e for e in self._unrecorded if (e["kind"], e["message"]) == (event.get("kind"), event.get("message")))
        return next(same, None)

    def _receive(self, moment: str, what: Any) -> None:
        receive: Callable[[Any], object] = getattr(self._observers, moment)
        receive(what)


class _Lines:
    """Reads the lines of a file of JSON while it grows.

    Args:
        path: the file, which may come later.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._position, self._rest = path, 0, b""

    def read(self) -> list[Any]:
        """Return what the new lines hold; a line that is not whole yet waits."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                read = file.read()
        except FileNotFoundError:
            return []
        self._position += len(read)
        *lines, self._rest = (self._rest + read).split(b"\n")
        return [from_json(line) for line in lines]
