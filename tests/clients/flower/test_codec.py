"""A model's vectors as arrays of Flower, and back."""

from __future__ import annotations

import torch

from clients.core.parameters import Layout
from clients.flower.codec import PARAMETERS, Codec

LAYOUT = Layout.of({"weight": torch.zeros(2, 2), "bias": torch.zeros(2)})
NONE = Layout((), (), (), 0)


def a_codec() -> Codec:
    return Codec.flat(LAYOUT, NONE, torch.float32)


def test_a_record_of_the_same_vectors_shares_arrays_and_can_be_changed_alone() -> None:
    codec, params = a_codec(), torch.arange(6.0)
    buffers = torch.zeros(0)
    first, second = codec.encode(params, buffers), codec.encode(params, buffers)
    assert first[PARAMETERS].data is second[PARAMETERS].data
    del first[PARAMETERS]
    assert codec.decode(codec.encode(params, buffers))[0].tolist() == params.tolist()
    assert list(second) == [PARAMETERS]


def test_vectors_written_to_since_the_last_record_are_encoded_anew() -> None:
    codec, params, buffers = a_codec(), torch.zeros(6), torch.zeros(0)
    codec.encode(params, buffers)
    params += 1
    assert a_codec().decode(codec.encode(params, buffers))[0].tolist() == [1.0] * 6


def test_other_vectors_of_equal_values_are_their_own() -> None:
    codec, buffers = a_codec(), torch.zeros(0)
    one, other = torch.zeros(6), torch.zeros(6)
    record = codec.encode(one, buffers)
    codec.encode(other, buffers)
    assert codec.decode(record)[0] is not one
    assert codec.decode(codec.encode(one, buffers))[0] is one


def test_record_of_the_vectors_encoded_last_is_made_once() -> None:
    codec, params, buffers = a_codec(), torch.arange(6.0), torch.zeros(0)
    record = codec.encode(params, buffers)
    assert codec.record_of(params, buffers) is record
    params += 1
    assert codec.decode(codec.record_of(params, buffers))[0].tolist() == params.tolist()


def test_record_that_was_changed_is_made_anew() -> None:
    codec, params, buffers = a_codec(), torch.arange(6.0), torch.zeros(0)
    other = a_codec().encode(torch.zeros(6), buffers)[PARAMETERS]
    codec.encode(params, buffers)[PARAMETERS] = other
    assert a_codec().decode(codec.record_of(params, buffers))[0].tolist() == params.tolist()
    codec.record_of(params, buffers)[PARAMETERS].data = other.data
    assert a_codec().decode(codec.record_of(params, buffers))[0].tolist() == params.tolist()
    del codec.record_of(params, buffers)[PARAMETERS]
    assert list(codec.record_of(params, buffers)) == [PARAMETERS]
