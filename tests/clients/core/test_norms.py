"""Norms of long vectors."""

from __future__ import annotations

import pytest
import torch

from clients.core.numbers.norms import LONG, norm, square_sums
from clients.core.parameters import Layout
from clients.training.path_measures import distances, squared_norms


@pytest.mark.parametrize("size", [1, LONG, LONG + 1, 3_000_001])
def test_norm_of_float32_is_right_to_its_precision(size):
    vector = torch.full((size,), 0.1)
    assert norm(vector) == pytest.approx(vector.double().norm().item(), rel=1e-6)


def test_rows_have_their_own_sums_and_short_ones_those_of_torch():
    rows = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    assert square_sums(rows).equal(torch.linalg.vector_norm(rows, dim=1).double() ** 2)
    long = torch.cat((rows, torch.zeros(3, 2 * LONG)), dim=1)
    assert square_sums(long).tolist() == pytest.approx(square_sums(rows).tolist(), rel=1e-6)


def test_distances_and_gradients_of_a_large_model_are_right_to_their_precision():
    shapes = {"weight": torch.zeros(700, 3000), "bias": torch.zeros(700)}
    layout = Layout.of(shapes)
    anchor = torch.linspace(0, 1, layout.size)
    params = {n: (v + 0.1).expand(2, *v.shape) for n, v in layout.views(anchor).items()}
    true = sum(((params[n][0] - v).double() ** 2).sum() for n, v in layout.views(anchor).items()).sqrt().item()
    assert distances(params, layout, anchor).tolist() == pytest.approx([true] * 2, rel=1e-6)
    gradients = {n: torch.full((1, *v.shape), 0.1) for n, v in shapes.items()}
    assert squared_norms(gradients).item() == pytest.approx(
        layout.size * torch.tensor(0.1).double().item() ** 2, rel=1e-6
    )


def test_numbers_that_are_not_finite_pass():
    long = torch.ones(2, LONG + 5)
    long[0, 7], long[1, -1] = torch.nan, torch.inf
    found = square_sums(long)
    assert found[0].isnan()
    assert found[1].isinf()


def test_norm_of_a_short_vector_has_the_bits_of_its_squares():
    for size in (0, 1, 7, 610, LONG - 1):
        vector = torch.randn(size, generator=torch.Generator().manual_seed(size))
        assert norm(vector) == float(square_sums(vector[None]).sqrt())
    assert norm(torch.full((3,), 3e38)) == float("inf")
