"""A user's algorithm whose parts return the wrong thing is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from run_folders import digits

import fedscape as fs
from clients.core.errors import StrategyError
from server.algorithms.trial import check_rule

SETS = ("run.rounds=2", "evaluation.baselines=false")


def run(algorithm: fs.Algorithm) -> fs.Run:
    return fs.simulate(digits(*SETS), algorithm=algorithm, record=False)


def centred(g: Any, w: Any, anchor: Any, broadcast: Any, state: Any) -> Any:
    return g - g.mean()


def noisy(g: Any, w: Any, anchor: Any, broadcast: Any, state: Any) -> Any:
    return g + torch.randn_like(g)


def halving(g: Any, w: Any, anchor: Any, broadcast: Any, state: Any) -> Any:
    anchor.mul_(0.5)
    return g


def forgetful(g: Any, w: Any, anchor: Any, broadcast: Any, state: Any) -> None:
    g.mul_(2.0)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (centred, "'centred' is not elementwise"),
        (noisy, "'noisy' gives two results for the same input"),
        (halving, "'halving' writes to its input anchor"),
        (forgetful, r"must return a gradient of the shape \(3, 6\) that it gets, returned NoneType"),
    ],
)
def test_rule_that_depends_on_the_engine_is_refused(function: Callable[..., Any], message: str):
    with pytest.raises(StrategyError, match=message):
        run(fs.Algorithm("mine", local=fs.local_rule(function)))


def test_elementwise_rules_pass():
    @fs.local_rule(broadcast=("centre",), client_state=("own",), finish=lambda r: ({"own": r.state["own"]}, {}))
    def corrected(g: Any, w: Any, anchor: Any, broadcast: Any, state: Any) -> Any:
        return g.sign() * (w - anchor).abs().sqrt() - state["own"] + broadcast["centre"]

    check_rule(corrected)
    check_rule(fs.proximal(0.1))


def aggregation(weights: Any = None, **functions: Any) -> fs.Algorithm:
    uniform = fs.weighted_mean("uniform").weights
    return fs.Algorithm("mine", aggregation=fs.Aggregation("own", weights or uniform, **functions))


def server(**functions: Any) -> fs.Algorithm:
    return fs.Algorithm("mine", server=fs.ServerTransform("own", **functions))


def finishing(finish: Any) -> fs.Algorithm:
    return fs.Algorithm("mine", local=fs.local_rule(client_state=("own",), finish=finish)(lambda g, *_: g))


WRONG = {
    "weights of another length": (
        aggregation(lambda facts: np.ones(99)),
        r"weights of 'own' must be \d+ finite numbers >= 0, one for each client; got an array of shape \(99,\)",
    ),
    "weights that are no numbers": (
        aggregation(lambda facts: facts.num_examples * np.nan),
        r"weights of 'own' must be \d+ finite numbers.*nan",
    ),
    "negative weights": (
        aggregation(lambda facts: 1.0 - facts.num_examples),
        r"weights of 'own' must be \d+ finite numbers >= 0, one for each client; got .*-",
    ),
    "reduce": (aggregation(reduce=lambda rows, w: rows.mean()), r"reduce of 'own' must return a tensor of shape"),
    "map_update": (aggregation(map_update=lambda rows: rows.norm(dim=1)), r"map_update of 'own' must return a tensor"),
    "update": (server(update=lambda a, v, c: None), r"update of 'own' must return \(aggregate, vectors\), ret"),
    "memory": (
        server(update=lambda a, v, c: (a, {}), init=lambda w: {"m": torch.zeros_like(w)}),
        r"server transform 'own' starts with the vectors \['m'\] and returns \[\]",
    ),
    "apply": (
        server(update=lambda a, v, c: (a, v), apply=lambda w, a, v: w[:3]),
        r"apply of 'own' must return a tensor of shape \(\d+,\), returned shape \(3,\)",
    ),
    "compress": (
        fs.Algorithm("mine", uplink=fs.Uplink("own", lambda rows: rows[:, :3], lambda p, i: p)),
        r"compress of 'own' must return a tensor of shape \(\d+, \d+\), returned shape \(\d+, 3\)",
    ),
    "finish": (finishing(lambda r: None), r"must return \(new client state, extras\), returned NoneType"),
    "finish of other names": (
        finishing(lambda r: ({"mine": r.params}, {})),
        r"returns the client state \['mine'\], and the rule declares \['own'\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_part_that_returns_the_wrong_thing_is_named(case: str):
    algorithm, message = WRONG[case]
    with pytest.raises(StrategyError, match=message):
        run(algorithm)
