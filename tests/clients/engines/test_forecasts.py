"""Errors of forecasts in deviations and in the readings' unit, persistence, and the forecasts that a page draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.city.series_options import TrafficOptions
from clients.city.traffic import traffic_source
from clients.concept_drift.application import with_drifts
from clients.concept_drift.options import DriftOptions
from clients.core.population import Population
from clients.engines.evaluation import Evaluation, Evaluator
from clients.engines.forecasts import UNKNOWN, forecast_errors, forecast_examples
from clients.federation.features import with_features
from clients.federation.options import FeatureOptions
from clients.federation.series_windows import series_population
from clients.tables.options import Scale, TableOptions
from clients.tables.table import table_population
from clients.training.losses import error_words
from clients.training.options import LocalOptions
from clients.training.task import make_task
from clients.world.options import WorldOptions
from clients.world.world import make_world

ROWS, TRAINING = 100, 70
DEVIATION = np.sqrt((TRAINING**2 - 1) / 12)  # of 0, 1, ..., 69
STEEP = 10.0  # the slope of the second sensor's ramp


def ramps(folder: Path, scale: Scale = "client", **changes: object) -> Population:
    """Return two sensors: 10 t and t. Repeating the last reading is wrong by 10 and by 1 a step."""
    rows = "".join(f"{STEEP * t},{t}\n" for t in range(ROWS))
    (folder / "ramps.csv").write_text("steep,flat\n" + rows)
    chosen = ("steep", "flat")  # by default a first column that counts in even steps is no sensor
    options = {"window": 4, "unit": "ug/m3", "columns": chosen} | changes
    return table_population(
        TableOptions(path=str(folder / "ramps.csv"), scale=scale, **options),  # type: ignore[arg-type]
        dtype=torch.float64,
    )


def evaluated(population: Population, predicted: Tensor) -> Evaluation:
    return Evaluation(0.0, 0.0, predicted)


def errors_of(population: Population, off_by: float) -> dict[str, object]:
    """Return the errors of forecasts that are wrong by `off_by` of the targets' own scale in every window."""
    assert population.central.test is not None
    assert population.spec.forecast is not None
    targets = population.central.test.examples.targets
    return forecast_errors(evaluated(population, targets + off_by), population.central.test, population.spec.forecast)


def test_error_in_the_unit_weighs_each_window_by_its_own_clients_deviation(tmp_path: Path) -> None:
    found = errors_of(ramps(tmp_path), off_by=0.5)
    both = np.sqrt((1 + STEEP**2) / 2)  # root mean square of the two slopes
    assert found["error"] == pytest.approx(0.5)
    assert found["error_in_unit"] == pytest.approx(0.5 * DEVIATION * both)
    assert found["persistence"] == pytest.approx({"error": 1 / DEVIATION, "error_in_unit": both})
    assert found["ratio"] == pytest.approx(0.5 * DEVIATION)
    assert (found["quantity"], found["unit"], found["scaled_by"]) == ("", "ug/m3", "client")


def test_error_under_one_deviation_for_all_clients_is_a_multiple_of_it(tmp_path: Path) -> None:
    population = ramps(tmp_path, "global")
    known = np.concatenate((np.arange(TRAINING), STEEP * np.arange(TRAINING)))
    found = errors_of(population, off_by=0.5)
    assert found["error_in_unit"] == pytest.approx(0.5 * known.std())
    assert found["persistence"] == pytest.approx(
        {"error": np.sqrt((1 + STEEP**2) / 2) / known.std(), "error_in_unit": np.sqrt((1 + STEEP**2) / 2)}
    )


def test_error_without_scaling_is_in_the_unit_already(tmp_path: Path) -> None:
    found = errors_of(ramps(tmp_path, "none"), off_by=0.5)
    assert found["error"] == pytest.approx(0.5)
    assert found["error_in_unit"] == pytest.approx(0.5)


def test_persistence_of_later_steps_is_wrong_by_their_distance(tmp_path: Path) -> None:
    population = ramps(tmp_path, horizon=3)
    found = errors_of(population, off_by=0.0)
    expected = np.sqrt((1 + 4 + 9) / 3 * (1 + STEEP**2) / 2)
    assert found["persistence"] == pytest.approx({"error": np.sqrt(14 / 3) / DEVIATION, "error_in_unit": expected})
    assert found["ratio"] == 0.0


def test_persistence_does_not_depend_on_what_the_features_became(tmp_path: Path) -> None:
    clean = ramps(tmp_path, "none")
    seen = with_features(clean, FeatureOptions(normalise="client"), seed=0)
    assert seen.test is not None
    assert clean.test is not None
    assert not torch.equal(seen.test.features, clean.test.features)
    assert errors_of(seen, 0.5) == errors_of(clean, 0.5)


def test_persistence_is_not_measured_where_drift_picks_other_windows() -> None:
    population = speeds()
    drift = DriftOptions(kind="abrupt", changes="p(x)", start=1, strength=1.0)
    drifted = with_drifts(population, {"detour": drift}, seed=0).during(1)
    assert errors_of(drifted, 0.5)["persistence"] == {"not_measured": UNKNOWN}


def speeds(**changes: int) -> Population:
    world = make_world(WorldOptions(days=7), 0)
    source = traffic_source(TrafficOptions(clients=5, **changes), world, 0)  # type: ignore[arg-type]
    return series_population(source, {}, seed=0, world=world)


def test_city_series_have_the_channels_unit_and_deviation() -> None:
    population = speeds()
    found = errors_of(population, off_by=0.4)
    assert (found["quantity"], found["unit"], found["scaled_by"]) == ("speed", "mph", "nominal")
    assert found["error_in_unit"] == pytest.approx(0.4 * 12.5, rel=1e-5)
    test = population.central.test
    assert test is not None
    assert test.latest is not None
    torch.testing.assert_close(test.latest, test.examples.features[:, -1, 0])


def test_words_name_the_range_of_the_clients_deviations(tmp_path: Path) -> None:
    low, high = f"{DEVIATION:.3g}", f"{STEEP * DEVIATION:.3g}"
    words = f"root mean squared error, in each client's own deviations of the readings (1 is {low} to {high} ug/m3)"
    assert error_words(ramps(tmp_path)) == words
    assert error_words(ramps(tmp_path, "none")) == "root mean squared error, in ug/m3"
    assert error_words(speeds()) == "root mean squared error, in deviations of speed (1 is 12.5 mph)"


class LastReading(nn.Module):
    """Persistence, with one weight that leaves it alone."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps, self.factor = steps, nn.Parameter(torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        return (features[:, -1, :1] * self.factor).expand(-1, self.steps)


def drawn(population: Population, most: int = 360) -> dict[str, Any]:
    module = LastReading(population.outputs)
    task = make_task(module, population, LocalOptions(), seed=0, dtype=torch.float64)
    evaluator = Evaluator(task)
    test = population.test
    assert test is not None
    found = forecast_examples(evaluator, evaluator.central(test), population, most)
    assert found is not None
    return found


def test_drawn_truth_is_the_clients_readings_at_the_steps(tmp_path: Path) -> None:
    population = ramps(tmp_path, horizon=6, stride=3)
    found = drawn(population)
    assert found["lead"] == [4, 6]
    flat, steep = found["clients"]
    assert (flat["name"], flat["rank"], steep["name"], steep["rank"]) == ("flat", "lowest", "steep", "highest")
    assert flat["truth"] == pytest.approx(flat["steps"])
    assert steep["truth"] == pytest.approx([STEEP * t for t in steep["steps"]])
    assert flat["steps"] == list(range(flat["steps"][0], flat["steps"][0] + len(flat["steps"])))  # each step once
    assert flat["forecast"] == pytest.approx(flat["persistence"])
    ahead = np.array(flat["truth"]) - np.array(flat["forecast"])
    assert ahead.reshape(-1, 3) == pytest.approx(np.tile([4, 5, 6], (len(ahead) // 3, 1)))
    by_step = [np.sqrt((1 + STEEP**2) / 2) * k for k in range(1, 7)]
    assert found["by_step"] == pytest.approx(by_step, rel=1e-4)
    assert found["persistence_by_step"] == pytest.approx(by_step, rel=1e-4)


def test_drawn_clients_have_the_lowest_median_and_highest_error() -> None:
    population = speeds()
    found = drawn(population, most=40)
    clients = found["clients"]
    assert [one["rank"] for one in clients] == ["lowest", "median", "highest"]
    errors = [one["error_in_unit"] for one in clients]
    assert errors == sorted(errors)
    assert all(len(one["truth"]) == len(one["hours"]) == 40 for one in clients)


def test_drift_leaves_the_drawing_out_and_says_why() -> None:
    drift = DriftOptions(kind="abrupt", changes="p(x)", start=1, strength=1.0)
    drifted = with_drifts(speeds(), {"detour": drift}, seed=0).during(1)
    found = drawn(drifted)
    assert "clients" not in found
    assert "Concept drift" in str(found["left_out"])


def test_data_without_windows_have_no_forecast(tmp_path: Path) -> None:
    population = ramps(tmp_path)
    plain = replace(population, spec=replace(population.spec, forecast=None))
    assert plain.test is not None
    evaluator = Evaluator(make_task(LastReading(1), plain, LocalOptions(), seed=0, dtype=torch.float64))
    assert forecast_examples(evaluator, evaluator.central(plain.test), plain) is None


def test_raw_series_show_gaps_and_what_was_filled(tmp_path: Path) -> None:
    cells = ["" if t in (10, 20, 21, 22) else str(2.0 * t) for t in range(50)]
    (tmp_path / "one.csv").write_text("a\n" + "".join(f'"{cell}"\n' for cell in cells))
    population = table_population(
        TableOptions(path=str(tmp_path / "one.csv"), window=4, gaps="interpolate", max_gap=1, unit="kW")
    )
    assert population.clients.series is not None
    series = population.clients.series(0)
    assert np.flatnonzero(np.isnan(series.values)).tolist() == [20, 21, 22]
    assert np.flatnonzero(series.filled).tolist() == [10]
    assert series.values[10] == pytest.approx(20.0, rel=1e-6)
    assert (series.quantity, series.unit, series.ends) == ("a", "kW", (35, 40, 50))
