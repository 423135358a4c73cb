"""Scenarios of published data: the errors without the files, and short runs with them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from needs import shared_data
from run_folders import Capture, mistake

from server.record.checked.line_files import read_rounds
from simulator.cli.exit_codes import EXIT_OK
from simulator.cli.main import main
from simulator.scenario.sections import load_scenario, parse_scenario, to_toml

PUBLISHED = {
    "air-beijing": ("https://archive.ics.uci.edu/dataset/501", "CC BY 4.0"),
    "household-power": ("https://archive.ics.uci.edu/dataset/235", "CC BY 4.0"),
    "huggingface": ("https://huggingface.co/datasets/ylecun/mnist", "licence"),
    "metr-la": ("https://github.com/liyaguang/DCRNN", "licence: none stated"),
    "n-baiot": ("https://archive.ics.uci.edu/dataset/442", "CC BY 4.0"),
    "uci-har": ("https://archive.ics.uci.edu/dataset/240", "CC BY 4.0"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_missing_files_error_names_what_to_fetch(
    name: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = mistake(capsys, "run", name)  # exit code 2, one line
    assert message.startswith("data.path: ")
    path = load_scenario(name).data.path  # type: ignore[union-attr]
    for text in (*PUBLISHED[name], str(tmp_path / path)):
        assert text in message
    assert list(tmp_path.iterdir()) == []
    with_partition = mistake(capsys, "run", name, "--set", "partition.kind=natural")
    assert with_partition == message


@pytest.mark.parametrize("name", PUBLISHED)
def test_scenario_survives_toml(name: str) -> None:
    scenario = load_scenario(name)
    assert parse_scenario(tomllib.loads(to_toml(scenario)), source=name) == scenario


def run(name: str, folder: Path, *sets: str) -> float:
    """Run two rounds and return the decrease of the validation loss."""
    given = ("run.rounds=2", "evaluation.federated_every=0", "engine.kind=stacked", *sets)
    assert main(["run", name, *(a for s in given for a in ("--set", s)), "--out", str(folder)]) == EXIT_OK
    lines = read_rounds(folder / "rounds.jsonl")[0]
    return float(lines[0]["validation_loss"] - lines[-1]["validation_loss"])


def test_metr_la_runs_on_a_generated_file(tmp_path: Path) -> None:
    steps = np.arange(12 * 24 * 4)
    speed = 55 - 20 * np.exp(-((((steps / 12) % 24) - 17) ** 2) / 8)
    rows = ["," + ",".join(str(k) for k in range(20))]
    noise = np.random.default_rng(0).normal(0, 1, (len(steps), 20))
    for t, row in zip(np.datetime64("2012-03-01T00:00") + 5 * steps, (speed[:, None] + noise).round(2), strict=True):
        rows.append(",".join((str(t).replace("T", " ") + ":00", *map(str, row.tolist()))))
    (tmp_path / "metr-la.csv").write_text("\n".join(rows) + "\n")
    path = f"data.path={tmp_path / 'metr-la.csv'}"
    assert run("metr-la", tmp_path / "run", path, "algorithm.cohort=5") > 0


@pytest.mark.parametrize(
    ("name", "file"),
    [("uci-har", "activity_uci_har/uci_har_windows_25hz_int16.npz"), ("air-beijing", "air_beijing")],
)
def test_scenario_runs_on_the_published_data(name: str, file: str, tmp_path: Path) -> None:
    assert run(name, tmp_path / "run", f"data.path={shared_data(file)}") > 0.5
