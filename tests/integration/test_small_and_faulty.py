"""Faults, drift and feature statistics on data from Python: few clients, small or empty, of any type."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from clients.core.errors import UserError
from clients.core.population import Population
from clients.federation.build import Federation, build_federation
from clients.heterogeneity.table import measure_clients
from clients.sources.custom import custom_population
from simulator.runs.run import Run, simulate
from simulator.scenario.sections import load_scenario

FIXED = ["algorithm.cohort=", "convergence.stop=never", "convergence.target=", "convergence.plateau=",
         "convergence.agreement=", "evaluation.baselines=false", "evaluation.federated_every=2", "run.rounds=4",
         "engine.threads=1", "engine.workers=1", "engine.compile=never"]  # fmt: skip
STUCK = ["faults.stuck.kind=stuck_at", "faults.stuck.severity=0.8", "faults.stuck.schedule.start=2"]
FLIP = ["faults.flip.kind=label_symmetric", "faults.flip.severity=0.8", "faults.flip.schedule.stop=4"]
DRIFTS = [
    f"drifts.{name}.{key}={value}"
    for name, changes in (("x", "p(x)"), ("y", "p(y)"), ("r", "p(y|x)"))
    for key, value in (("kind", "gradual"), ("changes", changes), ("start", 1), ("duration", 3))
]


def clients_of(
    sizes: list[int], task: str = "classification", dtype: torch.dtype = torch.float32, outputs: int = 3
) -> Population:
    def client(k: int) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng(k)
        labels = draw.integers(0, 3, sizes[k])
        features = np.eye(3)[labels] + 0.3 * draw.normal(size=(sizes[k], 3))
        if dtype == torch.int64:
            features = draw.integers(0, 5, (sizes[k], 3))
        return features, labels if task == "classification" else draw.normal(size=(sizes[k], outputs))

    return custom_population(client, sizes, outputs=outputs, task=task, feature_shape=(3,), dtype=dtype)  # type: ignore[arg-type]


def play(data: Population, model: nn.Module, *sets: str) -> Run:
    return simulate(load_scenario("digits-iid", sets=[*FIXED, *sets]), model=model, data=data, record=False)


@pytest.mark.parametrize("engine", ["plain", "stacked"])
@pytest.mark.parametrize("sizes", [[12, 0, 20, 9], [0, 1, 30], [25], [1]])
def test_federation_with_few_or_small_clients_runs(sizes: list[int], engine: str) -> None:
    sets = (*STUCK, *FLIP, *DRIFTS, "features.normalise=client", f"engine.kind={engine}")
    run = play(clients_of(sizes), nn.Linear(3, 3), *sets)
    assert torch.isfinite(run.params).all()
    busy = sum(n > 0 for n in sizes)
    lines = run.rounds.lines
    assert [line["concept_drift"]["r"]["clients"] for line in lines[1:]] == [0, busy, busy, busy]
    assert [sorted(line["faults"]) for line in lines[1:]] == [["flip"], ["flip", "stuck"], ["flip", "stuck"], ["stuck"]]


def test_double_precision_and_multi_step_forecasts_run() -> None:
    exact = play(clients_of([12, 0, 20, 9], dtype=torch.float64), nn.Linear(3, 3), *STUCK, *DRIFTS, "run.dtype=float64")
    assert exact.params.dtype == torch.float64
    assert torch.isfinite(exact.params).all()
    values = play(clients_of([12, 0, 20, 9], "regression", outputs=4), nn.Linear(3, 4), *STUCK, *DRIFTS)
    assert torch.isfinite(values.params).all()


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.table(words).mean(1))
        return out


def test_integer_features_allow_drifts_and_label_faults_but_not_reading_faults() -> None:
    words = clients_of([12, 0, 20, 9], dtype=torch.int64)
    assert torch.isfinite(play(words, Words(), *FLIP, *DRIFTS).params).all()
    message = r"faults\.stuck\.kind: 'stuck_at' changes real numbers, and the features are torch\.int64"
    with pytest.raises(UserError, match=message):
        play(words, Words(), *STUCK)


def test_data_description_accepts_an_empty_first_client() -> None:
    faults = load_scenario("digits-iid", sets=[*FLIP, *STUCK, "faults.stuck.schedule.start="]).faults
    population = build_federation(Federation(data=clients_of([0, 12, 20]), faults=faults, seed=3))
    flags = population.masks(np.arange(3))
    assert [m.shape for m in flags["stuck"]] == [(0, 3), (12, 3), (20, 3)]
    assert [m.shape for m in flags["flip"]] == [(0,), (12,), (20,)]
    wrong = np.concatenate(flags["flip"])
    assert measure_clients(population, seed=3)[0].label_noise == wrong.mean() > 0


def test_population_with_faults_or_drifts_refuses_more() -> None:
    scenario = load_scenario("digits-iid", sets=[*FLIP, *STUCK, *DRIFTS])
    faulty = build_federation(Federation(data=clients_of([12, 9]), faults=scenario.faults))
    drifting = build_federation(Federation(data=faulty, drifts=scenario.drifts))
    for data, sets, message in ((faulty, STUCK, "faults: cannot be put into a population that has faults"),
                             (drifting, DRIFTS, "drifts: cannot be added to a population that has")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            play(data, nn.Linear(3, 3), *sets)
    together = build_federation(Federation(data=clients_of([12, 9]), faults=scenario.faults, drifts=scenario.drifts))
    model = nn.Linear(3, 3)
    given, at_once = (play(data, model, "engine.kind=plain") for data in (drifting, together))
    assert torch.equal(given.params, at_once.params)
    assert [line["faults"] for line in given.rounds.lines[1:]] == [line["faults"] for line in at_once.rounds.lines[1:]]


def test_faults_without_any_example_are_refused() -> None:
    with pytest.raises(UserError, match="no client has any training example"):
        play(clients_of([0, 0]), nn.Linear(3, 3), *STUCK, *FLIP)
