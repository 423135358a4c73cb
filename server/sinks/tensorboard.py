"""Writes a run as TensorBoard's event files: the same samples as everywhere else, the round as the step.

The round loop only leaves references behind; a thread makes the events and writes them, so a slow disk slows nothing.
TensorBoard itself is needed to look at them, not to write them.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

from clients.core.errors import FedscapeError
from server.dispersion.histograms import EDGES, INFINITE
from server.metrics.samples import Labels, RunFold, Sample, outcome_samples, samples
from server.metrics.table import PREFIX, ROUND
from server.record.files import writing
from server.sinks.event_file import EventFile, histogram, scalar, scalar_head, text

MOST_WAITING = 10_000
"""Rounds that may wait to be written; one more, and the oldest is dropped."""
GATHER_SECONDS, PATIENCE = 1.0, 10.0

_log = logging.getLogger("fedscape.tensorboard")
_CURVES = [m for m in ROUND if m.kind != "histogram" and m.name != "run_state" and not m.name.endswith("_client")]
"""What makes a curve; histograms are written as TensorBoard has them, round by round."""


class RunEvents:
    """One run's event file.

    Args:
        folder: where it is made.
        facts: what runs; the first event shows it as a text.

    Raises:
        RunFolderError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.file = EventFile(folder)
        self._fold, self._at = RunFold(), 0.0
        rows = "".join(f"\n| {key} | {value} |" for key, value in facts.items() if isinstance(value, str | int | float))
        self.file.add(0, 0.0, [text("run", f"| what | |\n|---|---|{rows}")])

    def recorded(self, line: Mapping[str, Any]) -> None:
        """Count a round that is in an earlier file."""
        self._fold.observe(line)

    def round(self, line: Mapping[str, Any]) -> None:
        """Write a round: its samples, and the counts of this round alone."""
        told = self._fold.observe(line)
        self._at = float(line.get("finished_at", 0.0))
        values = [_scalar(sample) for sample in samples(_CURVES, told)]
        for name, counts in (line.get("histograms") or {}).items():
            levels, number = line[name], sum(counts.values())
            ends = (levels["min"], levels["max"], number, number * levels["mean"])
            limits = [*EDGES[name], sys.float_info.max]
            found = [counts.get(edge, 0) for edge in (*map(repr, EDGES[name]), INFINITE)]
            values.append(histogram(f"{name}/clients", ends, limits, found))
        self.file.add(int(line["round"]), self._at, values)

    def outcome(self, outcome: Mapping[str, Any]) -> None:
        """Write what the run came to, at its last round."""
        values = [_scalar(sample) for sample in outcome_samples(outcome)]
        values.append(text("outcome", str(outcome.get("words", ""))))
        self.file.add(int(outcome["round"]), self._at, values)


class TensorBoardWriter:
    """The observer.

    Args:
        folder: the folder of all runs; this one gets a folder named by its `run_id`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._queue: deque[Mapping[str, Any]] = deque(maxlen=MOST_WAITING)
        self._before: Sequence[Mapping[str, Any]] = ()
        self._facts: Mapping[str, Any] = {}
        self._outcome: Mapping[str, Any] | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def run_started(self, facts: Mapping[str, Any]) -> None:
        """Take the facts that name the folder."""
        self._facts = facts

    def recorded_before(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Go on after what a resumed run recorded."""
        self._before = list(lines)

    def round_finished(self, line: Mapping[str, Any]) -> None:
        """Let a round wait to be written (about 1 us)."""
        self._queue.append(line)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="tensorboard", daemon=True)
            self._thread.start()

    def run_finished(self, outcome: Mapping[str, Any]) -> None:
        """Write the rest, and what the run came to."""
        self._outcome = outcome
        self.close()

    def close(self) -> None:
        """Write the rest and close the file; a second time does nothing."""
        if self._thread is not None and not self._closing.is_set():
            self._closing.set()
            self._thread.join(PATIENCE)

    def _work(self) -> None:
        """Write until the end: the thread's whole life."""
        try:
            events = RunEvents(self._folder / str(self._facts.get("run_id", "run")), self._facts)
            with closing(events.file):
                self._write(events)
        except (FedscapeError, OSError):
            _log.exception("TensorBoard's event file could not be written; the record has all of it")

    def _write(self, events: RunEvents) -> None:
        for line in self._before:
            events.recorded(line)
        if self._before:
            events.file.resume(self._before[-1]["round"] + 1, time.time())
        while True:
            is_last = self._closing.is_set()  # asked before the queue is emptied: nothing comes after it
            while self._queue:
                events.round(self._queue.popleft())
            events.file.flush()
            if is_last:
                break
            self._closing.wait(GATHER_SECONDS)
        if self._outcome is not None:
            events.outcome(self._outcome)


def write_recorded(
    folder: Path, facts: Mapping[str, Any], lines: Iterable[Mapping[str, Any]], outcome: Mapping[str, Any] | None
) -> None:
    """Write a recorded run's event file.

    Args:
        folder: where it is made.
        facts: environment.json's `run`.
        lines: the record.
        outcome: outcome.json, or None.

    Raises:
        RunFolderError: the folder cannot be written to.
    """
    events = RunEvents(folder, facts)
    with writing(folder, fix="Name another folder."), closing(events.file):
        for line in lines:
            events.round(line)
        if outcome is not None:
            events.outcome(outcome)


def _scalar(sample: Sample) -> bytes:
    """Return a sample as a value."""
    return scalar(_head(sample.name, sample.labels), sample.value)


@lru_cache(maxsize=4096)
def _head(name: str, labels: Labels) -> bytes:
    """Return what says a series' tag; labels come after a slash, which groups the charts."""
    return scalar_head("/".join((name.removeprefix(PREFIX), *(word for _, word in labels))))
