"""Random numbers made by torch on a device have the bits of NumPy's where they are integers."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from clients.core import streams
from clients.core.cards import streams as cards

KEYS = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=9).map(lambda v: np.array(v, np.uint64))


def unsigned(tensor):
    return tensor.numpy().view(np.uint64)


@given(keys=KEYS, count=st.integers(0, 40))
def test_hashes_have_the_bits_of_numpy(keys, count):
    found = cards.hashes(cards.as_signed(keys), count)
    assert found.shape == (len(keys), count)
    np.testing.assert_array_equal(unsigned(found), streams.hashes(keys, count))


@given(keys=KEYS, count=st.integers(1, 40))
def test_uniforms_have_the_bits_of_numpy(keys, count):
    np.testing.assert_array_equal(cards.uniforms(cards.as_signed(keys), count).numpy(), streams.uniforms(keys, count))


@given(keys=KEYS, count=st.integers(1, 41))
def test_normals_agree_to_a_few_units_in_the_last_place(keys, count):
    found = cards.normals(cards.as_signed(keys), count).numpy()
    np.testing.assert_allclose(found, streams.normals(keys, count), rtol=0, atol=2e-14)


@given(keys=KEYS, count=st.integers(1, 5))
def test_bits_come_in_the_order_of_unpackbits(keys, count):
    words = streams.hashes(keys, count)
    expected = np.unpackbits(words.view(np.uint8), axis=-1)
    np.testing.assert_array_equal(cards.bits(cards.as_signed(words)).numpy(), expected)


def test_keys_of_any_shape_and_stride_keep_their_bits():
    keys = streams.keys(7, "dropout", np.arange(6)[:, None], np.arange(4))[::2].T
    np.testing.assert_array_equal(unsigned(cards.as_signed(keys)), keys)


def test_signed_wraps_at_the_top_bit():
    assert [cards.signed(v) for v in (0, 2**63 - 1, 2**63, 2**64 - 1)] == [0, 2**63 - 1, -(2**63), -1]
    assert torch.tensor(cards.signed(0x9E3779B97F4A7C15)).numpy().view(np.uint64) == 0x9E3779B97F4A7C15
