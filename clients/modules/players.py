"""Models of two players: a module in which a generator and a discriminator each descend a loss of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

Order = Literal["simultaneous", "alternating"]
Player = Literal["generator", "discriminator"]
PLAYERS: tuple[str, ...] = get_args(Player)


class TwoPlayer(nn.Module):
    """A game whose passes return one value an example, with the gradient that each player descends.

    The names of a player's parameters begin with the player's name, as do those of a submodule `generator`. The forward
    pass detaches from a player's loss what belongs to the other, so that one backward pass has both gradients.

    A method `draw(number)` that returns samples [number, *feature_shape] of the generator, the same at every call,
    lets a run measure them against the server's examples.

    Args:
        order: "simultaneous": both players move in each local step. "alternating": in each local step one moves.
        discriminator_steps: under "alternating", the discriminator's steps before each step of the generator
            (Goodfellow et al. 2014, algorithm 1).
    """

    def __init__(self, order: Order = "simultaneous", discriminator_steps: int = 1) -> None:
        super().__init__()
        self.order, self.discriminator_steps = order, discriminator_steps


@dataclass(frozen=True)
class Turns:
    """Who moves in a local step, counted from 0 in each round: the discriminator some times, the generator once.

    Attributes:
        discriminator_steps: steps of the discriminator before each step of the generator.

    Example:
        >>> turns = Turns(2)
        >>> [turns.moves("generator.0.weight", step) for step in range(4)]
        [False, False, True, False]
        >>> turns.taken("generator.0.weight", 5), turns.taken("discriminator", 5)
        (1, 4)
    """

    discriminator_steps: int

    def moves(self, name: str, step: int) -> bool:
        """Return whether the player who has the parameter moves in a step, counted from 0."""
        return (step % (self.discriminator_steps + 1) == self.discriminator_steps) == _is_generator(name)

    def taken(self, name: str, steps: int) -> int:
        """Return how many of the first `steps` steps were steps of the player who has the parameter."""
        of_generator = steps // (self.discriminator_steps + 1)
        return of_generator if _is_generator(name) else steps - of_generator


def _is_generator(name: str) -> bool:
    return name.startswith("generator")


def draws(module: nn.Module) -> bool:
    """Return whether a module is a game whose generator draws examples."""
    return isinstance(module, TwoPlayer) and callable(getattr(module, "draw", None))


def turns_of(module: nn.Module) -> Turns | None:
    """Return the turns of a module's players; None where all parameters move in every step."""
    if isinstance(module, TwoPlayer) and module.order == "alternating":
        return Turns(module.discriminator_steps)
    return None
