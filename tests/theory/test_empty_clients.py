"""Clients without data change nothing: the N of every algorithm is the number of clients that have data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from federations import quadratics

from server.algorithms.options import AlgorithmOptions, FedAvgOptions, FedDynOptions, FedNovaOptions, ScaffoldOptions

CURVATURES, CENTRES, OPTIMUM = (1.0, 4.0), (-1.0, 3.0), 2.2
EMPTY = 18


def path(algorithm: AlgorithmOptions, empty: int, rounds: int, engine: str = "stacked") -> torch.Tensor:
    federation = quadratics(CURVATURES + (9.0,) * empty, CENTRES + (50.0,) * empty, algorithm=algorithm, local_lr=0.05,
                            local_steps=10, weights=(1, 1) + (0,) * empty, engine=engine)  # fmt: skip
    return federation.step(rounds)[:, 0]


@pytest.mark.parametrize("engine", ["plain", "stacked"])
@pytest.mark.parametrize("algorithm", [ScaffoldOptions(), ScaffoldOptions(option=1)], ids=["II", "I"])
def test_scaffold_reaches_the_optimum_beside_empty_clients(algorithm: AlgorithmOptions, engine: str) -> None:
    """f(x) - f* is 5.4e-15 after 20 rounds of option II, with 18 empty clients as without (0.13 where they count)."""
    alone, beside = (path(algorithm, empty, 20, engine) for empty in (0, EMPTY))
    assert torch.equal(alone, beside)
    assert 1.25 * (beside[-1].item() - OPTIMUM) ** 2 < 1e-14


def test_feddyn_reaches_the_optimum_beside_empty_clients() -> None:
    alone, beside = (path(FedDynOptions(alpha=1.0), empty, 60) for empty in (0, EMPTY))
    assert torch.equal(alone, beside)
    assert beside[-1].item() == pytest.approx(OPTIMUM, abs=1e-9)


@pytest.mark.parametrize("row", [FedAvgOptions, FedNovaOptions])
def test_unbiased_weights_of_everyone_sum_to_one(row: type[FedAvgOptions] | type[FedNovaOptions]) -> None:
    """N / K is 1 where everyone who has data takes part, so the round is the one weighted by examples."""
    unbiased = path(row(weighting="unbiased"), EMPTY, 5)
    np.testing.assert_allclose(unbiased, path(row(weighting="examples"), 0, 5), rtol=1e-14)
