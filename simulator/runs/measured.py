"""Which facts a run measures; criteria can use only these."""

from __future__ import annotations

from clients.core.population import Population
from clients.training.class_metrics import CLASS_SCORES
from clients.training.task import LearningTask
from server.convergence.facts import FACTS
from simulator.scenario.sections import Scenario


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
    if evaluation.federated_every:
        names |= {f"federated_{k}" for k in kinds[population.task] if our_clients or k not in CLASS_SCORES}
    if evaluation.gradient_every and our_clients:
        names.add("gradient_norm")
    if population.objective is not None:
        names |= {"optimality_gap", "distance_to_optimum"}
    if task.count_errors and our_clients:
        names.add("train_errors")
    return frozenset(names) & frozenset(FACTS)
