"""Training, evaluation and whole runs on a CUDA card have the CPU's numbers, and no local step waits for the card."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_cases import MODELS, REMEDIES, RULES, fitting, make
from needs import CUDA

import fedscape as fs
from clients.engines.evaluation import Evaluator
from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine, _TileRun
from clients.modules.dropout import DropoutSite, dropout_keys, dropout_mask
from clients.training.options import OPTIMIZERS, AugmentOptions
from server.algorithms.table import ALGORITHMS

pytestmark = [pytest.mark.cuda, CUDA.mark]
CARD = torch.device("cuda", 0)
SIZES = [6, 14, 8, 10]
NUMBERS = ("params", "buffers", "train_loss", "train_errors", "client_drift", "gradient_norm")


def case_of(model, rule="plain", **options):
    remedy = options.pop("remedy", {})
    more = {"augment": AugmentOptions(**remedy["augment"])} if "augment" in remedy else {}
    usual = {"batch_size": 4, "local_epochs": 2, "buffers": "average", "optimizer": "sgd", "local_lr": 0.03}
    return MODELS[model], usual | options | remedy | more, SIZES, rule, 3, 1


def compare(case, population_of, engine):
    """Compare a tile's training on the card with the CPU's, in float64."""
    here, work, own = make(case, population_of, torch.float64)
    expected, kept = engine(here).train(work, own)
    found, kept_there = engine(replace(here, device=CARD)).train(work, own)
    for name in NUMBERS:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6, atol=1e-8, err_msg=name)
    for name, rows in kept.items():
        np.testing.assert_allclose(kept_there[name].cpu(), rows, rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("engine", [PlainEngine, StackedEngine])
@pytest.mark.parametrize("model", MODELS)
def test_card_trains_every_model_with_the_numbers_of_the_cpu(model, engine, population_of):
    compare(case_of(model, l1=0.01, l2=0.1, clip_norm=0.5, gradient_noise=0.1), population_of, engine)


@pytest.mark.parametrize("engine", [PlainEngine, StackedEngine])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rule", RULES)
def test_card_takes_every_optimizer_and_rule_with_the_numbers_of_the_cpu(optimizer, rule, engine, population_of):
    compare(case_of("tanh", rule, optimizer=optimizer), population_of, engine)


@pytest.mark.parametrize("engine", [PlainEngine, StackedEngine])
@pytest.mark.parametrize("remedy", REMEDIES)
def test_card_applies_every_remedy_with_the_numbers_of_the_cpu(remedy, engine, population_of):
    for model in ("gru, classes", "batch norm"):
        if remedy in fitting(MODELS[model]):
            compare(case_of(model, remedy=REMEDIES[remedy]), population_of, engine)


@pytest.mark.parametrize("p", [0.5, 0.1, 1 / 3, 0.999])
def test_card_draws_the_masks_of_the_cpu(p):
    from clients.core.cards.streams import as_signed

    site, keys = DropoutSite("site", p, (70,)), dropout_keys(3, 2, np.arange(50), 1, 1)[0, 0]
    there = dropout_mask(site, as_signed(keys).to(CARD), 6, torch.float32)
    assert torch.equal(there.cpu(), dropout_mask(site, keys, 6, torch.float32))


@pytest.mark.parametrize("model", MODELS)
def test_no_local_step_waits_for_the_card(model, population_of, monkeypatch):
    task, work, own = make(case_of(model, optimizer="adam", l1=0.01, gradient_noise=0.1), population_of, torch.float32)
    engine = StackedEngine(replace(task, device=CARD))
    engine.train(work, own)  # the first use of a kernel may wait for its module
    play = _TileRun.play

    def watched(run):
        torch.cuda.set_sync_debug_mode("error")
        try:
            play(run)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(_TileRun, "play", watched)
    engine.train(work, own)


def test_card_evaluates_with_the_numbers_of_the_cpu(population_of):
    task, work, _ = make(case_of("relu"), population_of, torch.float64)
    found = [Evaluator(replace(task, device=device)).evaluate(work) for device in (torch.device("cpu"), CARD)]
    np.testing.assert_allclose(found[1].loss, found[0].loss, rtol=1e-9)
    np.testing.assert_array_equal(found[1].score, found[0].score)


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
@pytest.mark.parametrize("kind", ["plain", "stacked"])
def test_run_on_a_card_has_the_record_of_the_cpu(algorithm, kind):
    sets = [f"algorithm.kind={algorithm}", "run.dtype=float64", "run.rounds=3", f"engine.kind={kind}"]
    sets += ["engine.tile=4"] if kind == "stacked" else []
    runs = [
        fs.simulate(fs.load_scenario("digits-label-skew", sets=[*sets, f"engine.device={device}"]), record=False)
        for device in ("cpu", "cuda")
    ]
    torch.testing.assert_close(runs[1].params, runs[0].params, rtol=1e-7, atol=1e-9)
    for name in ("validation_loss", "client_drift", "update_dispersion"):
        np.testing.assert_allclose(runs[1].rounds[name], runs[0].rounds[name], rtol=1e-6, atol=1e-9, err_msg=name)
    assert runs[1].session.plan.device == "cuda:0"


def test_tf32_changes_products_and_is_restored():
    before = torch.backends.cuda.matmul.fp32_precision
    sets = ["engine.device=cuda", "engine.kind=stacked", "engine.tile=10", "run.rounds=2"]
    exact, rounded = (
        fs.simulate(fs.load_scenario("digits-iid", sets=[*sets, f"engine.tf32={tf32}"]), record=False)
        for tf32 in ("false", "true")
    )
    assert not torch.equal(exact.params, rounded.params)
    torch.testing.assert_close(rounded.params, exact.params, rtol=0, atol=0.02)
    assert torch.backends.cuda.matmul.fp32_precision == before
