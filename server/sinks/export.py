"""Gives a recorded run to a sink: the same samples that a live run sends.

httpx and tensorboardX are imported by the export that needs them: together they take a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clients.core.errors import UserError
from server.metrics.run_stream import recorded_moments
from server.metrics.timeline import Clock
from server.record.checked.line_files import read_rounds
from server.record.files import OTHER_OUT, place_for, whole_file
from server.record.records import RunFolder
from server.sinks.openmetrics import openmetrics

if TYPE_CHECKING:
    from server.sinks.sender import Sent
    from server.sinks.trackers.tracking import Tracker


@dataclass(frozen=True)
class Recorded:
    """The part of a run's folder that sinks need.

    Attributes:
        facts: the facts announced at its start, with `run_id`.
        lines: its rounds.
        outcome: its outcome; None while it runs, or where it was killed.
    """

    facts: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    outcome: Mapping[str, Any] | None


def read_recorded(path: Path) -> Recorded:
    """Read a run's folder.

    Raises:
        RunFolderError: it is not the folder of a run, or cannot be read.
    """
    folder = RunFolder.open(path)
    facts = (folder.read_environment() or {}).get("run") or {}
    return Recorded({"run_id": path.resolve().name, **facts}, read_rounds(folder.rounds)[0], folder.read_outcome())


def to_openmetrics(recorded: Recorded, clock: Clock) -> Iterator[str]:
    """Yield the lines of a run's OpenMetrics text.

    Raises:
        UserError: the record lacks what the clock needs.
    """
    stream, moments = recorded_moments(recorded.facts, recorded.lines, recorded.outcome, clock)
    return openmetrics(moments, stream.labels)


def write_openmetrics(recorded: Recorded, clock: Clock, file: Path) -> None:
    """Write a run's OpenMetrics text, whole or not at all.

    Raises:
        UserError: the record lacks what the clock needs, or the file is a folder.
        RunFolderError: the file cannot be written.
    """
    lines = to_openmetrics(recorded, clock)
    place_for(file, "run.om")
    with whole_file(file, fix=OTHER_OUT) as out:
        out.writelines(f"{line}\n".encode() for line in lines)


def to_remote_write(
    recorded: Recorded,
    url: str,
    clock: Clock,
    *,
    token: str | None = None,
    timeout: float = 10.0,
    patience: float = 30.0,
) -> Sent:
    """Send a run to a receiver.

    Args:
        recorded: the run.
        url: the receiver.
        clock: which time the samples carry.
        token: a bearer token, where the receiver needs one.
        timeout: seconds for a whole request.
        patience: seconds that a batch may wait for an answer.

    Returns:
        Counts of the samples; all of them were taken.

    Raises:
        UserError: the URL is not valid, or some samples were not taken; it says how many and why.
    """
    from server.sinks.receiver import Receiver
    from server.sinks.remote_write import not_sent, send_recorded

    receiver = Receiver(url, token=token, timeout=timeout)
    tally = send_recorded(receiver, recorded.facts, recorded.lines, recorded.outcome, clock, patience=patience)
    if not tally.complete:
        problem = not_sent(tally, receiver, clock).removeprefix("remote write: ")
        raise UserError("remote-write", f"{problem} ({tally.sent:,} samples were taken)")
    return tally


def to_tensorboard(recorded: Recorded, folder: Path) -> None:
    """Write a run's TensorBoard event file.

    Raises:
        RunFolderError: the folder cannot be written to.
    """
    from server.sinks.tensorboard import write_recorded

    write_recorded(folder, recorded.facts, recorded.lines, recorded.outcome)


def to_tracker(recorded: Recorded, tracker: Tracker, target: str) -> str:
    """Send a run to Weights & Biases or MLflow; see `server.sinks.trackers.tracking`.

    Returns:
        Where the run is.

    Raises:
        UserError: the tracker's package is not installed, or it did not take the run.
    """
    from server.sinks.trackers.tracking import send_recorded

    return send_recorded(tracker, target, recorded.facts, recorded.lines, recorded.outcome)
