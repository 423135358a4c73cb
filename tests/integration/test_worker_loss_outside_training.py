"""Worker processes that are killed while they evaluate, or train baselines."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fedscape as fs
from clients.engines.evaluation import CHUNK
from simulator.workers import engine as engine_module

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone"),
]
ROUNDS = 4
SETS = (f"run.rounds={ROUNDS}", "engine.kind=plain", "engine.tile=", "engine.threads=1", "convergence.stop=never",
        "partition.clients=20", "algorithm.cohort=8", "evaluation.baselines=true")  # fmt: skip


class Fatal(nn.Module):
    """Kills one process that is not the test's, once, in a pass of the mode in which it is armed."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.folder, self.main = folder, os.getpid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if os.getpid() != self.main:
            armed = self.folder / ("training" if self.training else "evaluation")
            try:
                armed.unlink()
            except FileNotFoundError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        out: torch.Tensor = self.layer(x)
        return out


class Arming:
    """Arms the model at the end of a round; keeps events."""

    def __init__(self, file: Path, after: int) -> None:
        self.file, self.after = file, after
        self.events: list[dict[str, object]] = []

    def round_finished(self, line: dict[str, object]) -> None:
        if line["round"] == self.after:
            self.file.touch()

    def event(self, event: dict[str, object]) -> None:
        self.events.append(event)

    @property
    def lost(self) -> list[dict[str, object]]:
        return [event for event in self.events if event["kind"] == "worker_lost"]


def model(folder: Path) -> Fatal:
    """Return the model, always with the same initial values."""
    torch.manual_seed(0)
    return Fatal(folder)


def data() -> object:
    random = np.random.default_rng(3)
    x = random.normal(size=(8 * CHUNK, 6))
    return fs.arrays(x, x[:, :3].argmax(1), validation_fraction=0.4, test_fraction=0.4)


def simulate(folder: Path, workers: int, *observers: object, sets: tuple[str, ...] = (), **more: object) -> fs.Run:
    scenario = fs.load_scenario("digits-label-skew", sets=[*SETS, f"engine.workers={workers}", *sets])
    options = {"record": False} | more
    return fs.simulate(scenario, model=model(folder), data=data(), observers=observers, **options)


@pytest.fixture(autouse=True)
def _always_dealt(monkeypatch):
    monkeypatch.setattr(engine_module, "DEALT_SECONDS", 0.0)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    run = simulate(tmp_path_factory.mktemp("unarmed"), 1)
    torch.set_num_threads(before)
    return run


def agree(run: fs.Run, alone: fs.Run) -> None:
    assert torch.equal(run.params, alone.params)
    for key in ("validation_loss", "validation_accuracy", "validation_macro_f1"):
        np.testing.assert_array_equal(run.rounds[key], alone.rounds[key])
    assert run.outcome["test_loss"] == alone.outcome["test_loss"]
    assert run.outcome["baselines"] == alone.outcome["baselines"]


@pytest.mark.parametrize("workers", [2, 3])
def test_blocks_of_a_worker_killed_in_central_evaluation_are_evaluated_by_the_others(tmp_path, alone, workers):
    watcher = Arming(tmp_path / "evaluation", 2)
    run = simulate(tmp_path, workers, watcher)
    agree(run, alone)
    assert [event["round"] for event in watcher.lost] == [3]
    assert "was killed by SIGKILL" in str(watcher.lost[0]["message"])
    assert [line["workers"]["count"] for line in run.rounds.lines[1:]] == [workers] * 2 + [workers - 1] * 2


@pytest.mark.parametrize("mode", ["evaluation", "training"])
def test_worker_killed_after_the_last_round_leaves_the_outcome_as_it_is(tmp_path, alone, mode):
    """In evaluation the final model is tested; in training the workers train the baselines."""
    file = tmp_path / mode
    agree(simulate(tmp_path, 3, Arming(file, ROUNDS)), alone)
    assert not file.exists(), "a worker was killed"


def test_loss_in_central_evaluation_stops_the_run_after_its_round(tmp_path, alone):
    sets = ("engine.on_worker_loss=stop", "run.checkpoint_rounds=1")
    out = tmp_path / "run"
    run = simulate(tmp_path, 2, Arming(tmp_path / "evaluation", 1), sets=sets, out=out, record=True)
    assert (run.verdict.outcome, run.verdict.round_index) == ("interrupted", 2)
    assert "worker 1 was killed by SIGKILL" in run.verdict.reasons[0]
    agree(fs.resume(out, model=model(tmp_path), data=data()), alone)


def test_loss_after_the_last_round_does_not_stop_the_run(tmp_path, alone):
    armed = tmp_path / "training"
    run = simulate(tmp_path, 2, Arming(armed, ROUNDS), sets=("engine.on_worker_loss=stop",))
    assert run.verdict.outcome == alone.verdict.outcome
    agree(run, alone)
    assert not armed.exists(), "a worker was killed"
