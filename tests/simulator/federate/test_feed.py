"""The feed passes on every moment of a run, in order, whole, and with numbers that JSON lacks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from clients.core.errors import UserError
from server.rounds.observers import MOMENTS, Observers
from simulator.federate.feed import FEED, FeedReader, FeedWriter
from simulator.runs.run import simulate


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
