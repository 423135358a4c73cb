"""Training, evaluation and whole runs on a card have the CPU's numbers, and no local step waits for the card.

The card is one of main memory (`made_card`), and a CUDA card where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_cases import MODELS, REMEDIES, RULES, fitting, make
from made_card import made_card
from needs import CUDA

import fedscape as fs
from clients.core.cards.streams import as_signed
from clients.core.examples import Examples
from clients.engines.evaluation import Evaluator
from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.engines.tile_run import TileRun
from clients.modules.dropout import DropoutSite, dropout_keys, dropout_mask
from clients.training.options import OPTIMIZERS, AugmentOptions
from clients.training.work import CohortUpdate
from server.algorithms.aggregation import weighted_mean
from server.algorithms.table import ALGORITHMS
from server.rounds.cohort_sum import CohortSum, SumPlan

SIZES = [6, 14, 8, 10]
NUMBERS = ("params", "buffers", "train_loss", "train_errors", "client_drift", "gradient_norm")
ODD = [*((name, PlainEngine) for name in MODELS if name.startswith("gru")), ("gelu", StackedEngine)]
"""Models and engines whose GRU, or whose group normalisation under `vmap`, cannot be tried in main memory."""
MEAN = weighted_mean("examples")
on_cuda = [pytest.mark.cuda, CUDA.mark]
both_engines = pytest.mark.parametrize("engine", [PlainEngine, StackedEngine])


@pytest.fixture(params=["main memory", pytest.param("cuda", marks=on_cuda)])
def card(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Return the device of a card."""
    if request.param == "cuda":
        yield torch.device("cuda", 0)
        return
    with made_card() as device:
        yield device


def case_of(model, rule="plain", **options):
    remedy = options.pop("remedy", {})
    more = {"augment": AugmentOptions(**remedy["augment"])} if "augment" in remedy else {}
    usual = {"batch_size": 4, "local_epochs": 2, "buffers": "average", "optimizer": "sgd", "local_lr": 0.03}
    return MODELS[model], usual | options | remedy | more, SIZES, rule, 3, 1


def compare(case, population_of, engine, card):
    """Compare two rounds of a tile on the card with the CPU's, in float64: the second finds its examples there."""
    if card.type == "meta" and any(case[0] is MODELS[name] and engine is odd for name, odd in ODD):
        pytest.skip("torch has other kernels for this layer on its device meta")
    here, work, own = make(case, population_of, torch.float64)
    on_cpu, on_card = engine(here), engine(replace(here, device=card))
    for round_index in (1, 2):
        work = replace(work, round_index=round_index)
        expected, kept = on_cpu.train(work, own)
        found, kept_there = on_card.train(work, own)
        for name in NUMBERS:
            a, b = getattr(found, name), getattr(expected, name)
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8, err_msg=name)
        for name, rows in kept.items():
            np.testing.assert_allclose(kept_there[name], rows, rtol=1e-6, atol=1e-8, err_msg=name)


@both_engines
@pytest.mark.parametrize("model", MODELS)
def test_card_trains_every_model_with_the_numbers_of_the_cpu(model, engine, population_of, card):
    compare(case_of(model, l1=0.01, l2=0.1, clip_norm=0.5, gradient_noise=0.1), population_of, engine, card)


@both_engines
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rule", RULES)
def test_card_takes_every_optimizer_and_rule_with_the_numbers_of_the_cpu(optimizer, rule, engine, population_of, card):
    compare(case_of("tanh", rule, optimizer=optimizer), population_of, engine, card)


@both_engines
@pytest.mark.parametrize("remedy", REMEDIES)
def test_card_applies_every_remedy_with_the_numbers_of_the_cpu(remedy, engine, population_of, card):
    for model in ("cnn1d", "batch norm"):
        if remedy in fitting(MODELS[model]):
            compare(case_of(model, remedy=REMEDIES[remedy]), population_of, engine, card)


@both_engines
@pytest.mark.parametrize("model", ["relu", "batch norm", "quadratic"])
def test_card_has_the_full_gradients_of_the_cpu(model, engine, population_of, card):
    here, work, _ = make(case_of(model), population_of, torch.float64)
    found, expected = (engine(replace(here, device=d)).gradients(work) for d in (card, here.device))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("p", [0.5, 0.1, 1 / 3, 0.999])
def test_card_draws_the_masks_of_the_cpu(p, card):
    site, keys = DropoutSite("site", p, (70,)), dropout_keys(3, 2, np.arange(50), 1, 1)[0, 0]
    there = dropout_mask(site, as_signed(keys).to(card), 6, torch.float32)
    assert there.device.type == card.type
    assert torch.equal(there.cpu(), dropout_mask(site, keys, 6, torch.float32))


@pytest.mark.cuda
@CUDA.mark
@pytest.mark.parametrize("model", MODELS)
def test_no_local_step_waits_for_the_card(model, population_of, monkeypatch):
    task, work, own = make(case_of(model, optimizer="adam", l1=0.01, gradient_noise=0.1), population_of, torch.float32)
    engine = StackedEngine(replace(task, device=torch.device("cuda", 0)))
    engine.train(work, own)  # the first use of a kernel may wait for its module
    play = TileRun.play

    def watched(run):
        torch.cuda.set_sync_debug_mode("error")
        try:
            play(run)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(TileRun, "play", watched)
    engine.train(work, own)


def test_card_evaluates_with_the_numbers_of_the_cpu(population_of, card):
    task, work, _ = make(case_of("relu"), population_of, torch.float64)
    here, there = Evaluator(task), Evaluator(replace(task, device=card))
    np.testing.assert_allclose(there.evaluate(work).loss, here.evaluate(work).loss, rtol=1e-9)
    np.testing.assert_array_equal(there.evaluate(work).score, here.evaluate(work).score)
    held = task.population.cohort(np.arange(4))
    examples = Examples(held.features, held.targets)
    for _ in range(2):  # the second finds the examples on the card
        found, expected = there.central(examples), here.central(examples)
        assert (found.loss, found.score) == pytest.approx((expected.loss, expected.score))
        assert torch.equal(found.predicted, expected.predicted)


@pytest.mark.cuda
@CUDA.mark
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


@pytest.mark.cuda
@CUDA.mark
@pytest.mark.parametrize("model", ["mlp", "small_cnn"])
def test_same_run_on_a_card_has_the_same_bits(model):
    sets = ["engine.device=cuda", "engine.kind=stacked", "engine.tile=10", "run.rounds=3", f"model.kind={model}"]
    one, other = (fs.simulate(fs.load_scenario("digits-iid", sets=sets), record=False) for _ in range(2))
    assert torch.equal(one.params, other.params)


@pytest.mark.cuda
@CUDA.mark
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


@both_engines
@pytest.mark.parametrize("rule", RULES)
def test_updates_stay_on_the_card_where_the_work_is_there(rule, engine, population_of, card):
    here, work, own = make(case_of("tanh", rule), population_of, torch.float64)
    expected, kept = engine(here).train(work, own)
    found, kept_there = engine(replace(here, device=card)).train(work.on(card), own)
    for name, a, b in [("params", found.params, expected.params), *((n, found.extras[n], v) for n, v in
                       expected.extras.items()), *((n, kept_there[n], v) for n, v in kept.items())]:  # fmt: skip
        assert a.device.type == card.type, name
        torch.testing.assert_close(a.cpu(), b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("keep_rows", [True, False])
@pytest.mark.parametrize(
    "aggregation", [MEAN, replace(MEAN, map_update=lambda rows: rows.clamp(-1, 1))], ids=["mean", "clipped"]
)
def test_sum_of_updates_on_the_card_is_the_sum_of_the_cpu(aggregation, keep_rows, card):
    generator = torch.Generator().manual_seed(3)
    rows, buffers = (torch.randn(5, n, dtype=torch.float64, generator=generator) for n in (7, 2))
    numbers = np.arange(5.0)
    whole = numbers.astype(np.int64)
    anchor = torch.randn(7, dtype=torch.float64, generator=generator)
    weights = np.array([0.1, 0.0, 0.3, 0.4, 0.2])
    results = []
    for device in (torch.device("cpu"), card):
        plan = SumPlan(whole, weights, whole, anchor, [("a", 0, 3), ("b", 3, 7)], 5, aggregation)
        total = CohortSum(plan, keep_rows=keep_rows)
        for part in (slice(0, 2), slice(2, 5)):
            total.add(CohortUpdate(
                clients=whole[part], params=rows[part].to(device), buffers=buffers[part].to(device),
                num_examples=whole[part], local_steps=whole[part], train_loss=numbers[part], train_errors=whole[part],
                client_drift=numbers[part], gradient_norm=numbers[part], extras={"change": rows[part].to(device) * 2},
            ))  # fmt: skip
        results.append(total.result())
    here, there = results
    for a, b in [(there.aggregate.pseudo_gradient, here.aggregate.pseudo_gradient), (there.buffers, here.buffers),
                 (there.aggregate.extras["change"], here.aggregate.extras["change"])]:  # fmt: skip
        assert a.device.type == "cpu", "the server's state is in main memory"
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(there.dispersion.update_norm, here.dispersion.update_norm)
    assert there.dispersion.update_dispersion == pytest.approx(here.dispersion.update_dispersion)
    assert there.dispersion.aggregate_norm == pytest.approx(here.dispersion.aggregate_norm)
