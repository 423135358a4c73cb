"""verify and bisect: an equal run is equal, and a planted flipped bit is named by round, client and tensor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from run_folders import digits, stop_after
from strange_grid import StrangeGrid
from torch import Tensor

from clients.core.errors import RunFolderError, UserError
from clients.engines.stacked import StackedEngine
from clients.training.work import CohortUpdate, CohortWork
from server.record.checked.json_files import write_json
from server.record.jsonlines import RoundWriter
from server.record.records import RunFolder
from simulator.apps import apps
from simulator.cli.exit_codes import EXIT_DIFFERENT, EXIT_NOT_HERE, EXIT_OK
from simulator.cli.main import main
from simulator.replay.bisect import bisect
from simulator.replay.branch import branch
from simulator.replay.verify import verify
from simulator.runs import session
from simulator.runs.record import open_run
from simulator.runs.run import resume, simulate

KEPT = "run.keep_checkpoints_every=3"
SCAFFOLD = ("algorithm.kind=scaffold", "algorithm.weighting=", KEPT)
ROUND, PLACE = 5, 70
"""The round in which a bit is flipped, and the parameter: one of the first layer's weights."""


class FlippingEngine(StackedEngine):
    """Flips one bit of the second client's update in one round, as a broken memory might."""

    bit = 20

    def train(self, work: CohortWork, client_state: Mapping[str, Tensor]) -> tuple[CohortUpdate, dict[str, Tensor]]:
        update, states = super().train(work, client_state)
        if work.round_index == ROUND and len(update.clients) > 1:
            update.params.view(torch.int32)[1, PLACE] ^= 1 << self.bit
        return update, states


@pytest.fixture
def flipping(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Return a function: from then on, engines flip a bit; `None` restores them."""
    real = session.plan_engine

    def plan(*arguments: Any, **named: Any) -> Any:
        engine, chosen = real(*arguments, **named)
        return FlippingEngine(engine.task, tile=engine.tile, native=chosen.native), chosen

    def act(bit: int | None) -> None:
        monkeypatch.setattr(session, "plan_engine", real if bit is None else plan)
        monkeypatch.setattr(FlippingEngine, "bit", bit)

    yield act
    monkeypatch.undo()


def second_client(path: Path) -> int:
    """Return the client whose bit is flipped."""
    return int(open_run(path).clients.where(round=ROUND)["client"][1])


@pytest.mark.parametrize(
    "sets",
    [
        (),
        SCAFFOLD,
        ("run.certificate=clients",),
        ("faults.flips={kind='label_symmetric',severity=0.5,schedule={start=2.0}}", "run.keep_parameters_every=2"),
        ("drifts.turn={kind='abrupt',start=3.0}", "algorithm.kind=fedadam"),
        ("model.norm=batch", "local.buffers=local", "local.drop_last=true", "partition.min_size=16"),
        ("engine.workers=2",),
        (
            "convergence.stop=any",
            "convergence.plateau.patience=2",
            "convergence.plateau.min_delta=0.1",
            "run.rounds=60",
        ),
    ],
    ids=lambda sets: sets[0] if sets else "fedavg",
)
def test_run_is_equal_to_its_replay(sets: Sequence[str], tmp_path: Path) -> None:
    run = simulate(digits(*sets), out=tmp_path / "run")
    found = verify(tmp_path / "run")
    assert found.result == "equal", str(found)
    assert (found.first_round, found.last_round) == (0, run.verdict.round_index)
    assert found.hashed == run.verdict.round_index + 1
    assert str(found) == f"equal: rounds 0 to {run.verdict.round_index} have the same bits"


def test_verification_changes_nothing_in_the_folder(tmp_path: Path) -> None:
    simulate(digits(KEPT, "run.rounds=3"), out=tmp_path / "run")
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.rglob("*") if p.is_file()}
    verify(tmp_path / "run")
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.rglob("*") if p.is_file()} == before


def test_verification_stops_after_the_rounds_that_are_named(tmp_path: Path) -> None:
    simulate(digits(), out=tmp_path / "run")
    assert verify(tmp_path / "run", rounds=3).last_round == 3
    assert verify(tmp_path / "run", rounds=300).last_round == 8
    for wrong in (0, -1, 2.5, True):
        with pytest.raises(UserError, match="rounds: must be a whole number of at least 1"):
            verify(tmp_path / "run", rounds=wrong)  # type: ignore[arg-type]


def test_interrupted_and_resumed_runs_are_equal_to_their_replays(tmp_path: Path) -> None:
    simulate(digits(*SCAFFOLD), out=tmp_path / "run", stop_asked=stop_after(4))
    found = verify(tmp_path / "run")
    assert (found.result, found.last_round) == ("equal", 4)
    resume(tmp_path / "run")
    assert verify(tmp_path / "run").last_round == 8


def test_branch_is_verified_from_its_first_round(tmp_path: Path) -> None:
    simulate(digits(*SCAFFOLD), out=tmp_path / "run")
    branch(tmp_path / "run", round=3, sets=["local.local_lr=0.01"], out=tmp_path / "branch")
    found = verify(tmp_path / "branch")
    assert (found.result, found.first_round, found.last_round) == ("equal", 4, 8)
    with pytest.raises(UserError, match="rounds: must be after 3, where the branch begins, got 2"):
        verify(tmp_path / "branch", rounds=2)


@pytest.mark.parametrize("certificate", ["state", "clients"])
@pytest.mark.parametrize("bit", [0, 20])
def test_flipped_bit_is_named_by_verify_and_bisect(
    bit: int, certificate: str, flipping: Callable[[int | None], None], tmp_path: Path
) -> None:
    """The lowest bit is lost in the sum: the state stays equal, and the client is named all the same."""
    scenario = digits(*SCAFFOLD, f"run.certificate={certificate}")
    simulate(scenario, out=tmp_path / "sound")
    flipping(bit)
    simulate(scenario, out=tmp_path / "flipped")
    flipping(None)
    client, tensors = second_client(tmp_path / "flipped"), () if bit == 0 else ("parameters/0.weight",)
    found = verify(tmp_path / "flipped")
    assert found.result == "different"
    assert found.first_difference is not None
    assert found.first_difference.round_index == ROUND
    assert found.first_difference.clients == (client,)
    assert found.first_difference.tensors == tensors
    parting = bisect(tmp_path / "sound", tmp_path / "flipped")
    assert parting.first is not None
    assert (parting.first.round_index, parting.first.clients, parting.first.tensors) == (ROUND, (client,), tensors)
    assert parting.keys == {}
    assert parting.replays[0] == f"{tmp_path / 'sound'} is what its scenario gives"
    assert parting.replays[1].startswith(f"{tmp_path / 'flipped'} is not what its scenario gives here: round {ROUND}, ")
    assert verify(tmp_path / "sound").result == "equal"


def test_record_without_hashes_is_compared_by_its_numbers(
    flipping: Callable[[int | None], None], tmp_path: Path
) -> None:
    scenario = digits("run.certificate=off")
    simulate(scenario, out=tmp_path / "sound")
    found = verify(tmp_path / "sound")
    assert str(found).endswith("have the same bits; the record has no hashes, so its numbers were compared")
    flipping(20)
    simulate(scenario, out=tmp_path / "flipped")
    flipping(None)
    wrong = verify(tmp_path / "flipped").first_difference
    assert wrong is not None
    assert (wrong.round_index, wrong.clients, wrong.tensors) == (ROUND, (second_client(tmp_path / "flipped"),), ())
    assert "validation_loss" in wrong.numbers
    parting = bisect(tmp_path / "sound", tmp_path / "flipped", replay=False)
    assert parting.first is not None
    assert (parting.first.round_index, parting.first.clients) == (ROUND, (second_client(tmp_path / "flipped"),))


def test_changed_number_of_a_record_is_found(tmp_path: Path) -> None:
    simulate(digits("run.rounds=3"), out=tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    lines = [dict(line) for line in folder.read_rounds().values]
    lines[2]["validation_loss"] += 1e-9
    folder.rounds.unlink()
    writer = RoundWriter(folder.rounds)
    for line in lines:
        writer.append(line)
    writer.close()
    wrong = verify(tmp_path / "run").first_difference
    assert wrong is not None
    assert (wrong.round_index, wrong.tensors, wrong.clients) == (2, (), ())
    assert wrong.numbers == ("validation_loss",)


def changed_environment(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the environment of a record."""
    facts = json.loads((path / "environment.json").read_text())
    facts.pop("checksum")
    change(facts)
    write_json(path / "environment.json", facts)


def test_other_environment_is_a_reason_and_numbers_are_compared_within_a_tolerance(tmp_path: Path) -> None:
    """The record of another engine, which has other bits from the first round on, on another processor."""
    simulate(digits("engine.kind=plain", "engine.tile=", "engine.compile="), out=tmp_path / "run")

    def change(facts: dict[str, Any]) -> None:
        facts["processor"] = "Abacus 9000"
        facts["versions"]["torch"] = "1.0.0"
        facts["run"]["engine_plan"] |= {"engine": "stacked", "tile": 4}

    changed_environment(tmp_path / "run", change)
    found = verify(tmp_path / "run")
    assert found.result == "not reproducible here"
    assert found.first_difference is not None
    assert found.first_difference.round_index == 1
    assert any(reason.startswith("torch is 2") and reason.endswith(", and was 1.0.0") for reason in found.reasons)
    assert any(reason.endswith(", and was Abacus 9000") for reason in found.reasons)
    assert found.differs_by is not None
    assert 0 < found.differs_by <= found.tolerance
    assert str(found).startswith("not reproducible here: ")
    assert "within 0.0001" in str(found)
    assert main(["verify", str(tmp_path / "run")]) == EXIT_NOT_HERE


def test_other_environment_with_the_same_bits_is_equal(tmp_path: Path) -> None:
    simulate(digits("run.rounds=2"), out=tmp_path / "run")
    changed_environment(tmp_path / "run", lambda facts: facts.update(processor="Abacus 9000"))
    found = verify(tmp_path / "run")
    assert found.result == "equal"
    assert any("Abacus 9000" in reason for reason in found.reasons)


def test_plan_that_cannot_be_had_is_a_reason(tmp_path: Path) -> None:
    """The record's engine had a kernel in C, and this local optimiser has none."""
    simulate(digits("local.optimizer=adam", "run.rounds=2"), out=tmp_path / "run")
    changed_environment(tmp_path / "run", lambda facts: facts["run"]["engine_plan"].update(native=True))
    found = verify(tmp_path / "run")
    assert found.reasons[0].startswith(
        "the engine of the run cannot be had (engine.native the run's plan trains clients"
    )
    assert found.result == "equal"


def test_run_on_nodes_is_equal_to_its_replay_in_one_process(tmp_path: Path) -> None:
    """The certificate of a run on nodes has no client states, and says nothing of the nodes' SCAFFOLD variates."""
    scenario = digits("engine.kind=plain", "engine.tile=", "engine.compile=", *SCAFFOLD[:2], "run.rounds=3")
    grid = StrangeGrid(apps(scenario, observers=[])[1], list(range(8)))
    simulate(scenario, grid=grid, out=tmp_path / "run")
    found = verify(tmp_path / "run")
    assert found.result == "equal", str(found)
    assert "its clients were on nodes, and are in one process here" in found.reasons
    simulate(scenario, out=tmp_path / "here")
    assert bisect(tmp_path / "run", tmp_path / "here").first is None


def test_run_from_python_needs_its_parts(tmp_path: Path) -> None:
    def model() -> torch.nn.Module:
        return torch.nn.Linear(64, 10)

    simulate(digits("run.rounds=2"), model=model, out=tmp_path / "run")
    with pytest.raises(RunFolderError, match="was started from Python with its own model"):
        verify(tmp_path / "run")
    assert verify(tmp_path / "run", model=model).result == "equal"


def test_bisect_names_the_keys_that_differ(tmp_path: Path) -> None:
    simulate(digits("run.certificate=clients"), out=tmp_path / "one")
    faulty = "faults.later={kind='label_symmetric',severity=0.5,clients=0.5,schedule={start=4.0}}"
    simulate(digits("run.certificate=clients", faulty), out=tmp_path / "two")
    found = bisect(tmp_path / "one", tmp_path / "two")
    assert list(found.keys) == ["faults.later"]
    assert found.first is not None
    assert found.first.round_index == 4
    assert 0 < len(found.first.clients) < 4
    assert all(name.startswith("parameters/") for name in found.first.tensors)
    assert found.replays == ()
    assert "first difference in round 4, client" in str(found)


def test_bisect_of_a_branch_finds_the_round_after_it(tmp_path: Path) -> None:
    simulate(digits(KEPT), out=tmp_path / "run")
    branch(tmp_path / "run", round=3, sets=["local.local_lr=0.01"], out=tmp_path / "branch")
    found = bisect(tmp_path / "run", tmp_path / "branch")
    assert found.first is not None
    assert found.first.round_index == 4
    assert found.keys == {"local.local_lr": (0.05, 0.01)}


def test_equal_runs_with_other_measurements_are_equal(tmp_path: Path) -> None:
    simulate(digits(), out=tmp_path / "one")
    simulate(digits("evaluation.federated_every=1", "fleet.bytes_per_second_up=5"), out=tmp_path / "two")
    found = bisect(tmp_path / "one", tmp_path / "two")
    assert found.first is None
    assert set(found.keys) == {"evaluation.federated_every", "fleet.bytes_per_second_up"}
    assert str(found).startswith("equal: rounds 0 to 8 have the same bits\n")


def test_damaged_certificate_is_named(tmp_path: Path) -> None:
    simulate(digits("run.rounds=2"), out=tmp_path / "run")
    file = tmp_path / "run" / "certificate.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"round": 1', b'"round": 7'))
    with pytest.raises(RunFolderError, match=r"certificate\.jsonl: line 2 of 3 does not have its checksum"):
        verify(tmp_path / "run")


def test_commands_exit_with_what_they_found(
    flipping: Callable[[int | None], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    simulate(digits(), out=one)
    flipping(20)
    simulate(digits(), out=two)
    flipping(None)
    shutil.copytree(one, tmp_path / "copy")
    assert main(["verify", str(one), "--rounds", "2"]) == EXIT_OK
    assert capsys.readouterr().out == "equal: rounds 0 to 2 have the same bits\n"
    assert main(["verify", str(two)]) == EXIT_DIFFERENT
    assert capsys.readouterr().out.startswith(f"different: first difference in round {ROUND}, client ")
    assert main(["bisect", str(one), str(tmp_path / "copy")]) == EXIT_OK
    assert main(["bisect", str(one), str(two), "--no-replay"]) == EXIT_DIFFERENT
    assert f"first difference in round {ROUND}, client " in capsys.readouterr().out
