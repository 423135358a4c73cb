"""A small convolutional network over time, for windows of a signal."""

from __future__ import annotations

from torch import Tensor, nn

from clients.core.errors import UserError
from clients.models.options import Cnn1dOptions


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


def cnn1d_layers(shape: tuple[int, ...], outputs: int, o: Cnn1dOptions) -> nn.Sequential:
    """Build the network for features of `shape` (time, channels).

    Raises:
        UserError: the features are not windows, or too short for the kernel.
    """
    needed = 3 * o.kernel - 2  # leaves the second convolution one whole kernel
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
