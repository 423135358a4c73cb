"""Populations whose concepts drift: the examples of a round, made from those without drift.

The definitions are in `clients.concept_drift.options`. Drift in p(x) and p(y) picks other rows of the same
client and copies nothing; drift in p(y|x) changes targets of a copy of the cohort asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clients.concept_drift.options import DriftOptions
from clients.concept_drift.table import amount, drifting, level, turns
from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.errors import UserError, unknown_name
from clients.core.population import CohortData, Examples, Population
from clients.core.ragged import Cohort, alike, label_counts_of, offsets_of, positions

Drifts = Mapping[str, DriftOptions]

TILT = 3.0
"""Logarithm of the weight of an example one deviation above another, at a = 1."""
STEPS = 100
"""Amounts of drift are told apart in so many steps, so that few weightings are made."""
COORDINATES = 16
"""Inputs that the projection looks at, at most."""
SAMPLE_CLIENTS = 200


def with_drifts(population: Population, drifts: Drifts, *, seed: int) -> Population:
    """Return a population in which concepts drift.

    Args:
        population: without drift; may have phases of its own.
        drifts: by name, applied in order.
        seed: root seed.

    Raises:
        UserError: a drift in hours where examples have no time, a district that is not there, or an objective.
    """
    if not drifts:
        return population
    for name, options in drifts.items():
        _check(name, options, population)
    rules = {name: _Rule(name, options, population, seed) for name, options in drifts.items()}
    last: tuple[Population, int, Population] | None = None

    def phase(round_index: int) -> Population:
        nonlocal last
        base = population.during(round_index)
        if last is None or last[0] is not base or last[1] != round_index:
            last = base, round_index, _in_round(base, rules, round_index)
        return last[2]

    in_rounds = population.phase is not None or any(o.unit == "rounds" for o in drifts.values())
    earlier = population.happenings

    def happenings(round_index: int) -> Sequence[dict[str, Any]]:
        told = list(earlier(round_index)) if earlier is not None else []
        return told + [event for rule in rules.values() for event in rule.happenings(round_index)]

    return replace(phase(0), phase=phase if in_rounds else None, happenings=happenings)


def _check(name: str, options: DriftOptions, population: Population) -> None:
    field = f"drifts.{name}"
    if population.task == "objective":
        raise UserError(field, "needs examples with targets, and these data are an objective")
    if population.reconstructs and options.changes == "p(y|x)":
        raise UserError(f"{field}.changes", "is 'p(y|x)', and the targets of these data are their features",
                        fix='Take "p(x)".')  # fmt: skip
    if options.unit == "hours":
        _check_clock(field, population)
    for district in options.districts:
        if district not in population.districts:
            known = population.districts or ("none: add a [world]",)
            raise UserError(f"{field}.districts", unknown_name(district, known, "a district"))


def _check_clock(field: str, population: Population) -> None:
    """Refuse a drift by the hours where some examples have none."""
    clocked = {
        "data have": population.hours is not None,
        "held-out examples have": population.cohort_test is None or population.held_out_hours is not None,
        "validation examples have": population.validation is None or population.validation_hours is not None,
        "test examples have": population.test is None or population.test_hours is not None,
    }
    for what, known in clocked.items():
        if not known:
            raise UserError(f"{field}.unit", f"is 'hours', and these {what} no clock", fix="Count in rounds.")


class _Rule:
    """One drift of one population: whom it touches, and the fixed projection it goes by."""

    def __init__(self, name: str, options: DriftOptions, population: Population, seed: int) -> None:
        self.name, self.options, self.seed = name, options, seed
        self.places, self.clients = population.places, population.num_clients
        self.among = np.array([population.districts.index(d) for d in options.districts], np.int64)
        self.labels = population.task == "classification"
        self.outputs = population.outputs
        self._measure(population)

    def _measure(self, population: Population) -> None:
        """Fix the projection, its quantiles and the mean target on a sample of undrifted examples."""
        some = np.flatnonzero(population.sizes)
        key = streams.keys(self.seed, f"concept drift/{self.name}/sample")
        chosen = streams.choose(key, len(some), min(len(some), SAMPLE_CLIENTS))
        data = population.cohort(some[chosen].astype(np.int64))
        rows = torch.from_numpy(data.rows)
        flat = data.features[rows].double().flatten(1).numpy()
        varied = np.flatnonzero(flat.std(axis=0) > 0)
        pick = streams.keys(self.seed, f"concept drift/{self.name}/coordinates")
        self.coordinates = varied[streams.choose(pick, len(varied), min(len(varied), COORDINATES))]
        picked = flat[:, self.coordinates]
        direction = streams.normals(streams.keys(self.seed, f"concept drift/{self.name}/direction"), picked.shape[1])
        self.direction = direction / np.where(picked.std(axis=0) > 0, picked.std(axis=0), 1.0)
        raw = (picked * self.direction).sum(axis=1)
        self.centre, self.scale = float(raw.mean()), float(raw.std()) or 1.0
        self.quantiles = np.quantile((raw - self.centre) / self.scale, np.linspace(1, 0, 1001))
        targets = data.targets[rows].double().numpy()
        self.target_mean = targets.mean(axis=0)
        self.target_scale = float(targets.reshape(len(targets), -1).mean(axis=1).std()) or 1.0
        self.scores = streams.normals(streams.keys(self.seed, f"concept drift/{self.name}/classes"), self.outputs)

    def starts(self, clients: I64) -> F64:
        """Return when the drift starts for each client, inf for never."""
        district = self.places(clients).district if self.places is not None else np.zeros_like(clients)
        return drifting(self.name, self.options, clients, district, self.among, self.seed)

    def levels(self, clients: I64, round_index: int, hours: F64 | None = None) -> F64:
        """Return the level of each client now; on the world's clock, of the latest hour given."""
        return level(self.options, self.starts(clients), self._now(round_index, hours))

    def _now(self, round_index: int, hours: F64 | None) -> F64 | float:
        if self.options.unit == "rounds":
            return float(round_index)
        assert hours is not None, "examples without a clock were refused"
        return hours

    def amounts(self, owners: I64, round_index: int, hours: F64 | None, slot: I64) -> F64:
        """Return a of each example, in steps.

        Args:
            owners: whose it is, (M,).
            round_index: the round.
            hours: of each example, (M,), where the drift goes by them.
            slot: each example's number among its client's, (M,).
        """
        clients, inverse = np.unique(owners, return_inverse=True)
        starts = self.starts(clients)[inverse]
        now = self._now(round_index, hours)
        chance = streams.uniforms(streams.keys(self.seed, f"concept drift/{self.name}/example", owners, slot), 1)[:, 0]
        exact = amount(self.options, level(self.options, starts, now), chance)
        return np.ceil(exact * STEPS - 1e-9) / STEPS

    def projection(self, features: Tensor) -> F64:
        """Return z(x) of each example, (M,)."""
        flat = features.flatten(1)[:, torch.from_numpy(self.coordinates)].double().numpy()
        z: F64 = ((flat * self.direction).sum(axis=1) - self.centre) / self.scale
        return z

    def label_scores(self, targets: Tensor) -> F64:
        """Return z(y) of each example, (M,)."""
        if self.labels:
            return np.asarray(self.scores[targets.numpy()], np.float64)
        values = targets.double().flatten(1).mean(1).numpy()
        z: F64 = (values - self.target_mean.mean()) / self.target_scale
        return z

    def happenings(self, round_index: int) -> Sequence[dict[str, Any]]:
        """Return the events of a round: its start, its turns, and that it is complete."""
        o = self.options
        if not (o.strength and o.clients):
            return []
        whom = f"{o.clients:.0%} of clients" + (f" in {', '.join(o.districts)}" if o.districts else "")
        said = {"name": self.name, "drift": o.kind, "changes": o.changes, "strength": o.strength}
        if o.unit == "hours":
            if round_index != 1:
                return []
            message = f"concept drift {self.name} ({o.kind}, {o.changes}, {whom}): from hour {o.start:g} of the clock"
            return [{"kind": "drift_started", **said, "from_hour": o.start, "message": message}]
        about = f"concept drift {self.name} ({o.kind}, {o.changes}, {whom})"
        return [{"kind": kind, **said, "message": f"{about} {verb}"} for kind, verb in turns(o, round_index)]


def _in_round(base: Population, rules: Mapping[str, _Rule], round_index: int) -> Population:
    """Return the population of one round."""

    def drifted(source: Cohort, hours: Callable[[I64], F64] | None) -> Cohort:
        def cohort(clients: I64) -> CohortData:
            data = source(clients)
            owners = np.repeat(clients, data.sizes)
            slot = positions(np.zeros_like(data.sizes), data.sizes)
            when = hours(clients) if hours is not None else None
            for rule in rules.values():
                data = _apply(rule, data, owners, slot, rule.amounts(owners, round_index, when, slot))
            return data

        return cohort

    def central(examples: Examples | None, owners: I64 | None, hours: F64 | None) -> Examples | None:
        if examples is None:
            return None
        slot, offsets = np.arange(len(examples)), np.array([0, len(examples)], np.int64)
        if owners is None:  # nobody's: as if dealt out to the clients at random, and drawn from all of them
            some = np.flatnonzero(base.sizes)
            dealt = streams.keys(next(iter(rules.values())).seed, "central owners", slot) % np.uint64(len(some))
            owners = some[dealt.astype(np.int64)].astype(np.int64)
        else:  # client after client
            slot = np.argsort(owners, kind="stable")
            owners, offsets = owners[slot], offsets_of(np.unique(owners, return_counts=True)[1])
        when = None if hours is None else hours[slot]
        data = start = CohortData(examples.features, examples.targets, slot, offsets)
        for rule in rules.values():
            data = _apply(rule, data, owners, slot, rule.amounts(owners, round_index, when, slot))
        rows = torch.from_numpy(data.rows[np.argsort(slot)])
        return examples if data is start else Examples(data.features[rows], data.targets[rows])

    def levels(clients: I64) -> dict[str, F64]:
        latest = None if base.hours is None else _latest(base, clients)
        return {name: rule.levels(clients, round_index, latest) for name, rule in rules.items()}

    train = drifted(base.cohort, base.hours)
    held = base.cohort_test
    return replace(
        base,
        cohort=train,
        cohort_test=drifted(held, base.held_out_hours) if held is not None else None,
        validation=central(base.validation, base.validation_clients, base.validation_hours),
        test=central(base.test, base.test_clients, base.test_hours),
        label_counts=label_counts_of(train, base.outputs) if base.label_counts is not None else None,
        drift_levels=levels,
        phase=None,
    )


def _latest(base: Population, clients: I64) -> F64:
    """Return the hour of each client's latest example."""
    assert base.hours is not None
    ends = np.cumsum(base.sizes[clients].astype(np.int64))
    hours = base.hours(clients)
    return np.where(base.sizes[clients] > 0, hours[np.maximum(ends - 1, 0)], 0.0) if len(hours) else np.zeros(len(ends))


def _apply(rule: _Rule, data: CohortData, owners: I64, slot: I64, amounts: F64) -> CohortData:
    """Return the data after one drift; the same object where nothing has drifted."""
    if not amounts.any():
        return data
    rows = torch.from_numpy(data.rows)
    if rule.options.changes == "p(y|x)":
        return _relabelled(rule, data, rows, amounts)
    if rule.options.changes == "p(x)":
        z = rule.projection(data.features[rows])
    else:
        z = rule.label_scores(data.targets[rows])
    chance = streams.uniforms(streams.keys(rule.seed, f"concept drift/{rule.name}/draw", owners, slot), 1)[:, 0]
    new = data.rows.copy()
    group = np.repeat(np.arange(len(data.sizes)), data.sizes)
    for a in np.unique(amounts[amounts > 0]):
        here = np.flatnonzero(amounts == a)
        new[here] = data.rows[_drawn(z, a, data.offsets, group, here, chance[here])]
    return CohortData(data.features, data.targets, new, data.offsets)


def _drawn(z: F64, a: float, offsets: I64, group: I64, here: I64, chance: F64) -> I64:
    """Draw, for each example `here`, another of the same client (0 .. K - 1 in `group`) with weights exp(TILT a z)."""
    out = np.empty(len(here), np.int64)
    sizes = np.diff(offsets)
    for part in alike(sizes):
        width = int(sizes[part].max())
        inside = np.arange(width) < sizes[part][:, None]
        tilted = np.full(inside.shape, -np.inf)
        tilted[inside] = TILT * a * z[positions(offsets[part], sizes[part])]
        total = np.cumsum(np.exp(tilted - tilted.max(axis=1, keepdims=True)), axis=1)
        total /= total[:, -1:]
        row = np.full(len(sizes), -1)
        row[part] = np.arange(len(part))
        mine = np.flatnonzero(row[group[here]] >= 0)
        at = row[group[here[mine]]]
        flat = (total + np.arange(len(part))[:, None]).reshape(-1)  # one search for all clients
        found = np.searchsorted(flat, at + chance[mine]) - at * width
        own = group[here[mine]]
        out[mine] = offsets[own] + np.clip(found, 0, sizes[own] - 1)
    return out


def _relabelled(rule: _Rule, data: CohortData, rows: Tensor, amounts: F64) -> CohortData:
    """Change the targets in the region that has drifted, on a copy of the cohort's examples."""
    features, targets = data.features[rows], data.targets[rows].clone()
    z = rule.projection(features)
    bound = np.interp(amounts, np.linspace(0, 1, 1001), rule.quantiles)
    inside = torch.from_numpy((amounts > 0) & ((z >= bound) | (amounts >= 1)))
    if rule.labels:
        targets[inside] = (targets[inside] + 1) % rule.outputs
    else:
        mean = torch.from_numpy(np.atleast_1d(rule.target_mean)).to(targets.dtype)
        targets[inside] = 2 * mean - targets[inside]
    return CohortData(features, targets, np.arange(len(features), dtype=np.int64), data.offsets)
