"""Ranks as processes: refusals, a rank that is killed or fails, and their end."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from engine_cases import MODELS, Model, make
from service_answers import runs
from torch import nn
from waiting import eventually

from clients.core.errors import EngineError
from clients.engines.plain import PlainEngine
from clients.engines.ranks import distributed
from clients.engines.ranks.distributed import DistributedEngine, local_engine
from clients.engines.ranks.splitting import count_devices
from clients.engines.ranks.team import Team, alone
from clients.processes.forking import fork, kill, wait_for_exit
from clients.training.rules import proximal
from simulator.engines.devices import device_restored, on_device
from simulator.engines.options import EngineOptions


def made(population_of, model="relu", devices=2, micro=None, **options):
    options = {"local_lr": 0.03, "batch_size": 4, "buffers": "average"} | options
    found = MODELS[model] if isinstance(model, str) else Model(model)
    task, work, _ = make((found, options, [6, 9], "plain", 1, 5), population_of, torch.float64)
    return replace(task, local=replace(task.local, devices=devices, micro_batch_size=micro)), work


class Centred(nn.Module):
    """A user's normalisation over the batch, without running statistics."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        return self.linear(x - x.mean(0))


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        return self.linear(x + 0.1 * torch.randn(x.shape, dtype=x.dtype))


class Tracked(nn.Module):
    """Keeps a mean of its batches without using it."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.linear(x)


class FailsInRankOne(nn.Module):
    """Raises in processes other than the one that made it, once `armed`."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.maker, self.armed = os.getpid(), False

    def forward(self, x):
        if self.armed and os.getpid() != self.maker:
            raise ArithmeticError("no such number")
        return self.linear(x)


@pytest.mark.parametrize(
    ("model", "micro", "words"),
    [
        (Centred(), None, "outputs of an example depend on the other examples"),
        (Noisy(), None, "draws from torch's generator"),
        ("batch norm", 2, "would take its statistics of micro-batches"),
    ],
)
def test_model_whose_batches_cannot_be_split_is_refused(model, micro, words, population_of):
    task, _ = made(population_of, model, micro=micro, batch_size=3)
    with pytest.raises(EngineError, match=words):
        DistributedEngine(task)


def test_statistics_of_shares_are_refused_by_name(population_of):
    task, work = made(population_of, Tracked())
    with closing(DistributedEngine(task)) as engine, pytest.raises(EngineError, match="changed the buffer 'mean'"):
        engine.train(work, {})


def test_task_of_one_device_and_whole_batches_has_the_plain_engine(population_of):
    assert isinstance(local_engine(made(population_of, devices=1)[0]), PlainEngine)
    assert isinstance(local_engine(made(population_of, devices="auto")[0]), PlainEngine)
    assert isinstance(local_engine(made(population_of, devices=1, micro=2)[0]), DistributedEngine)


def test_ten_trainings_use_the_same_ranks(population_of):
    task, work = made(population_of, devices=3)
    with closing(DistributedEngine(task)) as engine:
        seen = set()
        for _ in range(10):
            engine.train(work, {})
            seen.add(tuple(engine.pids))
        assert len(seen) == 1
        assert len(engine.pids) == 2


def test_two_devices_round_passes_to_bfloat16_as_one_does(population_of):
    """Each rank's passes run under autocast; the gradients are added in float32."""
    options = {"local_lr": 0.05, "batch_size": 4, "buffers": "average"}
    task, work, _ = make((MODELS["gelu"], options, [6, 9], "plain", 1, 5), population_of, torch.float32)
    rounded = replace(task, bf16=True)
    exact, one = (PlainEngine(t).train(work, {})[0].params - work.params for t in (task, rounded))
    with closing(DistributedEngine(replace(rounded, local=replace(rounded.local, devices=2)))) as engine:
        update, _ = engine.train(work, {})
    two = update.params - work.params
    assert update.params.dtype == torch.float32
    near, off = ((two - truth).norm(dim=1) / truth.norm(dim=1) for truth in (one, exact))
    assert (near < 8 * 2.0**-8).all(), "a few roundings of bfloat16"
    assert ((off > 1e-5) & (off < 8 * 2.0**-8)).all(), "the passes are rounded"


class NotedCrew:
    """Stands for the ranks: it notes whether a card was in use when they would have been forked."""

    seen: ClassVar[list[list[str]]] = []
    used: ClassVar[list[str]] = []

    def __init__(self, task, locals_, size, threads):
        self.seen.append(list(self.used))
        self.team, self.pids = alone(replace(task, device=torch.device("cpu"))), {}

    def close(self):
        pass


def test_ranks_of_cards_are_forked_before_a_card_is_used(population_of, monkeypatch):
    """As `open_session` and a node prepare a task: nothing before the fork makes torch start CUDA."""
    monkeypatch.setattr(NotedCrew, "seen", [])
    monkeypatch.setattr(NotedCrew, "used", [])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: NotedCrew.used.append("init"))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: NotedCrew.used.append("set_device"))
    monkeypatch.setattr(distributed, "Crew", NotedCrew)
    with device_restored():
        task = on_device(made(population_of)[0], EngineOptions(), torch.device("cuda", 0))
        engine = local_engine(task)
        assert isinstance(engine, DistributedEngine)
        engine.start()
    assert NotedCrew.seen == [[]]


def test_ranks_are_not_forked_once_cuda_is_in_use(population_of, monkeypatch):
    monkeypatch.setattr(NotedCrew, "seen", [])
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "Crew", NotedCrew)
    engine = DistributedEngine(made(population_of)[0])
    with pytest.raises(EngineError, match=r"CUDA is in use, after which ranks cannot be forked. Start the program"):
        engine.start()
    assert NotedCrew.seen == []


def test_closed_engine_leaves_no_process(population_of):
    task, work = made(population_of)
    engine = DistributedEngine(task)
    engine.train(work, {})
    pids = engine.pids
    engine.close()
    assert pids
    assert not any(runs(pid) for pid in pids)


def test_dropped_engine_leaves_no_process(population_of):
    task, work = made(population_of)
    engine = DistributedEngine(task)
    engine.train(work, {})
    pids = engine.pids
    del engine
    eventually(lambda: not any(runs(pid) for pid in pids))


def test_killed_rank_is_named_and_the_next_training_has_new_ranks(population_of):
    task, work = made(population_of)
    expected = PlainEngine(task).train(work, {})[0].params
    with closing(DistributedEngine(task)) as engine:
        engine.train(work, {})
        before = engine.pids
        os.kill(before[0], signal.SIGKILL)
        with pytest.raises(EngineError, match="rank 1 of 2 was killed by SIGKILL"):
            engine.train(work, {})
        assert engine.pids == []
        again = engine.train(work, {})[0].params
        assert engine.pids != before
    np.testing.assert_allclose(again, expected, rtol=0, atol=1e-12)


def test_failure_in_one_rank_is_told_by_the_others(population_of):
    model = FailsInRankOne()
    task, work = made(population_of, model)
    for part in task.module.modules():
        part.armed = True
    with closing(DistributedEngine(task)) as engine:
        with pytest.raises(EngineError, match="rank 1 of 2 failed: ArithmeticError: no such number"):
            engine.train(work, {})
        assert engine.pids == []


def test_ranks_end_with_a_process_that_is_killed(population_of, tmp_path):
    task, work = made(population_of)
    told = tmp_path / "pids"

    def body():
        engine = DistributedEngine(task)
        engine.train(work, {})
        (tmp_path / "new").write_text(" ".join(map(str, engine.pids)))
        (tmp_path / "new").rename(told)
        signal.pause()

    pid = fork(body)
    try:
        eventually(told.exists)
        ranks = [int(word) for word in told.read_text().split()]
        assert all(runs(rank) for rank in ranks)
    finally:
        kill(pid)
        wait_for_exit(pid, 10.0)
    assert ranks
    eventually(lambda: not any(runs(rank) for rank in ranks))


@pytest.mark.parametrize(("count", "size"), [(7, 3), (2, 3), (0, 2), (8, 2)])
def test_shares_cover_a_batch_once(count, size):
    shares = [Team(rank, size, torch.device("cpu")).share(count) for rank in range(size)]
    assert [i for start, stop in shares for i in range(start, stop)] == list(range(count))
    assert max(b - a for a, b in shares) - min(b - a for a, b in shares) <= 1


def test_error_of_the_model_in_all_ranks_is_raised_as_it_is(population_of):
    class Fails(nn.Linear):
        armed = False

        def forward(self, x):
            if self.armed:
                raise RuntimeError("no such shape")
            return super().forward(x)

    task, work = made(population_of, Fails(6, 3))
    with closing(DistributedEngine(task)) as engine:
        for part in task.module.modules():
            part.armed = True
        with pytest.raises(RuntimeError, match=r"^no such shape$"):
            engine.train(work, {})
        assert engine.pids == []


def test_rule_that_is_made_anew_for_each_message_keeps_the_ranks(population_of):
    task, work = made(population_of)
    plain = PlainEngine(task)
    with closing(DistributedEngine(task)) as engine:
        first = replace(work, rule=proximal(0.5))
        engine.train(first, {})
        before = engine.pids
        engine.train(replace(work, rule=proximal(0.5)), {})
        assert engine.pids == before
        other = replace(work, rule=proximal(5.0))
        found = engine.train(other, {})[0].params
    np.testing.assert_allclose(found, plain.train(other, {})[0].params, rtol=0, atol=1e-12)
    assert float((found - plain.train(first, {})[0].params).abs().max()) > 1e-6


def test_more_devices_than_cards_are_refused_and_one_needs_no_look(population_of):
    task, _ = made(population_of, devices=1)
    card = replace(task, device=torch.device("cuda", 0))
    assert count_devices(card) == 1
    more = torch.cuda.device_count() + 2
    with pytest.raises(EngineError, match=rf"is {more}, and torch finds {more - 2} CUDA cards from cuda:0 on"):
        count_devices(replace(card, local=replace(card.local, devices=more)))
