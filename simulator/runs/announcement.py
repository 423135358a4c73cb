"""The facts that observers receive at the start of a run, and notices for people who observe nothing."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from clients.core.examples import Examples
from clients.core.population import Population
from clients.core.shown.text import printable
from clients.engines.base import Engine
from clients.heterogeneity.measures import partition_measures
from clients.training.losses import error_words
from dashboards.report.formats import data_size
from server.certificate.machine import machine_facts
from server.record.client_pieces import CHECKPOINT_COPIES
from server.record.kept.parameters import left_to_the_record
from server.record.records import RunFolder
from simulator.engines.cost import RoundCost, cost_words, foresee
from simulator.engines.memory import foreseen_rows
from simulator.runs.building import Overrides
from simulator.runs.experiment import objective_notices
from simulator.runs.measured import criteria_on_test_examples
from simulator.runs.session import Session
from simulator.runs.strategies import evaluated_clients
from simulator.scenario.data_files import data_files
from simulator.workers.engine import WorkersEngine

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
        if (
            kind
            not in ("clients_failed", "no_aggregate", "nothing_sent", "parameters_not_kept", "checkpoints_not_kept")
            or kind in self._seen
        ):
            return
        self._seen.add(kind)
        more = " run.rounds['failures'] counts them in each round." if kind == "clients_failed" else ""
        _log.warning("fedscape: round %s: %s.%s", event["round"], event["message"].rstrip("."), more)


def describe(session: Session, given: Overrides, folder: RunFolder | None, run_id: str) -> dict[str, Any]:
    """Return the facts that observers receive at the start of a run.

    Args:
        session: what is run.
        given: the parts passed from Python.
        folder: the run's folder; None where nothing is recorded.
        run_id: the run's name.
    """
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
        engine, reason = (plan.engine, plan.reason) if plan else ("the nodes'", "clients are on nodes of Flower's grid")
    if session.device_words:
        reason = f"{session.device_words}; {reason}"
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
        "engine_words": plan.words if plan else engine,
        "engine_reason": reason,
        "engine_plan": plan.to_dict() if plan else None,
        "run_id": run_id,
        **({"study": dict(given.study)} if given.study else {}),
        "certificate": {"kind": scenario.run.certificate, **machine_facts(engine_here(session))},
        **_of_data(session, given, folder),
    }


def engine_here(session: Session) -> Engine | None:
    """Return the engine that trains in this process, beside workers or alone; None where clients are elsewhere."""
    return session.engine.inner if isinstance(session.engine, WorkersEngine) else session.engine


def _of_data(session: Session, given: Overrides, folder: RunFolder | None) -> dict[str, Any]:
    """Return the facts on the data, the notices and the foreseen cost."""
    measures = partition_measures(session.population, session.scenario.run.seed)
    data = session.scenario.data
    cost, warning = cost_of(session)
    population, task = session.population, session.task
    notices = [*session.scenario.notices, *population.federation.notices, *task.notices, *objective_notices(session)]
    notices += [*([warning] if warning else []), *sizes_of(session, folder.path if folder is not None else None)]
    seen = criteria_on_test_examples(session.scenario, population) if session.engine is not None else ""
    notices += [f"{seen}: the test scores at the end are not of unseen examples"] if seen else []
    files = data_files(session.scenario)
    error = error_words(session.population, scaled=data is None or data.is_scaled)
    return {
        "version": metadata.version("fedscape"),
        "label_emd": measures.label_emd,
        "label_js": measures.label_js,
        "smallest_client": measures.smallest,
        "median_client": measures.median,
        "largest_client": measures.largest,
        "measured_on_clients": measures.estimated_from,
        "data": session.population.name,
        **({"data_facts": session.population.federation.record} if session.population.federation.record else {}),
        **({"data_files": files.facts()} if files is not None else {}),
        **({"notices": notices} if notices else {}),
        **({"scenario_notices": session.scenario.notices} if session.scenario.notices else {}),
        **({"error": error} if error else {}),
        **({"foreseen_seconds": cost.facts()} if cost is not None else {}),
        "from_python": given.names,
    }


def cost_of(session: Session) -> tuple[RoundCost | None, str]:
    """Return what a round will cost and, where it takes long, a sentence that names the keys that reduce it."""
    scenario, task, plan = session.scenario, session.task, session.plan
    if plan is None or (session.played.own is None and session.played.cohort is None):
        return None, ""
    central, federated, objective = _evaluated(session)
    evaluated = central + federated + objective
    cohort = session.played.cohort or session.population.federation.with_data
    cost = foresee(
        plan,
        task,
        session.evaluator,
        cohort=cohort,
        evaluated=evaluated,
        examples=_some_examples(session.population),
    )
    if cost is None:
        return None, ""
    spec = session.population.spec
    words = cost_words(
        cost,
        rounds=scenario.run.rounds,
        stride=spec.forecast.stride if spec.forecast is not None and scenario.data is not None else None,
        window=spec.feature_shape[0] if spec.feature_shape else 1,
        federated=federated / max(evaluated, 1.0),
        objective=objective / max(evaluated, 1.0),
    )
    return cost, words


def sizes_of(session: Session, folder: Path | None) -> list[str]:
    """Return what the objective, kept parameters and client states cost, in sentences; none where they are off or fit.

    Args:
        session: what is run.
        folder: the run's folder; None where nothing is recorded.
    """
    evaluation, run = session.scenario.evaluation, session.scenario.run
    words = _states_on_disk(session, folder)
    if evaluation.objective_every:
        sizes = session.population.sizes
        words.append(
            f"evaluation.objective_every = {evaluation.objective_every}: each measurement evaluates all "
            f"{session.population.num_examples:,} training examples of {np.count_nonzero(sizes):,} clients"
        )
    if run.keep_checkpoints_every:
        words.append(_kept_checkpoints(session, folder))
    if not run.keep_parameters_every:
        return words
    if folder is None:
        return [*words, f"run.keep_parameters_every = {run.keep_parameters_every} has no effect: nothing is recorded"]
    every, state = run.keep_parameters_every, session.module(session.start.params, session.start.buffers).state_dict()
    count = 1 + -(-run.rounds // every)
    size = sum(tensor.nbytes for tensor in state.values())
    free = shutil.disk_usage(folder).free
    words.append(
        f"run.keep_parameters_every = {every}: up to {count:,} files of {data_size(size)} each, "
        f"{data_size(count * size)}"
    )
    if count * size + left_to_the_record(size) > free:
        words[-1] += f", and the disk has {data_size(free)} free: the last rounds will be missing"
    return words


def _kept_checkpoints(session: Session, folder: Path | None) -> str:
    """Return what the checkpoints of earlier rounds may take, in a sentence."""
    run, task = session.scenario.run, session.task
    every = run.keep_checkpoints_every
    if folder is None:
        return f"run.keep_checkpoints_every = {every} has no effect: nothing is recorded"
    count, each = 1 + run.rounds // every, task.parameters.size * task.dtype.itemsize
    cohort = session.played.cohort or task.population.num_clients
    clients = min(task.population.num_clients, cohort * every)
    size = count * each * (1 + session.played.client_states * clients)
    free = shutil.disk_usage(folder).free
    words = f"run.keep_checkpoints_every = {every}: up to {count:,} checkpoints, about {data_size(size)}"
    full = size + left_to_the_record(each) > free
    return f"{words}, and the disk has {data_size(free)} free: the last ones will be missing" if full else words


def _states_on_disk(session: Session, folder: Path | None) -> list[str]:
    """Return a sentence where the disk may become too small for what clients keep between rounds."""
    if session.states is None:
        return []
    task, place = session.task, session.states.place if folder is None else folder
    clients, cohort = task.population.num_clients, session.played.cohort or task.population.num_clients
    rows = foreseen_rows(clients, cohort=cohort, rounds=session.scenario.run.rounds)
    each = session.played.client_states * task.parameters.size * task.dtype.itemsize
    in_checkpoints = 0 if folder is None else CHECKPOINT_COPIES * (rows - cohort) * each
    size, free = rows * each + in_checkpoints, shutil.disk_usage(place).free
    if rows * each <= session.states.most_in_memory or size <= free:
        return []
    where, key = ("with checkpoints in the run's folder", "--out") if folder is not None else (f"in {place}", "TMPDIR")
    return [
        f"what clients keep between rounds takes up to {data_size(size)} {where}, and the disk has {data_size(free)} "
        f"free: a full one ends the run with an error. {key} names another folder"
    ]


def _some_examples(population: Population) -> Examples | None:
    """Return examples on which an evaluation can be timed: central ones, else those of the first client with data."""
    if population.validation is not None:
        return population.validation
    clients = np.flatnonzero(population.sizes)[:1].astype(np.int64)
    return population.test if population.test is not None else population.cohort(clients).client(0)


def _evaluated(session: Session) -> tuple[float, float, float]:
    """Return the examples evaluated in a round, on the server, on the clients and for the global objective.

    Each number is the mean over rounds.
    """
    population, options = session.population, session.scenario.evaluation
    central = float(len(population.validation)) if population.validation is not None else 0.0
    if options.test_every and population.test is not None:
        central += len(population.test) / options.test_every
    objective = population.num_examples / options.objective_every if options.objective_every else 0.0
    return central, _evaluated_on_clients(session), objective


def _evaluated_on_clients(session: Session) -> float:
    population, options = session.population, session.scenario.evaluation
    if not options.federated_every:
        return 0.0
    clients = evaluated_clients(options, population.sizes, session.task.seed)
    held_out = population.clients.held_out
    if held_out is None:
        each = float(population.sizes[clients].sum(dtype=np.int64))
    else:  # all clients count as the first one: a count of each would make its data
        each = len(clients) * float(held_out(clients[:1]).sizes.sum()) if len(clients) else 0.0
    return each / options.federated_every
