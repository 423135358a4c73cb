"""Where a surface takes its states from: kept files, or rounds that are played again with the run's bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_folders import digits
from torch import nn

import fedscape as fs
from clients.core.errors import RunFolderError, StrategyError, UserError
from clients.core.parameters import Layout
from simulator.surface.planes import principal_plane, random_plane, share_of_variance

KEPT = ("run.keep_parameters_every=1", "engine.tile=4")
SCAFFOLD = ("algorithm.kind=scaffold", "algorithm.weighting=")


def files_of(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def bits(found: fs.Surface) -> list[Any]:
    ends = found.ends
    assert ends is not None
    return [found.loss, found.server.places, found.server.loss, ends.places, ends.loss, ends.numbers]


@pytest.mark.parametrize(
    "sets",
    [(), SCAFFOLD, ("model.norm=batch", "local.buffers=local", "local.drop_last=true", "partition.min_size=16"),
     ("faults.flips={kind='label_symmetric',severity=0.5,schedule={start=2.0}}",)],
    ids=["fedavg", "scaffold", "own-buffers", "faults"],
)  # fmt: skip
def test_states_that_are_played_again_are_those_of_the_run(sets: tuple[str, ...], tmp_path: Path) -> None:
    kept = fs.simulate(digits(*sets, *KEPT), out=tmp_path / "kept")
    none = fs.simulate(digits(*sets), out=tmp_path / "none")
    partly = fs.simulate(digits(*sets, "run.keep_checkpoints_every=3"), out=tmp_path / "partly")
    before = files_of(tmp_path)
    surfaces = [fs.surface(run, size=3, round=6) for run in (kept, none, partly)]
    assert files_of(tmp_path) == before
    for other in surfaces[1:]:
        for one, two in zip(bits(surfaces[0]), bits(other), strict=True):
            np.testing.assert_array_equal(one, two)
    assert surfaces[0].server.numbers.tolist() == list(range(9))
    assert not any(note.startswith("Rounds 1 to") for note in surfaces[0].notes)
    assert "Rounds 1 to 7 were played again to find the states." in surfaces[1].notes
    assert surfaces[0].ends is not None
    clients = kept.clients.where(round=6)["client"]
    assert surfaces[0].ends.numbers.tolist() == clients.tolist()


def test_ends_average_to_the_next_state(tmp_path: Path) -> None:
    """FedAvg by examples: the weighted mean of the ends is the state after the round."""
    run = fs.simulate(digits("algorithm.weighting=examples", "run.dtype=float64", *KEPT), out=tmp_path / "run")
    found = fs.surface(run, size=3, round=5)
    assert found.ends is not None
    rows = run.clients.where(round=5)
    weights = rows["num_examples"] / rows["num_examples"].sum()
    np.testing.assert_allclose(weights @ found.ends.places, found.server.places[5], atol=1e-12)


def test_states_are_named_by_round_run_module_and_tensors(tmp_path: Path) -> None:
    run = fs.simulate(digits(*KEPT), out=tmp_path / "run")
    other = fs.simulate(digits("run.seed=9", "run.rounds=3"), out=tmp_path / "other")
    model = run.model()
    for same in (8, "8", "last", run.path, str(run.path), model, model.state_dict(), run.params):
        line = fs.surface(run, [0, 4, 8], size=3, line=(same, other.path)).line
        assert line is not None
        assert line.distance == pytest.approx(float((run.params - other.params).double().norm()), rel=1e-6)
        assert line.loss[0] == pytest.approx(fs.surface(run, size=3).server.loss[-1], rel=1e-6)


def test_best_model_is_read_from_its_file(tmp_path: Path) -> None:
    run = fs.simulate(digits(*KEPT), out=tmp_path / "run")
    assert run.path is not None
    if not (run.path / "model.best.safetensors").exists():
        with pytest.raises(RunFolderError, match=r"model\.best\.safetensors: does not exist"):
            fs.surface(run, size=3, line=("first", "best"))
        (run.path / "model.best.safetensors").write_bytes((run.path / "model.safetensors").read_bytes())
    line = fs.surface(run, size=3, line=("first", "best")).line
    assert line is not None
    assert line.ends == ("round 0", "the best model")


def test_replay_beyond_the_budget_is_refused_and_ends_are_left_out(tmp_path: Path) -> None:
    none = fs.simulate(digits(), out=tmp_path / "none")
    message = r"seconds: is 0, and 3 states were not kept: .* Allow it: seconds=[1-9]\d*; .*keep_parameters_every"
    with pytest.raises(UserError, match=message):
        fs.surface(none, [1, 3, 5], size=3, seconds=0)
    with pytest.raises(UserError, match=r"seconds: is 0, and [78] states were not kept"):
        fs.surface(none, size=3, seconds=0)
    rough = fs.surface(none, "random", size=3, seconds=0)
    assert rough.server.numbers[-1] == 8
    assert any(note.startswith("The path has the ") for note in rough.notes)
    kept = fs.simulate(digits(*KEPT), out=tmp_path / "kept")
    found = fs.surface(kept, size=3, seconds=0)
    assert found.ends is None
    assert any(note.startswith("The clients' ends of round 8 are left out") for note in found.notes)
    with pytest.raises(UserError, match="seconds: is 0, and the state of round 7 was not kept"):
        fs.surface(kept, "clients", size=3, seconds=0)


def test_initial_model_is_found_without_playing_a_round_again(tmp_path: Path) -> None:
    run = fs.simulate(digits("run.keep_checkpoints_every=3"), out=tmp_path / "run")
    found = fs.surface(run, "random", size=3, seconds=0, line=(0, 3))
    assert found.line is not None
    assert found.line.ends == ("round 0", "round 3")
    assert not any("were played again" in note for note in found.notes)


def test_ends_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    run = fs.simulate(digits("model.kind=mlp", "local.local_lr=1e18", *KEPT), out=tmp_path / "run")
    assert run.outcome["outcome"] == "diverged"
    found = fs.surface(run, "random", size=3, round=1)
    assert found.ends is not None
    assert np.isfinite(found.ends.places).all()
    count = len(found.ends.numbers)
    assert f"{count} of the 4 clients of the round are shown: the ends of {4 - count} are not finite." in found.notes
    assert 0 < count < 4
    assert np.isfinite(fs.surface(run, "clients", size=3, round=1).x).all()


def test_ends_of_a_round_in_which_all_clients_diverge_are_refused(tmp_path: Path) -> None:
    values = ("local.local_lr=1e18", "local.l2=1")
    run = fs.simulate(digits("model.kind=mlp", *values, *KEPT), out=tmp_path / "run")
    with pytest.raises(StrategyError, match="ends: of the clients of round 1 are not finite"):
        fs.surface(run, "clients", size=3, round=1)
    notes = fs.surface(run, "random", size=3, round=1).notes
    assert "The ends of the clients of round 1 are not finite: their training diverges." in notes


def test_batch_statistics_are_those_of_one_state(tmp_path: Path) -> None:
    sets = ("model.norm=batch", "local.drop_last=true", "partition.min_size=16")
    found = fs.surface(fs.simulate(digits(*sets, *KEPT), out=tmp_path / "run"), size=3)
    assert "All points of the plane have the buffers (such as batch statistics) of round 8." in found.notes
    assert np.isfinite(found.loss).all()


def test_run_with_parts_from_python_needs_them(tmp_path: Path) -> None:
    def net() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    run = fs.simulate(digits("run.rounds=3"), model=net, out=tmp_path / "run")
    with pytest.raises(RunFolderError, match="was started from Python with its own model"):
        fs.surface(run, size=3)
    assert fs.surface(run, size=3, model=net).loss.shape == (3, 3)


def test_branch_is_drawn_from_its_first_round(tmp_path: Path) -> None:
    run = fs.simulate(digits("run.keep_checkpoints_every=3"), out=tmp_path / "run")
    assert run.path is not None
    other = fs.branch(run.path, round=3, sets={"local.local_lr": 0.02}, out=tmp_path / "branch")
    found = fs.surface(other, size=3)
    assert found.server.numbers[0] == 3
    assert "Rounds 4 to 7 were played again to find the states." in found.notes
    assert found.server.numbers[-1] == 8


def test_ends_of_a_users_strategy_are_left_out(tmp_path: Path) -> None:
    from flwr.serverapp.strategy import FedAvg

    strategy = FedAvg(fraction_train=0.5, fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=2)
    run = fs.simulate(digits("run.rounds=3", *KEPT), strategy=strategy, out=tmp_path / "run")
    found = fs.surface(run, size=3, strategy=strategy)
    assert found.ends is None
    assert any(note.startswith("The ends of clients cannot be found") for note in found.notes)
    with pytest.raises(StrategyError, match="ends: of clients cannot be found"):
        fs.surface(run, "clients", size=3, strategy=strategy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plane": "paths"}, "plane: 'paths' is not a plane. Nearest: 'path'"),
        ({"plane": [0, 1]}, "plane: must be 3 states in a list, got 2 states"),
        ({"plane": 3}, "plane: must be 3 states in a list, got a int"),
        ({"plane": [0, 1, 99]}, "round: must be from 0 to 8, the last recorded round, got 99"),
        ({"plane": [4, 4, 8]}, "plane: needs three states that do not lie on a line"),
        ({"plane": [0, 4, None]}, "states: must be a round, 'first'"),
        ({"plane": [0, 4, torch.zeros(3)]}, r"states: must be parameters \(\d+,\), got a tensor \(3,\)"),
        ({"plane": [0, 4, nn.Linear(2, 2)]}, "states: Linear has none for"),
        ({"plane": [0, 4, "runs/nowhere"]}, "runs/nowhere"),
        ({"size": 2}, "size: must be a whole number from 3 to 201, got 2"),
        ({"size": 4.5}, "size: must be a whole number"),
        ({"of": "loss"}, "of: 'loss' is not a loss. All: objective, validation"),
        ({"round": 9}, "round: must be a whole number from 0 to 8, got 9"),
        ({"round": 0, "plane": "clients"}, "round: must be at least 1"),
        ({"line": (0,)}, "line: must be 2 states in a list, got 1 states"),
        ({"line": 3}, "line: must be 2 states"),
        ({"hessian": -1}, "hessian: must be a whole number from 0"),
        ({"examples": 0}, "examples: must be a whole number from 1"),
        ({"seconds": -1}, "seconds: must be a number of at least 0"),
    ],
    ids=str,
)
def test_wrong_argument_is_named(change: dict[str, Any], message: str, wrong_run: fs.Run) -> None:
    with pytest.raises(UserError, match=message):
        fs.surface(wrong_run, **{"size": 3, **change})


@pytest.fixture(scope="module")
def wrong_run(tmp_path_factory: pytest.TempPathFactory) -> fs.Run:
    return fs.simulate(digits(*KEPT), out=tmp_path_factory.mktemp("wrong") / "run")


def test_unrecorded_run_and_what_is_no_run_are_refused() -> None:
    run = fs.simulate(digits("run.rounds=1"), record=False)
    with pytest.raises(UserError, match="run: was not recorded"):
        fs.surface(run)
    with pytest.raises(UserError, match="run: must be a run or its folder, got a int"):
        fs.surface(3)  # type: ignore[arg-type]


def test_model_of_one_parameter_has_no_plane(tmp_path: Path) -> None:
    run = fs.simulate("quadratic-two-clients", out=tmp_path / "run")
    with pytest.raises(UserError, match="plane: needs two parameters, and the model has one"):
        fs.surface(run)


def test_states_that_are_equal_have_no_plane() -> None:
    layout = Layout.of({"w": torch.zeros(2, 3)})
    states = torch.ones(4, 6)
    with pytest.raises(UserError, match="plane: has no direction: all of its states are equal"):
        principal_plane(states, states.mean(0), states[-1], layout, seed=0)
    with pytest.raises(UserError, match=r"plane: is 'random', .*all of these are 0"):
        random_plane(torch.zeros(6), layout, seed=0)
    plane = random_plane(states[0], layout, seed=0)
    assert share_of_variance(plane, states) is None


def test_path_on_a_line_gets_a_second_direction(tmp_path: Path) -> None:
    run = fs.simulate(digits("run.rounds=1"), out=tmp_path / "run")
    found = fs.surface(run, size=3)
    assert "The states lie on a line; the second direction is random." in found.notes
    axes = found.directions.axes
    torch.testing.assert_close(axes @ axes.T, torch.eye(2, dtype=torch.float64))


def test_aggregation_without_an_objective_is_refused(tmp_path: Path) -> None:
    nothing = fs.Aggregation("nothing", weights=lambda facts: np.zeros(len(facts.num_examples)))
    algorithm = fs.Algorithm("mine", aggregation=nothing)
    run = fs.simulate(digits("run.rounds=2"), algorithm=algorithm, out=tmp_path / "run")
    with pytest.raises(UserError, match=r"of: is 'objective', which needs weights .*Use of='validation'\."):
        fs.surface(run, "random", size=3, algorithm=algorithm)
    assert fs.surface(run, "random", size=3, of="validation", algorithm=algorithm).loss.shape == (3, 3)
