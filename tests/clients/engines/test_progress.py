"""Progress inside a round: engines and the evaluator count their work, and no number depends on it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.engines import progress as module
from clients.engines.progress import EVERY_SECONDS, QUIET_SECONDS, Progress
from simulator.runs.run import simulate
from simulator.scenario.sections import load_scenario
from tests.support.run_folders import digits, recorded


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_phase_is_quiet_at_first_and_then_reported_at_intervals() -> None:
    clock, reports = Clock(), list[dict[str, Any]]()
    progress = Progress(reports.append, clock)
    progress.begin("training", 1000, "batches")
    for tenths in range(1, 41):
        clock.now = tenths / 10
        progress.add(10)
    first = reports[0]
    assert first == {"phase": "training", "done": 200, "of": 1000, "unit": "batches", "seconds": QUIET_SECONDS}
    steps = [later["seconds"] - earlier["seconds"] for earlier, later in itertools.pairwise(reports)]
    assert min(steps) >= EVERY_SECONDS - 1e-9
    progress.begin("evaluation", 5, "examples")
    assert len(reports) < 15
    progress.add(5)
    assert reports[-1]["phase"] == "training"  # the new phase is quiet again


def test_reports_after_the_rounds_have_none() -> None:
    clock, reports = Clock(), list[dict[str, Any]]()
    progress = Progress(reports.append, clock)
    progress.conclude()
    progress.begin("evaluation", 5, "examples")
    clock.now = 9.0
    progress.add(5)
    assert reports[0]["round"] is None


class Follower:
    """Keeps the reports of a run."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []

    def progress(self, facts: dict[str, Any]) -> None:
        self.reports.append(facts)


@pytest.fixture
def _talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report every piece of work."""
    monkeypatch.setattr(module, "QUIET_SECONDS", -1.0)
    monkeypatch.setattr(module, "EVERY_SECONDS", 0.0)


@pytest.mark.usefixtures("_talkative")
@pytest.mark.parametrize("engine", ["plain", "stacked"])
def test_engines_count_every_local_step_and_evaluated_example(engine: str, tmp_path: Path) -> None:
    follower = Follower()
    tile = [] if engine == "stacked" else ["engine.tile="]
    scenario = digits("run.rounds=3", f"engine.kind={engine}", *tile)
    run = simulate(scenario, out=tmp_path / "followed", observers=[follower])
    silent = simulate(scenario, out=tmp_path / "silent")
    assert recorded(tmp_path / "followed") == recorded(tmp_path / "silent")
    assert (run.params == silent.params).all()
    training = [one for one in follower.reports if one["phase"] == "training"]
    assert {one["round"] for one in training} == {1, 2, 3}
    for index in (1, 2, 3):
        last = [one for one in training if one["round"] == index][-1]
        assert last["done"] == last["of"] > 0
    evaluated = [one for one in follower.reports if one["phase"] == "evaluation"]
    assert {one["round"] for one in evaluated} == {0, 1, 2, 3, None}
    assert all(one["done"] <= one["of"] for one in evaluated)
    assert any(one["done"] == one["of"] == len(run.session.population.validation or ()) for one in evaluated)


@pytest.mark.usefixtures("_talkative")
@pytest.mark.parametrize("engine", ["plain", "stacked"])
def test_engines_count_the_local_steps_of_quadratics(engine: str) -> None:
    follower = Follower()
    sets = ["run.rounds=2", f"engine.kind={engine}"]
    simulate(load_scenario("quadratic-two-clients", sets=sets), record=False, observers=[follower])
    training = [one for one in follower.reports if one["phase"] == "training"]
    assert {one["round"] for one in training if one["done"] == one["of"] > 0} == {1, 2}


@pytest.mark.usefixtures("_talkative")
def test_client_app_counts_its_clients() -> None:
    app, follower = ClientApp(), Follower()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = next(iter(message.content.array_records.values()))
        metrics = MetricRecord({"num-examples": 4})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    simulate(
        digits("run.rounds=1", "engine=", "evaluation.federated_every=0"),
        client_app=app,
        record=False,
        observers=[follower],
    )
    clients = [one for one in follower.reports if one["unit"] == "clients"]
    assert [one["done"] for one in clients] == [1, 2, 3, 4]
    assert clients[0]["of"] == 4


def test_without_a_follower_nothing_is_counted() -> None:
    run = simulate(digits("run.rounds=1"), record=False)
    assert run.session.engine is not None
    assert run.session.engine.progress is None
    assert run.session.evaluator.progress is None
