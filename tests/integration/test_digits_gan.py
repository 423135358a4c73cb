"""The game of docs/two-player-and-meta.md draws digits, and both engines draw the same noise for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import fedscape as fs

PAGE = Path(__file__).parents[2] / "docs" / "two-player-and-meta.md"


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """Return the names of the page's block after it ran."""
    if not PAGE.is_file():
        pytest.skip("docs/ is not installed beside the package")
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    threads, found = torch.get_num_threads(), {"__name__": "__main__"}
    exec(compile(block, str(PAGE), "exec", dont_inherit=True), found)
    torch.set_num_threads(threads)
    return found


def test_samples_come_near_the_digits(names: dict[str, Any]) -> None:
    distance, coverage = names["distance"], names["coverage"]
    assert distance[-1] < distance[0] / 3
    assert coverage[0] < 0.02 < 0.2 < coverage[-1]
    assert names["run"].outcome["test_sample_classes"] >= 6


@pytest.mark.parametrize("order", ["simultaneous", "alternating"])
def test_engines_draw_the_same_noise(names: dict[str, Any], order: str) -> None:
    found = []
    for kind, seed in (("plain", 0), ("stacked", 0), ("stacked", 0), ("stacked", 8)):
        sets = {"run.rounds": 2, "run.dtype": "float64", "run.seed": seed, "local.local_steps": 4}
        sets |= {"engine.kind": kind, "engine.threads": 1, "engine.workers": 1}
        sets |= {
            "local.optimizer": "sgd",
            "local.local_lr": 0.05,
        }  # Adam divides the rounding of zero gradients by itself
        scenario = fs.load_scenario("digits-gan", sets=sets)
        model = lambda: names["MeanGan"](order=order)  # noqa: E731 (made anew for each run)
        found.append(fs.simulate(scenario, model=model, record=False).params)
    assert torch.equal(found[1], found[2]), "the same seed has the same bits"
    torch.testing.assert_close(found[0], found[1], rtol=1e-7, atol=1e-9)
    assert not torch.allclose(found[2], found[3])


def test_players_descend_their_own_losses(names: dict[str, Any]) -> None:
    """The gradient of a pass is the generator's of its loss, and the discriminator's of its loss, at equal noise."""
    model = names["MeanGan"](gamma=0.7).double()
    model.bits.p = 0.0
    x = torch.rand(12, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    model(x).mean().backward()
    got = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    z = torch.full((12, names["LATENT"]), 0.5 * (1 - 0.5 ** names["BITS"]), dtype=torch.float64)
    points, fake, judge = x.clone().requires_grad_(), model.samples(z), model.discriminator
    (slope,) = torch.autograd.grad(judge(points).sum(), points, create_graph=True)
    told = judge(fake.detach()) - judge(x) + 0.35 * slope.square().sum(1, keepdim=True)
    for loss, player in ((-judge(fake), model.generator), (told, judge)):
        parameters = dict(player.named_parameters())
        gradients = torch.autograd.grad(loss.mean(), list(parameters.values()), retain_graph=True)
        name = "generator" if player is model.generator else "discriminator"
        for (part, _), gradient in zip(parameters.items(), gradients, strict=True):
            torch.testing.assert_close(got[f"{name}.{part}"], gradient, rtol=1e-9, atol=1e-12)
