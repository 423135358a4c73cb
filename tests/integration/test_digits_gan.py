"""The GAN of docs/two-player-and-meta.md learns digits, and both engines draw the same noise for it."""

from __future__ import annotations

import math
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
    digits = names["digits"]
    assert names["frechet"](digits, digits) == pytest.approx(0.0, abs=1e-3)
    assert names["frechet"](digits, digits + 1.0) == pytest.approx(64.0, rel=1e-3)
    assert names["after"] < names["before"] / 3
    told = names["run"].rounds["validation_loss"]
    assert abs(told[-1] - 2 * math.log(2)) < 0.5


@pytest.mark.parametrize("order", ["simultaneous", "alternating"])
def test_engines_draw_the_same_noise(names: dict[str, Any], order: str) -> None:
    found = []
    for kind in ("plain", "stacked", "stacked"):
        more = [
            "run.rounds=2",
            "run.dtype=float64",
            f"engine.kind={kind}",
            "engine.threads=1",
            "local.local_epochs=1",
            "local.optimizer=sgd",
            "local.local_lr=0.05",
        ]  # Adam divides the rounding of zero gradients by itself
        scenario = fs.load_scenario("digits-label-skew", sets=[*names["sets"], *more])
        model = lambda: names["DigitsGan"](order=order)  # noqa: E731 (made anew for each run)
        found.append(fs.simulate(scenario, model=model, data=names["people"], record=False).params)
    assert torch.equal(found[1], found[2]), "the same seed has the same bits"
    torch.testing.assert_close(found[0], found[1], rtol=1e-7, atol=1e-9)
    other = fs.load_scenario("digits-label-skew", sets=[*names["sets"], *more, "run.seed=8"])
    moved = fs.simulate(other, model=lambda: names["DigitsGan"](order=order), data=names["people"], record=False).params
    assert not torch.allclose(moved, found[1])


def test_players_descend_their_own_losses(names: dict[str, Any]) -> None:
    """The gradient of a pass is the generator's of its loss, and the discriminator's of its loss, at equal noise."""
    model = names["DigitsGan"](gamma=0.7).double()
    model.bits.p = 0.0
    x = torch.from_numpy(names["digits"][:12]).double()
    model(x).mean().backward()
    got = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    z = torch.full((12, names["LATENT"]), 0.5 * (1 - 0.5 ** names["BITS"]), dtype=torch.float64)
    points, softplus = x.clone().requires_grad_(), torch.nn.functional.softplus
    fake, judge = model.samples(z), model.discriminator
    (slope,) = torch.autograd.grad(judge(points).sum(), points, create_graph=True)
    told = softplus(-judge(x)) + softplus(judge(fake.detach())) + 0.35 * slope.square().sum(1, keepdim=True)
    for loss, player in ((softplus(-judge(fake)), model.generator), (told, judge)):
        parameters = dict(player.named_parameters())
        gradients = torch.autograd.grad(loss.mean(), list(parameters.values()), retain_graph=True)
        name = "generator" if player is model.generator else "discriminator"
        for (part, _), gradient in zip(parameters.items(), gradients, strict=True):
            torch.testing.assert_close(got[f"{name}.{part}"], gradient, rtol=1e-9, atol=1e-12)
