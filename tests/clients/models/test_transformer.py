"""The transformer: its attention, its positions, its options."""

import pytest
import torch
from torch.nn import functional

from clients.core.errors import UserError
from clients.models.build import build_model
from clients.models.network_options import RbfOptions
from clients.models.sequence_options import TransformerOptions
from clients.models.transformer import Block, sinusoids


def built(population_of, **options):
    population = population_of([3], (6, 2), 3)
    return build_model(TransformerOptions(width=8, heads=2, **options), population, 0).double()


def test_attention_equals_torchs():
    block, mixed = Block(8, 2, 5).double(), torch.randn(3, 6, 24, dtype=torch.float64)
    q, k, v = mixed.view(3, 6, 3, 2, 4).permute(2, 0, 3, 1, 4)
    expected = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(3, 6, 8)
    torch.testing.assert_close(block._attended(mixed), expected)


@pytest.mark.parametrize(("positions", "ordered"), [("none", False), ("learned", True), ("sinusoidal", True)])
def test_order_of_steps_matters_with_positions_alone(positions, ordered, population_of):
    module, x = built(population_of, positions=positions), torch.randn(4, 6, 2, dtype=torch.float64)
    same = torch.allclose(module(x), module(x.flip(1)), rtol=1e-9)
    assert same != ordered


def test_sinusoids_match_their_formula():
    found = sinusoids(torch.zeros(1, 5, 4, dtype=torch.float64))
    assert found.shape == (5, 4)
    assert found[3, 1] == pytest.approx(torch.tensor(3 / 100.0, dtype=torch.float64).sin())
    assert found[3, 2] == pytest.approx(torch.tensor(3.0, dtype=torch.float64).cos())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda: TransformerOptions(width=10, heads=4), "heads: must divide width, and 4 does not divide 10"),
        (lambda: TransformerOptions(width=9, heads=3, positions="sinusoidal"), "width: must be even for sinusoidal"),
        (lambda: TransformerOptions(layers=0), "layers: must be >= 1, got 0"),
        (lambda: RbfOptions(centres=((1.0,), (1.0, 2.0))), r"centres: must have equally many numbers, got \[1, 2\]"),
        (lambda: RbfOptions(centres=0), "centres: must be >= 1, got 0"),
        (lambda: RbfOptions(width=0.0), "width: must be > 0, got 0.0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        options()


def test_given_centres_must_fit_the_features(population_of):
    with pytest.raises(UserError, match="centres: have 2 numbers each, and an example has 6"):
        build_model(RbfOptions(centres=((1.0, 2.0),)), population_of([3], (6,), 3), 0)


def test_centres_are_kept_or_trained(population_of):
    population = population_of([3], (6,), 3)
    kept, trained = (build_model(RbfOptions(centres=4, trained=t), population, 0) for t in ("readout", "all"))
    assert [n for n, p in kept.named_parameters() if p.requires_grad] == ["readout.weight", "readout.bias"]
    assert all(p.requires_grad for p in trained.parameters())
    assert torch.equal(kept.centres, trained.centres)
