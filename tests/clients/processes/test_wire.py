import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from clients.processes.wire import Message, pack, unpack

TYPES = [np.float64, np.float32, np.int64, np.int32, np.uint8, np.bool_]
any_array = st.sampled_from(TYPES).flatmap(
    lambda t: arrays.arrays(t, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
)


@given(
    head=st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.booleans())),
    found=st.dictionaries(st.text(), any_array),
)
def test_message_comes_back_as_it_was_sent(head, found):
    received = unpack(pack(Message(head, {name: torch.from_numpy(a) for name, a in found.items()})))
    assert received.head == head
    assert received.tensors.keys() == found.keys()
    for name, a in found.items():
        assert received.tensors[name].dtype == torch.from_numpy(a).dtype
        np.testing.assert_array_equal(received.tensors[name].numpy(), a)


@pytest.mark.parametrize("odd", [torch.arange(12.0).view(3, 4).T, torch.ones(2, 3, requires_grad=True)[:, 1:]])
def test_message_takes_tensors_that_are_not_dense_or_have_a_gradient(odd):
    assert torch.equal(unpack(pack(Message({}, {"x": odd}))).tensors["x"], odd.detach())


def test_received_tensors_share_the_memory_of_the_message():
    data = pack(Message({}, {"x": torch.zeros(4), "y": torch.ones(2)}))
    assert unpack(data).tensors["x"].untyped_storage().data_ptr() == data.untyped_storage().data_ptr()
