"""The facts that observers receive at the start of a run, and notices for people who observe nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from clients.core.shown.text import printable
from simulator.engines.cost import RoundCost, cost_words, foresee
from simulator.runs.session import Session
from simulator.runs.strategies import evaluated_clients

_log = logging.getLogger("fedscape.notices")


def log_notices(notices: Iterable[str]) -> None:
    """Log what was guessed, converted or dropped, where no observer shows the header of the run."""
    for notice in notices:
        _log.warning("fedscape: %s", printable(notice))


class EventLog:
    """Logs failures that did not end the run, each kind once, where no observer shows them."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def event(self, event: Mapping[str, Any]) -> None:
        """Log an event whose kind is new; those that are no failures are not logged."""
        kind = event["kind"]
        if kind not in ("clients_failed", "no_aggregate", "nothing_sent") or kind in self._seen:
            return
        self._seen.add(kind)
        more = " run.rounds['failures'] counts them in each round." if kind == "clients_failed" else ""
        _log.warning("fedscape: round %s: %s.%s", event["round"], event["message"].rstrip("."), more)


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


def cost_of(session: Session) -> tuple[RoundCost | None, str]:
    """Return what a round will cost and, where it takes long, a sentence that names the keys that reduce it."""
    scenario, task, plan = session.scenario, session.task, session.plan
    if plan is None or (session.played.own is None and session.played.cohort is None):
        return None, ""
    central, federated = _evaluated(session)
    cohort = session.played.cohort or session.population.federation.with_data
    cost = foresee(
        plan,
        task,
        session.evaluator,
        cohort=cohort,
        evaluated=central + federated,
        examples=session.population.validation,
    )
    if cost is None:
        return None, ""
    spec = session.population.spec
    words = cost_words(
        cost,
        rounds=scenario.run.rounds,
        stride=spec.forecast.stride if spec.forecast is not None and scenario.data is not None else None,
        window=spec.feature_shape[0] if spec.feature_shape else 1,
        federated=federated / max(central + federated, 1.0),
    )
    return cost, words


def _evaluated(session: Session) -> tuple[float, float]:
    """Return the examples evaluated in a round, on the server and on the clients: the mean over rounds."""
    population, options = session.population, session.scenario.evaluation
    central = float(len(population.validation)) if population.validation is not None else 0.0
    if not options.federated_every:
        return central, 0.0
    clients = evaluated_clients(options, population.sizes, session.task.seed)
    held_out = population.clients.held_out
    if held_out is None:
        each = float(population.sizes[clients].sum(dtype=np.int64))
    else:  # all clients count as the first one: a count of each would make its data
        each = len(clients) * float(held_out(clients[:1]).sizes.sum()) if len(clients) else 0.0
    return central, each / options.federated_every
