"""What a node does with a message: it makes the task of the scenario, keeps it, and answers."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch

from clients.core.errors import ScenarioError, StrategyError
from clients.engines.base import Engine
from clients.engines.native.choice import has_kernel
from clients.engines.plain import PlainEngine
from clients.engines.ranks.distributed import DistributedEngine, local_engine
from clients.engines.ranks.splitting import is_split
from clients.engines.stacked import StackedEngine
from clients.flower.answering import ClientTask, OwnData, answer
from clients.flower.codec import Codec
from clients.flower.forwarding import config_in, packed, unpacked
from clients.flower.node_config import read_node_config
from clients.training.task import LearningTask
from server.algorithms.build import build_algorithm
from server.record.environment import installed_version
from simulator.engines.devices import cards_here, choose_device, counted_cards, on_device
from simulator.engines.splitting import check_split_options
from simulator.runs.building import Overrides, make_task_of
from simulator.runs.nodes import own_population
from simulator.scenario.sections import DEFAULT, Scenario, load_scenario, parse_scenario, to_toml

_OF_CLIENTS = ("data", "partition", "world", "faults", "drifts", "features", "model", "local", "algorithm", "run.seed",
               "run.dtype")  # fmt: skip
"""The sections and keys of a scenario that say what a client does."""


def load_task(text: str, sent: str, own: OwnData | None, run_config: Mapping[str, Any]) -> ClientTask:
    """Make the task of a message: of the scenario that the server sent, which must be the app's own if it has one."""
    if text and sent and text != sent and (difference := _difference(text, sent)):
        raise StrategyError("scenario", f"of the server is another than this node's: {difference}",
                            fix="Start server and nodes from the same scenario.")  # fmt: skip
    return client_task(sent or text or to_toml(scenario_of("", run_config)), own)


@lru_cache(maxsize=1)
def client_task(text: str, own: OwnData | None = None) -> ClientTask:
    """Make the task of a scenario's text, maybe on the node's own data.

    It is made once a process: one process answers many messages, or runs many nodes.

    Raises:
        UserError: the scenario is not valid on this machine.
    """
    scenario = _parsed(text)
    if scenario.engine.threads is not None:
        torch.set_num_threads(scenario.engine.threads)
    task = make_task_of(scenario, Overrides(), None if own is None else own_population(scenario, own))
    find = cards_here if scenario.local.devices == 1 else counted_cards
    task = on_device(task, scenario.engine, choose_device(scenario.engine, find=find).device)
    codec = Codec.flat(task.parameters, task.buffers, task.dtype)
    local = build_algorithm(scenario.algorithm, task.local).local_work
    engine = _engine(scenario, task)
    if isinstance(engine, DistributedEngine) and task.device.type == "cuda":  # before anything else uses a card
        engine.start(local)
    return ClientTask(engine, codec, local, installed_version())


def _engine(scenario: Scenario, task: LearningTask) -> Engine:
    """Return the engine of a node: a kernel where there is one, else plain, unless the scenario names one."""
    if is_split(task):
        check_split_options(scenario.engine, task.local)
        return local_engine(task, scenario.engine.threads)
    if scenario.engine.kind == "plain":
        return PlainEngine(task)
    stacked = StackedEngine(task, tile=scenario.engine.tile)
    return stacked if scenario.engine.kind == "stacked" or has_kernel(stacked.program) else PlainEngine(task)


def scenario_of(text: str, run_config: Mapping[str, Any]) -> Scenario:
    """Return the scenario of a text, or without one the scenario that the run's config names."""
    if text:
        return _parsed(text)
    sets = [change.strip() for change in str(run_config.get("sets") or "").split(";")]
    return load_scenario(str(run_config.get("scenario") or DEFAULT), sets=[change for change in sets if change])


def answered(kind: str, node: Mapping[str, Any], body: bytes) -> bytes:
    """Answer a message in a local service: see `clients.flower.forwarding` and `clients.service`.

    Raises:
        UserError: the message, the node's config or the scenario cannot be used.
    """
    content, state = unpacked(body)
    run_config = config_in(node, "run_config")
    held = read_node_config(config_in(node, "node_config"))

    def load(text: str, own: OwnData | None) -> ClientTask:
        return load_task("", text, own, run_config)

    return packed(answer(kind, content, held, load, state), state)


def _parsed(text: str) -> Scenario:
    return parse_scenario(_table(text), source="the app's scenario")


def _table(text: str) -> dict[str, Any]:
    """Return the table of a scenario's text, which comes from another machine.

    Raises:
        ScenarioError: it is no TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError("scenario", f"that the server sent is no TOML: {error}") from error


def _difference(one: str, other: str) -> str:
    """Return the first key of a client's work that differs between two scenarios, with both values; empty if none."""
    ours, theirs = _flat(_table(one)), _flat(_table(other))
    keys = [
        k for k in sorted(ours.keys() | theirs.keys()) if k.startswith(_OF_CLIENTS) and ours.get(k) != theirs.get(k)
    ]
    return f"{keys[0]} is {theirs.get(keys[0])!r:.60} there and {ours.get(keys[0])!r:.60} here" if keys else ""


def _flat(table: Mapping[str, Any], path: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in table.items():
        found |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return found
