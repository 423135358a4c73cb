"""Engines never wait for a device between the local steps of a tile."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clients.engines import plain, stacked
from clients.training.work import CohortWork
from server.algorithms.algorithm import Algorithm
from server.algorithms.build import build_algorithm
from server.algorithms.options import ScaffoldOptions
from simulator.testing.checks import small_federation


def counted_reads(patched):
    """Return a list that gets an entry each time a number is read from a tensor."""
    reads = []

    def counting(original):
        def counted(tensor, *args, **kwargs):
            reads.append(tensor.shape)
            return original(tensor, *args, **kwargs)

        return counted

    for name in ("item", "tolist", "numpy", "__float__", "__int__", "__bool__"):
        patched.setattr(torch.Tensor, name, counting(getattr(torch.Tensor, name)))
    return reads


NOISY = {"clip_norm": 0.5, "l1": 0.01, "gradient_noise": 0.1}
ADAM = {"optimizer": "adam", "decoupled_weight_decay": 0.1}


@pytest.mark.parametrize(("engine", "local"), [
    ("plain", {}), ("plain", NOISY),  # torch.optim's Adam reads its own step counter, which is on the host
    ("stacked", {}), ("stacked", NOISY), ("stacked", ADAM),
])  # fmt: skip
def test_no_number_is_read_back_between_local_steps(engine, local, monkeypatch):
    """Eight times the steps read no more numbers from tensors."""
    algorithm = build_algorithm(ScaffoldOptions(), small_federation().session.task.local)
    reads = {}
    for steps in (4, 32):
        stepper = small_federation(algorithm, engine=engine, local_epochs=None, local_steps=steps, **local)
        session = stepper.session
        clients = np.arange(6)
        params, buffers = session.task.initial()
        work = CohortWork(round_index=1, clients=clients, params=params, buffers=buffers, rule=algorithm.local,
                          broadcast={"server_variate": torch.zeros_like(params)})  # fmt: skip
        state = {"client_variate": torch.zeros(6, len(params), dtype=params.dtype)}
        with monkeypatch.context() as patched:
            count = counted_reads(patched)
            session.engine.train(work, state)
        reads[steps] = len(count)
    measured = {4: 3, 32: 6}  # gradients of steps 1, 2, 4, 8, 16, 32 are stored and read at the end; drift is read once
    assert reads[32] - reads[4] <= (measured[32] - measured[4]) * (6 if engine == "plain" else 1)


def test_with_task_makes_an_engine_of_the_same_kind():
    task = small_federation().session.task
    assert task.device == torch.device("cpu")
    for build in (plain.PlainEngine, stacked.StackedEngine):
        other = replace(task, seed=5)
        engine = build(task).with_task(other)
        assert type(engine) is build
        assert engine.task is other
    assert stacked.StackedEngine(task, tile=2).with_task(task).tile == 2


@pytest.mark.parametrize("engine", ["plain", "stacked"])
def test_engine_evaluates_what_its_work_carries(engine):
    stepper = small_federation(Algorithm("x"), engine=engine)
    start = stepper.session.start
    work = CohortWork(round_index=1, clients=np.arange(6), params=start.params, buffers=start.buffers)
    found = stepper.session.engine.evaluate(work)
    stepper.session.evaluator.load(start.params, start.buffers)
    np.testing.assert_array_equal(found.loss, stepper.session.evaluator.clients(np.arange(6), 1).loss)
