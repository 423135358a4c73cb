"""Sine tasks: client k knows a few points of its curve a_k sin(x - phi_k) (Finn et al. 2017, section 5.1).

The mean of all curves is nearly flat, so one model for everyone is worth little, and a start for local training much.
"""

from __future__ import annotations

import numpy as np
import torch

from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.examples import Examples
from clients.core.population import ClientData, Population
from clients.core.population_parts import CentralData, CentralExamples, ExampleSpec, FederationFacts
from clients.core.ragged import cohort_of, offsets_of
from clients.sources.options import SineOptions

REACH = 5.0
"""Points are uniform in -5..5."""
CENTRAL = 5
"""Central validation examples from each client."""


def sine_population(options: SineOptions, *, seed: int, dtype: torch.dtype = torch.float32) -> Population:
    """Make the population; a client's curve and points depend on the seed and its index alone.

    Args:
        options: the tasks.
        seed: root seed.
        dtype: of features [1] and targets [1].

    Returns:
        A regression population. Clients hold out other points of their own curves; the central validation examples are
        further points of all curves, on which a model without adaptation is measured.
    """
    clients = np.arange(options.clients)
    drawn = streams.uniforms(streams.keys(seed, "sine/curve", clients), 2)
    low, high = options.amplitude
    curves = np.stack([low + (high - low) * drawn[:, 0], options.phase * drawn[:, 1]])

    def points(purpose: str, count: int) -> tuple[torch.Tensor, torch.Tensor, I64]:
        x, y = _points(streams.uniforms(streams.keys(seed, f"sine/{purpose}", clients), count), curves)
        sizes = np.full(len(clients), count, np.int64)
        return torch.from_numpy(x).to(dtype), torch.from_numpy(y).to(dtype), sizes

    train, held, central = points("train", options.examples), points("held", options.held_out), points("val", CENTRAL)
    rows = [np.arange(len(part[0])) for part in (train, held)]
    return Population(
        spec=ExampleSpec(task="regression", feature_shape=(1,), outputs=1),
        federation=FederationFacts(name="sine", sizes=train[2].astype(np.int32)),
        clients=ClientData(
            cohort=cohort_of(train[0], train[1], offsets_of(train[2]), rows[0]),
            held_out=cohort_of(held[0], held[1], offsets_of(held[2]), rows[1]),
        ),
        central=CentralData(
            validation=CentralExamples(Examples(central[0], central[1]), owners=np.repeat(clients, CENTRAL))
        ),
    )


def _points(uniforms: F64, curves: F64) -> tuple[F64, F64]:
    """Return points of all curves one after another, x and y (K * n, 1) each, from uniforms (K, n)."""
    x = REACH * (2 * uniforms - 1)
    y = curves[0][:, None] * np.sin(x - curves[1][:, None])
    return x.reshape(-1, 1), y.reshape(-1, 1)
