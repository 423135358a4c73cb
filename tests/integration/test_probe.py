"""Probes of recorded runs: where the state comes from, what is played, what is written, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import flwr.serverapp.strategy
import pytest
import torch
from changed_values import VALUES, changed, keys_of
from run_folders import Capture, digits, mistake

import fedscape as fs
from clients.core.errors import RunFolderError, StrategyError, UserError
from server.record.checked.json_files import write_json
from server.record.checked.layouts import layout_of
from server.record.checked.parsing import parse_json
from server.record.records import RunFolder
from simulator.cli.main import main
from simulator.probes.file import read_probes
from simulator.probes.result import Probes
from simulator.probes.trials import Trial

ALL = ("another cohort", "another batch order", "full batch", "one local step", "half the local rate",
       "double the local rate", "all clients")  # fmt: skip


@pytest.fixture(scope="module")
def scaffold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of SCAFFOLD with a fault that begins in round 5 and partial work, with checkpoints every 3 rounds."""
    out = tmp_path_factory.mktemp("probes") / "run"
    sets = (
        *("run.keep_checkpoints_every=3", "algorithm.kind=scaffold", "algorithm.weighting=", "local.partial_work=0.4"),
        *("local.local_epochs=2", "evaluation.objective_every=1"),
        "faults.flips={kind='label_symmetric',severity=0.5,schedule={start=5.0}}",
    )
    fs.simulate(digits(*sets), out=out)
    return out


def contents(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def same(one: Probes, other: Probes) -> bool:
    """Return whether two probes have the same numbers."""
    tables = [found.to_dict() for found in (one, other)]
    for table in tables:
        del table["seconds"]
    return json.dumps(tables[0]) == json.dumps(tables[1])


@pytest.mark.parametrize("round_index", [3, 4, 5, 7])
def test_unchanged_trial_is_the_next_round_of_the_run(round_index: int, scaffold: Path) -> None:
    """From a checkpoint (3), from rounds played again (4, 5, 7), and before a fault begins (4)."""
    found = fs.probe(scaffold, round=round_index, parts=("trials",), repeats=3, record=False)
    objective = fs.open_run(scaffold).rounds["objective"]
    assert found.measure == "objective"
    assert found.own == objective[round_index + 1]
    if round_index != 4:  # there the data change between the rounds
        assert found.before == objective[round_index]
    again = {3: 0, 4: 1, 5: 2, 7: 1}[round_index]
    assert found.source == (f"{again} round{'s' * (again > 1)} played again" if again else "a checkpoint")
    assert tuple(found.trials) == ALL


def test_probe_after_the_last_round_plays_a_round_beyond_the_run(scaffold: Path) -> None:
    found = fs.probe(scaffold, parts=("trials",), repeats=3, record=False)
    assert found.round_index == 8
    assert found.own != found.before


def test_probe_changes_nothing_but_its_file_and_repeats_itself(scaffold: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(scaffold, run)
    before = contents(run)
    first = fs.probe(run, round=3)
    assert first.not_measured == {}
    after = contents(run)
    assert set(after) - set(before) == {run / "probes.json"}
    assert {file: after[file] for file in before} == before
    other = fs.probe(run, round=4, parts=("trials",), repeats=3)
    assert same(fs.probe(run, round=3), first)
    found = read_probes(RunFolder(run))
    assert list(found) == [3, 4]
    assert same(found[3], first)
    assert same(found[4], other)
    assert fs.open_run(run).problems == ()


def test_parts_have_what_they_say(scaffold: Path) -> None:
    found = fs.probe(scaffold, round=3, record=False)
    drift, bent, gradients, theory = found.drift_by_cause, found.curvature, found.gradients, found.theory
    assert drift is not None
    assert bent is not None
    assert gradients is not None
    assert theory is not None
    assert drift.clients == 8
    assert drift.total == pytest.approx(sum(drift.causes.values()) + drift.residual)
    assert abs(drift.observed - drift.total) < 5 * drift.observed_error
    assert sum(drift.shares.values()) == pytest.approx(1.0)
    assert drift.main == max(drift.causes, key=lambda name: drift.causes[name])
    assert bent.largest.value > 0
    assert bent.products == len(bent.values) <= 40
    assert gradients.noise.value > 0
    assert gradients.between.ratio.value > 1
    assert any("'scaffold'" in sentence for sentence in theory.failures)
    text = str(found)
    for words in (*ALL, "drift by cause", "heterogeneity", "curvature: L", "2 / L", "seconds:"):
        assert words in text


def test_changed_local_work_is_what_a_branch_with_its_sets_plays(tmp_path: Path) -> None:
    run = fs.simulate(
        digits("run.keep_checkpoints_every=3", "evaluation.objective_every=1", "run.rounds=4"), out=tmp_path / "run"
    )
    found = fs.probe(run.path, round=3, parts=("trials",), repeats=3)
    for name in ("half the local rate", "double the local rate", "one local step", "all clients"):
        trial = found.trials[name]
        branch = fs.branch(run.path, round=3, sets=trial.sets, out=tmp_path / name)
        expected = branch.rounds["objective"][4] - run.rounds["objective"][4]
        assert trial.differences[0] == pytest.approx(expected, abs=1e-5), name


def test_trials_that_would_change_nothing_say_why(tmp_path: Path) -> None:
    sets = ("algorithm.cohort=", "local.batch_size=full", "local.local_epochs=", "local.local_steps=1", "run.rounds=1")
    run = fs.simulate(digits(*sets), out=tmp_path / "run")
    found = fs.probe(run.path, round=0)
    skipped = {name: trial.skipped for name, trial in found.trials.items() if trial.skipped}
    assert skipped == {
        "another cohort": "all clients take part in each round",
        "all clients": "all clients take part in each round",
        "another batch order": "no random number enters the clients' work",
        "full batch": "every batch has all examples of its client",
        "one local step": "clients take one step",
    }
    assert len(found.trials["half the local rate"].differences) == 1
    drift = found.drift_by_cause
    assert drift is not None
    assert drift.total < 1e-9 * drift.ideal_square
    assert drift.observed < 1e-9 * drift.ideal_square
    assert drift.causes["gradient_noise"] == drift.causes["client_sampling"] == 0.0


@pytest.mark.parametrize(
    "sets",
    [
        ("model.norm=batch", "local.drop_last=true", "partition.min_size=16"),
        ("model.dropout=0.3",),
        ("local.optimizer=adam", "local.local_lr=0.01"),
        ("algorithm.kind=feddyn", "algorithm.weighting="),
        ("algorithm.kind=fednova",),
        ("algorithm.sampling=by_examples", "algorithm.weighting=uniform"),
        ("local.class_weights=inverse", "local.focal_gamma=1.0"),
        ("engine.kind=plain", "engine.tile="),
        ("engine.workers=2",),
    ],
    ids=" ".join,
)
def test_every_part_is_measured_of_other_work(sets: tuple[str, ...], tmp_path: Path) -> None:
    fs.simulate(digits("run.rounds=2", "run.keep_checkpoints_every=1", *sets), out=tmp_path / "run")
    found = fs.probe(tmp_path / "run", round=1, repeats=3)
    assert found.not_measured == {}
    assert found.drift_by_cause is not None
    assert found.drift_by_cause.ideal_square > 0
    assert found.drift_by_cause.causes["gradient_noise"] > 0
    assert found.curvature is not None


def test_dropout_counts_as_gradient_noise(tmp_path: Path) -> None:
    sets = ("model.dropout=0.5", "local.batch_size=full", "run.rounds=1", "algorithm.cohort=")
    fs.simulate(digits(*sets), out=tmp_path / "run")
    drift = fs.probe(tmp_path / "run", round=0, parts=("drift_by_cause",)).drift_by_cause
    assert drift is not None
    assert drift.causes["gradient_noise"] > 1e-3 * drift.ideal_square
    assert drift.causes["local_steps"] < 1e-9 * drift.ideal_square  # one epoch of full batches is one step


def test_noise_of_a_step_is_measured_in_a_round_whose_local_rate_is_0(tmp_path: Path) -> None:
    schedule = "local.schedule={kind='cosine',rounds=8}"
    run = fs.simulate(digits(schedule, "run.keep_checkpoints_every=1"), out=tmp_path / "run")
    assert run.path is not None
    before, still = (fs.probe(run.path, round=r, parts=("curvature",), repeats=40, record=False) for r in (6, 7))
    assert before.gradients is not None
    assert still.gradients is not None
    assert still.theory is not None
    assert still.theory.local_lr == 0 < before.theory.local_lr  # type: ignore[union-attr]
    assert still.gradients.noise.value == pytest.approx(before.gradients.noise.value, rel=0.3)
    assert still.gradients.averaged_noise == pytest.approx(before.gradients.averaged_noise, rel=0.3)


def test_newton_steps_have_no_drift_by_cause_and_no_limit_of_gradient_steps(tmp_path: Path) -> None:
    run = fs.simulate("quadratic-newton", out=tmp_path / "run")
    assert run.path is not None
    found = fs.probe(run.path, round=0)
    assert "the ideal takes steps along gradients" in found.not_measured["drift_by_cause"]
    assert found.theory is not None
    assert found.theory.failures == ("The local optimiser 'newton' uses curvature, and the recursion is that of SGD.",)


@pytest.mark.parametrize("order", ["simultaneous", "alternating"])
def test_game_has_no_predicted_course(order: str, tmp_path: Path) -> None:
    """The Dirac-GAN circles its equilibrium, whatever the curvature of the distance from it."""
    scenario = fs.load_scenario("dirac-gan", sets={"run.rounds": 2, "model.order": order})
    run = fs.simulate(scenario, out=tmp_path / "run")
    assert run.path is not None
    found = fs.probe(run.path, repeats=3)
    assert found.theory is not None
    assert found.theory.failures == ("The model is a game of two players, whose steps do not descend the objective.",)
    assert found.theory.limit is found.theory.contraction is found.theory.gap is None
    if order == "alternating":
        assert "the ideal moves all parameters" in found.not_measured["drift_by_cause"]
        return
    assert found.drift_by_cause is not None
    assert found.drift_by_cause.observed == pytest.approx(found.drift_by_cause.total)
    assert found.drift_by_cause.causes["heterogeneity"] == pytest.approx(0, abs=1e-10)


def test_noise_of_a_step_is_that_of_both_players(tmp_path: Path) -> None:
    changes = {"run.rounds": 1, "data.clients": 3, "local.gradient_noise": 0.1, "data.dimension": 5}
    values = []
    for order in ("simultaneous", "alternating"):
        scenario = fs.load_scenario("dirac-gan", sets={**changes, "model.order": order, "data.points": []})
        run = fs.simulate(scenario, out=tmp_path / order)
        assert run.path is not None
        found = fs.probe(run.path, round=0, parts=("curvature",), record=False)
        assert found.gradients is not None
        values.append(found.gradients.noise.value)
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_few_clients_of_many_stand_for_the_federation(tmp_path: Path) -> None:
    sets = ("partition.clients=60", "algorithm.cohort=3", "run.rounds=1", "partition.min_size=4")
    fs.simulate(digits(*sets), out=tmp_path / "run")
    some, whole = (fs.probe(tmp_path / "run", round=0, clients=n, record=False) for n in (30, 200))
    assert some.drift_by_cause is not None
    assert whole.drift_by_cause is not None
    assert (some.drift_by_cause.clients, whole.drift_by_cause.clients) == (30, 60)
    for name, share in whole.drift_by_cause.shares.items():
        assert some.drift_by_cause.shares[name] == pytest.approx(share, abs=0.2), name
    assert some.theory is not None


def test_aggregation_that_is_no_weighted_sum_has_no_drift_by_cause(tmp_path: Path) -> None:
    median = fs.Algorithm("mine", aggregation=fs.Aggregation("largest", lambda facts: facts.num_examples * 1.0,
                                                             reduce=lambda rows, weights: rows.amax(0)))  # fmt: skip
    fs.simulate(digits("run.rounds=1"), algorithm=median, out=tmp_path / "run")
    found = fs.probe(tmp_path / "run", round=0, algorithm=median, repeats=3)
    assert found.drift_by_cause is None
    assert "is no weighted sum of updates" in found.not_measured["drift_by_cause"]
    assert found.trials["double the local rate"].differences
    assert found.curvature is not None


def test_replay_that_would_take_too_long_names_rounds_with_checkpoints(scaffold: Path) -> None:
    with pytest.raises(UserError) as refused:
        fs.probe(scaffold, round=5, replay_seconds=0.0)
    text = str(refused.value)
    assert text.startswith("round: 5 has no checkpoint, and the nearest checkpoint before it is of round 3")
    assert "Allow more than replay_seconds = 0, or probe a round that has one: 0, 3, 6, 8." in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"round": 9}, "round: must be a recorded round, 0 to 8, got 9"),
        ({"round": -1}, "round: must be a recorded round, 0 to 8, got -1"),
        ({"repeats": 2}, "repeats: must be a whole number from 3 to 100, got 2"),
        ({"replay_seconds": float("nan")}, "replay_seconds: must be a number of at least 0, got nan"),
        ({"clients": 1}, "clients: must be a whole number of at least 2, got 1"),
        ({"parts": ("trial",)}, "parts: 'trial' is not a part of a probe. Nearest: 'trials'"),
    ],
    ids=str,
)
def test_argument_that_cannot_be_is_refused(arguments: dict[str, Any], message: str, scaffold: Path) -> None:
    with pytest.raises(UserError) as refused:
        fs.probe(scaffold, **arguments)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("part", "kind", "message"),
    [
        ("grid", RunFolderError, "had its clients on nodes, and a probe trains them in this process"),
        ("client_app", RunFolderError, "had its clients in a ClientApp"),
        ("strategy", StrategyError, "strategy: is your own, and probes change the cohort and the local work"),
    ],
)
def test_run_with_other_clients_or_another_strategy_is_refused_by_name(
    part: str, kind: type[UserError], message: str, scaffold: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(scaffold, run)
    facts = json.loads((run / "environment.json").read_text())
    del facts["checksum"]
    facts["run"]["from_python"] = [part]
    write_json(run / "environment.json", facts)
    with pytest.raises(kind, match=message):
        fs.probe(run)


def test_round_that_left_parameters_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    run = fs.simulate(digits("local.local_lr=1e18", "local.l2=1"), out=tmp_path / "run")
    assert run.outcome["outcome"] == "diverged"
    assert run.path is not None
    with pytest.raises(UserError, match="round: 1 left parameters that are not finite"):
        fs.probe(run.path, round=1)
    assert fs.probe(run.path, parts=("curvature",)).round_index == 0


def test_run_of_a_flower_strategy_is_refused_by_name(tmp_path: Path) -> None:
    strategy = flwr.serverapp.strategy.FedAvg(fraction_evaluate=0.0)
    fs.simulate(digits("run.rounds=1"), strategy=strategy, out=tmp_path / "run")
    with pytest.raises(StrategyError, match="is your own"):
        fs.probe(tmp_path / "run")


def test_run_with_own_parts_needs_them_again(tmp_path: Path) -> None:
    def net() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.Tanh(), torch.nn.Linear(8, 10))

    fs.simulate(digits("run.rounds=1"), model=net, out=tmp_path / "run")
    with pytest.raises(RunFolderError, match="with its own model"):
        fs.probe(tmp_path / "run")
    assert fs.probe(tmp_path / "run", round=0, model=net, repeats=3).not_measured == {}


def test_probe_on_the_command_line(scaffold: Path, tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    shutil.copytree(scaffold, run)
    assert main(["probe", str(run), "--round", "3", "--only", "trials", "--repeats", "3"]) == 0
    out = capsys.readouterr().out
    assert "next round: objective" in out
    assert out.splitlines()[-1] == f"report: {run / 'report.html'}"
    assert '"theory":{"predicted":' in (run / "report.html").read_text("utf-8")
    assert main(["probe", str(run), "--round", "3", "--only", "trials", "--repeats", "3", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [trial["name"] for trial in shown["trials"]] == list(ALL)
    assert mistake(capsys, "probe", str(run), "--round", "12").startswith("round: must be a recorded round, 0 to 8")
    assert mistake(capsys, "probe", str(tmp_path / "none")).count("none")


def test_damaged_file_of_probes_is_one_line(scaffold: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(scaffold, run.path)
    fs.probe(run.path, round=3, parts=("trials",), repeats=3)
    kept = json.loads(run.probes.read_text())
    del kept["checksum"]
    for change, words in (({"version": 2}, "has probes of layout 2, and this version reads 1"),
                          ({"trials": 3}, "probes.0.trials must be a list")):  # fmt: skip
        write_json(run.probes, {"probes": [kept["probes"][0] | change]})
        with pytest.raises(RunFolderError, match=words):
            read_probes(run)
    run.probes.unlink()
    assert read_probes(run) == {}


def test_reader_of_probes_takes_or_names_every_changed_value(scaffold: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(scaffold, run.path)
    fs.probe(run.path, round=3, repeats=3)
    whole = {"probes": json.loads(run.probes.read_text())["probes"]}
    layout, read = layout_of("probes.json"), 0
    for keys in keys_of(whole):
        for new in VALUES:
            try:
                value = parse_json(json.dumps(changed(whole, keys, new)).encode())
                layout(value)
            except ValueError:  # a Misfit is one
                continue
            read += 1
            for entry in value["probes"]:
                assert str(Probes.from_dict(run.path, entry))
    assert read > 100


def test_trial_has_mean_spread_and_standard_error() -> None:
    trial = Trial("a change", differences=(1.0, 2.0, 3.0))
    assert (trial.mean, trial.spread) == (2.0, 1.0)
    assert trial.error == pytest.approx(1 / 3**0.5)
