"""`fedscape data` and `fs.describe_data` measure the clients' data."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fedscape as fs
from clients.engines.plain import PlainEngine
from clients.training.work import CohortWork
from server.dispersion.measures import gradient_dissimilarity
from simulator.cli.main import main
from simulator.runs.building import Overrides, make_task_of
from simulator.runs.describing import initial_dissimilarity, look_at
from tests.support.small_city import small_city

REQUESTED = ["--set", "partition={kind='requested', clients=10, label_js=0.3, quantity_gini=0.4}"]


def test_data_prints_a_table_and_writes_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "digits-label-skew", *REQUESTED, "--seed", "3", "--out", str(tmp_path / "here")]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "10 clients hold 1,437 examples" in shown.out
    assert "reached label js" in shown.out
    assert "gradient dissimilarity" in shown.out
    assert str(tmp_path / "here" / "data.png") in shown.out
    assert (tmp_path / "here" / "data.png").read_bytes().startswith(b"\x89PNG")
    assert "<title>Data of " in (tmp_path / "here" / "data.html").read_text("utf-8")


def test_data_writes_to_a_new_folder_here_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "quadratic-two-clients"]) == 0
    made = tmp_path / "data-quadratic-two-clients"
    assert list(tmp_path.iterdir()) == [made]
    assert sorted(f.name for f in made.iterdir()) == ["data.html", "data.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-scenario"], "is not a scenario file or a built-in scenario"),
        (["--set", "partition={kind='requested', clients=3, label_js=0.95}"],
         "partition.label_js: 0.95 cannot be reached for these sizes and labels, only from"),
        (["--set", "partition={kind='requested', clients=3}"], "'requested' needs a value to reach"),
        (["--set", "partition={kind='requested', clients=3, label_jss=0.2}"], "Nearest: 'label_js'"),
        (["--set", "data=", "--set", "model="], "data: is missing"),
    ],
)  # fmt: skip
def test_data_reports_a_mistake_and_writes_nothing(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", *arguments, "--out", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert shown.out == ""
    assert not (tmp_path / "out").exists()


def test_data_refuses_an_out_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["data", "--out", str(tmp_path / "file")]) == 2
    assert "out: must be a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_describe_data_measures_more_skew_at_lower_concentration(tmp_path: Path) -> None:
    measures = fs.describe_data("digits-label-skew", sets=["partition.concentration=1000"], seed=1, out=tmp_path)
    assert isinstance(measures, fs.HeterogeneityMeasures)
    skewed = fs.describe_data("digits-label-skew", sets=["partition.concentration=0.05"], seed=1)
    assert skewed.label_js is not None
    assert measures.label_js is not None
    assert skewed.label_js > measures.label_js + 0.2
    assert skewed.feature_shift > measures.feature_shift + 0.5  # type: ignore[operator]
    assert skewed.b_squared > measures.b_squared  # type: ignore[operator]
    assert (tmp_path / "data.html").is_file()


def test_describe_data_takes_own_data_with_places(tmp_path: Path) -> None:
    scenario = replace(fs.load_scenario("digits-label-skew"), data=None, partition=None, model=None)
    seen = look_at(scenario, Overrides(model=nn.Linear(2, 3), population=small_city()))
    assert seen.measures.label_noise == 0.25
    assert seen.measures.spatial["feature_shift"].value > 0.1
    seen.write(tmp_path)
    again = fs.describe_data(fs.load_scenario("digits-label-skew"), model=nn.Linear(2, 3), data=small_city())
    assert again.label_js == seen.measures.label_js


def test_data_without_a_model_measures_all_but_gradients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "digits-label-skew", "--set", "model=", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"gradient dissimilarity +not measured +needs a model", shown)
    assert "gradient dissimilarity" in (tmp_path / "data.html").read_text("utf-8")
    without = fs.describe_data("digits-label-skew", sets=["model="])
    measures = fs.describe_data("digits-label-skew")
    assert without.gradient_dissimilarity is None
    assert without.b_squared is None
    assert "gradients" not in without.estimated_from
    assert measures.gradient_dissimilarity is not None
    seen = dict(measures.estimated_from)
    del seen["gradients"]
    same = replace(measures, gradient_dissimilarity=None, b_squared=None, estimated_from=seen)
    assert repr(same) == repr(without), "the model changes another measure"


def test_gradient_dissimilarity_is_that_of_the_initial_model(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task_of(fs.load_scenario("digits-label-skew", sets=["partition.clients=12"]), Overrides())
    found = initial_dissimilarity(task, seed=0)
    params, buffers = task.initial()
    clients = np.arange(12)
    whole = PlainEngine(task).gradients(CohortWork(round_index=0, clients=clients, params=params, buffers=buffers))
    expected = gradient_dissimilarity(whole, task.population.sizes.astype(np.float64))
    assert found is not None
    assert found[1] == 12
    assert found[0].gradient_dissimilarity == pytest.approx(expected.gradient_dissimilarity, rel=1e-6)
    assert found[0].b_squared == pytest.approx(expected.b_squared, rel=1e-6)
    monkeypatch.setattr("simulator.runs.describing.GRADIENT_CLIENTS", 5)
    monkeypatch.setattr("simulator.runs.describing.GRADIENT_EXAMPLES", 3)
    fewer = initial_dissimilarity(task, seed=0)
    assert fewer is not None
    assert fewer[1] == 5
    assert fewer[0].gradient_dissimilarity != found[0].gradient_dissimilarity


def test_describe_data_leaves_the_random_state_of_torch() -> None:
    torch.manual_seed(5)
    first = torch.rand(3)
    torch.manual_seed(5)
    fs.describe_data("quadratic-two-clients")
    assert torch.equal(torch.rand(3), first)


def test_data_of_a_later_round_shows_faults_that_have_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    late = "faults.late={kind='noise', severity=1.0, schedule={start=5}}"
    shown = {}
    for index in ("0", "5"):
        arguments = ["data", "digits-iid", "--set", late, "--set", "model=", "--out", str(tmp_path), "--round", index]
        assert main(arguments) == 0
        shown[index] = capsys.readouterr().out
        assert f"as in round {index}: these data change over the rounds" in shown[index]
    assert "fault late" in shown["5"]
    assert "fault late" not in shown["0"]
