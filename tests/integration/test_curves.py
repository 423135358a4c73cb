"""The curves of the global objective and of the test set: when they are measured, and that they decide nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import FedAvg
from run_folders import assert_same_run, client_rows, digits, stop_after

import fedscape as fs
from clients.core.errors import ScenarioError, UserError
from clients.core.examples import Examples
from clients.core.population import Population
from server.convergence.facts import FACTS, METRICS
from server.convergence.outcome import _RATE_METRICS
from server.record.jsonlines import to_json
from server.rounds.loop import BY_THE_CLOCK
from simulator.cli.main import main
from simulator.runs.run import Run, resume, simulate

CURVES = ("evaluation.objective_every=3", "evaluation.test_every=3")
OF_THE_CURVES = ("objective", "objective_penalty")


def is_of_a_curve(key: str) -> bool:
    return key.startswith("test_") or key in OF_THE_CURVES


def without_curves(run: Run) -> list[str]:
    """Return the lines of a run without the curves and the clock."""
    kept = ({k: v for k, v in line.items() if not is_of_a_curve(k)} for line in run.rounds.lines)
    return [to_json({k: v for k, v in line.items() if k not in BY_THE_CLOCK}) for line in kept]


def measured(run: Run, key: str) -> list[int]:
    return [line["round"] for line in run.rounds.lines if line.get(key) is not None]


def outcome_without_test(run: Run) -> str:
    return to_json({k: v for k, v in run.outcome.items() if not k.startswith("test_")})


@pytest.mark.parametrize("kind", ["fedavg", "scaffold", "fedadam"])
def test_curves_kept_parameters_and_observers_move_no_other_number(kind: str, tmp_path: Path) -> None:
    class Spoiler:
        """Changes everything that it receives, and draws from every global generator."""

        def round_finished(self, line: dict[str, Any]) -> None:
            line["train_loss"] = line["validation_loss"] = 0.0
            line["criteria"].clear()

        def snapshot_taken(self, snapshot: fs.Snapshot) -> None:
            for values in snapshot.clients.values():
                values[:] = 0
            for tensor in (*snapshot.parameters().values(), *snapshot.model().state_dict().values()):
                tensor.zero_()
            np.random.seed(snapshot.round_index)  # noqa: NPY002
            torch.manual_seed(snapshot.round_index)

    sets = (f"algorithm.kind={kind}", "model.dropout=0.2")
    plain = simulate(digits(*sets), out=tmp_path / "plain")
    both = (*sets, *CURVES, "run.keep_parameters_every=2")
    curved = simulate(digits(*both), out=tmp_path / "curved", observers=[Spoiler()])
    assert without_curves(curved) == without_curves(plain)
    assert curved.verdict == plain.verdict
    assert torch.equal(curved.params, plain.params)
    assert to_json(curved.outcome | {"record": ""}) == to_json(plain.outcome | {"record": ""})
    assert measured(curved, "objective") == measured(curved, "test_loss") == [0, 3, 6, 8]
    rows = [client_rows(tmp_path / name) for name in ("plain", "curved")]
    for name, column in rows[0].items():
        np.testing.assert_array_equal(column, rows[1][name])


def test_last_value_of_the_test_curve_is_that_of_the_outcome() -> None:
    run = simulate(digits(*CURVES), record=False)
    last = run.rounds.lines[-1]
    for key in ("test_loss", "test_accuracy", "test_error", "test_balanced_accuracy", "test_macro_f1"):
        assert last[key] == run.outcome[key]


def test_run_that_ends_between_measurements_measures_its_last_round() -> None:
    sets = ("evaluation.objective_every=7", "evaluation.test_every=7", "convergence.stop=any",
            "convergence.target.at_least=0.12", "convergence.target.hold=1", "convergence.min_rounds=3")  # fmt: skip
    run = simulate(digits(*sets), record=False)
    assert run.verdict.headline.startswith("Stopped on target at round ")
    assert measured(run, "objective") == measured(run, "test_loss") == [0, run.verdict.round_index]
    assert run.verdict.round_index not in (0, 7, 8)


def blobs(k: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng((6, k))
    y = np.arange(20) % 2
    return random.normal(size=(20, 3)) + 1.5 * y[:, None] * (1, -1, 0.5), y


def population(test: tuple[np.ndarray, np.ndarray] | None) -> Population:
    return fs.custom_population(blobs, [20] * 6, outputs=2, validation=blobs(90), test=test)


WATCHED = ("data=", "partition=", "model.kind=softmax", "model.hidden=", "model.dropout=", "model.norm=",
           "convergence.plateau.patience=3", "convergence.gap.below=0.5", "convergence.settled.below=1e-3",
           "evaluation.objective_every=1", "evaluation.test_every=1", "evaluation.gradient_every=2",
           "evaluation.baselines=true", "convergence.stop=any", "run.rounds=25", "convergence.target.at_least=0.9",
           "convergence.target.metric=validation_accuracy")  # fmt: skip


def test_test_examples_decide_nothing_in_a_run() -> None:
    """Other test examples, the same, upside down or of nonsense, change the test scores and no other number."""
    x, y = blobs(91)
    scenario = digits(*WATCHED)
    right, wrong, huge = (
        simulate(scenario, data=population(test), record=False) for test in ((x, y), (x, 1 - y), (x * 1e30, y))
    )
    assert measured(right, "test_loss") == list(range(len(right.rounds)))
    assert right.outcome["test_accuracy"] > 0.7 > 0.3 > wrong.outcome["test_accuracy"]
    for other in (wrong, huge):
        assert (other.rounds["test_loss"] != right.rounds["test_loss"])[1:].all()  # all scores are 0 before round 1
        assert without_curves(other) == without_curves(right)
        assert other.verdict == right.verdict
        assert torch.equal(other.params, right.params)
        for key in ("rate", "to_target", "drift", "client_spread", "outcome", "round"):
            assert other.outcome.get(key) == right.outcome.get(key)


def test_no_decision_of_a_run_can_name_a_test_metric() -> None:
    assert not [name for name in (*FACTS, *METRICS, *_RATE_METRICS) if name.startswith("test")]
    for criterion in ("plateau", "target"):
        with pytest.raises(ScenarioError, match="test examples decide nothing"):
            digits(f"convergence.{criterion}={{metric='test_loss', at_most=1.0}}" if criterion == "target"
                   else "convergence.plateau.metric=test_loss")  # fmt: skip


def test_objective_can_end_a_run() -> None:
    sets = ("convergence.target.metric=objective", "convergence.target.at_least=", "convergence.target.at_most=2.2",
            "convergence.target.hold=1", "convergence.stop=any", "convergence.plateau=",
            "convergence.agreement=")  # fmt: skip
    run = simulate(digits("evaluation.objective_every=2", *sets), record=False)
    assert run.verdict.headline.startswith("Stopped on target at round ")
    assert run.verdict.criteria == ("target",)
    assert "global objective" in run.verdict.reasons[0]
    last = run.rounds.lines[-1]
    assert last["objective"] <= 2.2
    assert last["round"] % 2 == 0
    with pytest.raises(UserError, match=r"needs objective .*needs evaluation\.objective_every"):
        simulate(digits(*sets), record=False)


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold"])
def test_resumed_run_has_the_curves_and_parameters_of_an_uninterrupted_one(algorithm: str, tmp_path: Path) -> None:
    scenario = digits(*CURVES, "run.keep_parameters_every=3", f"algorithm.kind={algorithm}", "run.checkpoint_rounds=2")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    simulate(scenario, out=whole)
    simulate(scenario, out=parts, stop_asked=stop_after(4))
    assert fs.open_run(parts).kept_rounds == [0, 3]
    resume(parts)
    assert_same_run(parts, whole)
    assert fs.open_run(parts).kept_rounds == fs.open_run(whole).kept_rounds == [0, 3, 6, 8]
    for file in (whole / "parameters").iterdir():
        assert (parts / "parameters" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("kind", ["plain", "stacked"])
def test_both_engines_measure_the_same_objective_at_the_same_model(kind: str) -> None:
    tile = "engine.tile=" if kind == "plain" else "engine.tile=4"
    run = simulate(digits(*CURVES, f"engine.kind={kind}", tile), record=False)
    reference = simulate(digits(*CURVES), record=False)
    assert run.rounds.lines[0]["objective"] == reference.rounds.lines[0]["objective"]
    np.testing.assert_allclose(run.rounds["objective"], reference.rounds["objective"], rtol=1e-4)


def test_foreign_strategy_has_the_objective_by_examples() -> None:
    changes = (*CURVES, "run.rounds=3", "evaluation.federated_every=0")
    foreign = simulate(
        digits(*changes, "algorithm.cohort="), strategy=FedAvg(fraction_evaluate=0.0), record=False
    ).rounds
    ours = simulate(digits(*changes, "algorithm.cohort="), record=False).rounds
    assert foreign["objective"][0] == ours["objective"][0]
    np.testing.assert_allclose(foreign["objective"][3], ours["objective"][3], rtol=1e-4)
    np.testing.assert_allclose(foreign["test_loss"][3], ours["test_loss"][3], rtol=1e-4)


def test_data_without_a_test_set_are_refused() -> None:
    with pytest.raises(ScenarioError, match=r"evaluation\.test_every: is 1, and the data have no central test"):
        simulate(digits(*WATCHED), data=population(None), record=False)
    quadratic = fs.load_scenario("quadratic-two-clients", sets=["evaluation.test_every=1"])
    with pytest.raises(ScenarioError, match=r"objective_every measures the objective itself"):
        simulate(quadratic, record=False)


@pytest.mark.parametrize("key", ["evaluation.objective_every", "evaluation.test_every", "run.keep_parameters_every"])
def test_negative_numbers_of_rounds_are_refused(key: str) -> None:
    with pytest.raises(ScenarioError, match=rf"{key}: must be at least 0|{key}: must be >= 0"):
        digits(f"{key}=-1")


def test_costs_are_stated_before_the_run(tmp_path: Path) -> None:
    class Facts:
        notices: tuple[str, ...] = ()

        def run_started(self, facts: dict[str, Any]) -> None:
            self.notices = facts.get("notices", ())

    seen, unrecorded, off = Facts(), Facts(), Facts()
    changes = (*CURVES, "run.keep_parameters_every=3", "run.rounds=2")
    run = simulate(digits(*changes), out=tmp_path / "run", observers=[seen])
    clients = np.count_nonzero(run.session.population.sizes)
    passes = f"each measurement evaluates all {run.session.population.num_examples:,} training examples"
    assert f"evaluation.objective_every = 3: {passes} of {clients} clients" in seen.notices
    size = sum(tensor.nbytes for tensor in run.model().state_dict().values())
    assert (
        f"run.keep_parameters_every = 3: up to 2 files of {size / 1000:.2g} kB each, {size / 500:.2g} kB"
        in seen.notices
    )
    simulate(digits(*changes), record=False, observers=[unrecorded])
    assert "run.keep_parameters_every = 3 has no effect: nothing is recorded" in unrecorded.notices
    simulate(digits("run.rounds=1", "evaluation.federated_every=1"), record=False, observers=[off])
    assert not [notice for notice in off.notices if "_every" in notice]


def test_runs_without_the_new_keys_resume(tmp_path: Path) -> None:
    """A scenario.toml of before has none of the keys; the checkpoint's fingerprint is the same without them."""
    folder = tmp_path / "run"
    simulate(digits(), out=folder, stop_asked=stop_after(3))
    text = (folder / "scenario.toml").read_text("utf-8")
    keys = ("objective_every", "test_every", "keep_parameters_every")
    old = "".join(line for line in text.splitlines(keepends=True) if not line.startswith(keys))
    assert old.count("\n") == text.count("\n") - 3
    (folder / "scenario.toml").write_text(old, "utf-8")
    assert resume(folder).verdict.outcome == "stopped"


def test_command_line_shows_what_the_curves_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [word for change in ("run.rounds=1", "evaluation.baselines=false", *CURVES) for word in ("--set", change)]
    assert main(["run", "digits-label-skew", *sets, "--out", str(tmp_path / "run")]) == 0
    assert "evaluation.objective_every = 3: each measurement evaluates all 1,437 training" in capsys.readouterr().out


def test_test_set_of_each_round_is_that_rounds(tmp_path: Path) -> None:
    """A population whose test set changes over rounds is evaluated on the test set of the round."""
    first, then = population(blobs(91)), population(blobs(92))
    assert then.test is not None
    moving = replace(first, history=replace(first.history, schedule=lambda r: first if r < 2 else then))
    run = simulate(digits(*WATCHED, "convergence.stop=never", "run.rounds=3"), data=moving, record=False)
    on_then = float(score(run.model(), then.test))
    assert run.rounds.lines[-1]["test_loss"] == pytest.approx(on_then, rel=1e-5)


def score(model: torch.nn.Module, examples: Examples) -> torch.Tensor:
    with torch.no_grad():
        return torch.nn.functional.cross_entropy(model(examples.features), examples.targets)


LOOKS = ("convergence.target.metric=federated_accuracy", "convergence.target.at_least=0.99", "run.rounds=1",
         "evaluation.federated_every=2", "evaluation.baselines=false")  # fmt: skip


@pytest.mark.parametrize("name", ["synthetic-stragglers", "city-activity"])
def test_criterion_on_test_examples_that_clients_hold_out_is_refused_or_stated(name: str) -> None:
    """In these data the central test set is what clients hold out: a target on it would see the test curve's data."""
    small = ("data.clients=8", "algorithm.cohort=2", "convergence.plateau=", "convergence.agreement=")
    with pytest.raises(ScenarioError, match=r"test_every: is 1, and the test curve would not be of unseen"):
        simulate(fs.load_scenario(name, sets=[*small, *LOOKS, "evaluation.test_every=1"]), record=False)

    class Facts:
        notices: tuple[str, ...] = ()

        def run_started(self, facts: dict[str, Any]) -> None:
            self.notices = tuple(facts.get("notices", ()))

    seen, unseen = Facts(), Facts()
    simulate(fs.load_scenario(name, sets=[*small, *LOOKS]), record=False, observers=[seen])
    assert any("federated_accuracy, and what clients hold out are central test" in notice for notice in seen.notices)
    blind = [*small, *LOOKS[1:], "convergence.target.metric=validation_accuracy", "evaluation.test_every=1"]
    simulate(fs.load_scenario(name, sets=blind), record=False, observers=[unseen])
    assert not any("unseen" in notice for notice in unseen.notices)


def test_criterion_on_other_examples_that_clients_hold_out_is_allowed() -> None:
    sets = [*LOOKS, "convergence.target.hold=1", "evaluation.test_every=1", "data.client_test_fraction=0.2"]
    run = simulate(digits(*sets), record=False)
    assert measured(run, "test_loss") == [0, 1]
