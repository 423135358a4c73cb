"""Hand-written gradients of stacked GRU and LSTM forecasters.

The input projection of all time steps is one product, and the recurrence one `baddbmm` per time step. Each weight
gradient is one product after the backward pass, where autograd needs one per time step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clients.core.examples import Task
from clients.engines.batch import Batch, Tensors, output_error
from clients.models.build import GruForecaster
from clients.models.sequences import LstmForecaster
from clients.training.task import LearningTask

WEIGHTS = ("gru.weight_ih_l0", "gru.weight_hh_l0", "gru.bias_ih_l0", "gru.bias_hh_l0", "readout.weight", "readout.bias")


LSTM_WEIGHTS = tuple(name.replace("gru.", "lstm.") for name in WEIGHTS)


def is_gru_forecaster(task: LearningTask) -> bool:
    """Return whether the module is `GruForecaster` with all of its parameters trainable."""
    return type(task.module) is GruForecaster and task.parameters.names == WEIGHTS


def is_lstm_forecaster(task: LearningTask) -> bool:
    """Return whether the module is `LstmForecaster` with all of its parameters trainable."""
    return type(task.module) is LstmForecaster and task.parameters.names == LSTM_WEIGHTS


class GruProgram:
    """A GRU with zero initial state and a linear read-out of its last state; cross-entropy, focal or squared error.

    With gates r, z and candidate n (biases left out): r, z = sigmoid(W_i x + W_h h), n = tanh(W_in x + r (W_hn h)),
    h' = (1 - z) n + z h. Source: Cho et al. 2014, in the form of `torch.nn.GRU`.
    """

    masks_padding = True

    def __init__(self, task: Task, gamma: float = 0.0, loss: str = "auto") -> None:
        self.task, self.gamma, self.loss = task, gamma, loss

    def width(self, k: int) -> int:
        """Return k."""
        return k

    def gradients(self, params: Tensors, buffers: Tensors, batch: Batch) -> tuple[Tensors, Tensor, Tensor, Tensors]:
        """Return gradients, losses, outputs and the unchanged buffers (there are none)."""
        x = batch.features if batch.features.dim() == 4 else batch.features.unsqueeze(3)
        k, b, time, channels = x.shape
        inputs = x.transpose(1, 2).reshape(k, time * b, channels)
        states, gates = self._forward(params, inputs, time)
        last = states[:, -1]
        outputs = torch.baddbmm(params["readout.bias"].unsqueeze(1), last, params["readout.weight"].transpose(1, 2))
        losses, d = output_error(outputs, batch, self.task, self.gamma, self.loss)
        away = self._backward(params, states, gates, torch.bmm(d, params["readout.weight"]))
        away, before = away.view(k, time * b, -1), states[:, :-1].reshape(k, time * b, -1)
        hidden, total = states.shape[3], away.sum(1)
        recurrent = torch.bmm(away[:, :, : 3 * hidden].transpose(1, 2), before)
        out = {
            "gru.weight_ih_l0": torch.bmm(away[:, :, hidden:].transpose(1, 2), inputs),
            "gru.weight_hh_l0": recurrent.roll(-hidden, 1),
            "gru.bias_ih_l0": total[:, hidden:].clone(),
            "gru.bias_hh_l0": total[:, : 3 * hidden].roll(-hidden, 1),
            "readout.weight": torch.bmm(d.transpose(1, 2), last),
            "readout.bias": d.sum(1),
        }
        return out, losses, outputs, buffers

    def outputs(self, params: Tensors, features: Tensor) -> Tensor:
        """Return the outputs of k models on the same features [b, time, ...]: [k, b, outputs]."""
        x = features if features.dim() == 3 else features.unsqueeze(2)
        b, time, channels = x.shape
        k = len(params["readout.bias"])
        states, _ = self._forward(params, x.transpose(0, 1).reshape(1, time * b, channels).expand(k, -1, -1), time)
        weight = params["readout.weight"].transpose(1, 2)
        return torch.baddbmm(params["readout.bias"].unsqueeze(1), states[:, -1], weight)

    def _forward(self, params: Tensors, inputs: Tensor, time: int) -> tuple[Tensor, list[Tensor]]:
        """Return states [k, time + 1, b, hidden], and for each time step r, z, W_hn h + b_hn and n in one tensor."""
        k, hidden = len(inputs), params["gru.weight_hh_l0"].shape[2]
        into = torch.baddbmm(
            params["gru.bias_ih_l0"].unsqueeze(1), inputs, params["gru.weight_ih_l0"].transpose(1, 2)
        ).view(k, time, -1, 3 * hidden)
        weight, bias = params["gru.weight_hh_l0"].transpose(1, 2), params["gru.bias_hh_l0"].unsqueeze(1)
        states = inputs.new_empty(k, time + 1, into.shape[2], hidden)
        states[:, 0] = 0
        gates: list[Tensor] = []
        for t in range(time):
            gate = inputs.new_empty(k, into.shape[2], 4 * hidden)
            torch.baddbmm(bias, states[:, t], weight, out=gate[:, :, : 3 * hidden])
            gate[:, :, : 2 * hidden].add_(into[:, t, :, : 2 * hidden]).sigmoid_()
            r, z, candidate, n = torch.split(gate, hidden, 2)
            torch.addcmul(into[:, t, :, 2 * hidden :], r, candidate, out=n).tanh_()
            torch.lerp(n, states[:, t], z, out=states[:, t + 1])
            gates.append(gate)
        return states, gates

    def _backward(self, params: Tensors, states: Tensor, gates: list[Tensor], d: Tensor) -> Tensor:
        """Propagate the derivative d by the last state back through time.

        Returns:
            Derivatives by W_hn h + b_hn and by the arguments of r, z and n, in one tensor [k, time, b, 4 hidden]. The
            first three are for the recurrent weights in the order n, r, z, the last three for the input weights.
        """
        k, _, b, hidden = states.shape
        weight = params["gru.weight_hh_l0"].roll(hidden, 1)
        out = states.new_empty(k, len(gates), b, 4 * hidden)
        for t in reversed(range(len(gates))):
            r, z, candidate, n = torch.split(gates[t], hidden, 2)
            by_candidate, by_r, by_z, by_n = torch.split(out[:, t], hidden, 2)
            torch.mul(d, 1 - n * n, out=by_n)
            by_n.sub_(by_n * z)
            torch.mul(by_n, r, out=by_candidate)
            torch.mul(by_n, candidate, out=by_r)
            torch.mul(d, states[:, t] - n, out=by_z)
            open_gates = gates[t][:, :, : 2 * hidden]
            out[:, t, :, hidden : 3 * hidden].mul_(open_gates - open_gates * open_gates)
            if t:
                d = torch.bmm(out[:, t, :, : 3 * hidden], weight).addcmul_(d, z)
        return out


class LstmProgram:
    """An LSTM with zero initial state and a linear read-out of its last state; see `LstmForecaster`."""

    masks_padding = True

    def __init__(self, task: Task, gamma: float = 0.0, loss: str = "auto") -> None:
        self.task, self.gamma, self.loss = task, gamma, loss

    def width(self, k: int) -> int:
        """Return k."""
        return k

    def gradients(self, params: Tensors, buffers: Tensors, batch: Batch) -> tuple[Tensors, Tensor, Tensor, Tensors]:
        """Return gradients, losses, outputs and the unchanged buffers (there are none)."""
        x = batch.features if batch.features.dim() == 4 else batch.features.unsqueeze(3)
        k, b, time, channels = x.shape
        inputs = x.transpose(1, 2).reshape(k, time * b, channels)
        states, cells, gates = self._forward(params, inputs, time)
        last = states[:, -1]
        outputs = torch.baddbmm(params["readout.bias"].unsqueeze(1), last, params["readout.weight"].transpose(1, 2))
        losses, d = output_error(outputs, batch, self.task, self.gamma, self.loss)
        away = self._backward(params, cells, gates, torch.bmm(d, params["readout.weight"])).view(k, time * b, -1)
        turned, bias = away.transpose(1, 2), away.sum(1)
        out = {
            "lstm.weight_ih_l0": torch.bmm(turned, inputs),
            "lstm.weight_hh_l0": torch.bmm(turned, states[:, :-1].reshape(k, time * b, -1)),
            "lstm.bias_ih_l0": bias,
            "lstm.bias_hh_l0": bias.clone(),
            "readout.weight": torch.bmm(d.transpose(1, 2), last),
            "readout.bias": d.sum(1),
        }
        return out, losses, outputs, buffers

    def _forward(self, params: Tensors, inputs: Tensor, time: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return states and cells [k, time + 1, b, hidden], and gates i, f, g, o in one, [k, time, b, 4 hidden]."""
        k, hidden = len(inputs), params["lstm.weight_hh_l0"].shape[2]
        bias = (params["lstm.bias_ih_l0"] + params["lstm.bias_hh_l0"]).unsqueeze(1)
        gates = torch.baddbmm(bias, inputs, params["lstm.weight_ih_l0"].transpose(1, 2)).view(k, time, -1, 4 * hidden)
        weight = params["lstm.weight_hh_l0"].transpose(1, 2)
        states = inputs.new_zeros(k, time + 1, gates.shape[2], hidden)
        cells = torch.zeros_like(states)
        for t in range(time):
            gates[:, t] += torch.bmm(states[:, t], weight)
            i, f, g, o = torch.split(gates[:, t], hidden, 2)
            i.sigmoid_(), f.sigmoid_(), g.tanh_(), o.sigmoid_()
            torch.addcmul(f * cells[:, t], i, g, out=cells[:, t + 1])
            torch.mul(o, cells[:, t + 1].tanh(), out=states[:, t + 1])
        return states, cells, gates

    def _backward(self, params: Tensors, cells: Tensor, gates: Tensor, d: Tensor) -> Tensor:
        """Propagate the derivative d by the last state back; return those by the gates' arguments, as `gates`."""
        hidden, out = cells.shape[3], torch.empty_like(gates)
        weight, by_cell = params["lstm.weight_hh_l0"], torch.zeros_like(d)
        for t in reversed(range(gates.shape[1])):
            i, f, g, o = torch.split(gates[:, t], hidden, 2)
            by_i, by_f, by_g, by_o = torch.split(out[:, t], hidden, 2)
            seen = cells[:, t + 1].tanh()
            by_cell = by_cell + d * o * (1 - seen * seen)
            torch.mul(by_cell * g, i - i * i, out=by_i)
            torch.mul(by_cell * cells[:, t], f - f * f, out=by_f)
            torch.mul(by_cell * i, 1 - g * g, out=by_g)
            torch.mul(d * seen, o - o * o, out=by_o)
            d, by_cell = torch.bmm(out[:, t], weight), by_cell * f
        return out
