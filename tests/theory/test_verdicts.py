"""Verdicts on paths of known course: a transient, a divergence and a biased limit are called what they are."""

from __future__ import annotations

import numpy as np
import pytest

import fedscape as fs


def played(data, *, start, rounds=60, algorithm=None, local=None, convergence=None):
    """Return a run of quadratics with full gradients in float64, unrecorded."""
    return fs.simulate(
        {
            "model": {"kind": "quadratic", "start": list(start)},
            "local": {"optimizer": "sgd", **(local or {})},
            "algorithm": algorithm or {"kind": "fedavg"},
            "convergence": convergence or {},
            "run": {"rounds": rounds, "dtype": "float64"},
        },
        data=data,
        record=False,
    )


@pytest.mark.parametrize("stop", ["any", "all", "never"])
def test_scaffold_from_zero_controls_passes_its_transient(stop):
    """f1 = x^2 + 100 x, f2 = -100 x, K = 10, eta = 0.1, from 1: round 1 is FedAvg's at 28.23804, the limit is 0."""
    run = played(
        fs.quadratics([2.0, 0.0], linear=[100.0, -100.0]),
        start=[1.0],
        algorithm={"kind": "scaffold"},
        local={"local_lr": 0.1, "local_steps": 10},
        convergence={"stop": stop},
    )
    assert run.verdict.outcome == "stopped"
    assert run.verdict.reasons == ("the budget of 60 rounds is spent",)
    assert run.rounds["validation_loss"][1] == pytest.approx(28.23804**2 / 2, rel=1e-6)
    assert abs(float(run.params)) < 1e-12
    gaps = np.asarray(run.rounds["optimality_gap"])
    assert (gaps[1:10] > gaps[0]).sum() >= 5, "the gap is above its start for several rounds"


@pytest.mark.parametrize("scale", [1.005, 1.05, 1.5, 3.0])
def test_gradient_descent_above_two_over_l_diverges(scale):
    """eta = scale * 2 / L: the fast direction grows by |1 - 2 scale| a round, and the verdict follows its growth."""
    run = played(
        fs.quadratics([[1.0, 0.1]]), start=[1e-3, 1.0], rounds=2000, local={"local_lr": 2.0 * scale, "local_steps": 1}
    )
    assert run.verdict.outcome == "diverged"
    assert run.verdict.quantity == "optimality_gap"
    gaps = np.asarray(run.rounds["optimality_gap"])
    growth = (2.0 * scale - 1.0) ** 2
    assert gaps[-1] > run.verdict.threshold == pytest.approx(21.0 * gaps[0])
    crossed = int(np.argmax(gaps > run.verdict.threshold))
    assert run.verdict.round_index == crossed + 1
    assert crossed == pytest.approx(np.log(21.0 * gaps[0] / 0.5e-6) / np.log(growth), abs=1.5)


def test_fedavg_from_the_optimum_to_its_biased_limit_does_not_diverge():
    """a = (1, 4), b = (-1, 3), K = 10, eta = 0.05: the optimum 2.2 is left for 1.7595; the steps shrink each round."""
    run = played(
        fs.quadratics([1.0, 4.0], [-1.0, 3.0]),
        start=[2.1999],
        local={"local_lr": 0.05, "local_steps": 10},
        convergence={"settled": {"below": 1e-9}},
    )
    gaps = np.asarray(run.rounds["optimality_gap"])
    assert gaps[-1] > 1000 * gaps[0]
    assert run.verdict.outcome == "converged"
    assert float(run.params) == pytest.approx(1.7595, abs=1e-4)


def test_rounds_whose_updates_are_all_dropped_are_no_evidence():
    """Nearly every client is a straggler and is dropped: the model stays at its start, which is not convergence."""
    scenario = fs.load_scenario(
        "quadratic-two-clients",
        sets=["algorithm.partial_work=drop", "local.partial_work=0.9", "run.rounds=60", "model.start=[10.0]"],
        seed=5,
    )
    run = fs.simulate(scenario, record=False)
    lines = run.rounds.lines[1:]
    idle = [line for line in lines if line.get("no_aggregate")]
    assert 10 < len(idle) < 60
    for line in idle:
        assert not {"relative_change", "step_norm", "pseudo_gradient_norm", "agreement"} & set(line)
        assert line["validation_loss"] == run.rounds.lines[line["round"] - 1]["validation_loss"]
    steps = [line["step_norm"] for line in lines if not line.get("no_aggregate")]
    assert min(steps) > 0.0
    held = [line["criteria"]["settled"]["held"] for line in idle]
    before = [(run.rounds.lines[line["round"] - 1].get("criteria") or {})["settled"]["held"] for line in idle]
    assert held == before
