"""Which facts a run measures, for criteria and refusals; and which keys of a scenario have no effect in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import I64
from clients.core.errors import ScenarioError
from clients.core.population import Population
from clients.engines.objective import blocks_of
from clients.engines.samples.held_out import draws_measured_samples
from clients.federation.effects import rounds_notices
from clients.training.class_metrics import CLASS_SCORES
from clients.training.task import LearningTask
from server.convergence.facts import FACTS
from server.convergence.monitor import required_facts
from simulator.runs.strategies import evaluated_clients
from simulator.scenario.sections import Scenario
from simulator.scenario.unread import Path, is_set, late_keys, option_tables, unread_keys, without_effect


def has_central(population: Population) -> bool:
    """Return whether the population has data for central evaluation."""
    return population.task == "objective" or population.validation is not None


def measured_facts(scenario: Scenario, task: LearningTask, *, our_clients: bool) -> frozenset[str]:
    """Return the facts this run will measure."""
    population, evaluation = task.population, scenario.evaluation
    kinds = {
        "classification": ("loss", "accuracy", "error", *CLASS_SCORES),
        "regression": ("loss", "error", "mae"),
        "objective": ("loss",),
    }
    names = {"train_loss", "relative_change", "step_norm", "pseudo_gradient_norm", "largest_gradient_norm"}
    if has_central(population):
        names |= {f"validation_{k}" for k in kinds[population.task]}
        names |= {"agreement"} if population.task != "objective" else set()
    if population.validation is not None and draws_measured_samples(task):
        names |= {f"validation_{k}" for k in ("frechet_distance", "sample_precision", "sample_coverage")}
        names |= {"validation_sample_classes"} if population.spec.generates else set()
    if evaluation.federated_every:
        names |= {f"federated_{k}" for k in kinds[population.task] if our_clients or k not in CLASS_SCORES}
    if evaluation.adapt_every and our_clients:
        names |= {f"adapted_{k}" for k in kinds[population.task] if k not in CLASS_SCORES}
    if evaluation.gradient_every and our_clients:
        names.add("gradient_norm")
    if evaluation.objective_every and our_clients:
        names.add("objective")
    if population.objective is not None:
        names |= {"optimality_gap", "distance_to_optimum"}
    if task.count_errors and our_clients:
        names.add("train_errors")
    return frozenset(names) & frozenset(FACTS)


def check_curves(scenario: Scenario, population: Population, *, our_clients: bool) -> None:
    """Refuse curves whose data a run does not have.

    Raises:
        ScenarioError: a user's ClientApp has the data that the objective needs, or there is no central test set.
    """
    evaluation = scenario.evaluation
    if evaluation.objective_every and not our_clients:
        raise ScenarioError(
            "evaluation.objective_every",
            f"is {evaluation.objective_every}, which needs the clients' training data, and your ClientApp has its own",
            fix="Leave it out. With evaluation.federated_every the ClientApp evaluates the model.",
        )
    if evaluation.adapt_every and (not our_clients or population.clients.held_out is None):
        lack = "the clients hold out no examples" if our_clients else "your ClientApp trains the clients"
        problem = f"is {evaluation.adapt_every}, and {lack}"
        fix = "Leave it out, or let clients hold out examples (data.client_test_fraction)."
        raise ScenarioError("evaluation.adapt_every", problem, fix=fix)
    if evaluation.test_every and population.test is None:
        fix = "Leave it out, or give the data a test set of its own, as custom_population(..., test=(x, y)) does."
        if population.task == "objective" and not population.spec.generates:
            fix = "Leave it out. evaluation.objective_every measures the objective itself."
        problem = f"is {evaluation.test_every}, and the data have no central test examples"
        raise ScenarioError("evaluation.test_every", problem, fix=fix)
    seen = criteria_on_test_examples(scenario, population) if evaluation.test_every and our_clients else ""
    if seen:
        problem = f"is {evaluation.test_every}, and the test curve would not be of unseen examples: {seen}"
        fix = "Let [convergence] name a validation metric, or leave test_every out."
        raise ScenarioError("evaluation.test_every", problem, fix=fix)


def criteria_on_test_examples(scenario: Scenario, population: Population) -> str:
    """Return a sentence where criteria look at central test examples: clients may hold out the same; else nothing.

    In data of sites and people the central test set consists of the clients' test parts, which `federated_*` is
    measured on. Pooled data hold out two different sets.
    """
    looked_at = sorted(fact for fact in required_facts(scenario.convergence) if fact.startswith("federated_"))
    held_out, test = population.clients.held_out, population.central.test
    if not looked_at or held_out is None or test is None or population.task == "objective":
        return ""
    clients = evaluated_clients(scenario.evaluation, population.sizes, scenario.run.seed)
    if test.owners is not None:
        shared = bool(np.isin(test.owners, clients).any())
    else:
        known = set(_bytes_of(test.examples.features))
        shared = any(not known.isdisjoint(held) for held in _held_out(population, clients))
    if not shared:
        return ""
    return f"[convergence] looks at {looked_at[0]}, and what clients hold out are central test examples too"


def _held_out(population: Population, clients: I64) -> Iterator[set[bytes]]:
    """Yield the features of the examples that clients hold out, a block of clients at a time."""
    assert population.clients.held_out is not None
    for block in blocks_of(clients, population.sizes):
        data = population.clients.held_out(block)
        yield set(_bytes_of(data.features[torch.from_numpy(data.rows)]))


def _bytes_of(features: Tensor) -> list[bytes]:
    return [row.tobytes() for row in features.numpy()]


def idle_keys(scenario: Scenario, task: LearningTask, *, on_nodes: bool = False) -> list[str]:
    """Return a sentence for each key that was set and has no effect in a run, or acts after its last round.

    Args:
        scenario: the experiment.
        task: its model and its clients' data.
        on_nodes: whether the clients are on real nodes.
    """
    tables = dict(option_tables(scenario))
    of_nodes = [] if on_nodes else [
        without_effect(("nodes", f.name), getattr(scenario.nodes, f.name), "the clients are in this process")
        for f in fields(scenario.nodes) if is_set(scenario.nodes, f.name)
    ]  # fmt: skip
    of_data = [
        without_effect(path, getattr(tables[path[:-1]], path[-1]), reason)
        for path, reason in _with_these_data(task)
        if is_set(tables[path[:-1]], path[-1])
    ]
    late = [*rounds_notices(scenario.faults, scenario.drifts, scenario.run.rounds), *late_keys(scenario)]
    return [*unread_keys(scenario), *of_nodes, *of_data, *late]


def _with_these_data(task: LearningTask) -> Iterator[tuple[Path, str]]:
    """Yield keys that the data or the model leave without an effect, and why."""
    if not task.buffers.size:
        yield ("local", "buffers"), "the model has no buffers"
    if int(np.max(task.population.sizes, initial=0)) <= 1:
        keys = ("drop_last",) if task.local.batch_size == "full" else ("batch_size", "drop_last")
        for key in keys:
            yield ("local", key), "no client has more than one example"
