"""A run whose clients split their batches over two processes, or into micro-batches, has the numbers of one device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_folders import digits, stop_after

from clients.core.errors import EngineError, UserError
from clients.processes.forking import can_fork
from clients.training.options import LocalOptions
from simulator.engines.options import EngineOptions
from simulator.engines.splitting import check_split_options
from simulator.runs.run import resume, simulate

SETS = ("algorithm.kind=scaffold", "algorithm.weighting=", "algorithm.cohort=3", "run.rounds=3", "run.dtype=float64",
        "model.dropout=0.3", "local.batch_size=7", "engine.kind=plain", "engine.tile=", "engine.compile=",
        "run.checkpoint_rounds=1")  # fmt: skip
pytestmark = pytest.mark.skipif(not can_fork(), reason="ranks are forked, which works on Linux only")


def test_two_devices_have_the_numbers_of_one(tmp_path: Path) -> None:
    one = simulate(digits(*SETS), record=False)
    two = simulate(digits(*SETS, "local.devices=2", "local.micro_batch_size=3"), out=tmp_path / "two")
    distance = float(torch.linalg.vector_norm(one.params - two.params) / torch.linalg.vector_norm(one.params))
    assert distance < 1e-10
    for name in ("validation_loss", "train_loss", "client_drift.mean"):
        np.testing.assert_allclose(two.rounds[name], one.rounds[name], rtol=1e-9, err_msg=name)


def test_resumed_run_of_two_devices_has_the_bits_of_one_that_went_on(tmp_path: Path) -> None:
    scenario = digits(*SETS, "local.devices=2")
    whole = simulate(scenario, out=tmp_path / "whole")
    cut = simulate(scenario, out=tmp_path / "cut", stop_asked=stop_after(2))
    assert cut.verdict.outcome == "interrupted"
    (tmp_path / "cut" / "outcome.json").unlink()
    assert torch.equal(resume(tmp_path / "cut").params, whole.params)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "stacked"}, "engine.kind: is 'stacked', and local.devices = 2 splits each client's batches"),
        ({"native": "always"}, "engine.native: is 'always', and local.devices = 2"),
        ({"compile": "always"}, "engine.compile: is 'always', and local.devices = 2"),
        ({"workers": 2}, "engine.workers: is 2, and local.devices = 2 takes the processors or cards"),
    ],
)
def test_options_that_cannot_go_with_devices_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(EngineError) as raised:
        check_split_options(EngineOptions(**options), LocalOptions(devices=2))
    assert words in str(raised.value)
    assert "local.devices = 1" in str(raised.value)


def test_workers_are_refused_with_micro_batches() -> None:
    with pytest.raises(EngineError, match=r"local\.micro_batch_size = 4 runs in one process"):
        check_split_options(EngineOptions(workers=2), LocalOptions(micro_batch_size=4))
    check_split_options(EngineOptions(workers=1, kind="plain"), LocalOptions(micro_batch_size=4))


def test_stacked_engine_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"^engine\.kind: is 'stacked'"):
        simulate(digits(*SETS, "local.devices=2", "engine.kind=stacked"), out=tmp_path / "run")


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_number_of_devices_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(UserError, match=r"local\.devices"):
        digits(f"local.devices={value}")
