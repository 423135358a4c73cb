"""The built-in GAN: each player descends its own loss, and its noise is addressed or fixed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, softplus

import fedscape as fs
from clients.core.errors import UserError
from clients.core.examples import CohortData
from clients.models.build import build_model, outlined_model
from clients.models.options import ParameterVectorOptions, SoftmaxOptions
from clients.models.two_player.gan import BITS, FIXED, Gan, fixed_latents, spread
from clients.models.two_player.options import DiracGanOptions, GanOptions

SETS = {"partition.clients": 4, "model.hidden": [6]}


def digits(**more: Any) -> fs.Population:
    return fs.population(fs.load_scenario("digits-gan", sets=SETS | more))


def made(**options: Any) -> Gan:
    """Return a GAN of examples of seven numbers, in float64."""
    draws = torch.Generator().manual_seed(3)
    return Gan(GanOptions(**{"hidden": (6, 5), "latent": 3} | options), (7,), draws).double()


def logits(gan: Gan, x: Tensor) -> Tensor:
    """Return what the discriminator thinks of examples, written out layer by layer."""
    *layers, last = gan.discriminator
    for layer in layers:
        x = leaky_relu(layer(x), 0.2)
    out: Tensor = last(x)
    return out[:, 0]


@pytest.mark.parametrize("hidden", [(6,), (6, 5), ()])
@pytest.mark.parametrize("gamma", [0.0, 0.7])
def test_players_descend_their_own_losses(hidden: tuple[int, ...], gamma: float) -> None:
    """Without dropout's masks a pass has fixed latents: its gradient is that of the written-out losses."""
    gan = made(hidden=hidden, gamma=gamma)
    gan.bits.p = 0.0
    x = torch.rand(12, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z = spread(fixed_latents(12, 3).double())
    returned = gan(x)
    returned.mean().backward()
    got = {n: p.grad.clone() for n, p in gan.named_parameters() if p.grad is not None}
    points, fake = x.clone().requires_grad_(), gan.generator(z)
    (slope,) = torch.autograd.grad(logits(gan, points).sum(), points, create_graph=True)
    penalty = 0.5 * gamma * slope.square().sum(1)
    told = softplus(-logits(gan, x)) + softplus(logits(gan, fake.detach())) + penalty
    torch.testing.assert_close(returned, told, rtol=1e-12, atol=1e-14)
    for loss, player in ((softplus(-logits(gan, fake)), gan.generator), (told, gan.discriminator)):
        parameters = dict(player.named_parameters())
        wanted = torch.autograd.grad(loss.mean(), list(parameters.values()), retain_graph=True)
        name = "generator" if player is gan.generator else "discriminator"
        for part, gradient in zip(parameters, wanted, strict=True):
            torch.testing.assert_close(got[f"{name}.{part}"], gradient, rtol=1e-9, atol=1e-12)


def test_latents_have_mean_0_and_deviation_1_and_are_not_shared() -> None:
    gan = made(latent=5)
    torch.manual_seed(0)
    z = gan._latents(torch.zeros(4000, 7, dtype=torch.float64))
    torch.testing.assert_close(z.mean(0), torch.zeros(5, dtype=torch.float64), rtol=0, atol=0.06)
    torch.testing.assert_close(z.std(0), torch.ones(5, dtype=torch.float64), rtol=0, atol=0.03)
    assert len(torch.unique(z[:, 0])) == 2**BITS
    step = np.sqrt(12) / 2**BITS
    torch.testing.assert_close(torch.unique(z).diff(), torch.full((2**BITS - 1,), step, dtype=torch.float64))
    correlation = np.corrcoef(z.numpy().T) - np.eye(5)
    assert np.abs(correlation).max() < 0.07
    assert z.abs().max() <= np.sqrt(3)


def test_evaluation_has_fixed_latents_and_no_penalty() -> None:
    gan = made(gamma=50.0).eval()
    x = torch.rand(9, 7, dtype=torch.float64)
    assert torch.equal(gan(x), gan(x))
    for p in gan.discriminator[-1].parameters():
        torch.nn.init.zeros_(p)
    torch.testing.assert_close(gan(x), torch.full((9,), 2 * np.log(2), dtype=torch.float64))
    many = torch.rand(1, 7, dtype=torch.float64).expand(FIXED + 3, 7)
    torch.testing.assert_close(gan(many)[FIXED:], gan(many)[:3])  # latents begin again


def test_samples_are_the_same_at_each_call_and_differ_among_each_other() -> None:
    gan = made()
    few, many = gan.draw(4), gan.draw(9)
    assert torch.equal(few, many[:4])
    assert len(torch.unique(many, dim=0)) == 9
    assert ((many > 0) & (many < 1)).all()
    image = Gan(GanOptions(hidden=(4,)), (1, 3, 3))
    assert image.draw(2).shape == (2, 1, 3, 3)
    assert image(torch.rand(5, 1, 3, 3)).shape == (5,)


def test_initial_weights_follow_the_seed() -> None:
    population = digits()
    one, same, other = (build_model(GanOptions(), population, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert not any(torch.equal(one[n], other[n]) for n in one)
    assert "fixed" not in one, "latents are no part of the model"
    assert all(p.is_meta for p in outlined_model(GanOptions(), population).parameters())


@pytest.mark.parametrize("order", ["simultaneous", "alternating"])
def test_engines_draw_the_same_noise(order: str) -> None:
    found = []
    for kind, seed in (("plain", 0), ("stacked", 0), ("stacked", 0), ("stacked", 1)):
        sets = {"run.rounds": 2, "run.dtype": "float64", "local.local_steps": 4}
        sets |= {"local.optimizer": "sgd", "local.local_lr": 0.05, "model.order": order, "run.seed": seed}
        sets |= {"engine.kind": kind, "engine.threads": 1, "engine.workers": 1}
        scenario = fs.load_scenario("digits-gan", sets=SETS | sets)
        found.append(fs.simulate(scenario, record=False).params)
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-11)
    assert torch.equal(found[1], found[2]), "the same seed has the same bits"
    assert not torch.allclose(found[2], found[3])


def test_models_that_draw_nothing_are_refused_for_data_to_generate() -> None:
    population = digits()
    for options in (SoftmaxOptions(), ParameterVectorOptions(), DiracGanOptions()):
        with pytest.raises(UserError, match=r"does not fit data 'digits'.* These data take: gan\."):
            build_model(options, population, 0)
    with pytest.raises(UserError, match=r"'gan' does not fit data 'digits'.* It needs data\.task = \"generate\""):
        build_model(GanOptions(), digits(**{"data.task": "classify"}), 0)


def test_labels_are_for_partitions_and_measures_alone() -> None:
    """Other labels of the same examples leave the run as it is."""
    population = digits()
    data = population.cohort(np.arange(4))
    assert population.task == "objective"
    assert population.clients.label_counts is not None
    assert population.clients.label_counts(np.arange(4)).sum() == population.num_examples
    assert len(np.unique(data.targets.numpy())) == 10
    scenario = fs.load_scenario("digits-gan", sets=SETS | {"run.rounds": 2, "local.local_steps": 3})

    def others(clients: np.ndarray[Any, Any]) -> CohortData:
        made = population.cohort(clients)
        return replace(made, targets=9 - made.targets)

    changed = replace(population, clients=replace(population.clients, cohort=others))
    runs = [fs.simulate(scenario, data=one, record=False) for one in (population, changed)]
    assert torch.equal(runs[0].params, runs[1].params)


@pytest.mark.parametrize(("factor", "problem"), [(1.0, ""), (2.0, "has numbers from 0 to 2"), (-1.0, "from -1 to ")])
def test_images_to_generate_lie_between_0_and_1(factor: float, problem: str, tmp_path: Path) -> None:
    pictures = factor * np.linspace(0, 1, 40 * 9).reshape(40, 1, 3, 3)
    np.savez(tmp_path / "set.npz", x=pictures, y=np.arange(40) % 2)
    data = {"kind": "images", "path": str(tmp_path / "set.npz"), "task": "generate", "flat": False}
    scenario = fs.load_scenario("digits-gan", sets={"data": data, "partition.clients": 2})
    if problem:
        with pytest.raises(UserError, match=f"{problem}.*generated ones lie between 0 and 1"):
            fs.population(scenario)
        return
    population = fs.population(scenario)
    assert population.spec.generates
    assert build_model(GanOptions(hidden=(4,)), population, 0)(torch.rand(5, 1, 3, 3)).shape == (5,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": (4, 0)}, r"hidden: every width must be >= 1, got \[4, 0\]"),
        ({"latent": 0}, "latent: must be >= 1, got 0"),
        ({"gamma": -1.0}, "gamma: must be >= 0, got -1.0"),
        ({"discriminator_steps": 0}, "discriminator_steps: must be >= 1, got 0"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        GanOptions(**options)


def test_options_without_an_effect_are_named() -> None:
    assert GanOptions(regularisation="none").unread().keys() == {"discriminator_steps", "gamma"}
    assert GanOptions(order="alternating").unread() == {}
