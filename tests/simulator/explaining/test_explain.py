"""`explain` on real runs: planted causes are found, healthy runs are not accused, and tried changes help."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from grafana_stub import TOKEN, grafana_stub

import fedscape as fs
from dashboards.grafana.push import run_id_of
from server.record.records import RunFolder
from simulator.cli.main import main
from simulator.explaining.trying import compare

ENGINE = {"engine.kind": "stacked", "engine.workers": 1, "engine.threads": 1, "evaluation.baselines": False,
          "convergence.stop": "never"}  # fmt: skip
DIGITS = {
    "data": {"kind": "digits"},
    "partition": {"kind": "iid", "clients": 30},
    "model": {"kind": "mlp", "hidden": [64]},
    "local": {"local_lr": 0.1, "batch_size": 16, "local_epochs": 2},
    "algorithm": {"kind": "fedavg", "cohort": 10},
    "run": {"rounds": 40, "seed": 7},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of the digits by name, each played once."""
    folder, known = tmp_path_factory.mktemp("explained"), {}
    sets = {
        "healthy": {},
        "high": {"local.local_lr": 4.0},
        "low": {"local.local_lr": 0.002},
        "clipped": {"local.clip_norm": 0.01},
        "sigmoid": {"model.hidden": [32] * 6, "model.activation": "sigmoid", "model.initialisation": "xavier"},
        "bad": {"faults.bad.kind": "label_symmetric", "faults.bad.clients": 0.2, "faults.bad.share": 0.9},
        "few": {"run.rounds": 6},
        "small": {"model.hidden": [3]},
        "noisy": {"local.gradient_noise": 1.6},
        "exploding": {"model.hidden": [64] * 4, "model.initial_scale": 3.0},
        "lonely": {"algorithm.cohort": 1, "partition.kind": "dirichlet", "partition.concentration": 0.2},
    }

    def run(name: str):
        if name not in known:
            scenario = fs.load_scenario(DIGITS, sets=ENGINE | sets[name])
            known[name] = fs.simulate(scenario, out=folder / name).path
        return known[name]

    return run


def kinds(found: fs.Explanation) -> list[str]:
    return [finding.kind for finding in found.findings]


@pytest.mark.parametrize(
    ("name", "cause"),
    [("high", "rate_too_high"), ("low", "rate_too_low"), ("clipped", "clipping_dominates"), ("sigmoid", "vanishing"),
     ("bad", "bad_clients"), ("few", "too_few_rounds"), ("small", "model_too_small"), ("noisy", "noise_floor"),
     ("exploding", "exploding"), ("lonely", "cohort_too_small")],
)  # fmt: skip
def test_explanation_names_the_planted_cause_first(runs, name, cause):
    assert kinds(fs.explain(runs(name)))[0] == cause


def test_explanation_of_a_healthy_run_is_that_it_is_healthy(runs):
    found = fs.explain(runs("healthy"))
    assert found.healthy, str(found)
    assert "Healthy" in str(found)


def test_explanation_names_the_bad_clients(runs):
    found = fs.explain(runs("bad"))
    truth = json.loads((runs("bad") / "data_truth.json").read_text())
    named = {int(client) for finding in found.findings if finding.kind == "bad_clients" for client in finding.clients}
    assert named == set(truth["faults"]["bad"]["clients"]) if "clients" in truth["faults"]["bad"] else len(named) == 6


def test_explanation_is_the_same_when_it_is_repeated(runs):
    one, other = fs.explain(runs("low")), fs.explain(runs("low"))
    assert one.diagnosis == other.diagnosis


def test_explanation_is_kept_and_shown_in_the_report(runs):
    path = runs("clipped")
    before = (path / "rounds.jsonl").read_bytes()
    fs.explain(path)
    kept = RunFolder.open(path).read_explanation()
    assert kept["findings"][0]["kind"] == "clipping_dominates"
    assert (path / "rounds.jsonl").read_bytes() == before
    from dashboards.report.report import write_report

    assert "clipping dominates" in write_report([path]).read_text()


@pytest.fixture
def grafana(monkeypatch):
    monkeypatch.setenv("FEDSCAPE_GRAFANA_TOKEN", TOKEN)
    with grafana_stub() as stub:
        yield stub


def test_explain_annotates_its_findings_in_grafana_once(runs, grafana, capsys):
    command = ["explain", str(runs("few")), "--record-only", "--grafana", grafana.url]
    name = run_id_of(RunFolder.open(runs("few")))
    assert main(command) == 0
    assert f"created   annotation {name} too_few_rounds" in capsys.readouterr().out
    (note,) = grafana.annotations
    assert set(note["tags"]) == {"fedscape", name, "finding", "too_few_rounds"}
    assert "Try: run three times as many rounds (--set run.rounds=18)." in note["text"]
    before = grafana.state()
    assert main([*command, "--json"]) == 0
    assert grafana.state() == before
    assert json.loads(capsys.readouterr().out)["findings"][0]["kind"] == "too_few_rounds"


def test_grafana_that_is_gone_or_refuses_costs_a_line_and_not_the_explanation(runs, grafana, capsys):
    command = ["explain", str(runs("few")), "--record-only", "--grafana"]
    grafana.faults["/api/annotations"] = (500, "broken by {token}")
    assert main([*command, grafana.url]) == 0
    out, err = capsys.readouterr()
    assert "report: " in out
    assert err.startswith(f"fedscape: findings were not annotated: {grafana.url} refused its annotations with 500")
    assert "`fedscape dashboards push --url" in err
    assert TOKEN not in out + err
    with grafana_stub() as dead:
        pass
    assert main([*command, dead.url]) == 0
    out, err = capsys.readouterr()
    assert "report: " in out
    assert "nothing answers there" in err
    assert len(err.splitlines()) == 1


def test_grafana_without_a_token_or_with_a_wrong_address_is_refused_before_looking(runs, monkeypatch, capsys):
    monkeypatch.delenv("FEDSCAPE_GRAFANA_TOKEN", raising=False)
    assert main(["explain", str(runs("few")), "--grafana", "http://127.0.0.1:1"]) == 2
    assert "FEDSCAPE_GRAFANA_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("FEDSCAPE_GRAFANA_TOKEN", TOKEN)
    assert main(["explain", str(runs("few")), "--grafana", "localhost:3000"]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("fedscape: --grafana: must start with http:// or https://")
    assert out == ""


def test_record_alone_gives_an_explanation_and_says_so(runs):
    found = fs.explain(runs("few"), looks=False, write=False)
    assert kinds(found) == ["too_few_rounds"]
    assert "only the record was read" in str(found)


def test_tried_change_helps_a_clipped_run(runs, tmp_path):
    found = fs.explain(runs("clipped"))
    tried = fs.try_change(runs("clipped"), found.findings[0], out=tmp_path / "tried")
    assert tried.helped is True
    assert tried.after < 0.5 * tried.before
    assert str(tried).startswith("It helped: validation loss")
    assert fs.open_run(tmp_path / "tried").scenario.local.clip_norm != 0.01


def test_change_that_does_nothing_is_not_called_help(runs):
    from simulator.explaining.reading import evidence_of

    path = runs("healthy")
    evidence = evidence_of(RunFolder.open(path))
    finding = fs.explain(runs("few")).findings[0]
    tried = compare(evidence, evidence, finding, path)
    assert tried.helped is None
    assert tried.before == tried.after


def test_finding_without_a_change_of_the_scenario_cannot_be_tried(runs):
    found = next(f for f in fs.explain(runs("bad")).findings if f.kind == "bad_clients")
    with pytest.raises(fs.UserError, match="has no change of the scenario to try"):
        fs.try_change(runs("bad"), found)


def test_resumed_run_forgets_its_explanation(tmp_path):
    scenario = fs.load_scenario(DIGITS, sets=ENGINE | {"run.rounds": 4, "run.checkpoint_rounds": 1})
    seen = []
    asked = type("Stop", (), {"round_finished": lambda self, line: seen.append(line)})()
    path = fs.simulate(scenario, out=tmp_path / "a", observers=[asked], stop_asked=lambda: len(seen) > 2).path
    fs.explain(path)
    assert RunFolder.open(path).read_explanation() is not None
    fs.resume(path)
    assert RunFolder.open(path).read_explanation() is None


def test_run_without_rounds_is_refused(tmp_path, runs):
    import shutil

    shutil.copytree(runs("few"), tmp_path / "empty")
    (tmp_path / "empty" / "rounds.jsonl").write_text("")
    with pytest.raises(fs.RunFolderError):
        fs.explain(tmp_path / "empty")


def test_run_with_data_from_python_needs_them_again(tmp_path):
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(300, 4)).astype(np.float32), generator.integers(0, 2, 300)
    table = {key: value for key, value in DIGITS.items() if key != "data"}
    scenario = fs.load_scenario(table, sets=ENGINE | {"run.rounds": 3, "partition.clients": 10, "algorithm.cohort": 5})
    path = fs.simulate(scenario, data=fs.arrays(x, y), out=tmp_path / "own").path
    with pytest.raises(fs.UserError):
        fs.explain(path)
    assert fs.explain(path, data=fs.arrays(x, y)).path == path


def made(name: str):
    """Data from Python with a planted cause, and changes of the scenario."""
    generator = np.random.default_rng(3)
    x = generator.normal(size=(1600, 8)).astype(np.float32)
    smooth = np.sin(x @ generator.normal(size=(8, 6)) / np.sqrt(8)).sum(1)
    centres = 0.75 * generator.normal(size=(5, 8))
    labels = generator.integers(0, 5, 1600)
    points = (centres[labels] + generator.normal(size=(1600, 8))).astype(np.float32)
    curve = {"local.local_lr": 0.02, "model.hidden": [32]}
    if name == "vanishing":
        sets = {"model.hidden": [32] * 6, "model.activation": "sigmoid", "model.initialisation": "xavier"}
        return fs.arrays(x, smooth.astype(np.float32)), curve | sets
    if name == "wrong_loss":
        return fs.arrays(x, (smooth + generator.standard_t(1.4, 1600)).astype(np.float32)), curve
    if name == "overfitting":
        y = (smooth + 0.6 * generator.normal(size=1600)).astype(np.float32)[:150]
        return fs.arrays(x[:150], y), {
            "local.local_lr": 0.02, "model.hidden": [128], "local.local_epochs": 10, "partition.clients": 10,
            "run.rounds": 80,
        }  # fmt: skip
    if name == "class_imbalance":
        return fs.arrays(points, labels, long_tail=100.0), {"model.hidden": [16]}
    assert name == "biased_participation"
    # clients of the upper classes hold few examples, and are drawn by their examples
    rare = labels >= 3
    kept = ~rare | (generator.random(1600) < 0.2)
    owners = np.where(rare, generator.integers(15, 30, 1600), generator.integers(0, 15, 1600))
    data = fs.arrays(points[kept], labels[kept], keys={"owner": owners[kept]})
    return data, {"partition": {"kind": "natural", "key": "owner"}, "algorithm.sampling": "by_examples",
                  "algorithm.weighting": "uniform"}  # fmt: skip


@pytest.mark.parametrize("cause", ["vanishing", "wrong_loss", "overfitting", "class_imbalance", "biased_participation"])
def test_explanation_names_the_planted_cause_of_data_from_python(tmp_path, cause):
    data, sets = made(cause)
    table = {key: value for key, value in DIGITS.items() if key != "data"}
    if "partition" in sets:
        table["partition"] = sets.pop("partition")
    path = fs.simulate(fs.load_scenario(table, sets=ENGINE | sets), data=data, out=tmp_path / "run").path
    found = fs.explain(path, data=data, write=False)
    assert cause in kinds(found)[:3], str(found)


def test_model_that_falls_short_alone_is_trained_on_the_pooled_sample(runs):
    small, whole = fs.explain(runs("small"), write=False), fs.explain(runs("healthy"), write=False)
    assert "trained on a pooled sample" in str(small)
    assert small.seconds > 0
    assert whole.diagnosis.strengths["model_too_small"] < 1


def test_games_of_two_players_are_refused(tmp_path: Path) -> None:
    fs.simulate(fs.load_scenario("dirac-gan", sets=["run.rounds=5"]), out=tmp_path / "run")
    with pytest.raises(fs.UserError, match="is a game of two players"):
        fs.explain(tmp_path / "run")
    assert not (tmp_path / "run" / "explanation.json").exists()
