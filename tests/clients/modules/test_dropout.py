"""Dropout masks: rate, scale, and dependence on client and example."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from clients.core.cards.streams import as_signed
from clients.modules.dropout import (
    Dropout,
    DropoutSite,
    dropout_keys,
    dropout_mask,
    with_addressed_dropout,
)
from clients.modules.dropout_sites import CallRecorder, sites_of

SEED = 11


def masks(p, shape=(16,), clients=(3,), steps=2, batch=4, round_index=1, dtype=torch.float32, seed=SEED):
    """Return masks [steps, K, batch, *shape] of one site."""
    site = DropoutSite("site", p, shape)
    keys = dropout_keys(seed, round_index, np.array(clients), steps, 1)
    return torch.stack([dropout_mask(site, keys[0, s], batch, dtype) for s in range(steps)])


@pytest.mark.parametrize("p", [0.5, 0.25, 0.1, 0.9, 1 / 3, 0.001, 0.999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dropout_has_its_rate_and_scale(p, dtype):
    drawn = masks(p, shape=(20, 50), clients=range(20), batch=5, steps=2, dtype=dtype)
    values = drawn.unique()
    assert drawn.dtype == dtype
    assert values[0] == 0
    assert float(values[1]) == pytest.approx(1 / (1 - p), rel=1e-4)
    n = drawn.numel()
    assert abs(float((drawn == 0).double().mean()) - p) < 4.5 * (p * (1 - p) / n) ** 0.5 + 1e-5
    assert float(drawn.double().mean()) == pytest.approx(1, abs=5 * (p / (1 - p) / n) ** 0.5)


def test_dropping_everything_is_allowed():
    assert not masks(1.0).any()


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_units_examples_steps_and_clients_are_independent(p):
    drawn = (masks(p, shape=(8,), clients=range(400), batch=5, steps=4) > 0).double()
    table = drawn.permute(1, 0, 2, 3).reshape(400, -1)  # a row a client
    correlation = torch.corrcoef(table.T)
    correlation.fill_diagonal_(0)
    assert float(correlation.abs().max()) < 0.25  # five standard deviations, of 12,720 pairs
    assert abs(float(correlation.sum()) / (160 * 159)) < 0.003


@given(
    p=st.sampled_from([0.5, 0.25, 0.3]),
    width=st.integers(1, 70),
    clients=st.lists(st.integers(0, 10**6), min_size=1, max_size=5, unique=True),
    batch=st.integers(1, 6),
)
def test_mask_depends_only_on_its_client_and_example(p, width, clients, batch):
    together = masks(p, (width,), clients, batch=6)
    assert together.shape == (2, len(clients), 6, width)
    alone = masks(p, (width,), clients[-1:], batch=batch, steps=1)
    assert torch.equal(alone[0, 0], together[0, -1, :batch])


def test_masks_at_different_addresses_differ():
    base = masks(0.5, (64,), batch=8)
    assert not torch.equal(base[0], base[1])
    assert not torch.equal(base, masks(0.5, (64,), batch=8, round_index=2))
    assert not torch.equal(base, masks(0.5, (64,), batch=8, seed=12))
    assert not torch.equal(base, masks(0.5, (64,), (4,), batch=8))
    keys = dropout_keys(SEED, 1, np.arange(5), 3, 2)
    assert keys.shape == (2, 3, 5)
    assert len(np.unique(keys)) == 30


def sites_found(module, features):
    """Return the sites of training passes over a batch and over one example less."""
    recorder = CallRecorder(module.train())
    module(features)
    calls = recorder.calls
    recorder.start()
    module(features[1:])
    return sites_of(calls, len(features), recorder.calls, len(features) - 1)


def test_modules_are_replaced_in_a_copy_and_found_with_their_shapes():
    inner = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.2), nn.Unflatten(1, (2, 3)), nn.Dropout(0.5), nn.Flatten())
    module = nn.Sequential(inner, nn.Dropout(0.0), nn.Linear(6, 2))
    ours = with_addressed_dropout(module)
    assert type(module[0][1]) is nn.Dropout
    assert isinstance(ours[0][1], Dropout)
    assert sites_found(ours, torch.zeros(3, 4)) == (DropoutSite("0.1", 0.2, (6,)), DropoutSite("0.3", 0.5, (2, 3)))
    assert "mask" not in "".join(ours.state_dict())


def test_dropout_multiplies_while_training_only():
    layer = Dropout(0.5)
    x = torch.ones(2, 3)
    assert torch.equal(layer(x), x)
    layer.mask = torch.tensor([[0.0, 2.0, 2.0], [2.0, 0.0, 0.0]])
    assert torch.equal(layer(x), layer.mask)
    assert torch.equal(layer.eval()(x), x)


@given(
    p=st.sampled_from([0.5, 0.25, 0.1, 1 / 3, 0.999, 1.0, 0.99999]),
    site=st.sampled_from([((5, 3), 0, 1), ((70,), 0, 1), ((2, 3), 1, 1), ((4,), None, 1), ((3,), 0, 2)]),
    clients=st.integers(1, 4),
    batch=st.integers(1, 5),
)
def test_masks_drawn_on_a_device_have_the_same_bits(p, site, clients, batch):
    shape, axis, rows = site
    where = DropoutSite("site", p, shape, 0, axis, rows)
    keys = dropout_keys(SEED, 3, np.arange(clients), 2, 1)[0, 1]
    expected = dropout_mask(where, keys, batch, torch.float32)
    assert torch.equal(dropout_mask(where, as_signed(keys), batch, torch.float32), expected)
