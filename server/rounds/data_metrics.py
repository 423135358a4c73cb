"""Metrics of a round's data: the effect of faults, the levels of concept drift, and means by district."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from clients.core.arrays import F64, I64, Array
from clients.core.examples import FaultCounts
from clients.core.population import Population
from server.record.jsonlines import Line


def data_line(population: Population, columns: Mapping[str, Array], fault_counts: FaultCounts | None) -> Line:
    """Return the metrics of the data that a cohort trained on.

    Args:
        population: the population of that round.
        columns: one value for each respondent: `client`, `num_examples`; where measured, `train_loss` and
            `client_drift`.
        fault_counts: what faults changed in the respondents' data, from their update; None where unknown.

    Returns:
        `faults` (by name: `changed`, mean share of a client's readings or labels changed; `clients` with changes;
        `effect`, mean over these), `concept_drift` (by name: mean `level`, and `clients` above 0), `districts` (by
        name: respondents, means of loss and client drift, and `changed`, the mean over clients of the sum of the
        faults' shares, at most 1; a reading that two faults changed counts twice). Keys that do not apply are absent.
    """
    clients, history, facts = columns["client"], population.history, population.federation
    line: Line = {}
    changed: F64 | None = None
    if fault_counts is not None:
        line["faults"] = {n: _fault(share, fault_counts.effect[n]) for n, share in fault_counts.changed.items()}
        changed = np.minimum(sum(fault_counts.changed.values(), np.zeros(len(clients))), 1.0)
    if history.drift_levels is not None:
        line["concept_drift"] = {
            name: {"level": float(level.mean()), "clients": int((level > 0).sum())}
            for name, level in history.drift_levels(clients).items()
        }
    if facts.places is not None and facts.districts:
        line["districts"] = _districts(facts.districts, facts.places(clients).district, columns, changed)
    return line


def _fault(share: F64, effect: F64) -> Line:
    touched = share > 0
    return {
        "changed": float(share.mean()),
        "clients": int(touched.sum()),
        "effect": float(effect[touched].mean()) if touched.any() else 0.0,
    }


def _districts(names: tuple[str, ...], district: I64, columns: Mapping[str, Array], changed: F64 | None) -> Line:
    """Return one entry for every district with respondents; means over respondents are unweighted."""
    count = np.bincount(district, minlength=len(names))
    means = {
        key: _means(values, district, len(names))
        for key, values in (
            ("train_loss", columns.get("train_loss")),
            ("client_drift", columns.get("client_drift")),
            ("changed", changed),
        )
        if values is not None
    }
    return {
        names[d]: {"clients": int(count[d])}
        | {key: float(values[d]) for key, values in means.items() if np.isfinite(values[d])}
        for d in np.flatnonzero(count)
    }


def _means(values: Array, district: I64, districts: int) -> F64:
    known = np.isfinite(values)
    total = np.bincount(district[known], weights=values[known], minlength=districts)
    count = np.bincount(district[known], minlength=districts)
    means: F64 = np.divide(total, count, out=np.full(districts, np.nan), where=count > 0)
    return means
