"""What a module's passes draw from is found with its place, seeded and restored."""

import random

import numpy as np
import pytest
import torch
from own_models import DRAWING, OwnGenerators, Shared, perceptron
from torch import nn

from clients.modules.dropout import with_addressed_dropout
from clients.modules.randomness import Seeding, generators_restored, may_draw, own_generators, sources_drawn

X = torch.linspace(-1, 1, 24).view(3, 8)


@pytest.mark.parametrize("name", DRAWING)
def test_sources_are_found_with_their_places(name):
    make, source = DRAWING[name]
    module = with_addressed_dropout(make()).train()
    assert "; ".join(sources_drawn(module, lambda copied: copied(X))) == source
    assert may_draw(make())


def test_module_with_addressed_dropout_draws_nothing():
    module = with_addressed_dropout(Shared()).train()
    assert sources_drawn(module, lambda copied: copied(X)) == ()
    assert not may_draw(with_addressed_dropout(perceptron(nn.Dropout(0.5))))
    assert may_draw(with_addressed_dropout(nn.Sequential(nn.Linear(8, 3), nn.RReLU())))


def test_dropout_outside_of_the_modules_parts_is_found():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.drops = nn.Linear(8, 3), [nn.Dropout(0.5)]

        def forward(self, x):
            return self.drops[0](self.last(x))

    drawn = sources_drawn(with_addressed_dropout(Listed()), lambda copied: copied(X))
    assert drawn == ("torch's generator, in Listed.forward",)


def test_every_generator_is_seeded_by_the_key():
    module = OwnGenerators()
    module.third, module.fourth = random.Random(1), np.random.RandomState(1)
    assert [name for name, _ in own_generators(module)] == ["noise", "scale", "third", "fourth"]

    def draw(key):
        Seeding(module).seed(key)
        return (
            torch.rand(1).item(), np.random.random(), random.random(),  # noqa: NPY002
            torch.rand(1, generator=module.noise).item(), module.scale.random(), module.third.random(),
            module.fourth.random_sample(),
        )  # fmt: skip

    with generators_restored():
        first, again, other = draw(2**64 - 5), draw(2**64 - 5), draw(7)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert len(set(first)) == len(first)


def test_generators_are_restored_after_an_error():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002

    def draw_and_fail():
        with generators_restored():
            Seeding(nn.Linear(1, 1)).seed(3)
            torch.rand(1), np.random.random(), random.random()  # noqa: NPY002
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        draw_and_fail()
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert before[2] == random.getstate()
