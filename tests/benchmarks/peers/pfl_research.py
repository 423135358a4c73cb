# ruff: noqa: E402 (pfl wants its framework named before the rest of it is imported)
"""The same rounds with pfl-research, written like its PyTorch tutorial.

python pfl_research.py WORKLOAD ROUNDS THREADS     (in an environment with pfl)
"""

from __future__ import annotations

import itertools
import json
import sys
import time

import torch
from pfl.internal.ops import pytorch_ops
from pfl.internal.ops.selector import set_framework_module

set_framework_module(pytorch_ops)

from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from workloads import LOCAL_LR, WORKLOADS, client, model
from workloads import loss as loss_of


class Ended(TrainingProcessCallback):
    """Records when each round ends."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        self.at.append(time.perf_counter())
        return False, Metrics()


def seconds_a_round(name: str, rounds: int) -> list[float]:
    """Run `rounds` rounds after a warm-up round."""
    w, ended = WORKLOADS[name], Ended()
    net, of = model(w), loss_of(w)

    def loss(self, features, targets, is_eval=False):
        return of(self(features), targets)

    def metrics(self, features, targets, is_eval=False):
        return {"loss": Weighted(0.0, 1)}

    type(net).loss, type(net).metrics = loss, metrics  # pfl calls these methods of the module
    users = get_user_sampler("minimize_reuse", list(range(w.cohort)))
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=rounds + 1,
            evaluation_frequency=10**6,
            train_cohort_size=w.cohort,
            val_cohort_size=None,
        ),
        backend=SimulatedBackend(
            training_data=FederatedDataset(lambda k: Dataset(list(client(name, k))), users), val_data=None
        ),
        model=PyTorchModel(
            net, local_optimizer_create=torch.optim.SGD, central_optimizer=torch.optim.SGD(net.parameters(), 1.0)
        ),
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=LOCAL_LR, local_batch_size=w.batch
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=w.batch),
        callbacks=[ended],
    )
    return [after - before for before, after in itertools.pairwise(ended.at)]


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    print(json.dumps({"seconds": seconds_a_round(sys.argv[1], int(sys.argv[2]))}))
