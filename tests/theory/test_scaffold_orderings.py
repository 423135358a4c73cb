"""Table 3 of Karimireddy et al. 2020 (ICML), small: rounds to a target by similarity, local epochs and algorithm.

Softmax regression on MNIST's images if they lie in ../shared/data beside the repository, else on the bundled digits;
20 clients with s% of the data shuffled and the rest sorted by label, 4 a round, batches of a fifth of a client,
one learning rate for all cells (theirs: one tuned for each algorithm), the same target everywhere. Minutes:

    python -m pytest -m slow tests/theory/test_scaffold_orderings.py
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from federations import Federation, engine_options
from needs import SHARED, shared_data
from paired import low

from clients.core.examples import Examples
from clients.models.options import SoftmaxOptions
from clients.partition.options import SimilarityOptions
from clients.sources.options import DigitsOptions, ImagesOptions
from clients.training.options import LocalOptions
from server.algorithms.options import FedAvgOptions, FedProxOptions, FedSgdOptions, ScaffoldOptions
from simulator.scenario.sections import EvaluationOptions, RunOptions, Scenario

pytestmark = pytest.mark.slow

MNIST = SHARED / "mnist" / "mnist_test10k.npz"
HAS_MNIST = MNIST.is_file()
TARGET = 0.88
BATCH = 80 if HAS_MNIST else 14  # a fifth of a client: five local steps an epoch
ALGORITHMS = {
    "fedavg": FedAvgOptions(cohort=4),
    "scaffold": ScaffoldOptions(cohort=4),
    "fedprox": FedProxOptions(cohort=4, mu=1.0),
    "sgd": FedSgdOptions(cohort=4),
}
SEEDS = range(1, 7)
MOST = 250


@cache
def log_rounds(algorithm, similarity, epochs, seed):
    """Return the logarithm of the first round whose test accuracy reaches the target; of MOST + 1 where none does."""
    sgd = algorithm == "sgd"
    played = Federation(
        Scenario(
            data=ImagesOptions(path=str(MNIST)) if HAS_MNIST else DigitsOptions(),
            partition=SimilarityOptions(clients=20, similarity=similarity),
            model=SoftmaxOptions(),
            local=LocalOptions(
                local_lr=0.3 if sgd else 0.1, batch_size="full" if sgd else BATCH, local_epochs=None if sgd else epochs
            ),
            algorithm=ALGORITHMS[algorithm],
            engine=engine_options(),
            evaluation=EvaluationOptions(federated_every=0),
            run=RunOptions(seed=seed),
        )
    )
    held = [played.session.population.validation, played.session.population.test]
    examples = Examples(torch.cat([h.features for h in held]), torch.cat([h.targets for h in held]))
    for r in range(1, MOST + 1):
        played.session.evaluator.load(played.step()[0], played.state.buffers)
        if played.session.evaluator.central(examples).score >= TARGET:
            return np.log(r)
    return np.log(MOST + 1)


def cells(algorithm, similarity, *epochs):
    """Return logarithms of rounds, [seeds, epochs]."""
    return np.array([[log_rounds(algorithm, similarity, e, seed) for e in epochs] for seed in SEEDS])


def rise(algorithm, similarity, *epochs):
    """Return each seed's slope of log rounds over the cells of `epochs`."""
    x = np.arange(len(epochs)) - (len(epochs) - 1) / 2
    return cells(algorithm, similarity, *epochs) @ x / (x @ x)


def test_fedavg_needs_more_rounds_with_more_epochs_at_0_percent():
    """Of MNIST alone: softmax regression fits every digit, so clients do not drift."""
    shared_data("mnist/mnist_test10k.npz")
    assert low(rise("fedavg", 0.0, 1, 5, 20)) > 0


@pytest.mark.parametrize("similarity", [0.1, 1.0])
def test_fedavg_needs_fewer_rounds_with_more_epochs_at_10_and_100_percent(similarity):
    assert low(-rise("fedavg", similarity, 1, 5, 20)) > 0


@pytest.mark.parametrize("similarity", [0.0, 0.1])
def test_scaffold_needs_fewer_rounds_than_fedavg(similarity):
    for epochs in (1, 5, 20):
        difference = cells("fedavg", similarity, epochs) - cells("scaffold", similarity, epochs)
        assert low(difference[:, 0]) > 0, epochs


def test_scaffold_matches_fedavg_at_100_percent():
    """Within a quarter of the rounds, over the three numbers of epochs."""
    ratio = np.exp((cells("scaffold", 1.0, 1, 5, 20) - cells("fedavg", 1.0, 1, 5, 20)).mean())
    assert 0.75 < ratio < 4 / 3


@pytest.mark.parametrize("similarity", [0.1, 1.0])
def test_fedprox_is_slower_than_fedavg(similarity):
    """mu = 1, which their table shows; over one and five epochs."""
    assert low((cells("fedprox", similarity, 1, 5) - cells("fedavg", similarity, 1, 5)).mean(1)) > 0


def test_sgd_hardly_depends_on_similarity():
    """From 0% to 100% its rounds change much less than FedAvg's, and it is always slower than SCAFFOLD."""
    sgd = [cells("sgd", s, 1).mean() for s in (0.0, 0.1, 1.0)]
    fedavg = [cells("fedavg", s, 5).mean() for s in (0.0, 0.1, 1.0)]
    assert max(sgd) - min(sgd) < 0.6 * (max(fedavg) - min(fedavg))
    for similarity in (0.0, 0.1, 1.0):
        assert low((cells("sgd", similarity, 1) - cells("scaffold", similarity, 5))[:, 0]) > 0
