"""Each local rule against its formula, on random vectors in float64."""

import pytest
import torch

from clients.core.errors import UserError
from clients.core.streams import generator
from clients.training.rules import PLAIN, LocalResult, LocalRule, control_variate, dynamic, local_rule, proximal

CLIENTS, SIZE = 3, 4


def vectors(name, *shape):
    return torch.from_numpy(generator(3, name).standard_normal(shape))


GRADIENT, PARAMS, ANCHOR = vectors("g", CLIENTS, SIZE), vectors("w", CLIENTS, SIZE), vectors("x", SIZE)
OWN, SERVER, AT_ANCHOR = vectors("h", CLIENTS, SIZE), vectors("c", SIZE), vectors("full", CLIENTS, SIZE)
WEIGHT, STEPS, LR = torch.tensor([[2.0], [3.5], [7.0]]).double(), torch.tensor([[1.0], [2.0], [5.0]]).double(), 0.3


def corrected(rule, broadcast=None, state=None):
    return rule.correct(GRADIENT.clone(), PARAMS, ANCHOR, broadcast or {}, state or {})


def finished(rule, broadcast=None, state=None, anchor_gradient=None):
    return rule.finish(LocalResult(ANCHOR, PARAMS, STEPS, LR, broadcast or {}, state or {}, anchor_gradient, WEIGHT))


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


def test_proximal_rule_pulls_towards_the_broadcast_parameters():
    rule = proximal(0.7)
    close(corrected(rule), GRADIENT + 0.7 * (PARAMS - ANCHOR))
    assert rule.signature == 'proximal {"mu": 0.7}'
    assert (rule.finish, rule.client_state, rule.returns, rule.broadcast) == (None, (), (), ())
    assert proximal(0.0) is PLAIN
    assert not proximal(1.0).is_plain
    assert PLAIN.is_plain
    assert PLAIN.signature == "plain"


@pytest.mark.parametrize("option", [1, 2])
def test_control_variates_replace_the_clients_gradient_by_the_servers(option):
    rule = control_variate(option)
    broadcast, state = {"server_variate": SERVER}, {"client_variate": OWN}
    close(corrected(rule, broadcast, state), GRADIENT - OWN + SERVER)
    kept, returned = finished(rule, broadcast, state, AT_ANCHOR if option == 1 else None)
    new = AT_ANCHOR if option == 1 else OWN - SERVER + (ANCHOR - PARAMS) / (WEIGHT * LR)
    close(kept["client_variate"], new)
    close(returned["variate_change"], new - OWN)
    assert rule.needs_anchor_gradient == (option == 1)
    assert (rule.broadcast, rule.client_state) == (tuple(broadcast), tuple(kept))
    assert (rule.returns, rule.signature) == (tuple(returned), f'control_variate {{"option": {option}}}')


def test_dynamic_regulariser_adds_up_the_distance_to_the_broadcast_parameters():
    rule, state = dynamic(0.6), {"client_gradient": OWN}
    close(corrected(rule, state=state), GRADIENT - OWN + 0.6 * (PARAMS - ANCHOR))
    kept, returned = finished(rule, state=state)
    close(kept["client_gradient"], OWN - 0.6 * (PARAMS - ANCHOR))
    assert returned == {}
    assert (rule.client_state, rule.broadcast, rule.returns) == (("client_gradient",), (), ())
    assert rule.signature == 'dynamic {"alpha": 0.6}'
    assert not rule.needs_anchor_gradient


def test_local_rule_hands_on_what_it_declares():
    def mine(g, w, anchor, broadcast, state):
        return g

    def finish(result):
        return {"a": result.params}, {"b": result.params}

    declared = {"broadcast": ("c",), "client_state": ("a",), "returns": ("b",), "options": {"q": 2, "p": 1}}
    made = local_rule(**declared, finish=finish, needs_anchor_gradient=True)(mine)
    expected = LocalRule("mine", mine, finish=finish, needs_anchor_gradient=True, **declared)
    assert made == expected
    assert made.signature == 'mine {"p": 1, "q": 2}'
    assert local_rule(name="other")(mine).name == "other"
    assert local_rule(mine) == LocalRule("mine", mine)
    nameless = type("Nameless", (), {"__call__": lambda self, *vectors: vectors[0]})()
    assert local_rule(nameless).name == "local_rule"


@pytest.mark.parametrize("declared", [{"client_state": ("a",)}, {"returns": ("a",)}])
def test_rule_that_keeps_or_returns_a_vector_needs_finish(declared):
    with pytest.raises(UserError, match="finish: is missing, and the local rule 'mine' declares a"):
        LocalRule("mine", **declared)
    assert LocalRule("mine", broadcast=("a",)).finish is None
