"""One concept drift of a population: when it reaches each client, and how it changes their examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clients.concept_drift.options import DriftOptions
from clients.concept_drift.table import amount, drifting, level, turns
from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.examples import CohortData
from clients.core.options import clients_words
from clients.core.population import Population
from clients.core.ragged import alike, positions

TILT = 3.0
"""Logarithm of the weight of an example one deviation above another, at a = 1."""
STEPS = 100
"""Amounts of drift are rounded up to this many steps, so few weightings are made."""
COORDINATES = 16
"""The most inputs that the projection reads."""
SAMPLE_CLIENTS = 200
"""The most clients on whose examples the projection is measured."""


class DriftRule:
    """One drift of one population: its clients and its fixed projection."""

    def __init__(self, name: str, options: DriftOptions, population: Population, seed: int) -> None:
        self.name, self.options, self.seed = name, options, seed
        self.places, self.clients = population.federation.places, population.num_clients
        self.name_of = population.federation.client_name
        self.among = np.array([population.federation.districts.index(d) for d in options.districts], np.int64)
        self.labels = population.spec.task == "classification"
        self.outputs = population.spec.outputs
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
        self.direction = direction / picked.std(axis=0)
        raw = (picked * self.direction).sum(axis=1)
        self.centre, self.scale = float(raw.mean()), float(raw.std()) or 1.0
        self.quantiles = np.quantile((raw - self.centre) / self.scale, np.linspace(1, 0, 1001))
        targets = data.targets[rows].double().numpy()
        self.target_mean = targets.mean(axis=0)
        self.target_scale = float(targets.reshape(len(targets), -1).mean(axis=1).std()) or 1.0
        self.scores = streams.normals(streams.keys(self.seed, f"concept drift/{self.name}/classes"), self.outputs)

    def starts(self, clients: I64) -> F64:
        """Return when the drift starts for each client; inf means never."""
        district = self.places(clients).district if self.places is not None else np.zeros_like(clients)
        return drifting(self.name, self.options, clients, district, self.among, self.seed)

    def levels(self, clients: I64, round_index: int, hours: F64 | None = None) -> F64:
        """Return the present level of each client; on the world's clock, the level at `hours`, (K,)."""
        return level(self.options, self.starts(clients), self._now(round_index, hours))

    def _now(self, round_index: int, hours: F64 | None) -> F64 | float:
        if self.options.unit == "rounds":
            return float(round_index)
        assert hours is not None, "a drift in hours needs data with a clock"
        return hours

    def amounts(self, owners: I64, round_index: int, hours: F64 | None, slot: I64) -> F64:
        """Return a of each example, in steps.

        Args:
            owners: the client of each example, (M,).
            round_index: the round.
            hours: of each example, (M,), for a drift in hours.
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

    def events(self, round_index: int) -> Sequence[dict[str, Any]]:
        """Return the events of a round: the drift's start, its turns and its completion."""
        o = self.options
        if not (o.strength and o.clients):
            return []
        share = clients_words(o.clients, self.name_of) + (f" in {', '.join(o.districts)}" if o.districts else "")
        facts = {"name": self.name, "drift": o.kind, "changes": o.changes, "strength": o.strength}
        if o.unit == "hours":
            if round_index != 1:
                return []
            message = f"concept drift {self.name} ({o.kind}, {o.changes}, {share}): from hour {o.start:g} of the clock"
            return [{"kind": "drift_started", **facts, "from_hour": o.start, "message": message}]
        about = f"concept drift {self.name} ({o.kind}, {o.changes}, {share})"
        return [{"kind": kind, **facts, "message": f"{about} {verb}"} for kind, verb in turns(o, round_index)]


def apply(rule: DriftRule, data: CohortData, owners: I64, slot: I64, amounts: F64) -> CohortData:
    """Return the data after one drift; the same object if nothing has drifted. Fault counts stay as they are."""
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
    return replace(data, rows=new)


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


def _relabelled(rule: DriftRule, data: CohortData, rows: Tensor, amounts: F64) -> CohortData:
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
    return replace(data, features=features, targets=targets, rows=np.arange(len(features), dtype=np.int64))
