"""What arms share for a seed: a factor changes the parts that it is about, and no other."""

from __future__ import annotations

from contextlib import closing
from functools import cache
from typing import Any

import numpy as np
import pytest

from simulator.runs.building import Overrides
from simulator.runs.run import simulate
from simulator.runs.session import open_session
from simulator.scenario.sections import Scenario, load_scenario
from simulator.studies.parts import parts_of
from simulator.studies.plan import PARTS, shared_parts

FIXED = {
    "engine.kind": "stacked", "engine.tile": 4, "engine.threads": 1, "engine.workers": 1, "engine.compile": "never",
    "evaluation.baselines": False, "convergence.target": None, "convergence.stop": "never",
}  # fmt: skip
BASES: dict[str, dict[str, Any]] = {
    "digits-label-skew": {"partition.clients": 10, "partition.concentration": 5.0, "algorithm.cohort": 4,
                          "run.rounds": 3},
    "city-activity": {"data.clients": 8, "algorithm.cohort": 4, "run.rounds": 3},
    "city-traffic": {"data.clients": 8, "algorithm.cohort": 4, "run.rounds": 3},
}  # fmt: skip
FACTORS: list[tuple[str, dict[str, Any], set[str]]] = [
    *(("digits-label-skew", {"algorithm.kind": kind}, set()) for kind in ("fedprox", "fedadam", "scaffold", "fednova")),
    ("digits-label-skew", {"algorithm.weighting": "uniform"}, set()),
    ("digits-label-skew", {"algorithm.cohort": 5}, {"cohorts"}),
    ("digits-label-skew", {"algorithm.sampling": "by_examples", "algorithm.weighting": "uniform"}, {"cohorts"}),
    ("digits-label-skew", {"local.local_lr": 0.3}, set()),
    ("digits-label-skew", {"local.local_epochs": 2}, set()),
    ("digits-label-skew", {"local.optimizer": "adam"}, set()),
    ("digits-label-skew", {"local.momentum": 0.5}, set()),
    ("digits-label-skew", {"local.partial_work": 0.5}, set()),
    ("digits-label-skew", {"local.batch_size": 4}, {"batches"}),
    ("digits-label-skew", {"local.sampling": "class_balanced"}, {"batches"}),
    ("digits-label-skew", {"model.hidden": [16]}, {"model"}),
    ("digits-label-skew", {"partition.concentration": 50.0}, {"partition", "batches"}),
    ("digits-label-skew", {"partition.clients": 12}, {"partition", "batches", "cohorts"}),
    ("digits-label-skew", {"features": {"normalise": "federated"}}, set()),
    ("digits-label-skew", {"faults.a": {"kind": "noise"}}, {"faults"}),
    ("digits-label-skew", {"faults.a": {"kind": "label_symmetric"}}, {"faults"}),
    ("digits-label-skew", {"evaluation.federated_every": 0}, set()),
    ("digits-label-skew", {"convergence.plateau": None}, set()),
    ("digits-label-skew", {"run.rounds": 9}, set()),
    ("digits-label-skew", {"fleet.seconds_per_local_step": 0.5}, set()),
    ("city-activity", {"algorithm.kind": "scaffold"}, set()),
    ("city-activity", {"faults.a": {"kind": "saturation"}}, {"faults"}),
    ("city-activity", {"drifts.a": {"kind": "abrupt", "changes": "p(y)", "start": 2}}, {"drifts"}),
    ("city-activity", {"model.kernel": 3}, {"model"}),
    ("city-traffic", {"local.local_lr": 0.01}, set()),
    ("city-traffic", {"faults.a": {"kind": "stuck_at", "share": 0.8, "steps": 24}}, {"faults"}),
    ("city-traffic", {"faults.a": {"kind": "gateway_outage"}}, {"faults"}),
]


def scenario(base: str, seed: int = 3, **sets: Any) -> Scenario:
    return load_scenario(load_scenario(base, sets={**FIXED, **BASES[base]}), sets=sets, seed=seed)


def parts(made: Scenario) -> dict[str, str | None]:
    with closing(open_session(made, Overrides())) as session:
        return parts_of(session)


@cache
def of_base(base: str) -> dict[str, str | None]:
    return parts(scenario(base))


def differing(one: dict[str, str | None], two: dict[str, str | None]) -> set[str]:
    return {part for part, same in shared_parts(one, two).items() if not same}


@pytest.mark.parametrize(("base", "change", "changed"), FACTORS, ids=[f"{b}-{','.join(c)}" for b, c, _ in FACTORS])
def test_factor_changes_only_the_parts_it_is_about(base: str, change: dict[str, Any], changed: set[str]) -> None:
    assert differing(of_base(base), parts(scenario(base, **change))) == changed


@pytest.mark.parametrize("base", BASES)
def test_digests_are_the_same_again_and_differ_between_seeds(base: str) -> None:
    assert parts(scenario(base)) == of_base(base)
    with_fault = {"faults.a": {"kind": "noise"}}
    one, two = (parts(scenario(base, seed, **with_fault)) for seed in (3, 4))
    assert differing(one, two) >= {"partition", "cohorts", "model", "batches", "faults"}
    assert differing(one, two) <= {*PARTS} - {"drifts"}


def test_two_severities_of_a_fault_are_two_faults() -> None:
    one, two = (
        parts(scenario("city-traffic", **{"faults.a": {"kind": "stuck_at", "severity": s}})) for s in (0.5, 1.0)
    )
    assert differing(one, two) == {"faults"}


def test_runs_of_two_algorithms_have_the_same_cohorts_faults_and_first_model() -> None:
    """The digests are of what a run is about to use; this compares what two runs have recorded."""
    fault = {"faults.a": {"kind": "noise", "clients": 0.5}}
    runs = [simulate(scenario("digits-label-skew", **fault, **{"algorithm.kind": kind}), record=False)
            for kind in ("fedavg", "scaffold")]  # fmt: skip
    lines = [run.rounds.lines for run in runs]
    assert lines[0][0]["validation_loss"] == lines[1][0]["validation_loss"]
    assert lines[0][3]["validation_loss"] != lines[1][3]["validation_loss"]
    assert [line.get("faults") for line in lines[0]] == [line.get("faults") for line in lines[1]]
    samplers = [run.session.played.own.federation.sampler for run in runs if run.session.played.own is not None]
    for index in range(1, 4):
        assert np.array_equal(*(sampler.draw(index).clients for sampler in samplers))
