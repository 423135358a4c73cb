"""What many tests need: small populations whose clients' data depend on nothing but the seed and the client."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from clients.core.examples import Task
from clients.core.population import Population
from clients.sources.custom import custom_population


def _population(
    sizes: list[int],
    shape: tuple[int, ...] = (6,),
    outputs: int = 3,
    task: Task = "classification",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Population:
    def client(k: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng((seed, k))
        if task == "objective":  # a positive definite quadratic, and its minimiser
            root = random.normal(size=(sizes[k], outputs, outputs))
            hessian = root @ root.transpose(0, 2, 1) / outputs + np.eye(outputs)
            flat = hessian.reshape(sizes[k], -1)
            return np.concatenate((flat, random.normal(size=(sizes[k], outputs))), 1), np.zeros(sizes[k])
        features = random.normal(size=(sizes[k], *shape))
        if task == "classification":
            return features, random.integers(0, outputs, sizes[k])
        return features, random.normal(size=(sizes[k], outputs))

    shape = (outputs * outputs + outputs,) if task == "objective" else shape
    return custom_population(client, sizes, outputs=outputs, task=task, feature_shape=shape, dtype=dtype)


@pytest.fixture(scope="session")
def population_of() -> Callable[..., Population]:
    """Return `(sizes, shape, outputs, task, seed, dtype) -> Population`."""
    return _population
