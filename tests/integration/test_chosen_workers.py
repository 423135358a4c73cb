"""A run whose number of workers was chosen has the bits of one that names it, and is resumed with the recorded plan."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from run_folders import assert_same_run, digits, stop_after

from dashboards.report.run_text import header
from server.record.records import RunFolder
from simulator.engines import worker_count
from simulator.runs import session
from simulator.runs.run import resume, simulate

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone"),
]
AUTO, TWO = digits("engine.workers=auto"), digits("engine.workers=2")


@pytest.fixture(autouse=True)
def _workers_always_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every trial that ends well choose two workers, whatever it measured."""
    monkeypatch.setattr(worker_count, "processors", lambda: 2)
    monkeypatch.setattr(worker_count, "obstacle", lambda task: "")
    for name, value in (("SHORT_SECONDS", 0.0), ("GAIN", -1e9), ("START_SECONDS", -1e9)):
        monkeypatch.setattr(worker_count, name, value)


def no_plan(*arguments: object, **options: object) -> None:
    raise AssertionError("a resumed run plans nothing")


def test_chosen_workers_have_the_bits_of_named_ones_and_are_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = children()
    simulate(TWO, out=tmp_path / "whole")
    run = simulate(AUTO, out=tmp_path / "cut", stop_asked=stop_after(3))
    plan = run.session.plan
    assert plan is not None
    assert (plan.workers, plan.threads, plan.tile) == (2, 1, 4)
    environment = RunFolder(tmp_path / "cut").read_environment()
    assert environment is not None
    assert environment["run"]["engine_plan"]["workers"] == 2
    (line,) = (line for line in header(environment["run"]) if line.startswith("  engine"))
    assert line.startswith("  engine stacked, 2 workers, tile 4 (probe: stacked ")
    assert "; 2 workers " in line
    monkeypatch.setattr(session, "plan_engine", no_plan)
    monkeypatch.setattr(session, "obstacle", lambda task: "")
    resumed = resume(tmp_path / "cut")
    assert resumed.session.plan == plan
    assert_same_run(tmp_path / "cut", tmp_path / "whole", timed=True)
    assert children() == before


def test_run_with_chosen_workers_resumes_with_one_where_no_process_can_be_forked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(AUTO, out=tmp_path / "run", stop_asked=stop_after(3))
    monkeypatch.setattr(session, "obstacle", lambda task: "no forks here")
    run = resume(tmp_path / "run")
    assert run.session.plan is not None
    assert run.session.plan.workers == 1
    assert run.session.plan.reason.endswith("; resumed with one worker: no forks here")
    assert run.verdict.outcome == "stopped"


def children() -> set[str]:
    """Return the children of this process, ended ones that nobody waited for included."""
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())
