"""A cohort on several worker processes has the numbers of one process, for every algorithm and kind of client."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from federations import Federation

from clients.models.options import MlpOptions, SoftmaxOptions
from clients.sources.custom import custom_population
from clients.training.options import LocalOptions
from server.algorithms.build import local_for
from simulator.engines.options import EngineOptions
from simulator.scenario.sections import EvaluationOptions, RunOptions, Scenario, load_scenario
from tests.contract.test_algorithms_contract import ROWS

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone"),
]

EQUAL, RAGGED = (6,) * 9, (14, 3, 1, 9, 6, 30, 2, 5, 11)
SIZES = {"equal": EQUAL, "ragged": RAGGED}
KINDS = {
    "plain softmax": (SoftmaxOptions(), {}),
    "dropout": (MlpOptions(hidden=(5,), dropout=0.3), {}),
    "averaged buffers": (MlpOptions(hidden=(5,), norm="batch"), {"drop_last": True, "batch_size": 2}),
    "local buffers": (MlpOptions(hidden=(5,), norm="batch"), {"drop_last": True, "batch_size": 2, "buffers": "local"}),
    "adam": (SoftmaxOptions(), {"optimizer": "adam"}),
}
FEATURES, CLASSES = 4, 3


def federation(name, workers, *, sizes=RAGGED, kind="plain softmax", engine="stacked", keep_bytes=1 << 30, **more):
    """Make a federation of float64 models whose cohort is six of nine clients."""
    model, local = KINDS[kind]
    options = replace(ROWS[name], cohort=6)

    def examples(k):
        random = np.random.default_rng((3, k))
        n = max(2, sizes[k]) if "buffers" in kind else sizes[k]
        return random.normal(size=(n, FEATURES)) + 0.2 * k, random.integers(0, CLASSES, n)

    data = custom_population(examples, [len(examples(k)[1]) for k in range(9)], outputs=CLASSES, dtype=torch.float64)
    tiles = {"tile": 2} if engine == "stacked" else {}
    scenario = Scenario(
        model=model,
        local=local_for(options, LocalOptions(**{"local_lr": 0.1, "batch_size": 4, "local_epochs": 2} | local)),
        algorithm=options,
        engine=EngineOptions(kind=engine, threads=1, compile="never", workers=workers, keep_bytes=keep_bytes, **tiles),
        evaluation=EvaluationOptions(federated_every=1, **more),
        run=RunOptions(seed=5, dtype="float64", rounds=3),
    )
    return Federation(scenario, data=data)


def played(*arguments, rounds=3, **more):
    """Return the parameters after each round, the last line and the last columns."""
    with closing(federation(*arguments, **more)) as stepper:
        params = stepper.step(rounds)
        line = {k: v for k, v in stepper.result.line.items() if k != "wall_seconds"}
        return params, line, stepper.result.columns


def agree(one, other, tolerance=1e-12):
    assert (one[0] - other[0]).abs().max() < tolerance
    assert one[1].keys() == other[1].keys()
    assert one[2].keys() == other[2].keys()
    for name, values in one[2].items():
        np.testing.assert_allclose(values, other[2][name], rtol=1e-9, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", ROWS)
def test_two_workers_have_the_numbers_of_one_process(name, sizes):
    agree(played(name, 1, sizes=SIZES[sizes]), played(name, 2, sizes=SIZES[sizes]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["fedavg", "scaffold, option 1", "feddyn"])
@pytest.mark.parametrize("engine", ["plain", "stacked"])
def test_three_workers_have_the_numbers_of_one_process(name, kind, engine):
    agree(played(name, 1, kind=kind, engine=engine), played(name, 3, kind=kind, engine=engine))


@pytest.mark.parametrize("kind", ["plain softmax", "averaged buffers", "local buffers"])
@pytest.mark.parametrize("name", ["fedavg", "fedavg, unbiased", "scaffold, option 2", "fednova", "feddyn"])
def test_sums_of_workers_have_the_numbers_of_kept_updates(name, kind):
    """With keep_bytes = 0 only sums of blocks come back; cosines and distances are then not measured."""
    kept, summed = played(name, 1, kind=kind), played(name, 2, kind=kind, keep_bytes=0)
    assert (kept[0] - summed[0]).abs().max() < (1e-12 if kind == "plain softmax" else 1e-9)  # few examples a batch
    for key in ("update_dispersion", "gradient_diversity", "train_loss", "aggregate_norm"):
        assert kept[1][key] == pytest.approx(summed[1][key], rel=1e-9)
    np.testing.assert_allclose(kept[2]["update_norm"], summed[2]["update_norm"], rtol=1e-9)


@pytest.mark.parametrize("keep_bytes", [0, 1 << 30])
@pytest.mark.parametrize("name", ["fedavg", "scaffold, option 1"])
def test_same_number_of_workers_repeats_every_bit(name, keep_bytes):
    """Dealing follows measured times, which differ; sums over fixed blocks do not depend on it."""
    first, second = (played(name, 3, keep_bytes=keep_bytes, rounds=5) for _ in range(2))
    assert torch.equal(first[0], second[0])
    for column, values in first[2].items():
        np.testing.assert_array_equal(values, second[2][column], err_msg=column)


def test_gradient_passes_and_evaluations_on_workers_have_the_numbers_of_one_process():
    one, three = (played("fedavg", n, gradient_every=1, federated_clients=9) for n in (1, 3))
    for key in ("gradient_norm", "gradient_dissimilarity", "federated_loss", "federated_accuracy"):
        assert one[1][key] == pytest.approx(three[1][key], rel=1e-10), key


def name_of_its_kind(scenario):
    """Return the key of the record that a scenario must have, so that something was compared."""
    return {"city-traffic-outages": "faults", "city-intrusion-campaign": "concept_drift"}.get(scenario)


@pytest.mark.parametrize("name", ["city-traffic-outages", "city-intrusion-campaign", "digits-label-skew"])
def test_scenario_with_faults_or_drift_has_the_numbers_of_one_process(name):
    def run(workers):
        sets = ["engine.kind=plain", "engine.threads=1", f"engine.workers={workers}", "evaluation.federated_every=2"]
        with closing(Federation(load_scenario(name, sets=sets))) as stepper:
            return stepper.step(3), stepper.result.line

    one, two = run(1), run(2)
    assert (one[0] - two[0]).abs().max() < 1e-5
    for key in ("faults", "concept_drift", "districts"):
        assert (one[1].get(key) or {}).keys() == (two[1].get(key) or {}).keys()
        for name, numbers in (one[1].get(key) or {}).items():
            assert numbers == pytest.approx(two[1][key][name], rel=1e-5), name
    assert name_of_its_kind(name) is None or one[1][name_of_its_kind(name)]
    assert one[1]["train_loss"] == pytest.approx(two[1]["train_loss"], rel=1e-5)


def test_more_workers_than_clients_work():
    agree(played("fedavg", 1), played("fedavg", 8))
