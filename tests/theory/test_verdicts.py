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
    assert run.verdict.outcome == "stopped"
    assert float(run.params) == pytest.approx(1.7595, abs=1e-4)
    # The steps contract by 1 - mean of 1 - (1 - eta a)^K, and the gap rises: the verdict names the steps.
    rate = 1.0 - 0.5 * (2.0 - 0.95**10 - 0.8**10)
    assert run.outcome["rate"]["no_trend"] == "it rises"
    assert run.outcome["rate"]["iterates"]["factor"] == pytest.approx(rate, abs=1e-6)
    words = f"the steps shrink by the factor {rate:.3g} a round: it converges to a biased point"
    assert any(words in reason for reason in run.verdict.reasons)
    assert run.verdict.condition.kind == "plateaued"
    assert run.verdict.reasons[-1].startswith("it has not converged: optimality gap rose from its best")


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


CRITERIA = {
    "plateau": {"metric": "validation_loss", "min_delta": 1e-3, "patience": 5},
    "plateau, exact": {"metric": "validation_loss", "min_delta": 0.0, "patience": 1},
    "plateau, patient": {"metric": "optimality_gap", "min_delta": 0.1, "patience": 10},
    "settled": {"below": 1e-4, "hold": 3},
    "pseudo_gradient": {"below": 1e-4, "hold": 2},
    "gap": {"below": 0.1, "patience": 3},
}


@pytest.mark.parametrize("growth", [1.01, 1.15, 1.5, 2.5])
@pytest.mark.parametrize("name", CRITERIA)
def test_gradient_descent_above_two_over_l_never_converges(name, growth):
    """The gap first falls along the slow direction and then grows by growth^2 a round along the fast one."""
    for start in ((0.1, 10.0), (1.0, 1.0), (3.0, 0.0)):
        run = descent_above(growth, start, name)
        assert run.verdict.outcome in ("diverged", "stopped"), (start, str(run.verdict))
        if run.verdict.criteria:
            gaps = np.asarray(run.rounds["optimality_gap"])
            best = int(gaps.argmin())
            assert "its best was " in run.verdict.reason
            assert gaps[-1] > gaps[best]


@pytest.mark.parametrize("growth", [1.05, 1.5])
@pytest.mark.parametrize("name", CRITERIA)
def test_gradient_descent_above_two_over_l_is_not_called_converged_while_its_gap_grows(name, growth):
    """From near the slow direction the gap falls below every tolerance first: converged is true only until it rises."""
    for start in ((1e-3, 1.0), (1e-5, 1.0), (1e-9, 1.0)):
        run = descent_above(growth, start, name)
        gaps = np.asarray(run.rounds["optimality_gap"])
        if run.verdict.outcome == "converged":
            assert np.diff(gaps[-4:]).min() <= 0.0, (start, str(run.verdict))


def descent_above(growth, start, name):
    """Return a run of gradient descent whose fast direction grows by `growth` a round, under one criterion."""
    return played(
        fs.quadratics([[1.0, 0.3]]),
        start=start,
        rounds=600,
        local={"local_lr": 1.0 + growth, "local_steps": 1},
        convergence={"stop": "any", name.partition(",")[0]: CRITERIA[name]},
    )


def test_transient_does_not_end_a_plateau_early():
    """SCAFFOLD's transient from 0.5 to 398 and back: the plateau counts at the optimum only."""
    run = played(
        fs.quadratics([2.0, 0.0], linear=[100.0, -100.0]),
        start=[1.0],
        algorithm={"kind": "scaffold"},
        local={"local_lr": 0.1, "local_steps": 10},
        convergence={"plateau": {"metric": "optimality_gap", "min_delta": 1e-3, "patience": 3}},
    )
    assert run.verdict.outcome == "converged"
    assert run.rounds["optimality_gap"][-1] < 1e-3


def test_run_killed_after_its_last_round_keeps_its_verdict_when_it_is_resumed(tmp_path):
    """The checkpoint of the last round was written and the outcome was not: no round is played after the verdict."""
    run = fs.simulate("quadratic-two-clients", out=tmp_path / "run")
    (tmp_path / "run" / "outcome.json").unlink()
    again = fs.resume(tmp_path / "run")
    assert str(again.verdict) == str(run.verdict)
    assert len(again.rounds) == len(run.rounds)
    assert again.outcome["rate"] == run.outcome["rate"]
