"""Pooled training and training alone use, in each round, the federation's data of that round."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clients.sources.custom import custom_population
from dashboards.report import run_text
from simulator.runs.baselines import baselines, train_pooled
from simulator.runs.building import Overrides
from simulator.runs.run import simulate
from simulator.runs.session import Session, open_session
from simulator.scenario.sections import load_scenario

SETS = ["partition.clients=6", "partition.concentration=50", "model.kind=softmax", "model.hidden=", "model.norm=",
        "model.dropout=", "local.local_epochs=1", "algorithm.cohort=3", "engine.kind=stacked", "engine.tile=",
        "engine.compile=never", "engine.threads=1", "engine.workers=1", "run.rounds=4"]  # fmt: skip
QUIET = [f"convergence.{criterion}=" for criterion in ("target", "plateau", "agreement")]
NEVER = ("drifts.turn.kind=abrupt", "drifts.turn.start=1000")
TURNED = ("drifts.turn.kind=abrupt", "drifts.turn.strength=1.0")


def session(*sets: str) -> Session:
    return open_session(load_scenario("digits-label-skew", sets=[*SETS, *sets]), Overrides())


def pooled(*sets: str) -> torch.Tensor:
    return train_pooled(session(*sets).task, rounds=4, cohort=3)[0]


def compared(*sets: str) -> dict[str, Any]:
    made = session(*sets)
    assert made.engine is not None
    return baselines(made.task, made.engine, torch.ones(made.start.params.shape), rounds=4, cohort=3)


def test_baselines_of_a_regression_are_root_mean_squared_errors_like_the_test_score() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(5, 40, 3))
    y = x @ np.array([1.0, -2.0, 0.5]) + draw.normal(size=(5, 40))  # noise of deviation 1: no model errs much less
    data = custom_population(lambda k: (x[k], y[k]), [40] * 4, outputs=1, task="regression", test=(x[4], y[4]))
    sets = ["algorithm.cohort=", "local.local_lr=0.05", "run.rounds=30", "convergence.stop=never", *QUIET]
    run = simulate(load_scenario("digits-iid", sets=sets), model=nn.Linear(3, 1), data=data, record=False)
    pooled = run.outcome["baselines"]["pooled_error"]
    assert "pooled_mae" not in run.outcome["baselines"]
    best = np.linalg.lstsq(x[:4].reshape(-1, 3), y[:4].reshape(-1), rcond=None)[0]
    assert pooled == pytest.approx(np.sqrt(np.mean((x[4] @ best - y[4]) ** 2)), rel=0.03)
    assert run.outcome["test_error"] == pytest.approx(pooled, rel=0.05)
    alone = run.outcome["baselines"]
    assert alone["local_only_worst"] > alone["local_only_mean"] > pooled
    row = dict(run_text.reached(run.outcome))["test error"]
    assert f"pooled training reaches {pooled:.3g}; training alone {alone['local_only_mean']:.3g} on average" in row


def test_drift_after_the_last_round_does_not_change_pooled_training() -> None:
    assert torch.equal(pooled(*NEVER), pooled())


def test_pooled_training_sees_the_faults_of_each_round() -> None:
    noisy = ("faults.noisy.kind=noise", "faults.noisy.severity=1.0")
    from_round_1 = pooled(*noisy, "faults.noisy.schedule.start=1")
    assert torch.equal(from_round_1, pooled(*noisy))
    last_only = pooled(*noisy, "faults.noisy.schedule.start=4")
    assert not torch.equal(last_only, from_round_1)
    assert not torch.equal(last_only, pooled())


def test_baselines_are_tested_on_the_data_of_the_last_round() -> None:
    late = compared("drifts.turn.kind=abrupt", "drifts.turn.start=4", "drifts.turn.strength=1.0")
    turned, never = compared(*TURNED, "drifts.turn.start=1"), compared(*NEVER)
    assert late["pooled_accuracy"] < never["pooled_accuracy"] - 0.4, "the drift changes no test label"
    assert turned["pooled_accuracy"] > late["pooled_accuracy"] + 0.4
    assert turned["local_only_mean"] > late["local_only_mean"] + 0.1


def test_drift_after_the_last_round_does_not_change_training_alone() -> None:
    still, never = compared(), compared(*NEVER)
    assert still["pooled_accuracy"] == never["pooled_accuracy"]
    assert still["local_only_mean"] == pytest.approx(never["local_only_mean"], abs=0.05)
    assert np.isfinite(never["local_only_worst"])
