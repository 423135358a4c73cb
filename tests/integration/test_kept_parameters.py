"""Parameters that a run keeps: they are the model's of that round, and neither damage nor a full disk ends a run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from run_folders import assert_same_run, digits, stop_after

import fedscape as fs
from clients.core.errors import RunFolderError, UserError
from server.record.checked.line_files import read_rounds
from server.record.records import RunFolder
from simulator.runs.run import resume, simulate

KEPT = "run.keep_parameters_every=3"


class Seen:
    """Keeps the parameters of each round that it is shown."""

    def __init__(self) -> None:
        self.parameters: dict[int, dict[str, torch.Tensor]] = {}

    def snapshot_taken(self, snapshot: fs.Snapshot) -> None:
        self.parameters[snapshot.round_index] = snapshot.parameters()


def test_kept_parameters_are_those_of_their_round(tmp_path: Path) -> None:
    seen = Seen()
    run = simulate(digits(KEPT), out=tmp_path / "run", observers=[seen])
    record = fs.open_run(tmp_path / "run")
    assert record.kept_rounds == [0, 3, 6, 8]
    assert sorted(seen.parameters) == list(range(9))
    for round_index in record.kept_rounds:
        kept = record.parameters(round_index)
        assert kept.keys() == seen.parameters[round_index].keys()
        assert all(torch.equal(kept[name], tensor) for name, tensor in seen.parameters[round_index].items())
    last, final = run.parameters(8), run.model().state_dict()
    assert all(torch.equal(last[name], final[name]) for name in final)
    model = record.model()
    model.load_state_dict(record.parameters(3))
    with pytest.raises(UserError, match=r"round: 4 has no kept parameters\. Rounds with kept parameters: 0, 3, 6, 8"):
        record.parameters(4)


def test_unrecorded_run_has_no_parameters_of_earlier_rounds() -> None:
    run = simulate(digits(KEPT, "run.rounds=1"), record=False)
    with pytest.raises(RunFolderError, match="only a record has parameters of earlier rounds"):
        run.parameters(0)


def test_run_goes_on_where_parameters_cannot_be_kept(tmp_path: Path) -> None:
    """Something takes the folder's place after round 4: events say so, and nothing else differs."""
    folder = tmp_path / "run"

    class Vandal:
        def round_finished(self, line: dict[str, Any]) -> None:
            if line["round"] == 4:
                shutil.rmtree(folder / "parameters")
                (folder / "parameters").write_text("in the way")

    run = simulate(digits(KEPT), out=folder, observers=[Vandal()])
    assert run.verdict.outcome == "stopped"
    events, _ = read_rounds(RunFolder(folder).events)
    lost = [event["round"] for event in events if event["kind"] == "parameters_not_kept"]
    assert lost == [6]
    simulate(digits(), out=tmp_path / "plain")
    assert_same_run(folder, tmp_path / "plain")


def test_full_disk_is_a_notice_and_leaves_space_to_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=10_000))
    simulate(digits(KEPT), out=tmp_path / "run")
    messages = [record.getMessage() for record in caplog.records]
    assert any("and the disk has 10 kB free: the last rounds will be missing" in message for message in messages)
    assert sum("parameters are not kept" in message for message in messages) == 1
    assert fs.open_run(tmp_path / "run").kept_rounds == []
    monkeypatch.undo()
    simulate(digits(), out=tmp_path / "plain")
    assert_same_run(tmp_path / "run", tmp_path / "plain")


def test_resumed_run_drops_parameters_that_it_plays_again(tmp_path: Path) -> None:
    """Parameters of rounds after the checkpoint are removed; a missing file of the checkpoint's round is written."""
    folder = tmp_path / "run"
    scenario = digits("run.keep_parameters_every=2", "run.checkpoint_rounds=4")
    with pytest.raises(KeyboardInterrupt):
        simulate(scenario, out=folder, observers=[Breaking(7)])
    assert fs.open_run(folder).kept_rounds == [0, 2, 4, 6]
    before = fs.open_run(folder).parameters(6)
    RunFolder(folder).parameters.entry(4).unlink()
    resume(folder)
    record = fs.open_run(folder)
    assert record.kept_rounds == [0, 2, 4, 6, 8]
    assert all(torch.equal(record.parameters(6)[name], tensor) for name, tensor in before.items())


class Breaking:
    """Interrupts the run in a round, as a user does with two Ctrl-C."""

    def __init__(self, round_index: int) -> None:
        self.round_index = round_index

    def round_finished(self, line: dict[str, Any]) -> None:
        if line["round"] == self.round_index:
            raise KeyboardInterrupt


def test_interrupted_run_does_not_count_its_last_round_as_the_last(tmp_path: Path) -> None:
    simulate(digits(KEPT), out=tmp_path / "run", stop_asked=stop_after(4))
    assert fs.open_run(tmp_path / "run").kept_rounds == [0, 3]


app = ClientApp()


@app.train()
def train(message: Message, context: Any) -> Message:
    arrays = message.content.array_records["arrays"]
    metrics = MetricRecord({"num-examples": 10, "train_loss": 1.0})
    return Message(RecordDict({"arrays": ArrayRecord(arrays.to_torch_state_dict()), "metrics": metrics}),
                   reply_to=message)  # fmt: skip


def test_run_with_a_client_app_keeps_parameters_and_has_a_test_curve(tmp_path: Path) -> None:
    changes = ("engine.kind=auto", "engine.tile=", "engine.compile=auto", "evaluation.federated_every=0")
    run = simulate(
        digits(KEPT, *changes, "evaluation.test_every=4", "run.rounds=5"), client_app=app, out=tmp_path / "run"
    )
    assert fs.open_run(tmp_path / "run").kept_rounds == [0, 3, 5]
    assert run.parameters(5).keys() == run.model().state_dict().keys()
    assert [line["round"] for line in run.rounds.lines if "test_loss" in line] == [0, 4, 5]
    with pytest.raises(UserError, match=r"objective_every: is 2, which needs the clients' training data, and your Cl"):
        simulate(digits(*changes, "evaluation.objective_every=2"), client_app=app, record=False)
