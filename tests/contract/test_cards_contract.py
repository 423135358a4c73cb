"""No local step of the stacked engine waits for a card, for every model, optimiser, rule and remedy.

The card is torch's device `meta`, so none is needed; tests marked `cuda` train on a real one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_cases import MODELS, REMEDIES, RULES, fitting, make
from waiting_for_cards import CARD, WaitsForCard, waiting_refused

from clients.engines.programs import VmapProgram, make_program
from clients.engines.stacked import StackedEngine
from clients.engines.tile_run import TileRun
from clients.training.options import OPTIMIZERS, AugmentOptions
from clients.training.task import probe_examples

SIZES = [6, 14, 8, 10]
USUAL = {"batch_size": 4, "local_epochs": 2, "buffers": "average"}
NOISY = {"clip_norm": 0.5, "clip_value": 0.1, "l1": 0.01, "l2": 0.1, "gradient_noise": 0.1}


class Played(Exception):
    """All local steps were taken."""


def play_on_card(case, population_of, monkeypatch):
    """Take a tile's local steps on a card without data; `WaitsForCard` where one waits."""
    task, work, own = make(case, population_of, torch.float32)
    program = make_program(task, probe_examples(task.population, task.dtype).features)
    play = TileRun.play

    def watched(run):
        with waiting_refused():
            play(run)
        raise Played

    monkeypatch.setattr(TileRun, "play", watched)
    if isinstance(program, VmapProgram):
        program._module = program._module.to(CARD)
    engine = StackedEngine(replace(task, device=CARD), program=program)
    with pytest.raises(Played):
        engine.train(work, own)


def case_of(model, rule="plain", **options):
    remedy = options.pop("remedy", {})
    more = {"augment": AugmentOptions(**remedy["augment"])} if "augment" in remedy else {}
    return MODELS[model], USUAL | {"optimizer": "sgd"} | options | remedy | more, SIZES, rule, 3, 1


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("local", [{}, {"batch_size": "full"}, NOISY], ids=["ragged", "full batches", "noisy"])
def test_no_step_waits_for_any_model(model, local, population_of, monkeypatch):
    play_on_card(case_of(model, **local), population_of, monkeypatch)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rule", RULES)
def test_no_step_waits_for_any_optimizer_and_rule(optimizer, rule, population_of, monkeypatch):
    for model in ("relu", "user's", "quadratic"):
        play_on_card(case_of(model, rule, optimizer=optimizer, l1=0.01), population_of, monkeypatch)


@pytest.mark.parametrize("remedy", REMEDIES)
def test_no_step_waits_for_any_remedy(remedy, population_of, monkeypatch):
    for model in ("gru, classes", "batch norm"):
        if remedy in fitting(MODELS[model]):
            play_on_card(case_of(model, remedy=REMEDIES[remedy]), population_of, monkeypatch)


@pytest.mark.parametrize(("wait", "words"), [
    (lambda x: x.sum().item(), "_local_scalar_dense"),
    (lambda x: x[x > 0], "index of booleans"),
    (lambda x: x.nonzero(), "nonzero"),
    (lambda x: x.cpu(), "a copy from meta to cpu"),
    (lambda x: torch.zeros(3).to(x.device), "a copy from cpu to meta"),
    (lambda x: x + torch.zeros(3), "two devices"),
])  # fmt: skip
def test_watch_finds_what_waits(wait, words):
    x = torch.zeros(3, device=CARD)
    with waiting_refused(), pytest.raises(WaitsForCard, match=words):
        wait(x)
    with waiting_refused():
        torch.zeros(3).to(CARD, non_blocking=True).add_(x)


def test_watch_finds_a_step_that_waits(population_of, monkeypatch):
    take = TileRun._step

    def reading(run, s, k, gradients):
        take(run, s, k, gradients)
        assert np.isfinite(float(run.params["6.bias"].sum()))

    monkeypatch.setattr(TileRun, "_step", reading)
    with pytest.raises(WaitsForCard, match="_local_scalar_dense"):
        play_on_card(case_of("relu", optimizer="adam"), population_of, monkeypatch)
