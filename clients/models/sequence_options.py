"""Options of models of sequences: LSTM, plain recurrent network, transformer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from clients.core.errors import require
from clients.core.options import check_at_least, check_positive
from clients.models.options import ModelOptions


@dataclass(frozen=True, kw_only=True)
class LstmOptions(ModelOptions):
    """An LSTM over past steps, and a linear read-out of its last hidden state.

    Attributes:
        hidden: width of the hidden state and of the cell.
        forget_bias: first value of the forget gate's bias. At 1 a cell keeps most of its content at first (Gers et al.
            2000; Jozefowicz et al. 2015); at 0 it loses half of it in each step.
    """

    kind: Literal["lstm"] = "lstm"
    hidden: int = 32
    forget_bias: float = 1.0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "hidden")
        require(math.isfinite(self.forget_bias), "forget_bias", f"must be finite, got {self.forget_bias}")


@dataclass(frozen=True, kw_only=True)
class RnnOptions(ModelOptions):
    """A plain recurrent network (Elman 1990) over past steps, and a linear read-out of its last state.

    h' = activation(W x + U h + b), from h = 0. U starts as a random rotation times `radius`: each of its eigenvalues
    has this modulus. So a state's change, and backwards a gradient, is multiplied by `radius` in each step in which the
    activation's slope is 1 (Pascanu, Mikolov and Bengio 2013; Le et al. 2015 for ReLU).

    Attributes:
        hidden: width of the state.
        activation: of the state; "identity" makes the network linear.
        radius: spectral radius of U at the start, > 0. W, b and the read-out start with torch's own weights.
    """

    kind: Literal["rnn"] = "rnn"
    hidden: int = 32
    activation: Literal["tanh", "relu", "identity"] = "tanh"
    radius: float = 1.0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "hidden")
        check_positive(self, "radius")


@dataclass(frozen=True, kw_only=True)
class TransformerOptions(ModelOptions):
    """A small transformer (Vaswani et al. 2017) over past steps or tokens: each step attends to all steps.

    A block is x + attention(norm(x)), then x + feed-forward(norm(x)) with GELU (pre-norm, Xiong et al. 2020). The mean
    over steps of the normalised last block is read out linearly.

    Attributes:
        width: numbers that represent a step; a multiple of `heads`.
        heads: of the attention of a block.
        layers: blocks.
        feed_forward: width of the hidden layer of each block.
        positions: how steps know their place: "learned" numbers, "sinusoidal" ones, or "none", for which the order of
            the steps does not matter.
    """

    kind: Literal["transformer"] = "transformer"
    width: int = 32
    heads: int = 4
    layers: int = 1
    feed_forward: int = 64
    positions: Literal["learned", "sinusoidal", "none"] = "learned"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "width", "heads", "layers", "feed_forward")
        fits = self.width % self.heads == 0
        require(fits, "heads", f"must divide width, and {self.heads} does not divide {self.width}")
        paired = self.positions != "sinusoidal" or self.width % 2 == 0
        require(paired, "width", f"must be even for sinusoidal positions, got {self.width}")
