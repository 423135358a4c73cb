"""Passes under autocast to bfloat16: both engines round them alike, and nothing else changes its type."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_cases import MODELS, make

import fedscape as fs
from clients.engines.dense import DenseProgram
from clients.engines.plain import PlainEngine
from clients.engines.programs import VmapProgram
from clients.engines.recurrent import GruProgram
from clients.engines.stacked import StackedEngine

ROUNDING = 2.0**-8
"""The spacing of bfloat16 relative to a number."""
SIZES = [6, 14, 8, 10]


def tasks(model, population_of, **options):
    """Return a task in float32, the same with passes in bfloat16, their work and client states."""
    usual = {"batch_size": 4, "local_epochs": 1, "buffers": "average", "local_lr": 0.05} | options
    task, work, own = make((MODELS[model], usual, SIZES, "plain", 2, 1), population_of, torch.float32)
    return task, replace(task, bf16=True), work, own


def moved(engine, work, own):
    update, _ = engine.train(work, own)
    assert update.params.dtype == torch.float32
    return (update.params - work.params).double(), update


@pytest.mark.parametrize(("model", "bound"), [("softmax", 8), ("gelu", 8), ("relu", 80), ("cnn", 80)])
def test_update_in_bfloat16_is_the_float32_one_up_to_its_rounding(model, bound, population_of):
    """The change of the parameters differs by a few roundings of bfloat16, relative to its norm, in both engines.

    Where a rounding changes the sign of a ReLU's input or the largest of a pool, the gradient takes another path.
    """
    exact, rounded, work, own = tasks(model, population_of)
    truth, _ = moved(StackedEngine(exact), work, own)
    for build in (PlainEngine, StackedEngine):
        step, update = moved(build(rounded), work, own)
        off = (step - truth).norm(dim=1) / truth.norm(dim=1)
        assert (off < bound * ROUNDING).all(), (build, off)
        assert (off > 1e-5).all(), "the passes are rounded"
        assert np.isfinite(update.train_loss).all()


def test_hand_written_programs_are_of_float32_alone(population_of):
    for model, program in (("relu", DenseProgram), ("gru", GruProgram)):
        exact, rounded, _, _ = tasks(model, population_of)
        assert type(StackedEngine(exact).program) is program
        assert type(StackedEngine(rounded).program) is VmapProgram


@pytest.mark.parametrize("build", [PlainEngine, StackedEngine])
def test_full_gradients_are_rounded_too(build, population_of):
    exact, rounded, work, _ = tasks("relu", population_of)
    truth, found = build(exact).gradients(work).double(), build(rounded).gradients(work).double()
    off = (truth - found).norm(dim=1) / truth.norm(dim=1)
    assert ((off > 1e-5) & (off < 8 * ROUNDING)).all()


def test_run_in_bfloat16_learns_and_evaluates_in_float32():
    sets = ["engine.threads=1", "engine.kind=stacked", "engine.tile=100", "run.rounds=4", "engine.device=cpu"]
    exact = fs.simulate(fs.load_scenario("digits-iid", sets=sets), record=False)
    rounded = fs.simulate(fs.load_scenario("digits-iid", sets=[*sets, "engine.bf16=true"]), record=False)
    assert rounded.params.dtype == torch.float32
    assert not torch.equal(exact.params, rounded.params)
    losses = [run.rounds["validation_loss"] for run in (exact, rounded)]
    assert losses[0][0] == losses[1][0], "the initial model is evaluated without rounding"
    np.testing.assert_allclose(losses[1][1:], losses[0][1:], rtol=0.05)
    assert rounded.session.device_words == "on the CPU, bf16"
