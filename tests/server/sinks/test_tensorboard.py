"""TensorBoard event files, read back by TensorBoard."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from run_folders import digits
from waiting import eventually

import fedscape as fs
from server.sinks.tensorboard import RunEvents, TensorBoardWriter
from simulator.cli.main import main

accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="the extra `tensorboard` is not installed"
)


def read(folder: Path) -> Any:
    found = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
    return found.Reload()


def scalars(found: Any, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in found.Scalars(tag)}


class _Facts:
    def run_started(self, facts: dict[str, Any]) -> None:
        self.run_id = facts["run_id"]


def test_live_run_is_written_round_by_round(tmp_path: Path) -> None:
    facts = _Facts()
    run = fs.simulate(digits(), record=False, observers=[facts, TensorBoardWriter(tmp_path)])
    found = read(tmp_path / facts.run_id)
    assert scalars(found, "loss/validation") == pytest.approx(dict(enumerate(run.rounds["validation_loss"])), rel=1e-6)
    assert scalars(found, "client_drift/0.95")[5] == pytest.approx(run.rounds["client_drift.p95"][5], rel=1e-6)
    assert list(scalars(found, "loss/federated")) == [3, 6]
    assert scalars(found, "test_accuracy_ratio") == pytest.approx({8: run.outcome["test_accuracy"]})
    walls = [event.wall_time for event in found.Scalars("round")]
    assert walls == pytest.approx(run.rounds["finished_at"].tolist())
    histogram = found.Histograms("client_drift/clients")[3]
    assert histogram.step == 4
    assert histogram.histogram_value.num == 4
    assert histogram.histogram_value.max == run.rounds["client_drift.max"][4]
    text = found.Tensors("run")[0].tensor_proto.string_val[0].decode()
    assert "| scenario | digits-label-skew |" in text


def test_export_writes_the_same_events_as_the_live_run(tmp_path: Path) -> None:
    live, folder = tmp_path / "live", tmp_path / "run"
    fs.simulate(digits(), out=folder, observers=[TensorBoardWriter(live)])
    assert main(["export", str(folder), "--to", "tensorboard", "--out", str(tmp_path / "later")]) == 0
    (one,) = live.iterdir()
    first, second = read(one), read(tmp_path / "later")
    assert first.Tags() == second.Tags()
    for tag in first.Tags()["scalars"]:
        assert repr(first.Scalars(tag)) == repr(second.Scalars(tag))
    for tag in first.Tags()["histograms"]:
        assert first.Histograms(tag) == second.Histograms(tag)


def test_resumed_run_replaces_the_rounds_it_repeats(tmp_path: Path) -> None:
    first = TensorBoardWriter(tmp_path)
    first.run_started({"run_id": "a"})
    for r in range(6):
        first.round_finished({"round": r, "train_loss": 100.0 + r})
    first.close()
    again = TensorBoardWriter(tmp_path)
    again.run_started({"run_id": "a"})
    again.recorded_before([{"round": r, "respondents": 2} for r in range(4)])
    for r in range(4, 7):
        again.round_finished({"round": r, "train_loss": float(r), "respondents": 2})
    again.close()
    found = read(tmp_path / "a")
    assert scalars(found, "loss/train") == {0: 100, 1: 101, 2: 102, 3: 103, 4: 4, 5: 5, 6: 6}
    assert scalars(found, "client_responses_total")[6] == 14


class _Events:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def event(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def failure(self) -> str:
        """Return the message of the one event that TensorBoard failed."""
        (event,) = [event for event in self.events if event["kind"] == "tensorboard_failed"]
        message: str = event["message"]
        return message


def test_run_goes_on_where_the_folder_cannot_be_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    plain = fs.simulate(digits(), record=False)
    seen = _Events()
    run = fs.simulate(digits(), record=False, observers=[seen, TensorBoardWriter(tmp_path / "file")])
    assert run.rounds["train_loss"][1:].tolist() == plain.rounds["train_loss"][1:].tolist()
    assert "the record has all of it" in seen.failure()
    assert "fedscape export RUN --to tensorboard" in seen.failure()
    assert capfd.readouterr().err == ""


def test_folder_that_vanishes_makes_one_event(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Removes:
        def round_finished(self, line: dict[str, Any]) -> None:
            if line["round"] == 4:
                eventually(lambda: list(tmp_path.rglob("events.out.*")), seconds=30)
                shutil.rmtree(tmp_path / "events")

    seen = _Events()
    fs.simulate(digits(), record=False, observers=[seen, TensorBoardWriter(tmp_path / "events"), Removes()])
    assert "the file was removed" in seen.failure()
    assert capfd.readouterr().err == ""


def test_error_of_the_writer_makes_one_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(events: RunEvents, line: dict[str, Any]) -> None:
        raise KeyError("an error of the package\x1b[2J")

    monkeypatch.setattr(RunEvents, "round", fail)
    seen = _Events()
    fs.simulate(digits(), record=False, observers=[seen, TensorBoardWriter(tmp_path)])
    assert "KeyError: 'an error of the package" in seen.failure()
    assert "\x1b" not in seen.failure()
    assert capfd.readouterr().err == ""


FULL_DISK = """
import resource, sys
from pathlib import Path
from server.sinks.tensorboard import TensorBoardWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # a larger file fails like one on a full disk
writer = TensorBoardWriter(Path(sys.argv[1]))
writer.attached(lambda event: print(event["message"], file=sys.stderr))
writer.run_started({"run_id": "a"})
for r in range(2000):
    writer.round_finished({"round": r, "train_loss": 1.0})
writer.run_finished({"outcome": "stopped", "round": 1999})
print("the run went on")
"""


def test_full_disk_costs_one_line_and_the_run_goes_on(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "the run went on\n")
    (message,) = done.stderr.splitlines()
    assert "the record has all of it: OSError: [Errno 27] File too large" in message


def test_numbers_too_large_for_float32_become_infinite(tmp_path: Path) -> None:
    events = RunEvents(tmp_path, {})
    for r, loss in enumerate((1e300, -1e300, float("nan"))):
        events.round({"round": r, "train_loss": loss})
    events.close()
    found = scalars(read(tmp_path), "loss/train")
    assert (found[0], found[1]) == (float("inf"), float("-inf"))
    assert found[2] != found[2]
