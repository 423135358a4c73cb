"""Findings of McMahan et al. 2017 on FedAvg, on the 1,797 digits: which settings need more rounds to a target.

Their measure: rounds to the target on the running maximum of test accuracy, interpolated; here over paired seeds, as
logarithms of ratios, and one learning rate in every cell.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from federations import Federation, engine_options
from paired import low

from clients.core.examples import Examples
from clients.models.options import SoftmaxOptions
from clients.partition.options import IidOptions, ShardsOptions
from clients.sources.options import DigitsOptions
from clients.training.options import LocalOptions
from server.algorithms.options import FedAvgOptions
from simulator.scenario.sections import EvaluationOptions, RunOptions, Scenario

SEEDS = range(1, 7)
CLIENTS, TARGET, MOST = 20, 0.85, 60


def crossing(accuracies, target):
    """Return the interpolated round at which a running maximum reaches the target; all rounds plus one if never.

    The accuracies are those of rounds 0, 1, ...
    """
    best = np.maximum.accumulate(accuracies)
    reached = np.flatnonzero(best >= target)
    if not len(reached):
        return float(len(best))
    r = int(reached[0])
    return float(r) if r == 0 else r - (best[r] - target) / (best[r] - best[r - 1])


@cache
def log_rounds(seed, *, shards=False, epochs=1, batch=10, cohort=4):
    """Return the logarithm of FedAvg's rounds to the target."""
    partition = ShardsOptions(clients=CLIENTS) if shards else IidOptions(clients=CLIENTS)
    played = Federation(
        Scenario(
            data=DigitsOptions(),
            partition=partition,
            model=SoftmaxOptions(),
            local=LocalOptions(local_lr=0.1, batch_size=batch, local_epochs=epochs),
            algorithm=FedAvgOptions(cohort=cohort),
            engine=engine_options(),
            evaluation=EvaluationOptions(federated_every=0),
            run=RunOptions(seed=seed),
        )
    )
    held = [played.session.population.validation, played.session.population.test]
    examples = Examples(torch.cat([h.features for h in held]), torch.cat([h.targets for h in held]))
    evaluator, accuracies = played.session.evaluator, []
    while not accuracies or (max(accuracies) < TARGET and len(accuracies) <= MOST):
        params = played.step()[0] if accuracies else played.params
        evaluator.load(params, played.state.buffers)
        accuracies.append(evaluator.central(examples).score)
    return np.log(crossing(accuracies, TARGET))


def fewer(this, than):
    """Return whether `this` setting needs fewer rounds than that, beyond chance."""
    return low(log_rounds(s, **than) - log_rounds(s, **this) for s in SEEDS) > 0


def test_crossing_round_is_interpolated():
    assert crossing([0.1, 0.5, 0.4, 0.9], 0.7) == 2.5
    assert crossing([0.8], 0.7) == 0.0
    assert crossing([0.1, 0.5], 0.7) == 2.0


def test_iid_is_faster_than_two_shards():
    for epochs in (1, 5):
        assert fewer({"epochs": epochs}, {"shards": True, "epochs": epochs})


def test_more_local_epochs_need_fewer_rounds_on_iid():
    assert fewer({"epochs": 5}, {"epochs": 1})


def test_smaller_batches_need_fewer_rounds():
    assert fewer({"batch": 10}, {"batch": "full"})
    assert fewer({"batch": 10, "epochs": 5}, {"batch": "full", "epochs": 5})


def test_larger_cohorts_need_fewer_rounds_on_two_shards():
    assert fewer({"shards": True, "cohort": 20}, {"shards": True, "cohort": 4})
    assert fewer({"shards": True, "cohort": 4}, {"shards": True, "cohort": 1})
