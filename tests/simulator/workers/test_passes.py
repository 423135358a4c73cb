"""Parts of clients follow from their sizes; rows in shared memory are read in place, and copied where they are kept."""

from __future__ import annotations

import sys
from contextlib import closing

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fedscape as fs
from clients.training.work import CohortWork
from simulator.testing.stepper import Stepper
from simulator.workers import passes
from simulator.workers.arena import Arena
from simulator.workers.links import Hub
from simulator.workers.passes import PART_EXAMPLES, PARTS, cuts

needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
SETS = ("engine.kind=stacked", "engine.threads=1", "engine.compile=never", "engine.tile=4", "engine.workers=2")


@given(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=60))
def test_parts_are_of_bounded_size_and_cover_every_client_in_order(sizes):
    parts = np.split(np.arange(len(sizes)), cuts(np.array(sizes, np.int32)))
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(len(sizes)))
    cost = np.maximum(np.array(sizes, np.float64), 1)
    most = min(PART_EXAMPLES, cost.sum() / PARTS)
    for part in parts:
        assert len(part)
        assert len(part) == 1 or cost[part].sum() < most + cost[part[0]] / 2 + cost[part[-1]] / 2 + 1e-6


def test_equal_small_clients_make_as_many_parts_as_are_due():
    assert len(cuts(np.full(80, 3, np.int32))) + 1 == PARTS


def test_arena_gives_rows_in_place_and_returns_what_has_no_section():
    arena = Arena(5, {"params": 3, "none": 0}, torch.float32)
    rows = torch.arange(6.0).view(2, 3)
    left = arena.put({"params": rows, "none": torch.zeros(2, 0), "other": torch.ones(2, 1)}, 2)
    assert left.keys() == {"none", "other"}
    view = arena.view("params", 2, 2)
    assert torch.equal(view, rows)
    arena.put({"params": rows + 1}, 2)
    assert torch.equal(view, rows + 1), "no copy"
    assert arena.put({"params": rows.double()}, 0).keys() == {"params"}, "of another type"
    assert arena.fits(5)
    assert not arena.fits(6)


def test_arena_broadcasts_vectors_and_returns_what_has_none():
    arena = Arena(2, {}, torch.float32, {"params": 3, "buffers": 0})
    params = torch.arange(3.0)
    sent = {"params": params, "buffers": torch.zeros(0), "clients": torch.tensor([1, 2])}
    assert arena.broadcast(sent).keys() == {"buffers", "clients"}
    received = arena.received(["params"])["params"]
    assert torch.equal(received, params)
    received.zero_()
    arena.broadcast({"params": params})
    assert not received.any(), "the vector is there already"
    params += 1
    arena.broadcast({"params": params})
    assert torch.equal(received, params), "written to since"
    arena.broadcast({"params": torch.full((3,), 7.0)})
    assert received.tolist() == [7.0] * 3
    for other in (torch.zeros(3, dtype=torch.float64), torch.zeros(4)):
        assert arena.broadcast({"params": other}).keys() == {"params"}, "of another type or size"


@needs_fork
@pytest.mark.usefixtures("one_thread")
def test_broadcast_vectors_are_not_sent_through_connections(monkeypatch):
    """What a job sends to a worker has neither parameters nor buffers; the worker has them."""
    sent = []
    send = Hub.send

    def watched(hub, rank, message):
        sent.append(message)
        send(hub, rank, message)

    monkeypatch.setattr(Hub, "send", watched)
    with closing(Stepper(fs.load_scenario("digits-label-skew", sets=[*SETS]))) as stepper:
        stepper.step()
    jobs = [message for message in sent if message.head["job"] == "train"]
    assert jobs
    for job in jobs:
        assert "params" in job.head["broadcast"]
        assert "params" not in job.tensors


def have_worker_1_do_all(stepper, monkeypatch):
    """Have all rows cross shared memory."""
    pool = stepper.session.pool
    monkeypatch.setattr(pool.costs, "speeds", lambda ranks: [1e-9 if rank == 0 else 1.0 for rank in ranks])


@needs_fork
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("cohort", [1, 12])
def test_updates_of_a_round_stay_as_they_are_in_the_next(cohort, monkeypatch):
    scenario = fs.load_scenario("digits-label-skew", sets=[*SETS, f"algorithm.cohort={cohort}"])
    with closing(Stepper(scenario)) as stepper:
        have_worker_1_do_all(stepper, monkeypatch)
        stepper.step()
        kept = stepper.update.params
        before = kept.clone()
        stepper.step()
        assert torch.equal(kept, before)
        assert not torch.equal(stepper.update.params, before)


@needs_fork
@pytest.mark.usefixtures("one_thread")
def test_client_states_of_a_pass_stay_as_they_are_in_the_next(monkeypatch):
    """A user's strategy may train several groups of clients in a round, whose states are kept until its end."""
    with closing(Stepper(fs.load_scenario("digits-label-skew", sets=[*SETS, "algorithm.kind=scaffold"]))) as stepper:
        have_worker_1_do_all(stepper, monkeypatch)
        engine, local = stepper.session.engine, stepper.session.played.own.algorithm.local_work
        params, buffers = stepper.session.start.params, stepper.session.start.buffers
        zeros = {name: torch.zeros_like(params) for name in local.rule.broadcast}

        def trained(clients):
            work = CohortWork(round_index=1, clients=clients, params=params, buffers=buffers, rule=local.rule,
                              uplink=local.uplink, broadcast=zeros)  # fmt: skip
            held = lambda some: {name: torch.zeros(len(some), len(params)) for name in local.rule.client_state}  # noqa: E731
            return passes.train(engine.pool, work, engine.blocks(work), held, None)

        first = trained(np.arange(8))
        kept = [result.states[name] for result in first for name in local.rule.client_state]
        before = [rows.clone() for rows in kept]
        trained(np.arange(8, 16))
        assert sum(float(rows.abs().sum()) for rows in kept) > 0
        for rows, same in zip(kept, before, strict=True):
            assert torch.equal(rows, same)
