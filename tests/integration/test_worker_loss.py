"""Worker processes that are killed, hang, or are left behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch

import fedscape as fs
from clients.processes.wire import Message
from fedscape.testing import Stepper
from simulator.runs import run as run_module
from simulator.workers import links

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone"),
]
SETS = ("run.rounds=12", "engine.kind=stacked", "engine.tile=10", "engine.threads=1", "engine.compile=never",
        "algorithm.kind=scaffold", "algorithm.cohort=60", "evaluation.baselines=false")  # fmt: skip


def children() -> list[int]:
    """Return the processes that this one has started and that run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:  # it has ended
                continue
            if int(parent) == os.getpid() and state != "Z":
                found.append(int(entry.name))
    return found


class Watcher:
    """Signals a worker at the end of a round, or some time into the next; keeps events."""

    def __init__(self, number: int, after: int, delay: float = 0.0) -> None:
        self.number, self.after, self.delay = number, after, delay
        self.events: list[dict[str, object]] = []

    def round_finished(self, line: dict[str, object]) -> None:
        if line["round"] == self.after:
            threading.Timer(self.delay, self.signal).start()
            if not self.delay:
                time.sleep(0.05)

    def signal(self) -> None:
        if found := children():
            os.kill(random.Random(self.after).choice(found), self.number)

    def event(self, event: dict[str, object]) -> None:
        self.events.append(event)


def simulate(workers: int, *observers: object, sets: tuple[str, ...] = ()) -> fs.Run:
    scenario = fs.load_scenario("digits-label-skew", sets=[*SETS, f"engine.workers={workers}", *sets])
    return fs.simulate(scenario, record=False, observers=observers)


@pytest.fixture(scope="module")
def alone() -> torch.Tensor:
    return simulate(1).params


def attempts(count: int) -> list[tuple[int, float]]:
    """Return rounds and seconds, chosen by number, at which a worker is killed."""
    return [(n % 11, 0.0 if n % 5 == 0 else random.Random(n).random() * 0.05) for n in range(count)]


def killed_run(alone: torch.Tensor, after: int, delay: float, number: int = signal.SIGKILL) -> None:
    watcher = Watcher(number, after, delay)
    run = simulate(3, watcher)
    assert torch.equal(run.params, alone)
    assert [e["kind"] for e in watcher.events].count("worker_lost") <= 1
    assert children() == []


@pytest.mark.parametrize(("after", "delay"), attempts(6))
def test_killed_workers_clients_are_trained_by_the_others(alone, after, delay):
    killed_run(alone, after, delay)


@pytest.mark.slow
@pytest.mark.parametrize(("after", "delay"), attempts(50))
def test_worker_killed_at_any_moment_leaves_the_right_numbers(alone, after, delay):
    killed_run(alone, after, delay, signal.SIGTERM if after % 2 else signal.SIGKILL)


def test_loss_of_a_worker_is_an_event_of_its_round():
    watcher = Watcher(signal.SIGKILL, 4)
    run = simulate(2, watcher)
    (event,) = [e for e in watcher.events if e["kind"] == "worker_lost"]
    assert event["round"] in (4, 5)
    assert "worker 1 was killed by SIGKILL" in str(event["message"])
    assert [line["workers"]["count"] for line in run.rounds.lines[1:]] == [2] * 4 + [1] * 8


def test_all_workers_lost_leaves_this_process_to_do_the_work(alone):
    class All(Watcher):
        def signal(self) -> None:
            for pid in children():
                os.kill(pid, signal.SIGKILL)

    assert torch.equal(simulate(4, All(signal.SIGKILL, 3)).params, alone)


def test_hanging_worker_is_given_up(alone, monkeypatch):
    monkeypatch.setattr(links, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(links.Hub.__init__, "__kwdefaults__", {"patience": 1.0})
    watcher = Watcher(signal.SIGSTOP, 3)
    started = time.monotonic()
    assert torch.equal(simulate(2, watcher).params, alone)
    assert time.monotonic() - started < 30
    (event,) = [e for e in watcher.events if e["kind"] == "worker_lost"]
    assert "worker 1 gave no sign of life" in str(event["message"])
    assert children() == []


def test_server_does_not_wait_for_a_worker_that_does_not_read():
    """A message larger than the buffers of a connection, to a stopped process."""
    with closing(Stepper(fs.load_scenario("digits-label-skew", sets=[*SETS, "engine.workers=2"]))) as stepper:
        stepper.step(1)
        (pid,) = children()
        os.kill(pid, signal.SIGSTOP)
        assert stepper.session.pool is not None
        started = time.monotonic()
        stepper.session.pool.hub.send(1, Message({"job": "none"}, {"x": torch.zeros(16_000_000)}))
        waited = time.monotonic() - started
        os.kill(pid, signal.SIGKILL)
    assert waited < 10
    assert children() == []


def test_loss_stops_the_run_where_it_is_told_to(tmp_path, alone):
    sets = ("engine.on_worker_loss=stop", "run.checkpoint_rounds=1")
    scenario = fs.load_scenario("digits-label-skew", sets=[*SETS, "engine.workers=2", *sets])
    run = fs.simulate(scenario, out=tmp_path / "run", observers=[Watcher(signal.SIGKILL, 4)])
    assert run.verdict.outcome == "interrupted"
    assert run.verdict.round_index in (4, 5)
    assert "worker 1 was killed by SIGKILL" in run.verdict.reasons[0]
    assert children() == []
    again = fs.resume(tmp_path / "run")
    assert again.verdict.outcome != "interrupted"
    assert torch.equal(again.params, alone)


def addresses_listened_on() -> set[str]:
    """Return the addresses, in hexadecimal, on which this process listens."""
    own = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            own.add(os.readlink(entry))
        except OSError:  # the folder's own descriptor
            continue
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                found.add(fields[1].partition(":")[0])
    return found


def test_workers_of_one_machine_listen_on_the_loopback_alone():
    class Look:
        def round_finished(self, line: dict[str, object]) -> None:
            seen.update(addresses_listened_on())

    seen: set[str] = set()
    simulate(2, Look())
    assert seen == {"0100007F"}


def test_run_without_torchrun_makes_no_farewell(monkeypatch):
    def refuse(*arguments: object) -> None:
        raise AssertionError("the whole record was turned into a message for no one")

    monkeypatch.setattr(run_module, "farewell", refuse)
    assert simulate(1).verdict.outcome != "interrupted"
    assert simulate(2).verdict.outcome != "interrupted"


def test_error_of_a_clients_model_is_that_of_one_process():
    class Fails(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training and len(x) == 7:
                raise ValueError("seven examples")
            out: torch.Tensor = self.layer(x)
            return out

    def message(workers: int) -> str:
        sets = [*SETS[:1], "engine.kind=plain", f"engine.workers={workers}", "local.batch_size=7"]
        with pytest.raises(fs.UserError, match="seven examples") as caught:
            fs.simulate(fs.load_scenario("digits-label-skew", sets=sets), model=Fails(), record=False)
        return str(caught.value)

    assert message(1) == message(2)
    assert children() == []


def command(out: Path, *more: str) -> list[str]:
    sets = [f"--set={s}" for s in (*SETS, "run.rounds=1000000", "engine.workers=3", "convergence.stop=never")]
    return [sys.executable, "-m", "simulator.cli", "run", "digits-label-skew", *sets, "--out", str(out), *more]


def descendants(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_the_main_process(tmp_path, number):
    run = subprocess.Popen(command(tmp_path / "run"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rounds, workers = tmp_path / "run/rounds.jsonl", []
    until = time.monotonic() + 120
    while time.monotonic() < until and not (rounds.exists() and rounds.read_bytes().count(b"\n") > 4):
        time.sleep(0.05)
    workers = descendants(run.pid)
    assert len(workers) == 2
    os.kill(run.pid, number)
    run.wait(60)
    until = time.monotonic() + 5
    while time.monotonic() < until and any(Path(f"/proc/{pid}").exists() for pid in workers):
        time.sleep(0.02)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert run.returncode == (130 if number == signal.SIGINT else -number)
