"""Writes a run as TensorBoard's event files: the same samples as everywhere else, the round as the step.

The round loop only leaves references behind; a thread makes the events and writes them, so a slow disk slows nothing.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clients.errors import RunFolderError, UserError
from server.histograms import EDGES, INFINITE
from server.metric_table import METRICS, series_names
from server.samples import RunFold, Sample, outcome_samples, round_samples

MOST_WAITING = 10_000
"""Rounds that may wait to be written; one more, and the oldest is dropped."""
GATHER_SECONDS, PATIENCE = 0.5, 10.0

_log = logging.getLogger("fedscape.tensorboard")
_CUMULATIVE = {name for metric in METRICS.values() if metric.kind == "histogram" for name in series_names(metric)}


class EventFile:
    """One run's event file.

    Args:
        folder: where it is made; TensorBoard shows a folder as a run.

    Raises:
        UserError: tensorboard is not installed.
        RunFolderError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._event, self._summary, writer = _library()
        try:
            self._file = writer(str(folder))
        except OSError as error:
            raise RunFolderError(str(folder), f"cannot be written to ({error.strerror})") from error

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Write what runs, as text."""
        rows = "".join(f"\n| {key} | {value} |" for key, value in facts.items() if isinstance(value, str | int | float))
        self._add("run", 0, None, text=f"| what | |\n|---|---|{rows}")

    def resume(self, step: int) -> None:
        """Take back what was written of later rounds."""
        log = {"status": 1}  # SessionLog.START
        self._file.add_event(self._event.Event(step=step, session_log=log))

    def round(self, told: Mapping[str, Any]) -> None:
        """Write a round, as `RunFold.observe` tells it: its samples, and the counts of this round alone."""
        step, at = int(told["round"]), told.get("finished_at")
        values = [_scalar(sample) for sample in round_samples(told) if sample.name not in _CUMULATIVE]
        for name, counts in (told.get("histograms") or {}).items():
            values.append({"tag": f"{name}/clients", "histo": _histogram(name, counts, told[name])})
        self._write(values, step, at)

    def outcome(self, outcome: Mapping[str, Any], at: float | None) -> None:
        """Write what the run came to, at its last round."""
        step = int(outcome["round"])
        self._write([_scalar(sample) for sample in outcome_samples(outcome)], step, at)
        self._add("outcome", step, at, text=str(outcome.get("words", "")))

    def flush(self) -> None:
        """Put what was written into the file."""
        self._file.flush()

    def close(self) -> None:
        """Write the rest and close the file."""
        self._file.close()

    def _add(self, tag: str, step: int, at: float | None, *, text: str) -> None:
        content = {"dtype": 7, "string_val": [text.encode()], "tensor_shape": {"dim": [{"size": 1}]}}  # DT_STRING
        self._write([{"tag": tag, "metadata": {"plugin_data": {"plugin_name": "text"}}, "tensor": content}], step, at)

    def _write(self, values: Sequence[Mapping[str, Any]], step: int, at: float | None) -> None:
        summary = self._summary.Summary(value=[self._summary.Summary.Value(**value) for value in values])
        self._file.add_event(self._event.Event(step=step, wall_time=at or 0.0, summary=summary))


class TensorBoardWriter:
    """The observer.

    Args:
        folder: the folder of all runs; this one gets a folder named by its `run_id`.

    Raises:
        UserError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        _library()
        self._folder = folder
        self._fold = RunFold()
        self._queue: deque[Mapping[str, Any]] = deque(maxlen=MOST_WAITING)
        self._facts: Mapping[str, Any] = {}
        self._resumed_at: int | None = None
        self._outcome: Mapping[str, Any] | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def run_started(self, facts: Mapping[str, Any]) -> None:
        """Take the facts that name the folder."""
        self._facts = facts

    def recorded_before(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Go on after what a resumed run recorded."""
        for line in lines:
            self._resumed_at = self._fold.observe(line)["round"] + 1

    def round_finished(self, line: Mapping[str, Any]) -> None:
        """Let a round wait to be written (about 10 us)."""
        self._queue.append(self._fold.observe(line))
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
            file, at = EventFile(self._folder / str(self._facts.get("run_id", "run"))), None
            file.facts(self._facts)
            if self._resumed_at is not None:
                file.resume(self._resumed_at)
            while True:
                closing = self._closing.is_set()  # asked before the queue is emptied: nothing comes after it
                while self._queue:
                    told = self._queue.popleft()
                    at = told.get("finished_at")
                    file.round(told)
                file.flush()
                if closing:
                    break
                self._closing.wait(GATHER_SECONDS)
            if self._outcome is not None:
                file.outcome(self._outcome, at)
            file.close()
        except Exception:
            _log.exception("TensorBoard's event file could not be written; the record has all of it")


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
        UserError: tensorboard is not installed.
        RunFolderError: the folder cannot be written to.
    """
    file, fold, at = EventFile(folder), RunFold(), None
    file.facts(facts)
    for line in lines:
        at = line.get("finished_at")
        file.round(fold.observe(line))
    if outcome is not None:
        file.outcome(outcome, at)
    file.close()


def _library() -> tuple[Any, Any, Any]:
    """Import what tensorboard has for writing: its event and summary messages, its writer."""
    try:
        event = importlib.import_module("tensorboard.compat.proto.event_pb2")
        summary = importlib.import_module("tensorboard.compat.proto.summary_pb2")
        writer = importlib.import_module("tensorboard.summary.writer.event_file_writer")
    except ImportError:
        fix = "Install the extra: pip install 'fedscape[tensorboard]'."
        raise UserError("tensorboard", "is not installed in this environment", fix=fix) from None
    return event, summary, writer.EventFileWriter


def _scalar(sample: Sample) -> dict[str, Any]:
    """Return a sample as a value; labels come after a slash, which groups the charts."""
    words = "/".join(word for _, word in sample.labels)
    name = sample.name.removeprefix("fedscape_")
    return {"tag": f"{name}/{words}" if words else name, "simple_value": sample.value}


def _histogram(name: str, counts: Mapping[str, int], levels: Mapping[str, float]) -> dict[str, Any]:
    """Return a round's counts between the smallest and the largest value."""
    edges = [*map(repr, EDGES[name]), INFINITE]
    total = sum(counts.values())
    return {
        "min": levels["min"],
        "max": levels["max"],
        "num": total,
        "sum": total * levels["mean"],
        "bucket_limit": [*EDGES[name], sys.float_info.max],
        "bucket": [counts.get(edge, 0) for edge in edges],
    }
