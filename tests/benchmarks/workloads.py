"""The workloads of all simulators: the same model, cohort, local steps and batches. The data are noise.

Every competitor imports this module in its own environment, so it needs torch only where a function makes tensors.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

LOCAL_LR = 0.01
HIDDEN = 32
"""The width of the GRU."""


@dataclass(frozen=True)
class Workload:
    """The work of a round.

    Attributes:
        name: its key.
        words: its description.
        clients: clients in the population.
        cohort: clients that train in each round.
        local_steps: local steps of each of them.
        batch: examples of a local step.
        shape: the shape of one example's features.
        widths: the sizes of a perceptron's layers, its inputs first; empty for other models.
        outputs: classes, or 1 for a regression.
    """

    name: str
    words: str
    clients: int
    cohort: int
    local_steps: int
    batch: int
    shape: tuple[int, ...]
    widths: tuple[int, ...] = ()
    outputs: int = 10

    @property
    def examples(self) -> int:
        """Training examples of a client: its local steps are one local epoch."""
        return self.local_steps * self.batch


WORKLOADS = {
    w.name: w
    for w in (
        Workload("logreg", "softmax regression 60-10", 1000, 100, 20, 10, (60,), (60, 10)),
        Workload("mlp", "perceptron 64-64-10", 1000, 100, 20, 20, (64,), (64, 64, 10)),
        Workload("gru", "GRU of 32, 12 steps of 2 numbers", 200, 50, 10, 16, (12, 2), outputs=1),
        Workload("2nn", "McMahan's 784-200-200-10", 100, 10, 60, 10, (784,), (784, 200, 200, 10)),
        Workload("cnn", "McMahan's, 1.66 million parameters", 100, 10, 4, 32, (1, 28, 28)),
    )
}


def model(workload: Workload) -> nn.Module:
    """Return the workload's model, the same initial values each time."""
    import torch
    from torch import nn

    class Gru(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(workload.shape[-1], HIDDEN, batch_first=True)
            self.readout = nn.Linear(HIDDEN, workload.outputs)

        def forward(self, x: Tensor) -> Any:
            return self.readout(self.gru(x)[0][:, -1])

    def block(channels: int, filters: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, filters, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]

    torch.manual_seed(0)
    if workload.name == "gru":
        return Gru()
    if workload.name == "cnn":
        head = [nn.Flatten(), nn.Linear(7 * 7 * 64, 512), nn.ReLU(), nn.Linear(512, workload.outputs)]
        return nn.Sequential(*block(1, 32), *block(32, 64), *head)
    layers: list[nn.Module] = []
    for wide, narrow in itertools.pairwise(workload.widths):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def loss(workload: Workload) -> Any:
    """Return the loss function of outputs and targets."""
    from torch.nn import functional

    return functional.mse_loss if workload.outputs == 1 else functional.cross_entropy


def examples(workload: Workload, stream: int, count: int) -> tuple[Tensor, Tensor]:
    """Return `count` examples of normal features, and of uniform labels or normal targets."""
    import torch

    generator = torch.Generator().manual_seed(stream)
    features = torch.randn(count, *workload.shape, generator=generator)
    if workload.outputs == 1:
        return features, torch.randn(count, 1, generator=generator)
    return features, torch.randint(0, workload.outputs, (count,), generator=generator)


@cache
def client(name: str, index: int) -> tuple[Tensor, Tensor]:
    """Return a client's training examples; made once a process."""
    workload = WORKLOADS[name]
    return examples(workload, index, workload.examples)
