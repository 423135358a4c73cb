"""The measures of a run are those of its model's samples beside the server's examples, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fedscape as fs
from clients.core.errors import ScenarioError, UserError
from clients.engines.evaluation import Evaluator
from clients.engines.samples.held_out import PICTURED, sample_meter
from clients.engines.samples.quality import FeatureSpace, frechet_distance, pairwise, radii
from clients.models.build import build_model
from clients.models.two_player.gan import Gan
from clients.models.two_player.options import GanOptions
from clients.modules.players import TwoPlayer, draws
from clients.training.options import LocalOptions
from clients.training.task import make_task
from server.record.records import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT = {
    "run.rounds": 2, "local.local_steps": 2, "model.hidden": [6],
    "engine.kind": "stacked", "engine.tile": 10, "engine.threads": 1, "engine.workers": 1,
}  # fmt: skip
KEYS = ("frechet_distance", "sample_precision", "sample_coverage", "sample_classes")


def scenario(**more: Any) -> fs.Scenario:
    return fs.load_scenario("digits-gan", sets=SHORT | more)


def by_hand(real: torch.Tensor, labels: torch.Tensor, fitted: torch.Tensor, model: Gan) -> list[float]:
    """Return the four measures of a model from pixels on."""
    x, fit = real.double().numpy(), fitted.double().numpy()
    with torch.no_grad():
        y = model.draw(len(x)).double().numpy()
    _, _, axes = np.linalg.svd(fit - fit.mean(0), full_matrices=False)
    f, g = ((one - fit.mean(0)) @ axes[:32].T for one in (x, y))
    apart = np.sqrt(np.square(f[:, None] - g[None]).sum(2))
    own = np.sqrt(np.square(f[:, None] - f[None]).sum(2))
    ball = np.sort(own, axis=1)[:, 5]  # the first is the example itself
    inside = apart <= ball[:, None]
    nearest = labels.numpy()[apart.argmin(0)]
    counts = np.bincount(nearest[inside.any(0)], minlength=10)
    return [frechet_distance(f, g), inside.any(0).mean(), inside.any(1).mean(), (counts >= 0.01 * len(x)).sum()]


def test_record_has_the_measures_of_each_round_and_of_the_final_model() -> None:
    run = fs.simulate(scenario(**{"evaluation.test_every": 1}), record=False)
    population, model = fs.population(scenario()), run.model()
    assert isinstance(model, Gan)
    for part, examples in (("validation", population.validation), ("test", population.test)):
        assert examples is not None
        assert population.validation is not None
        wanted = by_hand(examples.features, examples.targets, population.validation.features, model)
        found = [run.rounds[f"{part}_{key}"][-1] for key in KEYS]
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)
    assert [run.outcome[f"test_{key}"] for key in KEYS] == pytest.approx(found)
    assert np.isfinite(run.rounds["validation_frechet_distance"]).all()
    losses = run.rounds["validation_loss"]
    evaluator = Evaluator(run.session.task)
    evaluator.load(run.params, run.buffers)
    assert losses[-1] == pytest.approx(evaluator.on_central("validation", 2).loss), "on the validation examples"
    assert run.outcome["best_model"]["metric"] == "validation_frechet_distance"
    assert run.outcome["best_model"]["value"] == run.rounds["validation_frechet_distance"].min()


def test_targets_may_name_the_measures() -> None:
    for metric, limit in (
        ("validation_frechet_distance", {"at_most": 100.0}),
        ("validation_sample_coverage", {"at_least": 0.0}),
        ("validation_sample_precision", {"at_least": 0.0}),
        ("validation_sample_classes", {"at_least": 0.0}),
    ):
        target = {"metric": metric, "hold": 1, **limit}
        run = fs.simulate(scenario(convergence={"stop": "any", "target": target}), record=False)
        assert run.outcome["to_target"]["rounds"] == 0
    with pytest.raises(UserError, match="must be from 0 to 1"):
        scenario(convergence={"target": {"metric": "validation_sample_coverage", "at_least": 60.0}})


def test_plateau_of_the_distance_may_end_a_run() -> None:
    plateau = {"metric": "validation_frechet_distance", "patience": 1, "min_delta": 1e6}
    run = fs.simulate(scenario(convergence={"stop": "any", "plateau": plateau}, rounds=9), record=False)
    assert len(run.rounds["round"]) < 10


def test_picture_has_samples_in_the_order_of_their_classes(tmp_path: Any) -> None:
    run = fs.simulate(scenario(), out=tmp_path / "run")
    found = RunFolder(tmp_path / "run").read_samples()
    assert found is not None
    assert found["shape"] == [1, 8, 8]
    assert found["classes"] == sorted(found["classes"])
    model = run.model()
    assert isinstance(model, Gan)
    with torch.no_grad():
        pixels = np.rint(255 * model.draw(PICTURED).numpy()).astype(int)
    assert sorted(found["images"]) == sorted(pixels.tolist())


def test_resumed_run_has_its_own_samples(tmp_path: Any) -> None:
    fs.simulate(scenario(**{"run.checkpoint_rounds": 1}), out=tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    before = folder.read_samples()
    folder.truncate(1)
    assert folder.read_samples() is None
    assert before is not None


def test_data_without_examples_on_the_server_have_no_measures() -> None:
    bare = {"data.validation_fraction": 0.0, "data.test_fraction": 0.0}
    bare |= {"convergence.plateau": None, "convergence.target": None}
    run = fs.simulate(scenario(**bare), record=False)
    assert not [key for key in list(run.rounds) if "sample" in key or "frechet" in key]
    assert "validation_loss" in list(run.rounds), "on the clients' examples, as of other objectives"
    wanted = {**bare, "convergence.target": {"metric": "validation_frechet_distance", "at_most": 1.0}}
    with pytest.raises(UserError, match="needs validation_frechet_distance"):
        fs.simulate(scenario(**wanted), record=False)
    with pytest.raises(ScenarioError, match="no central test examples"):
        fs.simulate(scenario(**bare, **{"evaluation.test_every": 1}), record=False)


def test_workers_measure_the_same_samples() -> None:
    found = []
    for workers in (1, 2):
        rounds = fs.simulate(scenario(**{"engine.workers": workers, "engine.tile": 5}), record=False).rounds
        found.append([rounds[f"validation_{key}"].tolist() for key in KEYS])
    assert found[0] == found[1]


def test_objective_of_ones_own_is_evaluated_on_its_validation_examples() -> None:
    def client(k: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        return np.full((4, 64), 0.1 * k), np.zeros(4)

    seen = np.random.default_rng(0).uniform(size=(9, 64)), np.zeros(9)
    given = fs.custom_population(client, [4] * 3, outputs=1, task="objective", validation=seen, test=seen)
    sets = {"data": None, "partition": None, "convergence": {"stop": "never", "plateau": None, "target": None}}
    short = scenario(**sets, **{"evaluation.test_every": 1})
    run = fs.simulate(short, data=given, model=lambda: build_model(GanOptions(hidden=(4,)), given, 0), record=False)
    with torch.no_grad():
        wanted = run.model()(torch.from_numpy(seen[0]).float()).mean()
    assert run.rounds["validation_loss"][-1] == pytest.approx(float(wanted), rel=1e-5)
    assert run.rounds["test_loss"][-1] == run.outcome["test_loss"] == run.rounds["validation_loss"][-1]
    assert np.isfinite(run.rounds["validation_frechet_distance"]).all()
    assert "validation_sample_classes" not in list(run.rounds), "these examples have no classes"


class Silent(TwoPlayer):
    """A game whose generator draws nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.nn.Linear(64, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.generator(x)[:, 0]


class Odd(Silent):
    """A game that draws samples of another shape."""

    def draw(self, number: int) -> torch.Tensor:
        return torch.zeros(number, 3)


def test_own_game_is_measured_where_it_draws() -> None:
    population = fs.population(scenario())
    assert not draws(Silent())
    quiet = make_task(Silent(), population, LocalOptions(), seed=0)
    assert sample_meter(Evaluator(quiet), population) is None
    with pytest.raises(UserError, match=r"draw\(359\) returns \(359, 3\), and samples need the shape \(359, 64\)"):
        fs.simulate(scenario(), model=Odd(), record=False)


def test_neighbours_and_space_are_those_of_the_module() -> None:
    population = fs.population(scenario())
    assert population.validation is not None
    task = make_task(build_model(GanOptions(hidden=(4,)), population, 0), population, LocalOptions(), seed=0)
    meter = sample_meter(Evaluator(task), population)
    assert meter is not None
    rows = population.validation.features.double().numpy()
    np.testing.assert_array_equal(meter.space.mean, FeatureSpace.of(rows).mean)
    features = meter.space.features(rows)
    np.testing.assert_allclose(radii(features), np.sort(pairwise(features, features), 1)[:, 5], atol=1e-7)
