"""Writes a run as TensorBoard event files: the same samples as everywhere else, with the round as the step.

tensorboardX writes the files, so a plain install can write them; the extra `tensorboard` has the program that shows
them. The round loop only keeps references to its lines. A thread makes the events and writes them, so a slow disk does
not slow the run. tensorboardX's own `FileWriter` is not used: its thread would hide the error of a full disk.
"""

from __future__ import annotations

import errno
import itertools
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tensorboardX import RecordWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.plugin_text_pb2 import TextPluginData
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboardX.proto.tensor_pb2 import TensorProto
from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboardX.summary import histogram_raw

from clients.core.user_code import described
from server.dispersion.histograms import EDGES, INFINITE
from server.metrics.samples import Labels, RunFold, counted_of, outcome_samples, samples
from server.record.files import writing
from server.sinks.curves import CURVES, curve_name, plain_facts

MOST_WAITING = 10_000
"""Rounds that may wait to be written; one more, and the oldest is dropped."""
GATHER_SECONDS, PATIENCE = 1.0, 10.0

_serial = itertools.count()
_TEXT = SummaryMetadata(
    plugin_data=SummaryMetadata.PluginData(
        plugin_name="text", content=TextPluginData(version=0).SerializeToString()
    )
)  # fmt: skip


class RunEvents:
    """The event file of one run.

    Args:
        folder: where to make it.
        facts: what runs; the first event shows it as a text.

    Raises:
        RunFolderError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        name = f"events.out.tfevents.{time.time():.6f}.{os.getpid()}.{next(_serial)}"
        with writing(folder, fix="Name another folder."):
            folder.mkdir(parents=True, exist_ok=True)
            self._path = folder.resolve() / name
            self._file = RecordWriter(str(self._path))  # tensorboardX takes "s3:..." as a bucket
        self._fold, self._at = RunFold(), 0.0
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        rows = "".join(f"\n| {key} | {value} |" for key, value in plain_facts(facts).items())
        self._summary(0, 0.0, [_text("run", f"| what | |\n|---|---|{rows}")])

    def resume(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Count rounds that an earlier file has, and make TensorBoard forget the rounds after them."""
        for line in lines:
            self._fold.observe(line)
        if lines:
            start = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=int(lines[-1]["round"]) + 1, session_log=start))

    def round(self, line: Mapping[str, Any]) -> None:
        """Write a round: its samples, and the counts of this round alone."""
        counted = self._fold.observe(line)
        self._at = float(line.get("finished_at") or 0.0)
        values = [_scalar(name, labels, value) for name, labels, value in samples(CURVES, counted)]
        for name, counts in counted_of(line):
            if {"min", "max"} <= line[name].keys():
                values.append(_histogram(name, line[name], counts))
        self._summary(int(line["round"]), self._at, values)

    def outcome(self, outcome: Mapping[str, Any]) -> None:
        """Write the outcome of the run at its last round."""
        values = [_scalar(name, labels, value) for name, labels, value in outcome_samples(outcome)]
        values.append(_text("outcome", str(outcome.get("words", ""))))
        self._summary(int(outcome.get("round", 0)), self._at, values)

    def flush(self) -> None:
        """Wait until the disk has all that was written.

        Raises:
            OSError: it cannot be written, or the file was removed, so that no one can read it.
        """
        self._file.flush()
        if not self._path.exists():
            raise FileNotFoundError(errno.ENOENT, "the file was removed", str(self._path))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _summary(self, step: int, at: float, values: Sequence[Any]) -> None:
        self._write(Event(wall_time=at, step=step, summary=Summary(value=values)))

    def _write(self, event: Any) -> None:
        self._file.write(event.SerializeToString())


class TensorBoardWriter:
    """The observer.

    Args:
        folder: the folder of all runs; this run gets a folder in it, named by its `run_id`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._queue: deque[Mapping[str, Any]] = deque(maxlen=MOST_WAITING)
        self._before: Sequence[Mapping[str, Any]] = ()
        self._facts: Mapping[str, Any] = {}
        self._outcome: Mapping[str, Any] | None = None
        self._closing = threading.Event()
        self._failure, self._failed = "", False
        self._round = 0
        self._tell: Callable[[dict[str, Any]], object] = lambda event: None
        self._thread: threading.Thread | None = None

    def attached(self, tell: Callable[[dict[str, Any]], object]) -> None:
        """Take the function that announces events of the run."""
        self._tell = tell

    def run_started(self, facts: Mapping[str, Any]) -> None:
        """Take the facts, which name the folder."""
        self._facts = facts

    def recorded_before(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Continue after the rounds that a resumed run has recorded."""
        self._before = lines

    def round_finished(self, line: Mapping[str, Any]) -> None:
        """Queue a round (about 1 us); announce a failure once."""
        self._round = int(line["round"])
        self._announce()
        self._queue.append(line)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="tensorboard", daemon=True)
            self._thread.start()

    def run_finished(self, outcome: Mapping[str, Any]) -> None:
        """Write the rest and the outcome."""
        self._outcome = outcome
        self.close()
        self._announce()

    def close(self) -> None:
        """Write the rest and close the file; a second call does nothing."""
        if self._thread is not None and not self._closing.is_set():
            self._closing.set()
            self._thread.join(PATIENCE)
            if self._thread.is_alive():
                self._failure = f"the disk did not take it within {PATIENCE:g} seconds"

    def _work(self) -> None:
        """Write until the end: the thread's whole life."""
        try:
            with closing(RunEvents(self._folder / str(self._facts.get("run_id", "run")), self._facts)) as events:
                self._write(events)
        except Exception as error:  # the run goes on, whatever fails
            self._failure = described(error)

    def _announce(self) -> None:
        """Announce the failure of the thread; only the thread of the run may announce."""
        if self._failure and not self._failed:
            self._failed = True
            why = self._failure.rstrip(".")
            message = f"TensorBoard's event file could not be written; the record has all of it: {why}"
            again = "To write it from there: fedscape export RUN --to tensorboard"
            self._tell({"round": self._round, "kind": "tensorboard_failed", "message": f"{message}. {again}"})

    def _write(self, events: RunEvents) -> None:
        events.resume(self._before)
        while True:
            is_last = self._closing.is_set()  # read before the queue is emptied: no round comes after it
            while self._queue:
                events.round(self._queue.popleft())
            events.flush()
            if is_last:
                break
            self._closing.wait(GATHER_SECONDS)
        if self._outcome is not None:
            events.outcome(self._outcome)


def write_recorded(
    folder: Path, facts: Mapping[str, Any], lines: Iterable[Mapping[str, Any]], outcome: Mapping[str, Any] | None
) -> None:
    """Write the event file of a recorded run.

    Args:
        folder: where to make it.
        facts: environment.json's `run`.
        lines: the record.
        outcome: outcome.json, or None.

    Raises:
        RunFolderError: the folder cannot be written to.
    """
    events = RunEvents(folder, facts)
    with writing(folder, fix="Name another folder."), closing(events):
        for line in lines:
            events.round(line)
        if outcome is not None:
            events.outcome(outcome)


def _scalar(name: str, labels: Labels, value: float) -> Any:
    """Return a number; TensorBoard keeps a float32 of it, so one that is too large becomes infinite."""
    return Summary.Value(tag=curve_name(name, labels), simple_value=value)


def _histogram(name: str, levels: Mapping[str, float], counts: Mapping[str, int]) -> Any:
    """Return the distribution of one round over its clients."""
    number = sum(counts.values())
    limits = [*EDGES[name], sys.float_info.max]
    found = [counts.get(edge, 0) for edge in (*map(repr, EDGES[name]), INFINITE)]
    total = number * levels["mean"]
    summary = histogram_raw(f"{name}/clients", levels["min"], levels["max"], number, total, 0.0, limits, found)
    return summary.value[0]


def _text(tag: str, words: str) -> Any:
    """Return a text in Markdown. tensorboardX's `text` would end its tag in `/text_summary`."""
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", tensor_shape=shape, string_val=[words.encode("utf-8", "replace")])
    return Summary.Value(tag=tag, tensor=tensor, metadata=_TEXT)
