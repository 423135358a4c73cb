"""The compared measures: their keys, their direction, and the worst client of each task."""

import re
from pathlib import Path

import pytest

from dashboards.report.compared_measures import MEASURES
from dashboards.report.run_data import read_run
from tests.support.made_records import make_record

OTHER_COLUMNS = {"arm", "seed", "run", "key", "state", "verdict", "rounds", "seconds"}
"""Columns of a study's table beside the measures."""


def test_keys_are_distinct_names_of_columns() -> None:
    keys = [measure.key for measure in MEASURES]
    assert len(set(keys)) == len(keys)
    assert len({measure.name for measure in MEASURES}) == len(keys)
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", key) for key in keys)
    assert not OTHER_COLUMNS & {*keys, *(f"{key}_at_least" for key in keys)}


def test_accuracies_are_better_higher_and_errors_lower() -> None:
    better = {measure.key: measure.better for measure in MEASURES}
    assert {key for key, way in better.items() if way == "higher"} == {
        "test_accuracy", "test_balanced_accuracy", "test_macro_f1", "worst_client_accuracy", "test_sample_precision",
        "test_sample_coverage",
    }  # fmt: skip
    assert {key for key, way in better.items() if way is None} == {"rounds_played", "client_drift", "cosine"}
    assert set(better.values()) == {"higher", "lower", None}


@pytest.mark.parametrize(
    ("tenth", "key"), [("lowest_tenth", "worst_client_accuracy"), ("highest_tenth", "worst_client_error")]
)
def test_worst_client_is_an_accuracy_or_an_error(tenth: str, key: str, tmp_path: Path) -> None:
    spread = {"worst": 0.25, tenth: 0.5, "clients": 3, "variance": 0.1, "evaluated_on": "test"}
    run = read_run(make_record(tmp_path / "run", rounds=3, rows=False, outcome={"client_spread": spread}).path)
    found = {measure.key: measure.of(run) for measure in MEASURES if measure.key.startswith("worst_client")}
    assert found == {"worst_client_accuracy": None, "worst_client_error": None} | {key: 0.25}
