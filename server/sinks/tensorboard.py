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
import time
from collections.abc import Iterable, Mapping, Sequence
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

from server.dispersion.histograms import EDGES, INFINITE
from server.metrics.samples import Labels, RunFold, counted_of, outcome_samples, samples
from server.record.files import writing
from server.sinks.background import BackgroundSink
from server.sinks.curves import CURVES, curve_name, plain_facts

PATIENCE = 10.0
"""Seconds that the end of a run waits for the disk."""

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


class TensorBoardWriter(BackgroundSink):
    """The observer.

    Args:
        folder: the folder of all runs; this run gets a folder in it, named by its `run_id`.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__("tensorboard", PATIENCE)
        self._folder = folder

    def deliver(self) -> None:
        """Write the event file."""
        with closing(RunEvents(self._folder / str(self.facts.get("run_id", "run")), self.facts)) as events:
            events.resume(self.before)
            for batch in self.batches():
                for line in batch:
                    events.round(line)
                events.flush()
            if self.outcome is not None:
                events.outcome(self.outcome)

    def late(self) -> str:
        """Return why the rest is not written."""
        return f"the disk did not take it within {PATIENCE:g} seconds"

    def failed(self, why: str) -> str:
        """Return what was not written."""
        message = f"TensorBoard's event file could not be written; the record has all of it: {why}"
        return f"{message}. To write it from there:"


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
