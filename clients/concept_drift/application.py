"""Populations with concept drift: the examples of a round, made from those without drift.

The definitions are in `clients.concept_drift.options`. Drift in p(x) and p(y) picks other rows of the same client and
copies nothing. Drift in p(y|x) changes targets in a copy of the cohort. Fault counts describe the examples before
drift.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from clients.concept_drift.drift_rule import DriftRule, apply
from clients.concept_drift.options import DriftOptions
from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.errors import UserError, unknown_name
from clients.core.examples import Cohort, CohortData, Examples
from clients.core.population import ClientData, Population
from clients.core.population_parts import CentralData, CentralExamples
from clients.core.ragged import label_counts_of, offsets_of, positions

Drifts = Mapping[str, DriftOptions]


def with_drifts(population: Population, drifts: Drifts, *, seed: int) -> Population:
    """Return a population in which concepts drift.

    Args:
        population: the clients without drift; it may change over rounds.
        drifts: by name, applied in order.
        seed: root seed.

    Raises:
        UserError: a drift in hours where examples have no time, an unknown district, or an objective.
    """
    if not drifts:
        return population
    for name, options in drifts.items():
        _check(name, options, population)
    rules = {name: DriftRule(name, options, population, seed) for name, options in drifts.items()}
    last: tuple[Population, int, Population] | None = None

    def schedule(round_index: int) -> Population:
        nonlocal last
        base = population.during(round_index)
        if last is None or last[0] is not base or last[1] != round_index:
            last = base, round_index, _in_round(base, rules, round_index)
        return last[2]

    in_rounds = population.history.schedule is not None or any(o.unit == "rounds" for o in drifts.values())
    of_faults = population.history.events

    def events(round_index: int) -> Sequence[dict[str, Any]]:
        earlier = list(of_faults(round_index)) if of_faults is not None else []
        return earlier + [event for rule in rules.values() for event in rule.events(round_index)]

    first = schedule(0)
    history = replace(first.history, schedule=schedule if in_rounds else None, events=events)
    return replace(first, history=history)


def _check(name: str, options: DriftOptions, population: Population) -> None:
    field = f"drifts.{name}"
    if population.spec.task == "objective":
        raise UserError(field, "needs examples with targets, and these data are an objective")
    if population.spec.reconstructs and options.changes == "p(y|x)":
        raise UserError(f"{field}.changes", "is 'p(y|x)', and the targets of these data are their features",
                        fix='Take "p(x)".')  # fmt: skip
    if options.unit == "hours":
        _check_clock(field, population)
    for district in options.districts:
        known = population.federation.districts
        if not known:
            problem = f"names {district!r}, and these data have no districts"
            raise UserError(f"{field}.districts", problem, fix="Leave it out, or add a [world], which has districts.")
        if district not in known:
            raise UserError(f"{field}.districts", unknown_name(district, known, "a district"))


def _check_clock(field: str, population: Population) -> None:
    """Refuse a drift in hours if some examples have no time."""
    clients, central = population.clients, population.central
    clocked = {
        "data have": clients.hours is not None,
        "held-out examples have": clients.held_out is None or clients.held_out_hours is not None,
        "validation examples have": central.validation is None or central.validation.hours is not None,
        "test examples have": central.test is None or central.test.hours is not None,
    }
    for what, known in clocked.items():
        if not known:
            raise UserError(f"{field}.unit", f"is 'hours', and these {what} no clock", fix="Count in rounds.")


def _in_round(base: Population, rules: Mapping[str, DriftRule], round_index: int) -> Population:
    """Return the population of one round."""

    def levels(clients: I64) -> dict[str, F64]:
        latest = None if base.clients.hours is None else _latest(base, base.clients.hours, clients)
        return {name: rule.levels(clients, round_index, latest) for name, rule in rules.items()}

    central = base.central
    return replace(
        base,
        clients=_client_data(base, rules, round_index),
        central=CentralData(
            validation=_central(base, central.validation, rules, round_index),
            test=_central(base, central.test, rules, round_index),
        ),
        history=replace(base.history, drift_levels=levels, schedule=None),
    )


def _client_data(base: Population, rules: Mapping[str, DriftRule], round_index: int) -> ClientData:
    """Return the clients' data in a round."""
    clients = base.clients

    def drifted(source: Cohort, hours: Callable[[I64], F64] | None) -> Cohort:
        def cohort(clients: I64) -> CohortData:
            data = source(clients)
            owners = np.repeat(clients, data.sizes)
            slot = positions(np.zeros_like(data.sizes), data.sizes)
            when = hours(clients) if hours is not None else None
            for rule in rules.values():
                data = apply(rule, data, owners, slot, rule.amounts(owners, round_index, when, slot))
            return data

        return cohort

    train = drifted(clients.cohort, clients.hours)
    return replace(
        clients,
        cohort=train,
        held_out=None if clients.held_out is None else drifted(clients.held_out, clients.held_out_hours),
        held_out_steps=None,  # a drift may pick other windows
        held_out_latest=None,
        label_counts=None if clients.label_counts is None else label_counts_of(train, base.spec.outputs),
    )


def _central(
    base: Population, central: CentralExamples | None, rules: Mapping[str, DriftRule], round_index: int
) -> CentralExamples | None:
    """Return central examples as they are in a round."""
    if central is None:
        return None
    examples, owners, count = central.examples, central.owners, len(central.examples)
    slot, offsets = np.arange(count), np.array([0, count], np.int64)
    if owners is None:  # as if the clients had them at random, and drew from all of them
        some = np.flatnonzero(base.sizes)
        dealt = streams.keys(next(iter(rules.values())).seed, "central owners", slot) % np.uint64(len(some))
        owners = some[dealt.astype(np.int64)]
    else:  # client after client
        slot = np.argsort(owners, kind="stable")
        owners, offsets = owners[slot], offsets_of(np.unique(owners, return_counts=True)[1])
    when = None if central.hours is None else central.hours[slot]
    data = start = CohortData(examples.features, examples.targets, slot, offsets)
    for rule in rules.values():
        data = apply(rule, data, owners, slot, rule.amounts(owners, round_index, when, slot))
    if data is start:
        return central
    rows = torch.from_numpy(data.rows[np.argsort(slot)])
    return replace(central, examples=Examples(data.features[rows], data.targets[rows]), latest=None)


def _latest(base: Population, hours_of: Callable[[I64], F64], clients: I64) -> F64:
    """Return the hour of each client's latest example."""
    ends = np.cumsum(base.sizes[clients].astype(np.int64))
    hours = hours_of(clients)
    return np.where(base.sizes[clients] > 0, hours[np.maximum(ends - 1, 0)], 0.0) if len(hours) else np.zeros(len(ends))
