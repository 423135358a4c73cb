"""The feed passes on every moment of a run, in order, whole, and with numbers that JSON lacks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from clients.core.errors import UserError
from server.record.records import RunFolder
from server.rounds.observers import MOMENTS, Observers
from simulator.federate.feed import FEED, FeedReader, FeedWriter
from simulator.federate.wanted import record_rest
from simulator.runs.run import resume, simulate


class Heard:
    """Keeps the moments it receives."""

    def __init__(self) -> None:
        self.moments: list[tuple[str, Any]] = []

    def run_started(self, facts: dict[str, Any]) -> None:
        self.moments.append(("run_started", facts))

    def round_finished(self, line: dict[str, Any]) -> None:
        self.moments.append(("round_finished", line))

    def event(self, event: dict[str, Any]) -> None:
        self.moments.append(("event", event))

    def run_finished(self, outcome: dict[str, Any]) -> None:
        self.moments.append(("run_finished", outcome))


def test_run_is_seen_through_the_feed_as_beside_it(tmp_path: Path) -> None:
    beside, through = Heard(), Heard()
    reader = FeedReader(tmp_path, Observers([through]))
    assert not reader.read()
    writer = FeedWriter(tmp_path)
    with writer.closing():
        simulate("quadratic-two-clients", record=False, observers=[beside, writer], stop_asked=writer.stop_asked)
        assert reader.read()
        assert not reader.ended
    reader.read()
    assert reader.ended
    assert reader.started
    assert [name for name, _ in through.moments] == [name for name, _ in beside.moments]
    kept = ("round", "objective", "train_loss", "outcome", "headline")
    assert [[what.get(k) for k in kept] for _, what in through.moments] == [
        [what.get(k) for k in kept] for _, what in beside.moments
    ]
    assert reader.outcome is not None
    assert reader.outcome["outcome"] == "converged"


def test_writer_passes_on_every_moment_but_the_snapshots() -> None:
    """A snapshot holds a model, which does not leave the process."""
    assert {name for name in MOMENTS if not hasattr(FeedWriter, name)} == {"snapshot_taken"}


def test_line_that_is_not_whole_yet_waits(tmp_path: Path) -> None:
    heard = Heard()
    reader, writer = FeedReader(tmp_path, Observers([heard])), FeedWriter(tmp_path)
    writer.round_finished({"round": 1, "train_loss": math.inf})
    whole = (tmp_path / FEED).read_bytes()
    (tmp_path / FEED).write_bytes(whole[:-5])
    reader.read()
    assert heard.moments == []
    (tmp_path / FEED).write_bytes(whole)
    reader.read()
    assert heard.moments == [("round_finished", {"round": 1, "train_loss": math.inf})]


def test_request_to_stop_ends_the_run_after_its_round(tmp_path: Path) -> None:
    reader, writer = FeedReader(tmp_path, Observers([])), FeedWriter(tmp_path)
    reader.ask_to_stop()
    run = simulate("quadratic-two-clients", record=False, observers=[writer], stop_asked=writer.stop_asked)
    assert run.verdict.outcome == "interrupted"


@pytest.mark.parametrize(("error", "mistake"), [(UserError("run.rounds", "must be > 0"), True), (OSError("x"), False)])
def test_error_is_passed_on(tmp_path: Path, error: Exception, mistake: bool) -> None:
    reader, writer = FeedReader(tmp_path, Observers([])), FeedWriter(tmp_path)
    with pytest.raises(type(error)), writer.closing():
        raise error
    reader.read()
    assert reader.failure == {"text": str(error), "kind": type(error).__name__, "mistake": mistake}
    assert not reader.ended


class Meddling:
    """Notes an event of a process in the middle of a run."""

    def __init__(self, reader: FeedReader) -> None:
        self.reader = reader

    def round_finished(self, line: dict[str, Any]) -> None:
        if line["round"] == 2:
            self.reader.read()
            self.reader.note("node_ended", "SuperNode 1 has ended \u2014 a caf\u00e9\x07")


def test_event_of_a_process_is_shown_at_once_and_recorded_once(tmp_path: Path) -> None:
    shown = Heard()
    reader, writer = FeedReader(tmp_path, Observers([shown])), FeedWriter(tmp_path)
    simulate("quadratic-two-clients", observers=[Meddling(reader), writer], out=tmp_path / "run")
    assert reader.read()
    noted = [event for name, event in shown.moments if name == "event"]
    recorded = [e for e in RunFolder(tmp_path / "run").read_events().values if e["kind"] == "node_ended"]
    assert len(noted) == len(recorded) == 1
    assert recorded[0]["message"] == noted[0]["message"]
    assert recorded[0]["round"] == 2
    assert reader.take_unrecorded() == []


def interrupted(folder: Path) -> None:
    simulate("quadratic-two-clients", out=folder, stop_asked=lambda: True)


def test_event_that_the_server_app_did_not_live_to_record_is_recorded_after_it(tmp_path: Path) -> None:
    interrupted(tmp_path / "run")
    (tmp_path / "run" / "outcome.json").unlink()
    reader = FeedReader(tmp_path, Observers([]))
    reader.note("federation_ended", "SuperLink: was killed by signal 9")
    record_rest(tmp_path / "run", reader)
    record_rest(tmp_path / "run", reader)
    events = RunFolder(tmp_path / "run").read_events()
    assert [(e["kind"], e["message"]) for e in events.values] == [
        ("federation_ended", "SuperLink: was killed by signal 9")
    ]
    assert not events.damage
    assert events.has_links
    assert resume(tmp_path / "run").verdict.outcome == "converged"


def test_finished_record_gets_no_event(tmp_path: Path) -> None:
    interrupted(tmp_path / "run")
    before = (tmp_path / "run" / "events.jsonl").read_bytes()
    reader = FeedReader(tmp_path, Observers([]))
    reader.note("node_ended", "SuperNode 0 has ended")
    record_rest(tmp_path / "run", reader)
    assert (tmp_path / "run" / "events.jsonl").read_bytes() == before
