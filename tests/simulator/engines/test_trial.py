"""A trial runs several workers at the same moments, and leaves no process and no file behind, however it ends."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from clients.models.build import build_model
from clients.models.options import SoftmaxOptions
from clients.training.options import LocalOptions
from clients.training.task import make_task
from simulator.engines import trial
from simulator.engines.probe import Cost
from simulator.engines.timing import Timing
from simulator.engines.trial import TrialError, obstacle, try_workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")


@pytest.fixture(autouse=True)
def _nothing_left():
    """Check that a trial leaves no open file and no child process, not even one that has ended."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before
    assert children() == before_children()


def children():
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


_known: set[str] = set()


def before_children():
    return _known


@pytest.fixture(autouse=True, scope="module")
def _children_of_others():
    _known.update(children())


def tried(runs, size=1000, expected=0.01, between=lambda: None):
    return try_workers([Timing(run, 20) for run in runs], size=size, expected=expected, between=between)


def test_trial_returns_the_cost_of_each_worker_and_calls_between():
    calls = []
    found = tried([lambda steps: 1e-3 * steps, lambda steps: 2e-3 * steps], between=lambda: calls.append(1))
    assert found.costs == (Cost(0.0, pytest.approx(1e-3)), Cost(0.0, pytest.approx(2e-3)))
    assert 2 <= len(calls) <= trial.BURSTS
    assert found.exchange > 0
    assert found.start > 0


def test_workers_train_at_the_same_moments(tmp_path):
    """Each waits until the other has begun, which it would do in vain if they took turns."""

    def run(own, other):
        def steps(count):
            (tmp_path / own).touch()
            until = time.monotonic() + 30
            while not (tmp_path / other).exists():
                assert time.monotonic() < until
                time.sleep(0.001)
            return 1e-3 * count

        return steps

    assert len(tried([run("a", "b"), run("b", "a")]).costs) == 2


def test_parameters_larger_than_a_sample_cost_more(monkeypatch):
    monkeypatch.setattr(trial, "PAYLOAD", 1000)
    assert tried([lambda steps: 1e-3 * steps] * 2, size=10**9).exchange > 100 * 1e-6


def test_trial_of_heavy_steps_is_short(monkeypatch):
    monkeypatch.setattr(trial, "TRIAL_SECONDS", 0.0)
    calls = []
    for step, bursts in ((1.0, 1), (0.01, 2)):  # the first burst of heavy steps has two samples, that of others one
        calls.clear()
        tried([lambda steps, step=step: step * steps] * 2, between=lambda: calls.append(1))
        assert len(calls) == bursts


def test_process_that_dies_ends_the_trial():
    server = os.getpid()

    def dies(steps):
        if os.getpid() != server:
            os.kill(os.getpid(), signal.SIGKILL)
        return 1e-3 * steps

    with pytest.raises(TrialError, match="a process ended early"):
        tried([dies] * 3)


def test_process_that_fails_ends_the_trial_without_a_word(capfd):
    server = os.getpid()

    def fails(steps):
        assert os.getpid() == server
        return 1e-3 * steps

    with pytest.raises(TrialError, match="a process ended early"):
        tried([fails, fails])
    assert capfd.readouterr().err == ""


def test_process_that_hangs_ends_the_trial_after_a_bounded_wait(monkeypatch):
    monkeypatch.setattr(trial, "WAIT_SECONDS", 0.3)
    server = os.getpid()

    def hangs(steps):
        if os.getpid() != server:
            time.sleep(1000)
        return 1e-3 * steps

    with pytest.raises(TrialError, match="a process did not answer"):
        tried([hangs, hangs], expected=0.0)


def test_interrupted_trial_ends_its_processes():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tried([lambda steps: 1e-3 * steps] * 3, between=interrupted)


def test_fork_is_refused_beside_threads_on_other_systems_and_with_a_gpu(population_of, monkeypatch):
    population = population_of([4, 4], (6,), 3, "classification")
    task = make_task(build_model(SoftmaxOptions(), population, 0), population, LocalOptions(), seed=0)
    metrics, other = threading.Thread(name="metrics"), threading.Thread()
    monkeypatch.setattr(threading, "enumerate", lambda: [threading.main_thread(), metrics])
    assert obstacle(task) == ""
    monkeypatch.setattr(threading, "enumerate", lambda: [threading.main_thread(), other])
    assert obstacle(task) == "other threads run in this process, so that a fork is not safe"
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    assert obstacle(task) == "a process that uses CUDA cannot be forked"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert obstacle(task) == "processes are forked, which works on Linux only"
