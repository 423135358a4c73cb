"""The best model by validation: which one is kept, and what a checkpoint has of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from server.algorithms.state import ServerState
from server.record.checkpoint import Checkpoint
from server.rounds.best_model import BestModel


def state(round_index: int) -> ServerState:
    return ServerState(round_index, torch.full((3,), float(round_index)), torch.full((1,), -float(round_index)), {})


def observed(*losses: Any) -> BestModel:
    best = BestModel()
    for r, loss in enumerate(losses):
        best.observe(state(r), {"round": r, "validation_loss": loss})
    return best


@pytest.mark.parametrize(
    ("losses", "at"),
    [((3.0, 1.0, 2.0), 1), ((1.0, 1.0), 0), ((3.0, math.nan, 2.0), 2), ((None, 2.0, None), 1), ((math.inf, 5.0), 1)],
)
def test_best_is_the_first_round_of_the_lowest_finite_loss(losses: Any, at: int) -> None:
    best = observed(*losses)
    assert best.facts == {"round": at, "metric": "validation_loss", "value": losses[at]}
    assert best.params is not None
    assert best.params.tolist() == [float(at)] * 3


def test_model_that_changes_later_changes_no_best() -> None:
    best, now = BestModel(), state(1)
    best.observe(now, {"validation_loss": 1.0})
    now.params.zero_()
    assert best.params is not None
    assert best.params.tolist() == [1.0] * 3


def test_round_without_an_aggregate_has_no_new_model() -> None:
    best = observed(2.0)
    best.observe(state(1), {"validation_loss": 1.0, "no_aggregate": True})
    assert best.round_index == 0


def test_run_without_validation_has_no_best() -> None:
    best = observed(None, None)
    assert (best.facts, best.tensors(state(1))) == ({}, {})


@pytest.mark.parametrize("losses", [(3.0, 1.0, 2.0), (3.0, 2.0, 1.0)])
def test_checkpoint_restores_the_best(losses: Any) -> None:
    best, last = observed(*losses), state(2)
    tensors = {"parameters": last.params, "buffers": last.buffers} | best.tensors(last)
    assert len(tensors) == (2 if losses[-1] == 1.0 else 4)  # the last model is there already
    again = BestModel()
    again.restore(Checkpoint(2, tensors, {}, {}), best.facts)
    assert again.facts == best.facts
    assert torch.equal(again.params, best.params)
    assert torch.equal(again.buffers, best.buffers)


def test_checkpoint_of_an_earlier_version_has_no_best() -> None:
    best = BestModel()
    best.restore(Checkpoint(2, {}, {}, {}), None)
    assert best.round_index is None


def test_samples_decide_before_the_loss_of_a_game() -> None:
    best = BestModel()
    for r, (distance, loss) in enumerate([(3.0, 1.0), (2.0, 1.2), (2.5, 0.5)]):
        best.observe(state(r), {"validation_loss": loss, "validation_frechet_distance": distance})
    assert best.facts == {"round": 1, "metric": "validation_frechet_distance", "value": 2.0}
    again = BestModel()
    again.restore(Checkpoint(2, {"parameters": state(2).params, "buffers": state(2).buffers} | best.tensors(state(2)),
                             {}, {}), best.facts)  # fmt: skip
    assert again.facts == best.facts
