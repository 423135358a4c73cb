"""The workloads of all simulators: the same model, cohort, local steps and batches. The data are noise.

Every competitor imports this module in its own environment, so it needs only torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

LOCAL_LR = 0.01
OUTPUTS = 10


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
        build: makes the model.
    """

    name: str
    words: str
    clients: int
    cohort: int
    local_steps: int
    batch: int
    shape: tuple[int, ...]
    build: Callable[[], nn.Module]

    @property
    def examples(self) -> int:
        """Training examples of a client: its local steps are one local epoch."""
        return self.local_steps * self.batch


def _perceptron(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for wide, narrow in itertools.pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _cnn() -> nn.Module:
    def block(channels: int, filters: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, filters, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]

    head = [nn.Flatten(), nn.Linear(7 * 7 * 64, 512), nn.ReLU(), nn.Linear(512, OUTPUTS)]
    return nn.Sequential(*block(1, 32), *block(32, 64), *head)


WORKLOADS = {
    w.name: w
    for w in (
        Workload("logreg", "softmax regression 60-10, as FedProx's synthetic data", 1000, 100, 20, 10, (60,),
                 lambda: nn.Linear(60, OUTPUTS)),
        Workload("2nn", "McMahan 2017's 2NN, 784-200-200-10", 100, 10, 60, 10, (784,),
                 lambda: _perceptron(784, 200, 200, OUTPUTS)),
        Workload("cnn", "McMahan 2017's CNN, 1.66 million parameters", 100, 10, 4, 32, (1, 28, 28), _cnn),
    )
}  # fmt: skip


def model(workload: Workload) -> nn.Module:
    """Return the workload's model, the same initial values each time."""
    torch.manual_seed(0)
    return workload.build()


def examples(workload: Workload, stream: int, count: int) -> tuple[Tensor, Tensor]:
    """Return `count` examples of normal features and uniform labels."""
    generator = torch.Generator().manual_seed(stream)
    features = torch.randn(count, *workload.shape, generator=generator)
    return features, torch.randint(0, OUTPUTS, (count,), generator=generator)


@cache
def client(name: str, index: int) -> tuple[Tensor, Tensor]:
    """Return a client's training examples; made once a process."""
    workload = WORKLOADS[name]
    return examples(workload, index, workload.examples)
