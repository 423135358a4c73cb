"""Runs whose client states lie in files have the bits of those in memory, killed and resumed, and take little memory.

Run as a script, this file plays a run in a process of its own: `kill FOLDER ROUND` or `memory FOLDER`.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from run_folders import Capture, assert_same_run, digits, mistake, stop_after

from clients.core.errors import RunFolderError
from clients.training import client_states
from clients.training.kept import mapped_file
from simulator.runs.run import resume, simulate
from simulator.scenario.sections import Scenario, load_scenario
from simulator.testing.stepper import Stepper

SCAFFOLD = ("algorithm.kind=scaffold", "algorithm.weighting=")
ALGORITHMS = {
    "scaffold": SCAFFOLD,
    "feddyn": ("algorithm.kind=feddyn", "algorithm.weighting="),
    "local buffers": ("model.norm=batch", "local.buffers=local", "local.drop_last=true", "partition.min_size=16"),
}
FORKS = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
CLIENTS, COHORT, HIDDEN, ROUNDS = 100_000, 100, 400, 20
STATES = (ROUNDS - 2) * COHORT * HIDDEN * (60 + 1 + 10) * 4
"""Bytes by which the client states grow after round 2, at least: 204 MB."""


def many() -> Scenario:
    """Return SCAFFOLD on so many clients that their states together take far more than the run's other memory."""
    sets = [
        f"data={{kind='synthetic', clients={CLIENTS}, sizes=10}}", "partition=",
        f"model={{kind='mlp', hidden=[{HIDDEN}]}}", "local={local_lr=0.01, batch_size=3, local_steps=1}",
        f"algorithm={{kind='scaffold', cohort={COHORT}}}", "evaluation={federated_every=0, baselines=false}",
        "convergence={stop='never', settled={}}", "engine.kind=stacked", "engine.tile=50", "engine.threads=1",
        f"run.rounds={ROUNDS}", f"run.checkpoint_rounds={ROUNDS}",
    ]  # fmt: skip
    return load_scenario("digits-label-skew", sets=sets)


def anonymous() -> int:
    """Return the bytes of this process that no file has."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


def main(what: str, folder: str, *more: str) -> None:
    torch.set_num_threads(1)
    client_states.KEPT_IN_MEMORY = 0 if what == "kill" else 1 << 20
    if what == "kill":
        stop = stop_after(int(more[0]))
        simulate(digits(*SCAFFOLD, "run.checkpoint_rounds=2"), out=folder,
                 stop_asked=lambda: stop() and bool(os.kill(os.getpid(), signal.SIGKILL)))  # fmt: skip
        return
    marks: list[int] = []
    simulate(many(), out=folder, stop_asked=lambda: bool(marks.append(anonymous())))
    print(json.dumps(marks))


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    support = Path(__file__).parents[1] / "support"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(support)])}
    return subprocess.run([sys.executable, __file__, *arguments], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("name", "workers"),
    [("scaffold", 1), ("feddyn", 1), ("local buffers", 1), pytest.param("scaffold", 2, marks=FORKS)],
)
def test_resumed_run_in_files_equals_one_in_memory(
    name: str, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = digits(*ALGORITHMS[name], f"engine.workers={workers}")
    whole = simulate(scenario, out=tmp_path / "whole")
    assert whole.session.states is not None
    assert whole.session.states.in_files == []
    monkeypatch.setattr(client_states, "KEPT_IN_MEMORY", 0)
    run = simulate(scenario, out=tmp_path / "cut", stop_asked=stop_after(2))
    run = resume(tmp_path / "cut", stop_asked=stop_after(3))
    run = resume(tmp_path / "cut")
    assert run.session.states is not None
    assert len(run.session.states.in_files) == 1
    assert torch.equal(run.params, whole.params)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_run_leaves_no_file_of_states_and_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(digits(*SCAFFOLD, "run.checkpoint_rounds=2"), out=tmp_path / "whole")
    cut = tmp_path / "cut"
    assert script("kill", str(cut), "5").returncode == -signal.SIGKILL
    assert {path.name.split("-")[0] for path in cut.rglob("*") if path.is_file()} == {
        "scenario.toml", "partition.json", "environment.json", "rounds.jsonl", "certificate.jsonl", "events.jsonl",
        "part", "_parts.jsonl", "manifest.json", "manifest.previous.json", "state", "clients",
    }  # fmt: skip
    monkeypatch.setattr(client_states, "KEPT_IN_MEMORY", 0)
    resume(cut)
    assert_same_run(cut, tmp_path / "whole")


def test_full_disk_ends_the_run_with_a_message_and_its_checkpoint_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    scenario = digits(*SCAFFOLD, "run.checkpoint_rounds=1")
    simulate(scenario, out=tmp_path / "whole")
    monkeypatch.setattr(client_states, "KEPT_IN_MEMORY", 0)
    real, most = mapped_file.reserve, 0

    def full(handle: int, start: int, end: int) -> None:
        if end > most:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle, start, end)

    cut = tmp_path / "cut"
    with monkeypatch.context() as patched:
        patched.setattr(mapped_file, "reserve", full)
        row = 4 * (64 * 16 + 16 + 16 * 10 + 10)
        most = 7 * row  # four rows of the first round, and fewer than four more
        with pytest.raises(RunFolderError, match=r"No space left on device; [0-9,]+ bytes more are needed beside"):
            simulate(scenario, out=cut)
        message = mistake(capsys, "resume", str(cut))
        assert message.startswith(f"{cut}: cannot hold what clients keep between rounds: No space left on device")
        assert "Free some space and resume the run" in message
    resume(cut)
    assert_same_run(cut, tmp_path / "whole")


def test_stepper_closes_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_states, "KEPT_IN_MEMORY", 0)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Stepper(digits(*SCAFFOLD)) as stepper:
        stepper.step(2)
        assert stepper.session.states is not None
        assert stepper.session.states.in_files == ["client_variate"]
    with pytest.raises(AssertionError, match="the run is over"):
        stepper.client_state("client_variate", torch.arange(8).numpy())


@FORKS
def test_workers_do_not_hold_the_file_of_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_states, "KEPT_IN_MEMORY", 0)
    held: list[set[str]] = []

    def look() -> bool:
        workers = [
            child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()
        ]
        files = [link for worker in workers for link in Path(f"/proc/{worker}/fd").iterdir()]
        held.append({os.readlink(link) for link in files if link.is_symlink()})
        return False

    simulate(digits(*SCAFFOLD, "engine.workers=2", "run.rounds=2"), out=tmp_path / "run", stop_asked=look)
    assert held
    assert all(any("socket" in name for name in names) for names in held), "workers are looked at"
    assert not [name for names in held for name in names if name.startswith(str(tmp_path))]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_states_of_many_clients_take_no_memory_of_the_process(tmp_path: Path) -> None:
    done = script("memory", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    marks = json.loads(done.stdout.splitlines()[-1])
    assert len(marks) == ROUNDS
    assert marks[-2] - marks[1] < STATES // 2


@pytest.mark.parametrize("where", ["run", "temporary"])
def test_disk_too_small_for_the_states_is_foreseen(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_states, "KEPT_IN_MEMORY", 0)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    notices: list[str] = []

    class Heard:
        def run_started(self, facts: dict[str, list[str]]) -> None:
            notices.extend(facts["notices"])

    simulate(digits(*SCAFFOLD, "run.rounds=1"), out=tmp_path / "run" if where == "run" else None,
             record=where == "run", observers=[Heard()])  # fmt: skip
    (notice,) = [notice for notice in notices if "clients keep" in notice]
    row = 4 * (64 * 16 + 16 + 16 * 10 + 10)
    size = (8 + 2 * 4) * row if where == "run" else 8 * row
    assert f"{size / 1000:.2g} kB" in notice or f"{size / 1000:.3g} kB" in notice
    assert ("--out names" if where == "run" else "TMPDIR names") in notice


if __name__ == "__main__":
    main(*sys.argv[1:])
