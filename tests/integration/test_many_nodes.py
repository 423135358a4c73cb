"""A dozen SuperNodes on this machine: all register, start and answer messages, and no process is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from flower_processes import PATIENCE, federating, processes_naming
from waiting import eventually

from server.record.records import RunFolder
from simulator.cli.exit_codes import EXIT_OK
from simulator.runs.record import open_run
from simulator.runs.run import simulate
from simulator.scenario.sections import load_scenario

pytestmark = [pytest.mark.federation, pytest.mark.slow]

NODES = 12
SETS = (
    *(f"partition.clients={NODES}", "model.hidden=[8]", "algorithm.kind=scaffold", "algorithm.weighting="),
    *("local.local_epochs=1", "algorithm.cohort=", "run.rounds=2", "convergence.stop=never"),
    *("evaluation.baselines=false", "evaluation.federated_every=0"),
    *("engine.kind=plain", "engine.tile=", "engine.compile=", "engine.threads=1"),
)
GONE_SECONDS = 10.0


def test_twelve_nodes_give_the_numbers_of_one_process(tmp_path: Path) -> None:
    simulate(load_scenario("digits-label-skew", sets=SETS), out=tmp_path / "here")
    words = [word for change in SETS for word in ("--set", change)]
    with federating(tmp_path, "digits-label-skew", *words, "--nodes", str(NODES)) as process:
        _, errors = process.communicate(timeout=4 * PATIENCE)
    assert process.returncode == EXIT_OK, errors
    one, other = (open_run(tmp_path / name) for name in ("here", "run"))
    mine, yours = (torch.cat([v.flatten() for v in run.model().state_dict().values()]) for run in (one, other))
    assert (yours - mine).norm() <= 1e-5 * mine.norm()
    np.testing.assert_allclose(other.rounds["train_loss"], one.rounds["train_loss"], rtol=1e-4)
    assert list(other.rounds["respondents"][1:]) == [NODES, NODES]
    logs = [log.read_text() for log in RunFolder(tmp_path / "run").logs.iterdir()]
    assert not any("Traceback" in text for text in logs)
    eventually(lambda: not processes_naming(tmp_path / "private"), seconds=GONE_SECONDS)
