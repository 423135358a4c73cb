"""Observers receive every moment in order. A failing one is dropped, unless it is critical."""

import copy
import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clients.core.errors import RunFolderError, UserError
from server.rounds.observers import Observers, Snapshot


class Everything:
    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, Any]]] = []

    def run_started(self, facts: dict[str, Any]) -> None:
        self.received.append(("run_started", facts))

    def round_finished(self, line: dict[str, Any]) -> None:
        self.received.append(("round_finished", line))

    def event(self, event: dict[str, Any]) -> None:
        self.received.append(("event", event))

    def run_finished(self, outcome: dict[str, Any]) -> None:
        self.received.append(("run_finished", outcome))


class Broken:
    def __init__(self) -> None:
        self.calls = 0

    def round_finished(self, line: dict[str, Any]) -> None:
        self.calls += 1
        raise OSError(f"no route to host in round {line['round']}")


class BrokenAtEvents(Everything):
    def event(self, event: dict[str, Any]) -> None:
        raise ZeroDivisionError


class Record:
    critical = True

    def round_finished(self, line: dict[str, Any]) -> None:
        raise RunFolderError("rounds.jsonl", "cannot be written: No space left on device")


def test_observers_receive_each_moment_once_in_order() -> None:
    first, second = Everything(), Everything()
    observers = Observers([first, object(), second])
    observers.run_started({"seed": 7})
    observers.round_finished({"round": 1})
    observers.event({"kind": "fault"})
    observers.run_finished({"outcome": "stopped"})
    moments = ["run_started", "round_finished", "event", "run_finished"]
    sent = [{"seed": 7}, {"round": 1}, {"kind": "fault"}, {"outcome": "stopped"}]
    assert first.received == second.received == list(zip(moments, sent, strict=True))


def test_failing_observer_is_logged_dropped_and_announced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before, broken, after = Everything(), Broken(), Everything()
    observers = Observers([before, broken, after])
    with caplog.at_level(logging.ERROR, "fedscape.observers"):
        observers.round_finished({"round": 3})
        observers.round_finished({"round": 4})
    assert broken.calls == 1
    assert [r.getMessage() for r in caplog.records] == ["Broken raised in round_finished and was dropped from this run"]
    assert caplog.records[0].exc_info is not None
    (event,) = (what for moment, what in before.received if moment == "event")
    assert (event["round"], event["kind"]) == (3, "observer_dropped")
    line = Broken.round_finished.__code__.co_firstlineno + 2
    assert event["message"] == (
        "Broken failed in round_finished and was dropped: OSError: no route to host in round 3 "
        f"(at {__file__}, line {line}, in round_finished: "
        """raise OSError(f"no route to host in round {line['round']}"))"""
    )
    assert [moment for moment, _ in after.received] == ["event", "round_finished", "round_finished"]


def test_observer_failing_during_another_failure_is_dropped_once() -> None:
    witness, fragile = Everything(), BrokenAtEvents()
    observers = Observers([Broken(), fragile, witness])
    observers.round_finished({"round": 1})
    observers.round_finished({"round": 2})
    names = [what["message"].split()[0] for moment, what in witness.received if moment == "event"]
    assert sorted(names) == ["Broken", "BrokenAtEvents"]
    assert fragile.received == []
    assert [what for moment, what in witness.received if moment == "round_finished"] == [{"round": 1}, {"round": 2}]


def test_critical_observer_stops_the_run() -> None:
    after = Everything()
    with pytest.raises(RunFolderError, match="No space left"):
        Observers([Record(), after]).round_finished({"round": 1})
    assert after.received == []


def test_interrupt_in_an_observer_ends_the_run() -> None:
    class Interrupted:
        def event(self, event: dict[str, Any]) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Observers([Interrupted()]).event({})


def test_absent_methods_are_looked_up_once() -> None:
    looked_up: list[str] = []

    class Absent:
        def __getattr__(self, name: str) -> Any:
            looked_up.append(name)
            raise AttributeError(name)

    observers = Observers([Absent()] * 100)
    looked_up.clear()
    for _ in range(200):
        observers.round_finished({"round": 1})
    assert looked_up == []


class Follower:
    def __init__(self) -> None:
        self.rounds: list[int | None] = []

    def progress(self, facts: dict[str, Any]) -> None:
        self.rounds.append(facts["round"])


def test_progress_has_the_round_that_is_played() -> None:
    follower = Follower()
    observers = Observers([follower])
    assert observers.follow_progress
    observers.progress({"phase": "evaluation"})
    observers.round_finished({"round": 0})
    observers.progress({"phase": "training"})
    observers.progress({"phase": "evaluation", "round": None})
    assert follower.rounds == [0, 1, None]


def test_progress_of_a_resumed_run_has_the_round_after_the_checkpoint() -> None:
    follower = Follower()
    observers = Observers([follower])
    observers.recorded_before([{"round": 0}, {"round": 1}, {"round": 2}])
    observers.progress({"phase": "training"})
    assert follower.rounds == [3]


def test_progress_is_not_followed_without_the_method() -> None:
    assert not Observers([Everything()]).follow_progress


class Mine:
    """A user's observer that changes all that it receives."""

    def __init__(self) -> None:
        self.received: list[Any] = []

    def round_finished(self, line: dict[str, Any]) -> None:
        self.received.append(line.pop("loss"))
        line["worst"].clear()

    def recorded_before(self, lines: list[dict[str, Any]]) -> None:
        lines.clear()

    def snapshot_taken(self, snapshot: Snapshot) -> None:
        snapshot.clients["client_drift"][:] = 0.0
        snapshot.line.clear()  # type: ignore[attr-defined]
        for tensor in snapshot.parameters().values():
            tensor.zero_()


def test_users_observers_receive_copies() -> None:
    line, lines = {"round": 1, "loss": 0.5, "worst": [{"client": 3}]}, [{"round": 0}]
    first, second = Mine(), Mine()
    observers = Observers([first, second])
    observers.recorded_before(lines)
    observers.round_finished(line)
    assert line == {"round": 1, "loss": 0.5, "worst": [{"client": 3}]}
    assert lines == [{"round": 0}]
    assert first.received == second.received == [0.5]


class Ours(Everything):
    __module__ = "server.sinks.tensorboard"  # a class of fedscape's own


def test_observers_of_fedscape_receive_the_line_itself() -> None:
    """They are many, and a copy for each would cost more than the rest of the moment."""
    ours, line = Ours(), {"round": 1}
    Observers([ours]).round_finished(line)
    assert ours.received[0][1] is line


def test_snapshots_are_copies() -> None:
    drifts, module = np.ones(2), nn.Linear(2, 1)
    observers = Observers([Mine(), Mine()])
    assert observers.follow_snapshots
    snapshot = Snapshot(3, {"round": 3}, {"client_drift": drifts}, lambda: copy.deepcopy(module))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    observers.snapshot_taken(snapshot)
    assert drifts.tolist() == [1.0, 1.0]
    assert snapshot.line == {"round": 3}
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert "Linear" not in repr(snapshot)


def test_snapshots_are_not_followed_without_the_method() -> None:
    assert not Observers([Everything()]).follow_snapshots


class Vital:
    critical = True

    def round_finished(self, line: dict[str, Any]) -> None:
        raise OSError("no route to host")


def test_failing_critical_observer_of_a_user_is_named_with_round_and_line() -> None:
    observers = Observers([Vital()])
    line = Vital.round_finished.__code__.co_firstlineno + 1
    with pytest.raises(UserError) as caught:
        observers.round_finished({"round": 7})
    assert str(caught.value) == (
        f"observers: Vital fails in round_finished of round 7: OSError: no route to host (at {__file__}, line {line}, "
        'in round_finished: raise OSError("no route to host")). It is critical, so it ends the run. '
        "A recorded run can be resumed."
    )
    assert isinstance(caught.value.__cause__, OSError)


def test_failure_when_attached_is_named_before_the_run() -> None:
    class Unready:
        def attached(self, announce: Any) -> None:
            raise ConnectionError("no server")

    with pytest.raises(
        UserError, match=r"observers: Unready fails in attached: ConnectionError: no server \(at .*, line"
    ):
        Observers([Unready()])
