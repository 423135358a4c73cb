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

from simulator.engines.plan import EnginePlan
from simulator.runs.session import Session
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


def choice_of(session: Session) -> dict[str, Any]:
    """Return the keys of [engine] that give a session's engine again, for a file, with the plan's words and reason."""
    plan = session.plan
    assert plan is not None, "the clients of a study's run are in this process"
    keys: dict[str, Any] = {"kind": plan.engine, "workers": plan.workers, "compile": "never"}
    keys |= {"threads": plan.threads} if plan.threads is not None else {}
    if plan.engine == "stacked":
        cohort = session.played.cohort or session.task.population.federation.with_data
        keys |= {"tile": plan.tile or cohort, "native": "always" if plan.native else "never"}
        keys |= {"compile": "always"} if plan.compiled else {}
    return {"engine": keys, "words": _words(plan), "reason": plan.reason}


def pinned(scenario: Scenario, choice: Mapping[str, Any]) -> Scenario:
    """Return a scenario with a chosen engine; `fedscape run` on its file gives the same bits."""
    return replace(scenario, engine=replace(scenario.engine, **choice["engine"]))


def _words(plan: EnginePlan) -> str:
    return f"{plan.words}{', kernel in C' if plan.native else ''}"
