"""The shipped checks: built-in algorithms pass each of them, and each check finds its defect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clients.training.options import LocalOptions
from clients.training.rules import LocalRule, local_rule
from clients.training.uplink import top_k
from server.algorithms import transforms
from server.algorithms.aggregation import Aggregation, clipped, coordinate_median, weighted_mean
from server.algorithms.algorithm import Algorithm
from server.algorithms.build import build_algorithm
from server.algorithms.table import ALGORITHMS
from server.algorithms.transforms import ServerTransform
from simulator.testing import checks
from simulator.testing.checks import CHECKS, check_algorithm, small_federation

LOCAL = LocalOptions(local_lr=0.1, batch_size=4, local_epochs=2)
ALL = {kind: build_algorithm(row.options(), LOCAL) for kind, row in ALGORITHMS.items()} | {
    "median": Algorithm("median", aggregation=coordinate_median()),
    "clipped": Algorithm("clipped", aggregation=clipped(weighted_mean(), 0.05)),
    "top 10%": Algorithm("top 10%", uplink=top_k(0.1)),
    "chain": Algorithm("chain", server=transforms.chain(transforms.clip_norm(0.1), transforms.adam(0.1, tau=0.1))),
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", ALL)
def test_algorithm_passes_every_check(name, check):
    CHECKS[check](ALL[name])


def finds(problem, algorithm):
    with pytest.raises(AssertionError, match=problem):
        check_algorithm(algorithm)


def test_check_finds_a_rule_that_is_not_elementwise():
    @local_rule()
    def centred(g, w, anchor, broadcast, state):
        return g - g.mean()

    finds("'centred' is not elementwise", Algorithm("x", centred))


def test_check_finds_a_rule_that_changes_the_shape():
    @local_rule()
    def first(g, w, anchor, broadcast, state):
        return g[:, :1]

    finds("'first' changes the shape", Algorithm("x", first))


def test_check_finds_undeclared_client_state():
    rule = LocalRule("keeps", None, client_state=("a",), finish=lambda r: ({"b": r.params}, {}))
    finds(r"returns the client state \['b'\], and the rule declares \['a'\]", Algorithm("x", rule))


def test_check_finds_a_transform_that_writes_to_its_input():
    def update(a, vectors, context):
        a.pseudo_gradient.mul_(2)
        return a, vectors

    finds("writes to its input 'g'", Algorithm("x", server=ServerTransform("doubler", update)))


def test_check_finds_a_transform_with_hidden_state():
    calls = []

    def update(a, vectors, context):
        calls.append(1)
        return replace(a, pseudo_gradient=a.pseudo_gradient / len(calls)), vectors

    finds("gives two results for the same input", Algorithm("x", server=ServerTransform("hidden", update)))


def test_check_finds_a_transform_that_forgets_a_vector():
    forgetful = ServerTransform("forgetful", lambda a, v, c: (a, {}), lambda w: {"m": torch.zeros_like(w)})
    finds(r"starts with the vectors \['m'\] and returns \[\]", Algorithm("x", server=forgetful))


def test_check_finds_weights_that_depend_on_position():
    by_position = Aggregation("first", lambda s: np.linspace(1, 0, len(s.num_examples)))
    finds("the order of the clients changes the result", Algorithm("x", aggregation=by_position))


def test_check_finds_randomness_of_its_own():
    def update(a, vectors, context):
        return replace(a, pseudo_gradient=torch.randn_like(a.pseudo_gradient)), vectors

    with pytest.raises(AssertionError, match="two runs with the same seed differ"):
        checks.check_same_seed_same_bits(Algorithm("x", server=ServerTransform("noise", update)))


def test_stepper_probe_leaves_no_trace():
    stepper = small_federation(ALL["scaffold"], cohort=4)
    stepper.step(2)
    state = stepper.state
    held = stepper.client_state("client_variate", np.arange(6))
    stepper.probe(torch.zeros_like(stepper.params), round_index=3)
    assert stepper.state is state
    assert torch.equal(stepper.client_state("client_variate", np.arange(6)), held)
    assert held.abs().max() > 0
