"""A worker that trains on a card receives main memory, and sends main memory: gloo knows no card."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_cases import MODELS, make
from made_card import made_card

from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.processes.wire import Message, pack, unpack
from clients.training.rules import control_variate
from clients.training.work import LocalWork
from server.algorithms.aggregation import weighted_mean
from simulator.workers.messages import named, work_tensors
from simulator.workers.workplace import Workplace

SIZES = [6, 14, 8, 10]


@pytest.fixture
def card():
    with made_card() as device:
        yield device


def places(build, population_of, card):
    """Return the same workplace on the CPU and on the card, a work and client states."""
    usual = {"batch_size": 4, "local_epochs": 2, "buffers": "average", "optimizer": "momentum", "local_lr": 0.03}
    task, work, own = make((MODELS["tanh"], usual, SIZES, "variate 2", 3, 1), population_of, torch.float64)
    local, layers = LocalWork(control_variate(2)), [("all", 0, task.parameters.size)]

    def place(device):
        engine = build(replace(task, device=device))
        return Workplace(engine, local, weighted_mean("examples"), layers, len(SIZES))

    return place(task.device), place(card), work, own


def answers(found, job):
    """Return the tensors of both workplaces' answers, as they arrive at the server."""
    here, there = (unpack(pack(place.answer(unpack(pack(job))))) for place in found)
    assert here.tensors.keys() == there.tensors.keys()
    return here.tensors, there.tensors


@pytest.mark.parametrize("build", [PlainEngine, StackedEngine])
@pytest.mark.parametrize("sums", [False, True])
def test_worker_of_a_card_answers_as_one_of_the_cpu(build, sums, population_of, card):
    *found, work, own = places(build, population_of, card)
    numbers = np.arange(4)
    head = {"job": "train", "round": 3, "numbers": [0], "blocks": [[2, 2]], "own": True, "sums": sums, "shared": [],
            "starts": [0], "shares": False}  # fmt: skip
    head |= {"counted": 4, "hashed": False} if sums else {}
    shares = torch.full((4,), 0.25, dtype=torch.float64)
    tensors = {"clients": torch.from_numpy(numbers), "places": torch.from_numpy(numbers), **work_tensors(work),
               **named("held", own), **({"weights": shares, "shares": shares} if sums else {})}  # fmt: skip
    here, there = answers(found, Message(head, tensors))
    assert any(name.startswith("sum/" if sums else "rows/") for name in there)
    for name, value in here.items():
        torch.testing.assert_close(there[name], value, rtol=1e-7, atol=1e-9, equal_nan=True, msg=name)


@pytest.mark.parametrize("job", ["evaluate", "gradients"])
def test_worker_of_a_card_evaluates_and_differentiates(job, population_of, card):
    *found, work, _ = places(StackedEngine, population_of, card)
    numbers = torch.arange(4)
    tensors = {"clients": numbers, "places": numbers, **work_tensors(work)}
    here, there = answers(
        found, Message({"job": job, "round": 3, "parts": [2, 2], "starts": [0, 2], "shares": False}, tensors)
    )
    for name, value in here.items():
        torch.testing.assert_close(there[name], value, rtol=1e-9, atol=1e-12, equal_nan=True, msg=name)
