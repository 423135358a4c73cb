"""Observers written in Python: when they are called, and what a failing one leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_folders import assert_same_run, digits, stop_after

import fedscape as fs
from clients.core.errors import UserError
from server.record.jsonlines import read_rounds
from server.record.records import RunFolder
from simulator.runs.run import resume, simulate


class Diary:
    """Writes down what it is called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int | None]] = []

    def run_started(self, facts: dict[str, Any]) -> None:
        self.calls.append(("run_started", facts["rounds"]))

    def recorded_before(self, lines: list[dict[str, Any]]) -> None:
        self.calls.append(("recorded_before", lines[-1]["round"]))

    def round_finished(self, line: dict[str, Any]) -> None:
        self.calls.append(("round_finished", line["round"]))

    def snapshot_taken(self, snapshot: fs.Snapshot) -> None:
        assert snapshot.line["round"] == snapshot.round_index
        self.calls.append(("snapshot_taken", snapshot.round_index))

    def run_finished(self, outcome: dict[str, Any]) -> None:
        self.calls.append(("run_finished", outcome["round"]))


def rounds(first: int, last: int) -> list[tuple[str, int]]:
    return [(moment, r) for r in range(first, last + 1) for moment in ("round_finished", "snapshot_taken")]


def test_observer_is_called_in_order_also_when_the_run_is_resumed(tmp_path: Path) -> None:
    scenario, first, second = digits("run.checkpoint_rounds=1"), Diary(), Diary()
    simulate(scenario, out=tmp_path / "run", observers=[first], stop_asked=stop_after(5))
    assert first.calls == [("run_started", 8), *rounds(0, 5), ("run_finished", 5)]
    resume(tmp_path / "run", observers=[second])
    assert second.calls == [("run_started", 8), ("recorded_before", 5), *rounds(6, 8), ("run_finished", 8)]
    simulate(scenario, out=tmp_path / "whole")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_snapshot_has_the_clients_and_the_model_of_its_round() -> None:
    class Check:
        snapshots: list[fs.Snapshot] = []  # noqa: RUF012 (one for the test)

        def snapshot_taken(self, snapshot: fs.Snapshot) -> None:
            self.snapshots.append(snapshot)

    run = simulate(digits(), record=False, observers=[Check()])
    for snapshot in Check.snapshots:
        if snapshot.round_index == 0:
            assert not snapshot.clients
            continue
        assert len(snapshot.clients["client"]) == snapshot.line["respondents"]
        assert snapshot.clients["client_drift"].mean() == pytest.approx(snapshot.line["client_drift"]["mean"])
    last = Check.snapshots[-1]  # kept for later, it still has the parameters of its round
    assert all(torch.equal(tensor, last.parameters()[name]) for name, tensor in run.model().state_dict().items())
    early = Check.snapshots[1].model()
    validation = run.session.population.validation
    assert validation is not None
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(early(validation.features), validation.targets)
    assert loss.item() == pytest.approx(run.rounds["validation_loss"][1], rel=1e-5)


class Fails:
    """Fails in a round."""

    def __init__(self, round_index: int, *, critical: bool) -> None:
        self.round_index, self.critical = round_index, critical

    def snapshot_taken(self, snapshot: fs.Snapshot) -> None:
        if snapshot.round_index == self.round_index:
            raise ValueError("no space for the picture")


def test_failing_observer_is_dropped_and_the_run_is_the_same(tmp_path: Path) -> None:
    simulate(digits(), out=tmp_path / "plain")
    simulate(digits(), out=tmp_path / "run", observers=[Fails(3, critical=False)])
    assert_same_run(tmp_path / "run", tmp_path / "plain")
    (event,) = read_rounds(RunFolder(tmp_path / "run").events)[0]
    assert (event["round"], event["kind"]) == (3, "observer_dropped")
    assert event["message"].startswith(
        "Fails failed in snapshot_taken and was dropped: ValueError: no space for the pi"
    )
    assert f"at {__file__}, line " in event["message"]


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold"])
def test_run_that_a_critical_observer_ended_resumes_to_the_same_bits(algorithm: str, tmp_path: Path) -> None:
    scenario = digits("run.checkpoint_rounds=2", f"algorithm.kind={algorithm}")
    with pytest.raises(UserError, match=r"observers: Fails fails in snapshot_taken of round 5: ValueError: no space"):
        simulate(scenario, out=tmp_path / "run", observers=[Fails(5, critical=True)])
    resume(tmp_path / "run", observers=[Fails(99, critical=True)])
    simulate(scenario, out=tmp_path / "whole")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_observer_may_announce_events_of_its_own(tmp_path: Path) -> None:
    class Note:
        def attached(self, announce: Any) -> None:
            self.announce = announce

        def round_finished(self, line: dict[str, Any]) -> None:
            if line["round"] == 2:
                self.announce({"round": 2, "kind": "note", "message": "the second round"})

    simulate(digits("run.rounds=3"), out=tmp_path / "run", observers=[Note()])
    assert read_rounds(RunFolder(tmp_path / "run").events)[0] == [
        {"round": 2, "kind": "note", "message": "the second round"}
    ]


def test_global_generators_of_an_observer_do_not_reach_a_flower_strategy() -> None:
    from flwr.serverapp.strategy import FedAvg

    class Draws:
        def round_finished(self, line: dict[str, Any]) -> None:
            np.random.seed(1)  # noqa: NPY002
            torch.manual_seed(1)

    def played(*observers: object) -> torch.Tensor:
        strategy = FedAvg(fraction_train=0.5, fraction_evaluate=0.0, min_train_nodes=2)
        changes = ("run.rounds=4", "evaluation.federated_every=0")
        return simulate(digits(*changes), strategy=strategy, record=False, observers=list(observers)).params

    assert torch.equal(played(), played(Draws()))
