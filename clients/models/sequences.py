"""Models of sequences, in operations that `torch.func.vmap` takes: torch's fused LSTM is not among them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from clients.models.sequence_options import LstmOptions, RnnOptions


class _Lstm(nn.LSTM):
    """torch's LSTM, whose parameters are typed."""

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor


class LstmForecaster(nn.Module):
    """LSTM over [n, time, channels] (or [n, time]); linear read-out of the last hidden state, [n, outputs].

    With gates i, f, o and candidate g (biases left out): i, f, o = sigmoid(W x + U h), g = tanh(W_g x + U_g h),
    c' = f c + i g, h' = o tanh(c'), from h = c = 0. Source: Hochreiter and Schmidhuber 1997, with the forget gate of
    Gers et al. 2000, in the form of `torch.nn.LSTM`, whose parameters it has.
    """

    def __init__(self, channels: int, hidden: int, outputs: int, forget_bias: float) -> None:
        super().__init__()
        self.lstm = _Lstm(channels, hidden, batch_first=True)
        self.readout = nn.Linear(hidden, outputs)
        with torch.no_grad():  # torch has two biases in each gate, and their sum counts
            self.lstm.bias_ih_l0[hidden : 2 * hidden] = forget_bias
            self.lstm.bias_hh_l0[hidden : 2 * hidden] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Return forecasts [n, outputs]."""
        sequence = x if x.dim() == 3 else x.unsqueeze(-1)
        lstm = self.lstm
        inputs = functional.linear(sequence, lstm.weight_ih_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0)
        h = c = inputs.new_zeros(len(inputs), lstm.hidden_size)
        for of_step in inputs.unbind(1):
            i, f, g, o = (of_step + functional.linear(h, lstm.weight_hh_l0)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        out: Tensor = self.readout(h)
        return out


def lstm(o: LstmOptions, shape: tuple[int, ...], outputs: int, generator: torch.Generator | None) -> nn.Module:
    """Build the LSTM; its weights are torch's own."""
    return LstmForecaster(shape[1] if len(shape) > 1 else 1, o.hidden, outputs, o.forget_bias)


STATE_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "identity": lambda state: state,
}


class RnnForecaster(nn.Module):
    """A plain recurrent network over [n, time, channels] (or [n, time]); linear read-out of its state, [n, outputs].

    h' = activation(W x + b + U h), from h = 0 (Elman 1990).
    """

    def __init__(self, channels: int, hidden: int, outputs: int, activation: str) -> None:
        super().__init__()
        self.into = nn.Linear(channels, hidden)
        self.recurrent = nn.Linear(hidden, hidden, bias=False)
        self.readout = nn.Linear(hidden, outputs)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Return forecasts [n, outputs]."""
        inputs = self.into(x if x.dim() == 3 else x.unsqueeze(-1))
        activated, h = STATE_ACTIVATIONS[self.activation], inputs.new_zeros(len(inputs), self.recurrent.in_features)
        for of_step in inputs.unbind(1):
            h = activated(of_step + self.recurrent(h))
        out: Tensor = self.readout(h)
        return out


def rnn(o: RnnOptions, shape: tuple[int, ...], outputs: int, generator: torch.Generator | None) -> nn.Module:
    """Build the plain recurrent network; U is a random rotation times `radius`, the other weights are torch's own."""
    module = RnnForecaster(shape[1] if len(shape) > 1 else 1, o.hidden, outputs, o.activation)
    if not module.recurrent.weight.is_meta:
        nn.init.orthogonal_(module.recurrent.weight, gain=o.radius, generator=generator)
    return module
