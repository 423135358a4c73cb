"""Vectors and named tensors: the same numbers, the same memory."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from clients.core.parameters import Layout, parameter_layout, read_vector, write_vector

shapes = st.lists(st.lists(st.integers(1, 4), max_size=3).map(tuple), min_size=1, max_size=5)


@given(shapes=shapes, lead=st.lists(st.integers(1, 3), max_size=2))
def test_views_and_flatten_undo_each_other(shapes, lead):
    layout = Layout.of({f"t{i}": torch.zeros(shape) for i, shape in enumerate(shapes)})
    flat = torch.arange(layout.size * int(torch.tensor(lead or [1]).prod())).view(*lead, layout.size)
    views = layout.views(flat)
    assert [tuple(v.shape) for v in views.values()] == [(*lead, *shape) for shape in shapes]
    assert torch.equal(layout.flatten(views, lead=len(lead)), flat)
    views["t0"].fill_(-1)
    assert (flat == -1).sum() == views["t0"].numel(), "views share the vector's memory"


def test_vectors_go_into_a_module_and_back():
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    module[1].bias.requires_grad_(False)
    layout = parameter_layout(module)
    assert "1.bias" not in layout.names
    assert layout.size == 8 + 2 + 6
    vector = torch.arange(float(layout.size))
    write_vector(module, layout, vector)
    assert torch.equal(read_vector(module, layout), vector)
    assert module[2].bias.tolist() == [14.0, 15.0]
    assert layout.layers() == [("0", 0, 8), ("1", 8, 10), ("2", 10, 16)]
