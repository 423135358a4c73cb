"""The order of a study's runs, its shards, its processes and threads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from simulator.scenario.sections import load_scenario, to_toml
from simulator.studies.arms import PlannedRun
from simulator.studies.conducting import checked_shard, packing, share_of
from simulator.studies.folder import StudyFolder
from simulator.studies.pinning import with_share
from simulator.studies.plan import StudyPlan
from simulator.studies.processes.job import _choose
from simulator.studies.processes.messages import Job
from simulator.studies.queue import Queue
from simulator.studies.reading import read_study


def runs(*, seeds: int = 3, **more: object) -> tuple[PlannedRun, ...]:
    factors = {"run.rounds": [10, 40, 20]}
    return StudyPlan.of(
        read_study({"scenario": "quadratic-two-clients", "seeds": seeds, "factors": factors, **more})
    ).runs


def taken(queue: Queue) -> list[tuple[int, int]]:
    found = []
    while (run := queue.take()) is not None:
        found.append((run.arm.scenario.run.rounds, run.seed))
    return found


def test_first_seeds_come_first_and_then_the_longest() -> None:
    order = taken(Queue(runs()))
    assert order == [(40, 0), (20, 0), (10, 0), (40, 1), (40, 2), (20, 1), (20, 2), (10, 1), (10, 2)]


def test_measured_seconds_replace_the_budget_of_rounds() -> None:
    queue, all_runs = Queue(runs()), runs()
    for run, seconds in zip(all_runs[:3], (9.0, 1.0, 2.0), strict=True):
        queue.finished(run, seconds)
    assert taken(queue) == [(10, 1), (10, 2), (20, 1), (20, 2), (40, 1), (40, 2)]


def test_time_left_is_that_of_the_expected_runs() -> None:
    queue, all_runs = Queue(runs()), runs()
    assert queue.left({}, 2) is None
    for run, seconds in zip(all_runs[:3], (2.0, 4.0, 6.0), strict=True):
        queue.finished(run, seconds)
    first = queue.take()
    assert first is not None
    assert first.arm.scenario.run.rounds == 20, "six seconds are the longest"
    assert queue.left({first.key: (first, 0.5)}, 2) == pytest.approx((3 + 2 * 2 + 2 * 4 + 6) / 2)


def test_only_allowed_runs_are_taken() -> None:
    queue, all_runs = Queue(runs()), runs()
    allowed = {all_runs[4].key: True}
    taken_run = queue.take(allowed)
    assert taken_run is not None
    assert taken_run.key == all_runs[4].key
    assert queue.take(allowed) is None
    queue.put_back(taken_run)
    assert queue.take(allowed) is taken_run


def test_shards_share_the_runs_without_a_rest() -> None:
    all_runs = runs(seeds=4)
    parts = [share_of(all_runs, (k, 5)) for k in range(1, 6)]
    keys = [run.key for part in parts for run in part]
    assert sorted(keys) == sorted(run.key for run in all_runs)
    assert {len(part) for part in parts} == {2, 3}


def test_arms_with_one_scenario_are_one_run() -> None:
    arms = [{"name": "a"}, {"name": "b"}]
    plan = StudyPlan.of(read_study({"scenario": "quadratic-two-clients", "seeds": 2, "arms": arms}))
    assert len(plan.runs) == 4
    assert len({run.key for run in plan.runs}) == 2
    assert len(share_of(plan.runs, (1, 2))) == 2
    assert len(taken(Queue(plan.runs))) == 2


@pytest.mark.parametrize(
    ("cores", "asked", "workers", "found"),
    [(2, None, 1, (2, 1)), (16, None, 1, (9, 1)), (32, None, 1, (9, 3)), (8, 2, 1, (2, 4)), (8, None, 4, (2, 1)),
     (2, 4, 1, (4, 1)), (1, None, 1, (1, 1))],
)  # fmt: skip
def test_processes_and_threads_share_the_processors(
    cores: int, asked: int | None, workers: int, found: tuple[int, int]
) -> None:
    more = {"set": {"engine.workers": workers}} if workers > 1 else {}
    assert packing(runs(**more), asked, cores) == found


def test_shard_is_read() -> None:
    assert checked_shard(None) == (1, 1)
    assert checked_shard("2/4") == (2, 4)


def test_seed_that_took_long_in_another_arm_comes_first() -> None:
    queue = Queue(runs())
    by_name = {(run.arm.scenario.run.rounds, run.seed): run for run in queue.runs}
    for seed, seconds in ((0, 2.0), (1, 2.0), (2, 8.0)):  # half, half and twice the arm's mean of 4
        queue.finished(by_name[40, seed], seconds)
    queue.finished(by_name[10, 0], 3.0)
    queue.finished(by_name[20, 0], 1.0)
    expected = [queue.expected(by_name[10, seed]) for seed in (1, 2)]
    assert expected == pytest.approx([3.0 * 0.5, 3.0 * 2.0])
    assert taken(queue) == [(10, 2), (20, 2), (10, 1), (20, 1)]


def test_arms_of_another_engine_begin_before_those_that_would_wait_for_its_choice() -> None:
    factors = {"local.local_lr": [0.1, 0.05], "run.rounds": [10, 20]}
    study = read_study({"scenario": "quadratic-two-clients", "seeds": 1, "factors": factors})
    queue, order = Queue(StudyPlan.of(study).runs), []
    while (run := queue.take()) is not None:
        order.append((run.arm.scenario.run.rounds, run.arm.scenario.local.local_lr))
    assert order == [(20, 0.1), (10, 0.1), (20, 0.05), (10, 0.05)]


@pytest.mark.parametrize("share", [1, 2])
def test_engine_has_one_thread_or_its_share_whichever_is_faster(share: int, tmp_path: Path) -> None:
    scenario = load_scenario("digits-label-skew", sets={"engine.kind": "plain", "engine.threads": None, "rounds": 1})
    folder, before = StudyFolder(tmp_path), torch.get_num_threads()
    (tmp_path / "plans").mkdir()
    job = Job("0" * 16, to_toml(scenario), threads=share)
    choice = _choose(folder, job, "group", with_share(scenario, share), looks=False)
    timed = {name for name in ("1 thread", "2 threads") if name in choice["reason"]}
    assert choice["engine"]["threads"] in range(1, share + 1)
    assert bool(timed) == (share > 1), choice["reason"]
    assert torch.get_num_threads() == before


def test_named_threads_are_kept_whatever_the_share() -> None:
    named = load_scenario("digits-label-skew", sets={"engine.threads": 3})
    assert with_share(named, 2).engine.threads == 3
