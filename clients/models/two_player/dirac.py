"""The Dirac-GAN: the smallest game of a generator and a discriminator, which is linear in each player."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clients.models.starts import start_vector
from clients.models.two_player.options import DiracGanOptions
from clients.modules.players import TwoPlayer


class DiracGan(TwoPlayer):
    """The game V = psi' (theta - x) on data at points x.

    Training passes return V, which neither player descends as it is: the generator's gradient is psi, the
    discriminator's x - theta, each with its regularisation. Since V is 0 at the equilibrium and of either sign around
    it, passes in evaluation mode return half the squared distance of both players from (x, 0) instead, which falls
    where the game settles.

    Args:
        generator: theta at the start [d].
        discriminator: psi at the start [d].
        options: order of the players and regularisation.
    """

    def __init__(self, generator: Tensor, discriminator: Tensor, options: DiracGanOptions) -> None:
        super().__init__(options.order, options.discriminator_steps)
        self.generator, self.discriminator = nn.Parameter(generator), nn.Parameter(discriminator)
        self.regularisation, self.gamma = options.regularisation, options.gamma

    def forward(self, x: Tensor) -> Tensor:
        """Return V of each example, or in evaluation mode half its squared distance, [n], from points [n, d]."""
        away = self.generator - x
        if not self.training:
            return 0.5 * (away.square().sum(1) + self.discriminator.square().sum())
        descended = away @ self.discriminator.detach() - away.detach() @ self.discriminator
        if self.regularisation != "none":
            descended = descended + 0.5 * self.gamma * self.discriminator.square().sum()
        if self.regularisation == "consensus":
            descended = descended + 0.5 * self.gamma * away.square().sum(1)
        return (away @ self.discriminator).detach() + (descended - descended.detach())


def dirac_gan(o: DiracGanOptions, shape: tuple[int, ...], outputs: int, generator: torch.Generator | None) -> nn.Module:
    """Build the Dirac-GAN of points [d]; d is `outputs`."""
    return DiracGan(
        start_vector(o.generator, outputs, "generator"), start_vector(o.discriminator, outputs, "discriminator"), o
    )
