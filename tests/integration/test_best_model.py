"""The best model of a run is that of its best round, in memory, in the folder and after a resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from run_folders import digits, stop_after

import fedscape as fs
from clients.core.errors import RunFolderError, UserError
from server.record.records import RunFolder
from simulator.runs.run import resume, simulate

GETS_WORSE = ("run.rounds=12", "local.local_lr=1.0", "local.local_epochs=5", "run.keep_parameters_every=1")


def assert_best_is_of_its_round(run: fs.Run) -> None:
    losses = run.rounds["validation_loss"]
    at = int(np.argmin(losses))
    assert run.outcome["best_model"] == {"round": at, "metric": "validation_loss", "value": losses[at]}
    assert 0 < at < run.verdict.round_index, "the test needs a best round before the last"
    kept = run.parameters(at)
    for model in (run.model(best=True), fs.open_run(run.path).model(best=True)):
        assert not model.training
        assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())
    last = run.model().state_dict()
    assert any(not torch.equal(tensor, kept[name]) for name, tensor in last.items())


def test_best_model_is_that_of_the_round_with_the_lowest_validation_loss(tmp_path: Path) -> None:
    assert_best_is_of_its_round(simulate(digits(*GETS_WORSE), out=tmp_path / "run"))


def test_resumed_run_has_the_best_model_of_before(tmp_path: Path) -> None:
    """Interrupted after each round but the last: the best one is read from a checkpoint, whichever it is."""
    whole = simulate(digits(*GETS_WORSE), out=tmp_path / "whole")
    run = simulate(digits(*GETS_WORSE), out=tmp_path / "cut", stop_asked=stop_after(1))
    while run.verdict.outcome == "interrupted":
        run = resume(tmp_path / "cut", stop_asked=stop_after(3))
    assert_best_is_of_its_round(run)
    files = [RunFolder(tmp_path / name).best_model.read_bytes() for name in ("cut", "whole")]
    assert files[0] == files[1]
    assert run.outcome["best_model"] == whole.outcome["best_model"]


def test_changed_or_missing_best_model_is_a_problem_of_the_record(tmp_path: Path) -> None:
    simulate("quadratic-two-clients", out=tmp_path / "run")
    file = RunFolder(tmp_path / "run").best_model
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    record = fs.open_run(tmp_path / "run")
    assert any(problem.startswith("model.best.safetensors") for problem in record.problems)
    with pytest.raises(RunFolderError, match="checksum"):
        record.model(best=True)
    assert record.model() is not None
    file.unlink()
    with pytest.raises(RunFolderError, match="does not exist"):
        record.model(best=True)


def test_run_without_validation_examples_has_no_best_model() -> None:
    x, y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
    data = fs.custom_population(lambda k: (x[k::4], y[k::4]), [10] * 4, outputs=2)
    scenario = fs.load_scenario({"run": {"rounds": 3}, "algorithm": {"kind": "fedavg"}, "model": {"kind": "mlp"}})
    run = simulate(scenario, data=data, record=False)
    assert run.outcome["best_model"] is None
    with pytest.raises(UserError, match="no validation loss"):
        run.model(best=True)
