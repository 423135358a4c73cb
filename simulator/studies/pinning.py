"""The engine of a study's runs: chosen once for each group of arms, then written into every run's scenario.

The choice is timed, so it may differ from start to start, and it moves last bits. A study keeps its first choice in
`plans/`, so that all seeds of an arm, runs after a kill and runs of other machines have the same engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from simulator.scenario.plain import all_values
from simulator.scenario.sections import Scenario

WITHOUT_ENGINE = ("title", "name", "faults", "drifts", "evaluation", "convergence", "fleet", "nodes")
"""Sections that do not decide which engine is the fastest."""
FACTORS_ALONE = ("local_lr", "schedule")
"""Keys of [local] that change numbers, and neither shapes nor the operations on them."""
ON_THE_SERVER = ("weighting", "sampling", "server_lr", "server_momentum", "beta1", "beta2", "tau")
"""Keys of [algorithm] that no client reads."""
RULES = {
    "fedavg": "none", "fedavgm": "none", "fedadam": "none", "fedyogi": "none", "fedadagrad": "none",
    "fedprox": "proximal", "fednova": "proximal",
}  # fmt: skip
"""The local rule of algorithms that share theirs with another one; a proximal rule of weight 0 is none."""


def engine_group(scenario: Scenario) -> str:
    """Return a name of the scenarios that share an engine: those that differ in nothing that decides its speed.

    The choice depends on shapes and operations: the model, the clients' examples, the cohort, the kind of local work.
    A learning rate is a factor in them, and what the server does with updates comes after them.
    """
    table = {key: value for key, value in all_values(scenario).items() if key not in WITHOUT_ENGINE}
    run = {key: table["run"][key] for key in ("dtype", "rounds")}
    local = {key: value for key, value in table["local"].items() if key not in FACTORS_ALONE}
    parts = {**table, "run": run, "local": local, "algorithm": _on_clients(table["algorithm"])}
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _on_clients(algorithm: Mapping[str, Any]) -> dict[str, Any]:
    """Return what clients see of [algorithm]: the rule of their steps without its weights, and the other keys."""
    rule = "none" if algorithm.get("mu") == 0 else RULES.get(algorithm["kind"], algorithm["kind"])
    hidden = ("kind", "mu", "alpha", *ON_THE_SERVER)
    return {"rule": rule, **{key: value for key, value in algorithm.items() if key not in hidden}}


def with_share(scenario: Scenario, threads: int) -> Scenario:
    """Return a scenario whose engine uses one process, where it names none, and one thread where that is its share.

    Of a share of several threads the planner takes the faster of one and all.
    """
    engine = scenario.engine
    if engine.workers == "auto":
        engine = replace(engine, workers=1)
    if engine.threads is None and threads == 1:
        engine = replace(engine, threads=1)
    return replace(scenario, engine=engine)


def pinned(scenario: Scenario, choice: Mapping[str, Any]) -> Scenario:
    """Return a scenario with a chosen engine; `fedscape run` on its file gives the same bits."""
    return replace(scenario, engine=replace(scenario.engine, **choice["engine"]))
