"""The certificate of a run: one for the same bits in any layout of processes, after a resume, and in a replay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.serverapp.strategy import FedAdam
from run_folders import digits, stop_after

from server.certificate.hashing import vector_hashes
from server.record.records import RunFolder
from simulator.runs.run import resume, simulate
from simulator.testing.stepper import Stepper

SCAFFOLD = ("algorithm.kind=scaffold", "algorithm.weighting=", "run.certificate=clients")


def certificate(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's certificate."""
    return list(RunFolder(path).read_certificate().values)


def test_certificate_has_the_hashes_of_each_round(tmp_path: Path) -> None:
    scenario = digits(*SCAFFOLD)
    run = simulate(scenario, out=tmp_path / "run")
    lines = certificate(tmp_path / "run")
    assert [line["round"] for line in lines] == list(range(9))
    assert [line["state_hash"] for line in lines] == run.rounds["state_hash"].tolist()
    assert len({line["state_hash"] for line in lines}) == 9
    assert set(lines[3]["tensors"]) == {
        "parameters/0.weight", "parameters/0.bias", "parameters/2.weight", "parameters/2.bias",
        "server/server_variate", "clients/client_variate",
    }  # fmt: skip
    assert "updates" not in lines[0]
    cohort = run.clients.where(round=3)["client"]
    assert list(lines[3]["updates"]) == [str(client) for client in cohort]
    with Stepper(scenario) as stepper:
        stepper.step(3)
        expected = vector_hashes("parameters", stepper.session.task.parameters, stepper.params)
    assert expected.items() <= lines[3]["tensors"].items()


@pytest.mark.parametrize("keep", ["engine.keep_bytes=1", "engine.keep_bytes=1000000000"])
def test_workers_and_one_process_have_one_certificate(keep: str, tmp_path: Path) -> None:
    """The tiles are the same, and the kernel in C gives each client its own bits; sums of blocks follow the tiles."""
    paths = []
    for workers in (1, 2):
        path = tmp_path / f"{workers}"
        sets = (keep, f"engine.workers={workers}", "run.certificate=clients", "run.rounds=3", "engine.tile=1")
        simulate(digits(*sets), out=path)
        paths.append(path)
    one, two = map(certificate, paths)
    assert [line["updates"] for line in one[1:]] == [line["updates"] for line in two[1:]]
    assert all(len(line["updates"]) == 4 for line in one[1:])
    if keep.endswith("0000"):
        assert one == two


def test_streamed_updates_have_the_hashes_of_kept_ones(tmp_path: Path) -> None:
    found = []
    for keep in (1, 10**9):
        simulate(
            digits(f"engine.keep_bytes={keep}", "run.certificate=clients", "run.rounds=1"), out=tmp_path / f"{keep}"
        )
        found.append(certificate(tmp_path / f"{keep}")[1]["updates"])
    assert found[0] == found[1]
    assert len(found[0]) == 4


@pytest.mark.parametrize("kind", ["state", "clients"])
def test_resumed_run_has_the_certificate_of_the_uninterrupted_one(kind: str, tmp_path: Path) -> None:
    scenario = digits(*SCAFFOLD[:2], f"run.certificate={kind}", "run.checkpoint_rounds=2")
    simulate(scenario, out=tmp_path / "whole")
    simulate(scenario, out=tmp_path / "cut", stop_asked=stop_after(5))
    (tmp_path / "cut" / "outcome.json").unlink()
    resume(tmp_path / "cut")
    names = ("certificate.jsonl",)
    assert all((tmp_path / "cut" / n).read_bytes() == (tmp_path / "whole" / n).read_bytes() for n in names)


def test_resume_cuts_the_certificate_of_rounds_that_are_played_again(tmp_path: Path) -> None:
    scenario = digits("run.checkpoint_rounds=4")
    simulate(scenario, out=tmp_path / "whole")

    class Killed:
        critical = True

        def round_finished(self, line: dict[str, Any]) -> None:
            if line["round"] == 6:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(scenario, out=tmp_path / "cut", observers=[Killed()])
    assert len(certificate(tmp_path / "cut")) == 7
    resume(tmp_path / "cut")
    assert certificate(tmp_path / "cut") == certificate(tmp_path / "whole")


def test_run_without_a_certificate_has_no_hashes(tmp_path: Path) -> None:
    run = simulate(digits("run.certificate=off", "run.rounds=1"), out=tmp_path / "run")
    assert "state_hash" not in run.rounds
    assert not (tmp_path / "run" / "certificate.jsonl").exists()


def test_unrecorded_run_has_the_hashes_of_a_recorded_one(tmp_path: Path) -> None:
    recorded = simulate(digits("run.rounds=2"), out=tmp_path / "run")
    assert simulate(digits("run.rounds=2"), record=False).rounds["state_hash"].tolist() == (
        recorded.rounds["state_hash"].tolist()
    )


def test_users_strategy_is_certified_with_the_arrays_that_it_returned(tmp_path: Path) -> None:
    strategy = FedAdam(fraction_train=0.5, fraction_evaluate=0.0, min_available_nodes=8)
    simulate(digits("run.rounds=2", "run.certificate=clients"), strategy=strategy, out=tmp_path / "run")
    line = certificate(tmp_path / "run")[2]
    assert any(name.startswith("arrays/") for name in line["tensors"])
    assert len(line["updates"]) == 4


def test_environment_has_what_the_bits_depend_on(tmp_path: Path) -> None:
    simulate(digits("run.rounds=1"), out=tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "environment.json").read_text())["run"]["certificate"]
    assert facts["kind"] == "state"
    assert facts["hash"] == "xxh3"
    assert facts["torch_build"]
    assert facts["instructions"]
