"""A GAN of two multi-layer perceptrons, which draws examples like those of the clients."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from clients.core import streams
from clients.models.build import initialised
from clients.models.two_player.options import GanOptions
from clients.modules.players import TwoPlayer

BITS = 8
"""Fair bits in a latent number: each is drawn as a dropout mask is, addressed by round, client and local step."""
UNDRAWN = 0.5 * (1 - 0.5**BITS)
"""What bits add up to that no mask has made 0 or 1: each is 1/2. No drawn number is this one."""
FIXED = 1024
"""Latents of passes without dropout, one after the other: of evaluations, and of full gradients."""
LEAK = 0.2
"""Slope of the discriminator's leaky ReLU below 0."""


class Gan(TwoPlayer):
    """The non-saturating game of Goodfellow et al. 2014 (section 3), with or without R1 of Mescheder et al. 2018.

    With D the discriminator's logit, a training pass returns log(1 + exp(-D(x))) + log(1 + exp(D(G(z)))) + gamma/2
    |dD/dx|^2 of each real example x with its own latent z. The generator descends log(1 + exp(-D(G(z)))), which adds
    its gradient and no value. Passes in evaluation mode leave R1 out and take fixed latents: a discriminator that
    cannot tell samples from examples has 2 log 2.

    Args:
        options: widths, latents, order of the players and regularisation.
        shape: of an example; its numbers lie between 0 and 1.
        draws: of initial weights; None leaves them to torch.
    """

    fixed: Tensor

    def __init__(self, options: GanOptions, shape: tuple[int, ...], draws: torch.Generator | None = None) -> None:
        super().__init__(options.order, options.discriminator_steps)
        self.shape, self.latent = shape, options.latent
        self.gamma = options.gamma if options.regularisation == "r1" else 0.0
        numbers = math.prod(shape)
        up = (options.latent, *reversed(options.hidden), numbers)
        down = (numbers, *options.hidden, 1)
        layers: list[nn.Module] = []
        for width, following in pairwise(up):
            layers += [nn.Linear(width, following), nn.ReLU()]
        self.generator = initialised(nn.Sequential(*layers[:-1], nn.Sigmoid()), "torch", draws)
        judges = [nn.Linear(width, following) for width, following in pairwise(down)]
        self.discriminator = initialised(nn.ModuleList(judges), "torch", draws)
        self.bits = nn.Dropout(0.5)
        self.register_buffer("fixed", fixed_latents(FIXED, options.latent), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the discriminator's loss of each example, [n], from examples [n, *shape]."""
        real, steepness = self._judged(x.flatten(1), with_slope=self.training and self.gamma > 0)
        drawn = self.generator(self._latents(x))
        loss = functional.softplus(-real) + functional.softplus(self._judged(drawn.detach())[0])
        if not self.training:
            return loss
        if steepness is not None:
            loss = loss + self.gamma / 2 * steepness
        fools = functional.softplus(-self._judged(drawn, frozen=True)[0])
        return loss + fools - fools.detach()

    def draw(self, number: int) -> Tensor:
        """Return samples [number, *shape] of the generator, the same at every call with the same parameters."""
        weight = next(self.generator.parameters())
        keys = streams.keys(0, "gan/samples", np.arange(number))
        latents = spread(torch.from_numpy(streams.uniforms(keys, self.latent)))
        samples: Tensor = self.generator(latents.to(weight.device, weight.dtype))
        return samples.view(number, *self.shape)

    def _latents(self, x: Tensor) -> Tensor:
        """Return a latent for each example, [n, latent], of mean 0 and deviation 1."""
        half = torch.full((len(x), self.latent, BITS), 0.5, dtype=x.dtype, device=x.device)
        drawn = self.bits(half) @ 0.5 ** torch.arange(1, BITS + 1, dtype=x.dtype, device=x.device)
        fixed = self.fixed[torch.arange(len(x), device=x.device) % FIXED].to(x.dtype)
        return spread(torch.where(drawn == UNDRAWN, fixed, drawn))

    def _judged(self, x: Tensor, *, frozen: bool = False, with_slope: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return D of examples [n, numbers], and |dD/dx|^2 or None, [n] each.

        Args:
            x: the examples.
            frozen: whether the discriminator gets no gradient.
            with_slope: whether to compute |dD/dx|^2: backwards through the layers by hand, since engines differentiate
                this pass themselves.
        """
        layers = [(p.weight.detach(), p.bias.detach()) if frozen else (p.weight, p.bias) for p in self._judges()]
        slopes = []
        for weight, bias in layers[:-1]:
            before = functional.linear(x, weight, bias)
            slopes.append(LEAK + (1 - LEAK) * (before > 0).to(x.dtype))
            x = functional.leaky_relu(before, LEAK)
        weight, bias = layers[-1]
        logits = functional.linear(x, weight, bias)[:, 0]
        if not with_slope:
            return logits, None
        back = weight.expand(len(x), -1)
        for (weight, _), slope in zip(reversed(layers[:-1]), reversed(slopes), strict=True):
            back = (back * slope) @ weight
        return logits, back.square().sum(1)

    def _judges(self) -> list[nn.Linear]:
        return [layer for layer in self.discriminator.children() if isinstance(layer, nn.Linear)]


def spread(uniform: Tensor) -> Tensor:
    """Return latents of mean 0 and deviation 1 from numbers uniform in [0, 1)."""
    return math.sqrt(12) * (uniform - 0.5)


def fixed_latents(number: int, latent: int) -> Tensor:
    """Return fixed numbers in [0, 1), [number, latent]; the first do not depend on how many there are.

    Example:
        >>> torch.equal(fixed_latents(3, 2), fixed_latents(5, 2)[:3])
        True
    """
    uniform = streams.uniforms(streams.keys(0, "gan/latents", np.arange(number)), latent)
    return torch.from_numpy(uniform.astype(np.float32))


def gan(o: GanOptions, shape: tuple[int, ...], outputs: int, generator: torch.Generator | None) -> nn.Module:
    """Build the GAN of examples of a shape."""
    return Gan(o, shape, generator)
