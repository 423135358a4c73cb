"""Options of models of two players."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from clients.core.errors import require
from clients.core.numbers.bounds import Within
from clients.core.options import check_at_least, check_not_negative, unread_of
from clients.models.options import ModelOptions

Steps = Annotated[int, Within(1, 10**6, why="more steps of one player than a round has would stop the other")]


@dataclass(frozen=True, kw_only=True)
class TwoPlayerOptions(ModelOptions):
    """Options of every game of a generator and a discriminator.

    Attributes:
        order: "simultaneous" moves both players in each local step; "alternating" moves one of them: the discriminator
            first, counted anew in each round.
        discriminator_steps: under "alternating", steps of the discriminator before each step of the generator.
        regularisation: "none"; "r1" adds gamma/2 |dD/dx|^2 at real examples to the discriminator's loss (Mescheder et
            al. 2018); some games also have "consensus".
        gamma: weight of the regularisation.
    """

    order: Literal["simultaneous", "alternating"] = "simultaneous"
    discriminator_steps: Steps = 1
    regularisation: str = "none"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "discriminator_steps")
        check_not_negative(self, "gamma")

    def unread(self) -> dict[str, str]:
        """Return why a key has no effect, for each key that other keys leave without one."""
        found = unread_of(self.order, {"discriminator_steps": ("alternating",)}, "order")
        return found | ({"gamma": "there is no regularisation"} if self.regularisation == "none" else {})


@dataclass(frozen=True, kw_only=True)
class DiracGanOptions(TwoPlayerOptions):
    """The Dirac-GAN (Mescheder et al. 2018) with a linear loss: the generator is a point, the discriminator a slope.

    With data at one point x, V = psi' (theta - x). The generator theta descends V, the discriminator D(y) = psi' y
    ascends it. The equilibrium is theta = x, psi = 0.

    Attributes:
        regularisation: "none"; "r1" adds gamma/2 |psi|^2 to the discriminator's loss; "consensus" adds gamma/2 |v|^2
            to both players' losses, where v are their gradients (Mescheder et al. 2017).
        generator: the generator's point at the start: one number for all coordinates, or one each.
        discriminator: the discriminator's slope at the start.
    """

    kind: Literal["dirac_gan"] = "dirac_gan"
    regularisation: Literal["none", "r1", "consensus"] = "none"
    generator: float | tuple[float, ...] = 0.0
    discriminator: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("generator", "discriminator"):
            start = getattr(self, name)
            values = start if isinstance(start, tuple) else (start,)
            require(all(map(math.isfinite, values)), name, f"must be finite, got {start}")


@dataclass(frozen=True, kw_only=True)
class GanOptions(TwoPlayerOptions):
    """A generative adversarial network (Goodfellow et al. 2014) of two perceptrons, for data of `task = "generate"`.

    The generator turns uniform latent numbers into an example, through ReLU and a sigmoid at the end. The discriminator
    has leaky ReLU of slope 0.2. The generator's loss is the non-saturating one.

    Attributes:
        regularisation: "none"; "r1" adds gamma/2 |dD/dx|^2 at real examples to the discriminator's loss (Mescheder et
            al. 2018).
        gamma: weight of the regularisation.
        hidden: widths of the discriminator's hidden layers; the generator has them in reverse.
        latent: numbers that the generator makes an example from.
    """

    kind: Literal["gan"] = "gan"
    regularisation: Literal["none", "r1"] = "r1"
    gamma: float = 0.5
    hidden: tuple[int, ...] = (64,)
    latent: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require(all(w >= 1 for w in self.hidden), "hidden", f"every width must be >= 1, got {list(self.hidden)}")
        check_at_least(self, 1, "latent")

    @property
    def label(self) -> str:
        """The kind, the latents and the widths of the generator."""
        return f"{self.kind} {'-'.join(map(str, (self.latent, *reversed(self.hidden))))}"
