"""Memory is foreseen before it is taken; a run that needs more than there is names its largest part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fedscape as fs
from clients.core.errors import UserError
from clients.engines.native.threads import threads_restored
from simulator.engines.limits import Limit, memory_limit, memory_used, processors
from simulator.engines.memory import CARD_SHARE, Part, bytes_of_client, check_memory, parts_of, widest_tile
from simulator.engines.probe import largest_tile, make_sample
from simulator.runs.building import Overrides
from simulator.runs.session import open_session
from simulator.scenario.sections import load_scenario

GB = 2**30


def groups(root: Path, text: str, limits: dict[str, str]) -> Path:
    """Write the files of control groups below a folder."""
    for name, content in {"proc/self/cgroup": text, **limits}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("0::/a/b\n", {"sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "4096\n"}),
        ("0::/a/b\n", {"sys/fs/cgroup/a/b/memory.max": "4096\n", "sys/fs/cgroup/a/memory.max": "8192\n"}),
        ("4:memory:/c\n0::/\n", {"sys/fs/cgroup/memory/c/memory.limit_in_bytes": "4096\n"}),
        ("4:cpu,memory:/c\n", {"sys/fs/cgroup/memory/memory.limit_in_bytes": "4096\n"}),
    ],
)
def test_limit_is_the_lowest_of_the_control_groups(tmp_path: Path, text: str, limits: dict[str, str]) -> None:
    found = memory_limit(groups(tmp_path, text, limits))
    assert found == Limit(4096, "the limit of this process's control group")


def test_limit_without_control_groups_is_at_most_the_machines_memory(tmp_path: Path) -> None:
    assert 2**20 < memory_limit(tmp_path).bytes < 2**60


def test_run_that_does_not_fit_names_its_largest_part_and_the_key() -> None:
    parts = [Part("small", GB, "Not this."), Part("the tile", 7 * GB, "Lower engine.tile.")]
    with pytest.raises(UserError, match=r"^memory: .* is 6 GB; the largest part is the tile \(7 GB\)\. Lower engine"):
        check_memory(parts, Limit(6 * GB, "the limit"))
    assert check_memory(parts, Limit(memory_used() + 9 * GB, "the limit")).endswith("(7 GB). Lower engine.tile.")
    assert check_memory(parts, Limit(memory_used() + 30 * GB, "the limit")) == ""


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["model.hidden=[1000000,1000000]"], "the model"),
        (["data={kind='synthetic',features=1000000}", "partition=", "model={kind='softmax'}"], "the data"),
        (["data={kind='quadratic',dimension=1000000}", "partition=", "model={kind='quadratic'}"], "the data"),
    ],
)
def test_numbers_that_multiply_are_refused_before_anything_is_made(sets: list[str], words: str) -> None:
    before = memory_used()
    with pytest.raises(UserError, match=f"^memory: .*the largest part is {words} "):
        fs.simulate(load_scenario("digits-label-skew", sets=sets), record=False)
    assert memory_used() - before < GB // 4


SMALL = {
    "data": {"kind": "digits"}, "partition": {"kind": "iid", "clients": 5}, "model": {"kind": "softmax"},
    "local": {"local_steps": 1}, "algorithm": {"kind": "fedavg", "cohort": 2}, "run": {"rounds": 1},
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"local.batch_size": 10**9}, {"engine.tile": 10**9, "engine.kind": "stacked"}, {"engine.keep_bytes": 10**18},
        {"evaluation.federated_clients": 10**9}, {"run.checkpoint_rounds": 10**9}, {"local.local_lr": 1e18},
        {"local.l2": 1e18}, {"algorithm.server_lr": -0.0}, {"fleet.seconds_per_local_step": 1e6},
        {"fleet.bytes_per_second_up": 1e-3}, {"convergence.min_rounds": 10**9}, {"local.l1": 1e-18},
    ],
)  # fmt: skip
def test_largest_accepted_numbers_run_in_little_memory(change: dict[str, Any]) -> None:
    before = memory_used()
    try:
        run = fs.simulate(load_scenario(SMALL, sets=change), record=False)
    except UserError:
        return
    assert run.verdict.outcome in ("stopped", "diverged", "converged")
    assert memory_used() - before < GB // 2


def test_parts_grow_with_what_they_are_named_for() -> None:
    def sizes(**change: Any) -> dict[str, int]:
        session = open_session(
            load_scenario(SMALL, sets={k.replace("__", "."): v for k, v in change.items()}), Overrides()
        )
        session.close()
        parts = parts_of(session.task, session.scenario.engine, cohort=2, rounds=10, states=1)
        return {part.name.split(" of ")[0].split(" in ")[0]: part.bytes for part in parts}

    small, wide = sizes(engine__workers=1), sizes(model__kind="mlp", model__hidden=[1000])
    assert wide["the model"] > 50 * small["the model"]
    assert wide["what clients keep between rounds"] > 50 * small["what clients keep between rounds"]
    tile = {n: sizes(engine__workers=n, engine__kind="stacked", engine__tile=1)["a tile"] for n in (1, 2)}
    assert tile[2] == 2 * tile[1]
    assert small["the updates"] == 2 * 650 * 4  # two clients of 64 x 10 + 10 parameters in float32


def test_more_threads_than_processors_are_stated() -> None:
    def notices(threads: int) -> list[str]:
        with threads_restored():
            scenario = load_scenario(SMALL, sets={"engine.threads": threads, "engine.kind": "plain"})
            return [notice for notice in open_session(scenario, Overrides()).task.notices if "threads" in notice]

    assert notices(processors()) == []
    (found,) = notices(processors() + 1)
    assert found.startswith(f"engine.threads = {processors() + 1} is more than the ")


def test_far_more_threads_than_processors_are_refused_before_they_start() -> None:
    scenario = load_scenario(SMALL, sets={"engine.threads": 1024, "engine.kind": "plain"})
    if processors() >= 256:
        pytest.skip("this machine has processors for so many")
    with pytest.raises(UserError, match=r"^engine.threads: must be at most \d+ with the .* got 1,024\. Leave it out"):
        open_session(scenario, Overrides())


def test_tile_of_a_card_fills_a_share_of_its_free_memory() -> None:
    session = open_session(load_scenario("digits-iid", sets=["engine.kind=stacked", "engine.tile=2"]), Overrides())
    sample = make_sample(session.task, 10)
    each = bytes_of_client(sample)
    on_card = replace(sample, task=replace(session.task, device=torch.device("cuda", 1)))
    asked = []

    def free(device: torch.device) -> int:
        asked.append(device)
        return int(7.5 * each / CARD_SHARE)

    assert widest_tile(on_card, keep_bytes=1, free=free) == 7
    assert asked == [torch.device("cuda", 1)], "it asks the card that trains"
    assert widest_tile(on_card, keep_bytes=1, free=lambda _: 0) == 1
    assert widest_tile(sample, keep_bytes=1 << 30, free=free) == largest_tile(sample, 1 << 30), "the CPU keeps its rule"


def test_tensors_of_a_tile_on_a_card_take_no_main_memory() -> None:
    session = open_session(load_scenario("digits-iid", sets=["engine.kind=stacked", "engine.tile=2"]), Overrides())
    card = replace(session.task, device=torch.device("cuda", 0))
    names = [
        [part.name for part in parts_of(task, session.scenario.engine, cohort=10, rounds=2, states=0)]
        for task in (session.task, card)
    ]
    assert set(names[0]) - set(names[1]) == {"a tile of 2 clients in training"}


def test_devices_and_micro_batches_of_a_client_are_foreseen() -> None:
    scenario = load_scenario("digits-label-skew", sets=["local.batch_size=64"])
    with threads_restored():
        session = open_session(replace(scenario, engine=replace(scenario.engine, kind="plain")), Overrides())
    session.close()

    def bytes_in_training(**options: Any) -> int:
        task = replace(session.task, local=replace(session.task.local, **options))
        parts = parts_of(task, scenario.engine, cohort=10, rounds=2, states=0)
        return next(part.bytes for part in parts if part.name.startswith("a tile of 1 clients in training"))

    one = bytes_in_training(micro_batch_size=64)
    assert bytes_in_training(devices=3, micro_batch_size=64) == 3 * one
    assert bytes_in_training(micro_batch_size=2) < one
