# ruff: noqa: E402 (the processors are chosen, and jax is patched, before the rest is imported)
"""The same rounds with FedJAX's jit backend, written like its tutorial.

python fedjax_jit.py WORKLOAD ROUNDS THREADS     (in an environment with fedjax)

haiku's GRU has one bias a gate and torch's has two; all else is the same work.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
if hasattr(os, "sched_setaffinity"):  # XLA takes as many threads as it may use processors
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[3])])

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

jax.tree_map = jax.tree_util.tree_map  # fedjax 0.0.17 uses the name that later versions of jax have removed

import fedjax
import fedjax.algorithms
from workloads import HIDDEN, LOCAL_LR, WORKLOADS, Workload


def outputs(w: Workload, x: Any) -> Any:
    """Return the outputs of the workload's model."""
    if w.name == "gru":
        core = hk.GRU(HIDDEN)
        _, last = hk.dynamic_unroll(core, jnp.swapaxes(x, 0, 1), core.initial_state(x.shape[0]))
        return hk.Linear(w.outputs)(last)
    if w.name == "cnn":
        x = jnp.moveaxis(x, 1, -1)
        for filters in (32, 64):
            x = hk.MaxPool(2, 2, "VALID")(jax.nn.relu(hk.Conv2D(filters, 5)(x)))
        return hk.nets.MLP((512, w.outputs))(hk.Flatten()(x))
    return hk.nets.MLP(w.widths[1:])(x)


def losses(w: Workload, batch: Any, predicted: Any) -> Any:
    """Return the loss of each example."""
    if w.outputs == 1:
        return (predicted[:, 0] - batch["y"]) ** 2
    return -jnp.take_along_axis(jax.nn.log_softmax(predicted), batch["y"][:, None], 1)[:, 0]


def client(w: Workload, index: int) -> tuple[bytes, Any, Any]:
    """Return a client as FedJAX takes it: its id, data and random key."""
    random = np.random.default_rng(index)
    x = random.normal(size=(w.examples, *w.shape)).astype("float32")
    y = (
        random.normal(size=w.examples).astype("float32")
        if w.outputs == 1
        else random.integers(0, w.outputs, w.examples).astype("int32")
    )
    return str(index).encode(), fedjax.ClientDataset({"x": x, "y": y}), jax.random.PRNGKey(index)


def seconds_a_round(name: str, rounds: int) -> list[float]:
    """Run `rounds` rounds after a warm-up round, which compiles."""
    w = WORKLOADS[name]
    cohort = [client(w, k) for k in range(w.cohort)]
    sample = {k: v[:1] for k, v in cohort[0][1].all_examples().items()}
    model = fedjax.create_model_from_haiku(
        hk.transform(lambda batch: outputs(w, batch["x"])),
        sample,
        train_loss=lambda batch, predicted: losses(w, batch, predicted),
        eval_metrics={},
    )
    algorithm = fedjax.algorithms.fed_avg.federated_averaging(
        fedjax.model_grad(model),
        fedjax.optimizers.sgd(LOCAL_LR),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(batch_size=w.batch, num_epochs=1),
    )
    state = algorithm.init(model.init(jax.random.PRNGKey(0)))
    seconds = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        state, _ = algorithm.apply(state, cohort)
        jax.block_until_ready(state.params)
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


if __name__ == "__main__":
    print(json.dumps({"seconds": seconds_a_round(sys.argv[1], int(sys.argv[2]))}))
