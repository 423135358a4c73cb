"""A small convolutional network over time, for windows of a signal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from clients.core.errors import UserError, require
from clients.core.options import STRICT


@dataclass(frozen=True, kw_only=True)
class Cnn1dOptions:
    """A small CNN over time for windows of a signal: two convolutions of stride 2, the mean over time, linear.

    Features are [n, time, channels]; shifting a window in time hardly moves the output.
    """

    __pydantic_config__: ClassVar = STRICT
    kind: Literal["cnn1d"] = "cnn1d"
    channels: tuple[int, int] = (16, 32)
    kernel: int = 9

    def __post_init__(self) -> None:
        require(min(self.channels) >= 1, "channels", f"must be >= 1, got {list(self.channels)}")
        require(self.kernel >= 1, "kernel", f"must be >= 1, got {self.kernel}")


class SwapTimeAndChannels(nn.Module):
    """[n, time, channels] -> [n, channels, time]."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the same numbers with the last two axes swapped."""
        return x.transpose(1, 2)


class MeanOverTime(nn.Module):
    """[n, channels, time] -> [n, channels]."""

    def forward(self, x: Tensor) -> Tensor:
        """Return each channel's mean."""
        return x.mean(2)


def cnn1d(shape: tuple[int, ...], outputs: int, o: Cnn1dOptions) -> nn.Sequential:
    """Build the network for features of `shape` (time, channels).

    Raises:
        UserError: the features are not windows, or too short for the kernel.
    """
    needed = 3 * o.kernel - 2  # what leaves the second convolution one whole kernel
    if len(shape) != 2 or shape[0] < needed:
        raise UserError(
            "kind",
            f"'cnn1d' with a kernel of {o.kernel} needs features of shape (time, channels) with time >= {needed}, the "
            f"data have {shape}",
            fix="Use a smaller kernel, 'mlp' or 'softmax', or data of windows.",
        )
    first, second = o.channels
    return nn.Sequential(
        SwapTimeAndChannels(),
        nn.Conv1d(shape[1], first, o.kernel, stride=2), nn.ReLU(),
        nn.Conv1d(first, second, o.kernel, stride=2), nn.ReLU(),
        MeanOverTime(), nn.Linear(second, outputs),
    )  # fmt: skip
