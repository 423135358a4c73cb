"""Options of networks with a form of their own: autoencoder, radial basis functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from clients.core.errors import require
from clients.core.options import check_at_least, check_positive
from clients.models.options import Activation, ModelOptions


@dataclass(frozen=True, kw_only=True)
class AutoencoderOptions(ModelOptions):
    """An autoencoder: it reproduces its features through a narrow code, and errs where an example is unusual.

    Layers have the widths `hidden`, `code`, `hidden` in reverse. An activation follows each layer but the code and the
    last. With `hidden = []` it is linear, and its optimum spans the leading principal components (Baldi and Hornik
    1989).

    Attributes:
        hidden: widths between the features and the code.
        code: width of the code.
        activation: after each hidden layer.
    """

    kind: Literal["autoencoder"] = "autoencoder"
    hidden: tuple[int, ...] = (64,)
    code: int = 16
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        require(all(w >= 1 for w in self.hidden), "hidden", f"every width must be >= 1, got {list(self.hidden)}")
        check_at_least(self, 1, "code")

    def unread(self) -> dict[str, str]:
        """Return why a key has no effect, for each key that other keys leave without one."""
        return {} if self.hidden else {"activation": "there is no hidden layer"}

    @property
    def label(self) -> str:
        """The kind and the widths up to the code."""
        return f"{self.kind} {'-'.join(map(str, (*self.hidden, self.code)))}"


@dataclass(frozen=True, kw_only=True)
class RbfOptions(ModelOptions):
    """A network of radial basis functions (Broomhead and Lowe 1988): a linear read-out of Gaussians around centres.

    A hidden number is exp(-|x - c|^2 / (2 width^2)). The server chooses the centres c before it has seen any client's
    data: they are given, or drawn by the run's seed. With a centre at each of the distinct training points the network
    can interpolate them (Micchelli 1986).

    Attributes:
        centres: how many are drawn, each number from N(0, spread^2); or the centres themselves.
        spread: standard deviation of the drawn centres, about that of the features.
        width: of each Gaussian.
        trained: "readout" keeps centres and widths, so that the objective is convex; "all" trains them too.
    """

    kind: Literal["rbf"] = "rbf"
    centres: int | tuple[tuple[float, ...], ...] = 50
    spread: float = 1.0
    width: float = 1.0
    trained: Literal["readout", "all"] = "readout"

    def __post_init__(self) -> None:
        check_positive(self, "spread", "width")
        if isinstance(self.centres, int):
            check_at_least(self, 1, "centres")
            return
        require(bool(self.centres), "centres", "must be a number or a list of centres, got none")
        sizes = sorted({len(c) for c in self.centres})
        require(len(sizes) == 1 and sizes[0] > 0, "centres", f"must have equally many numbers, got {sizes}")
        finite = all(math.isfinite(value) for c in self.centres for value in c)
        require(finite, "centres", "must hold finite numbers")

    def unread(self) -> dict[str, str]:
        """Return why a key has no effect, for each key that given centres leave without one."""
        return {} if isinstance(self.centres, int) else {"spread": "the centres are given"}

    @property
    def label(self) -> str:
        """The kind and the number of centres."""
        return f"{self.kind} {self.centres if isinstance(self.centres, int) else len(self.centres)}"
