"""The facts that observers receive at the start of a run, and notices for people who observe nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from simulator.runs.session import Session

_log = logging.getLogger("fedscape.notices")


def log_notices(notices: Iterable[str]) -> None:
    """Log what was guessed, converted or dropped, where no observer shows the header of the run."""
    for notice in notices:
        _log.warning("fedscape: %s", notice)


def describe(session: Session, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that observers receive at the start of a run."""
    scenario, task, plan = session.scenario, session.task, session.plan
    model = type(task.module).__name__ if scenario.model is None else scenario.model.label
    strategy, own = session.played.strategy, session.played.own
    if strategy is own:
        algorithm: str = own.algorithm.name if own is not None else scenario.algorithm.kind
    else:
        around = f" around {scenario.algorithm.kind}" if own is not None else ""
        algorithm = type(strategy).__name__ + around
    if session.engine is None:
        engine, reason = "ClientApp", "a user's ClientApp, one message a client"
    else:
        engine, reason = (plan.engine, plan.reason) if plan else ("plain", "one client on each node of Flower's grid")
    return {
        "scenario": scenario.name or "scenario",
        "title": scenario.title,
        "seed": scenario.run.seed,
        "rounds": scenario.run.rounds,
        "clients": session.population.num_clients,
        "examples": session.population.num_examples,
        "cohort": session.played.cohort,
        "model": model,
        "parameters": task.parameters.size,
        "algorithm": algorithm,
        "engine": engine,
        "engine_reason": reason,
        "engine_plan": plan.to_dict() if plan else None,
        **facts,
    }
