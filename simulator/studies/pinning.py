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


def engine_group(scenario: Scenario) -> str:
    """Return a name of the scenarios that share an engine: those that differ in nothing that decides its speed."""
    table = {key: value for key, value in all_values(scenario).items() if key not in WITHOUT_ENGINE}
    run = {key: table["run"][key] for key in ("dtype", "rounds")}
    text = json.dumps({**table, "run": run}, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def with_share(scenario: Scenario, threads: int) -> Scenario:
    """Return a scenario whose engine uses one process and its share of the processors, where it names none."""
    engine = scenario.engine
    if engine.workers == "auto":
        engine = replace(engine, workers=1)
    if engine.threads is None:
        engine = replace(engine, threads=threads)
    return replace(scenario, engine=engine)


def pinned(scenario: Scenario, choice: Mapping[str, Any]) -> Scenario:
    """Return a scenario with a chosen engine; `fedscape run` on its file gives the same bits."""
    return replace(scenario, engine=replace(scenario.engine, **choice["engine"]))
