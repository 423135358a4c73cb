"""A key that an argument from Python replaces is stated where the user set it, and changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

import fedscape as fs

SETS = ("partition.clients=5", "algorithm.cohort=3", "run.rounds=2", "convergence=", "evaluation.baselines=false")
ENGINE = ("engine.kind=stacked", "engine.tile=3", "engine.threads=1", "engine.workers=1", "engine.compile=never")
"""Fixed where our clients train: engines that are chosen by timing differ in the last bits."""
COHORT = "algorithm.cohort has no effect: strategy= replaces [algorithm]"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


class Header:
    notices: tuple[str, ...] = ()

    def run_started(self, facts: dict[str, Any]) -> None:
        self.notices = tuple(notice for notice in facts.get("notices", ()) if "effect" in notice or "used:" in notice)


def app() -> ClientApp:
    """Return an app whose clients return the model that they receive."""
    made = ClientApp()

    @made.train()
    def train(message: Message, context: Context) -> Message:
        arrays = ArrayRecord(message.content.array_records["arrays"].to_torch_state_dict())
        metrics = MetricRecord({"train_loss": 1.0, "num-examples": 1})
        return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    return made


def played(sets: tuple[str, ...], **parts: Any) -> tuple[Any, tuple[str, ...]]:
    """Return the final parameters of a run, and its notices on keys without an effect."""
    header = Header()
    scenario = fs.load_scenario("digits-label-skew", sets=[*SETS, *(() if "client_app" in parts else ENGINE), *sets])
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    run = fs.simulate(scenario, model=model, data=fs.arrays(X, Y), record=False, observers=[header], **parts)
    return run.params, header.notices


@pytest.mark.parametrize(
    ("parts", "sets", "notices"),
    [
        (
            {"strategy": FedAvg(fraction_train=0.5)},
            ("server_lr=0.5", "federated_every=1"),
            (
                "algorithm.cohort, algorithm.server_lr have no effect: strategy= replaces [algorithm]",
                "evaluation.federated_every has no effect: strategy= decides when clients evaluate",
            ),
        ),
        (
            {"algorithm": fs.Algorithm("mine")},
            ("server_lr=0.5", "weighting=uniform"),
            ("algorithm.weighting, algorithm.server_lr have no effect: algorithm= replaces them",),
        ),
        (
            {"client_app": app()},
            ("local_lr=0.5", "schedule={kind=step,every=1}", "engine.tile=2", "engine.threads=1"),
            (
                "local.local_lr, local.schedule.kind, local.schedule.every, engine.tile have no effect: "
                "your ClientApp trains",
            ),
        ),
    ],
)
def test_keys_that_an_argument_replaces_are_stated(parts: Any, sets: tuple[str, ...], notices: tuple[str, ...]) -> None:
    params, before = played((), **parts)
    same, after = played(sets, **parts)
    assert torch.equal(params, same)
    assert before == tuple(COHORT for name in parts if name == "strategy")
    assert after == notices


def test_wrapper_of_our_strategy_keeps_the_algorithm() -> None:
    assert played(("server_lr=0.5",), strategy=lambda ours: ours)[1] == ()
    assert not torch.equal(played(("server_lr=0.5",))[0], played(())[0])


def test_keys_of_a_built_in_scenario_are_not_stated() -> None:
    own = fs.custom_population(lambda k: (X[:9], Y[:9]), [9] * 25, outputs=2, validation=(X, Y))
    model = torch.nn.Linear(3, 2)
    for scenario, count in (("digits-label-skew", 0), ({"partition": {"kind": "iid", "clients": 4}}, 1)):
        header = Header()
        fs.simulate(fs.load_scenario(scenario, sets=["run.rounds=1", "evaluation.baselines=false", "convergence="]),
                    model=model, data=own, record=False, observers=[header])  # fmt: skip
        assert len(header.notices) == count, header.notices
