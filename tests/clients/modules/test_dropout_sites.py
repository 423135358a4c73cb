"""Calls of dropout: found in training passes, with the batch axis of each, and drawn one client at a time."""

import numpy as np
import pytest
import torch
from own_models import ADDRESSED, CallsByLength, Flattened, Loop, OnlyIfTraining, OnWeights, TimeFirst
from torch import nn

from clients.modules.dropout import Dropout, DropoutSite, dropout_keys, dropout_mask, with_addressed_dropout
from clients.modules.dropout_sites import AddressedMasks, CallRecorder, sites_of


def found(module, batch=4, other=3):
    """Return the sites of a module for features [n, 8]."""
    module = with_addressed_dropout(module).train()
    recorder, calls = CallRecorder(module), []
    for n in (batch, other):
        recorder.start()
        module(torch.randn(n, 8))
        calls.append(recorder.calls)
    return sites_of(calls[0], batch, calls[1], other)


@pytest.mark.parametrize(
    ("make", "sites"),
    [
        (OnlyIfTraining, [DropoutSite("drop", 0.4, (12,))]),
        (Loop, [DropoutSite("drop", 0.3, (8,), call) for call in range(3)]),
        (Flattened, [DropoutSite("drop", 0.4, (6,), rows=4)]),
        (TimeFirst, [DropoutSite("drop", 0.4, (4, 6), axis=1)]),
        (OnWeights, [DropoutSite("drop", 0.4, (3, 8), axis=None)]),
        (ADDRESSED["Dropout2d"], [DropoutSite("drop", 0.4, (4, 1, 1))]),
        (ADDRESSED["FeatureAlphaDropout"], [DropoutSite("drop", 0.4, (4, 1))]),
    ],
)
def test_each_call_is_a_site_with_its_batch_axis(make, sites):
    assert found(make()) == tuple(sites)
    assert all(site.mask_shape(7) == drawn(site, 7).shape for site in sites)


def test_calls_that_depend_on_the_batch_have_no_sites():
    assert found(CallsByLength()) is None


def drawn(site, batch, clients=(3,)):
    """Return the mask of the first client."""
    return dropout_mask(site, dropout_keys(1, 1, np.array(clients), 1, 1)[0, 0], batch, torch.float32)[0]


def test_mask_in_another_layout_has_the_same_numbers():
    usual = drawn(DropoutSite("drop", 0.3, (4, 6)), 5)
    assert torch.equal(drawn(DropoutSite("drop", 0.3, (4, 6), axis=1), 5), usual.movedim(0, 1))
    assert torch.equal(drawn(DropoutSite("drop", 0.3, (6,), rows=4), 5), usual.flatten(0, 1))
    assert torch.equal(drawn(DropoutSite("drop", 0.3, (4, 6), axis=None), 5), usual[0])


def test_one_clients_masks_equal_those_of_its_sites():
    module = with_addressed_dropout(Loop()).train()
    sites = found(Loop())
    masks, seen = AddressedMasks(module, sites, 1, torch.float32), []
    module.drop.register_forward_hook(lambda part, inputs, output: seen.append(output == 0))
    masks.client(1, 3, 2)
    for step in range(2):
        masks.step(step, 5)
        module(torch.randn(5, 8))
    keys = dropout_keys(1, 1, np.array([3]), 2, 3)
    for step in range(2):
        for call, site in enumerate(sites):
            mask = dropout_mask(site, keys[call, step], 5, torch.float32)[0]
            assert torch.equal(seen[3 * step + call], mask == 0)
    masks.stop()
    module(torch.randn(5, 8))
    assert not any(zeros.any() for zeros in seen[6:])


def test_unknown_calls_have_masks_of_their_own():
    module = with_addressed_dropout(Loop()).train()
    seen = []
    module.drop.register_forward_hook(lambda part, inputs, output: seen.append(output == 0))
    masks = AddressedMasks(module, (), 1, torch.float32)

    def play(round_index, client, step):
        seen.clear()
        masks.client(round_index, client, 3)
        masks.step(step, 40)
        module(torch.ones(40, 8))
        return torch.stack(seen)

    base = play(1, 3, 0)
    assert abs(float(base.double().mean()) - 0.3) < 0.06
    assert not torch.equal(base[0], base[1]), "calls differ"
    assert torch.equal(base, play(1, 3, 0))
    assert not any(torch.equal(base, play(*address)) for address in [(2, 3, 0), (1, 4, 0), (1, 3, 1)])


KINDS = [
    (nn.Dropout, (5, 4, 6)), (nn.Dropout1d, (5, 4, 6)), (nn.Dropout1d, (4, 6)), (nn.Dropout2d, (5, 4, 3, 2)),
    (nn.Dropout2d, (5, 4, 6)), (nn.Dropout3d, (5, 4, 3, 2, 2)), (nn.Dropout3d, (4, 3, 2, 2)),
    (nn.AlphaDropout, (5, 4, 6)), (nn.FeatureAlphaDropout, (5, 4, 6)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "shape"), KINDS)
@pytest.mark.filterwarnings("ignore:dropout2d:UserWarning")  # of torch, for three axes
def test_every_kind_changes_its_input_as_torch_does(kind, shape):
    """With torch's own choice of what to drop, ours gives torch's output."""
    x, theirs, outputs = torch.randn(shape, dtype=torch.float64), kind(0.4), []
    for features in (x, x + 1):
        torch.manual_seed(0)
        outputs.append(theirs(features))
    y, dropped = outputs[0], outputs[0] == outputs[1]  # what is dropped does not depend on the input
    ours = Dropout(0.4, kind.__name__).train()
    mask_shape = ours.mask_shape(x)
    share = dropped.double().mean()
    assert 0 < share < 1
    corner = dropped[tuple(slice(0, n) for n in mask_shape)]
    assert torch.equal(corner.expand(shape), dropped), "a mask number covers what torch drops together"
    ours.mask = torch.where(corner, 0.0, 1 / (1 - 0.4)).to(x.dtype)
    torch.testing.assert_close(ours(x), y)
    assert torch.equal(ours.eval()(x), x)


def test_dropping_in_place_changes_the_input():
    for kind in ("Dropout", "AlphaDropout"):
        ours, x = Dropout(0.5, kind, inplace=True).train(), torch.ones(2, 3)
        ours.mask = torch.tensor([[0.0, 2.0, 2.0], [2.0, 0.0, 0.0]])
        apart = Dropout(0.5, kind).train()
        apart.mask = ours.mask
        expected = apart(torch.ones(2, 3))
        assert ours(x) is x
        torch.testing.assert_close(x, expected)


def test_hooks_and_places_of_dropout_parts_are_kept():
    drop, seen = nn.Dropout(0.5), []
    drop.register_forward_hook(lambda *_: seen.append(1))
    module = with_addressed_dropout(nn.ModuleDict({"a": drop, "b": nn.Sequential(drop)}))
    assert module["a"] is module["b"][0]
    assert isinstance(module["a"], Dropout)
    module["a"](torch.ones(2))
    assert seen == [1]
