"""Copies of modules: what passes leave behind, what cannot be copied, and what copies must not share."""

import copy
import threading
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from own_models import Keeping, Locked, LockedPart, Tied, weight_norm
from torch import nn

from clients.core.errors import UserError
from clients.modules.copies import copy_module, shared_attributes


@pytest.mark.parametrize("make", [Keeping, weight_norm, Tied])
def test_copy_after_a_pass_has_tensors_of_its_own(make):
    module = make()
    module(torch.randn(4, 8)).sum().backward()
    copied = copy_module(module)
    assert shared_attributes(module) == ()
    for (name, one), (other_name, other) in zip(
        module.state_dict().items(), copied.state_dict().items(), strict=True
    ):  # fmt: skip
        assert name == other_name
        assert torch.equal(one, other)
        assert one.data_ptr() != other.data_ptr()
    x = torch.randn(4, 8)
    module.eval(), copied.eval()
    assert torch.equal(module(x), copied(x))


def test_kept_tensors_are_copied_without_their_graph_wherever_they_are():
    module = Keeping()
    module(torch.randn(4, 8))
    module.deeper = {"of": (SimpleNamespace(value=module.hidden),)}
    copied = copy_module(module)
    for kept in (copied.hidden, copied.kept[0], copied.deeper["of"][0].value):
        assert torch.equal(kept, module.hidden)
        assert kept.grad_fn is None
    assert copied.kept[0] is copied.hidden, "one tensor stays one tensor"


def test_tied_weights_stay_tied():
    copied = copy_module(Tied())
    assert copied.first.weight is copied.second.weight
    assert copied.norm is copied.again


def test_lock_is_shared_and_named():
    module = nn.Sequential(nn.Linear(8, 8), Locked())
    with pytest.raises(TypeError):
        copy.deepcopy(module)
    copied = copy_module(module)
    assert copied[1].lock is module[1].lock
    assert copied[1].last.weight is not module[1].last.weight
    assert shared_attributes(module) == ("1.lock (lock)",)


def test_what_is_shared_must_not_hold_parameters():
    with pytest.raises(UserError, match=r"model: has an attribute 'held' that cannot be copied .* refers to its para"):
        copy_module(LockedPart())
    module = Locked()
    module.helper = partial(lambda layer, lock: None, module.last, threading.Lock())
    with pytest.raises(UserError, match="'helper'"):
        copy_module(module)


def test_module_that_refuses_every_copy_is_named():
    class Refusing(nn.Linear):
        def __deepcopy__(self, memo):
            raise ValueError("not me")

    with pytest.raises(UserError, match=r"model: cannot be copied: ValueError: not me \(at .*\). Let the class have"):
        copy_module(Refusing(2, 2))
