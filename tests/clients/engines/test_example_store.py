"""A card holds the examples that tiles need: those of one tile, or all of a population as its clients train."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_card import made_card

from clients.core.examples import CohortData
from clients.engines.cards.examples import ExampleStore

OFFSETS = np.array([0, 3, 3, 7, 12])
"""Four clients of 3, 0, 4 and 5 examples."""


@pytest.fixture
def card():
    with made_card() as device:
        yield device


def features():
    return torch.arange(24.0).view(12, 2)


def data_of(clients, source):
    rows = [np.arange(OFFSETS[c], OFFSETS[c + 1]) for c in clients]
    offsets = np.cumsum([0, *map(len, rows)])
    return CohortData(source, source[:, 0].long(), np.concatenate(rows).astype(np.int64), offsets)


def check(placed, data, rows):
    """Check that the rows of batches are the examples that main memory has there."""
    there = placed.features.index_select(0, placed.rows.reshape(-1)).cpu()
    assert torch.equal(there, data.features[torch.from_numpy(rows.reshape(-1))])
    targets = placed.targets.index_select(0, placed.rows.reshape(-1)).cpu()
    assert torch.equal(targets, data.targets[torch.from_numpy(rows.reshape(-1))])


def batches(data):
    """Return rows (2, 3) of some clients' examples, in another order, some twice."""
    return data.rows[np.array([[2, 0, 1], [-1, -1, 0]])]


def test_rows_are_those_of_main_memory_however_clients_follow(card):
    store, source = ExampleStore(card), features()
    targets = None
    for clients in ([0, 2], [2], [2, 3], [0, 1, 3], [3, 0]):
        data = data_of(clients, source)
        targets = data.targets if targets is None else targets
        data = CohortData(source, targets, data.rows, data.offsets)
        check(store.place(data, batches(data)), data, batches(data))


def test_population_in_one_tensor_travels_row_by_row_and_once(card, monkeypatch):
    moved = []
    monkeypatch.setattr("clients.engines.cards.examples.sent", lambda t, d: moved.append(t) or t.to(d))
    store, source = ExampleStore(card), features()
    counts = []
    for clients in ([0], [0], [0, 2], [2], [2, 3]):
        moved.clear()
        data = data_of(clients, source)
        store.place(data, batches(data))
        counts.append(sum(len(t) for t in moved if t.dtype == torch.float32))
    assert counts == [3, 3, 4, 0, 5], "the second tile shows that the tensor stays"


def test_examples_made_anew_each_round_are_not_kept(card):
    store = ExampleStore(card)
    for shift in (0.0, 100.0, 200.0):
        data = data_of([0, 3], features() + shift)
        placed = store.place(data, batches(data))
        assert len(placed.features) == len(data.rows)
        check(placed, data, batches(data))


def test_population_larger_than_the_limit_is_not_kept(card):
    source = features()
    store = ExampleStore(card, held_bytes=source.nbytes)
    for _ in range(3):
        data = data_of([2], source)
        assert len(store.place(data, batches(data)).features) == 4, "its targets do not fit"


def test_main_memory_keeps_its_tensors():
    data = data_of([0, 2], features())
    placed = ExampleStore(torch.device("cpu")).place(data, batches(data))
    assert placed.features is data.features
    assert np.array_equal(placed.rows.numpy(), batches(data))
