"""A user's algorithm from Python: run, recorded, resumed, or refused if it cannot run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import FedAvg

import fedscape as fs

SCENARIO = ["run.rounds=4", "engine.kind=stacked", "engine.tile=20", "engine.threads=1", "engine.workers=1",
            "engine.compile=never",
            "convergence.stop=never"]  # fmt: skip


def scenario(*sets):
    return fs.load_scenario("digits-label-skew", sets=[*SCENARIO, *sets])


@fs.local_rule(options={"mu": 0.05})
def pull(gradient, params, anchor, broadcast, state):
    return gradient.add_(params - anchor, alpha=0.05)


def scaffold_by_hand():
    """SCAFFOLD written with public calls only."""

    def finish(r):
        old = r.state["mine"]
        new = old - r.broadcast["centre"] + (r.anchor - r.params) / (r.steps * r.local_lr)
        return {"mine": new}, {"change": new - old}

    @fs.local_rule(broadcast=("centre",), client_state=("mine",), returns=("change",), finish=finish)
    def controlled(gradient, params, anchor, broadcast, state):
        return gradient.sub_(state["mine"]).add_(broadcast["centre"])

    def update(aggregate, vectors, context):
        return aggregate, {"centre": vectors["centre"] + aggregate.share * aggregate.extras["change"]}

    server = fs.ServerTransform("centre", update, lambda params: {"centre": torch.zeros_like(params)})
    return fs.Algorithm("scaffold by hand", controlled, aggregation=fs.weighted_mean("uniform"), server=server)


def test_own_fedprox_equals_the_built_in_one():
    mine = fs.Algorithm("mine", local=pull)
    own = fs.simulate(scenario(), algorithm=mine, record=False)
    built_in = fs.simulate(scenario("algorithm.kind=fedprox", "algorithm.mu=0.05"), record=False)
    assert torch.equal(own.params, built_in.params)
    np.testing.assert_array_equal(own.rounds["train_loss"], built_in.rounds["train_loss"])


def test_own_scaffold_equals_the_built_in_one():
    own = fs.simulate(scenario(), algorithm=scaffold_by_hand(), record=False)
    built_in = fs.simulate(scenario("algorithm.kind=scaffold"), record=False)
    assert torch.equal(own.params, built_in.params)
    np.testing.assert_array_equal(own.rounds["bytes_total"], built_in.rounds["bytes_total"])


def test_own_algorithm_resumes_with_the_same_bits(tmp_path: Path):
    mine = fs.Algorithm("mine", local=pull, uplink=fs.top_k(0.2), server=fs.chain(fs.clip_norm(0.5), fs.adam(0.05)))
    whole = fs.simulate(scenario(), algorithm=mine, out=tmp_path / "whole")
    stop = iter([False, True])
    cut = fs.simulate(scenario(), algorithm=mine, out=tmp_path / "cut", stop_asked=lambda: next(stop))
    assert cut.verdict.outcome == "interrupted"
    resumed = fs.resume(tmp_path / "cut", algorithm=mine)
    assert torch.equal(whole.params, resumed.params)
    with pytest.raises(fs.RunFolderError, match="is over"):
        fs.resume(tmp_path / "cut", algorithm=mine)


def test_resume_without_the_algorithm_is_refused(tmp_path: Path):
    fs.simulate(scenario(), algorithm=fs.Algorithm("mine", local=pull), out=tmp_path / "cut", stop_asked=lambda: True)
    with pytest.raises(fs.RunFolderError, match="started from Python with its own algorithm"):
        fs.resume(tmp_path / "cut")


def test_resume_with_another_algorithm_is_refused(tmp_path: Path):
    fs.simulate(scenario(), algorithm=fs.Algorithm("mine", local=pull), out=tmp_path / "cut", stop_asked=lambda: True)
    other = fs.Algorithm("mine", local=pull, server=fs.sgd(0.5))
    with pytest.raises(fs.RunFolderError, match="belongs to another scenario or algorithm"):
        fs.resume(tmp_path / "cut", algorithm=other)


def test_record_names_the_algorithm(tmp_path: Path):
    fs.simulate(scenario(), algorithm=fs.Algorithm("mine"), out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["run"]["algorithm"] == "mine"


def test_median_needs_the_updates_whole():
    """A grid that cannot keep the rows refuses; it does not fall back."""
    mine = fs.Algorithm("median", aggregation=fs.coordinate_median())
    run = fs.simulate(scenario(), algorithm=mine, record=False)
    assert np.isfinite(run.rounds["train_loss"][1:]).all()
    with pytest.raises(fs.StrategyError, match=r"engine\.keep_bytes: is 1000, and the aggregation needs the updates"):
        fs.simulate(scenario("engine.keep_bytes=1000"), algorithm=mine, record=False)


def test_rule_that_reads_what_the_server_does_not_keep_is_refused():
    rule = scaffold_by_hand().local
    with pytest.raises(fs.UserError, match=r"local\.broadcast: reads 'centre', which the server transform 'sgd 1'"):
        fs.Algorithm("x", rule)


def test_declared_state_without_finish_is_refused():
    with pytest.raises(fs.UserError, match="finish: is missing, and the local rule 'x' declares momentum"):
        fs.LocalRule("x", client_state=("momentum",))


@pytest.mark.parametrize("wrong", [pull, "fedavg", fs.adam(0.1)])
def test_algorithm_of_another_kind_is_refused(wrong):
    with pytest.raises(fs.StrategyError, match=r"algorithm: must be a fedscape\.Algorithm, got"):
        fs.simulate(scenario(), algorithm=wrong, record=False)


def test_algorithm_with_a_strategy_is_refused():
    with pytest.raises(fs.StrategyError, match="cannot be used with a strategy, which replaces it"):
        fs.simulate(scenario(), algorithm=fs.Algorithm("x"), strategy=FedAvg(), record=False)
