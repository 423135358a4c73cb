"""All measures of how much clients differ, over all of them or a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from clients.core import streams
from clients.core.arrays import F64, I64, Bool
from clients.core.examples import FaultCounts
from clients.core.population import Population
from clients.core.population_parts import Places
from clients.heterogeneity.feature_shift import FeatureShift, population_shift
from clients.heterogeneity.measures import SizeMeasures, gini, label_distances, size_measures
from clients.heterogeneity.spatial import Moran, morans_i, nearest

SAMPLE = 2000
"""The most clients whose labels, places and fault counts are measured."""
FEW = 500
"""The most clients whose features and masks are measured."""


@dataclass(frozen=True)
class Holdings:
    """Measures of some clients, client by client; arrays are in the order of `clients`.

    Attributes:
        clients: the sample, int64 (K,), increasing.
        sizes: their training examples, int64 (K,).
        label_counts: int64 (K, C); None unless classification.
        labels: by label measure, each client's distance, float64 (K,), nan for clients without examples.
        feature_shift: energy distance, float64 (K,), nan for clients whose features are not measured; None where
            features are not data.
        places: where they are; None where they have no places.
        fault_counts: what faults changed in their data; None where there are no faults.
    """

    clients: I64
    sizes: I64
    label_counts: I64 | None
    labels: dict[str, F64]
    feature_shift: F64 | None
    places: Places | None
    fault_counts: FaultCounts | None

    def quantities(self) -> dict[str, F64]:
        """Return by name each quantity of single clients: `size`, the label measures, `feature_shift`, each fault."""
        found: dict[str, F64] = {"size": self.sizes.astype(np.float64), **self.labels}
        if self.feature_shift is not None:
            found["feature_shift"] = self.feature_shift
        return found | self.fault_quantities()

    def fault_quantities(self) -> dict[str, F64]:
        """Return the quantities of `quantities` that are shares changed by a fault."""
        changed = {} if self.fault_counts is None else self.fault_counts.changed
        return {f"fault {name}": np.asarray(share) for name, share in changed.items()}


@dataclass(frozen=True)
class FaultRate:
    """The changes of one fault in the training data.

    Attributes:
        changed: share of all readings (or labels) it changed: the mean over clients, weighted by examples.
        clients: share of clients with any change.
        effect: size of the change in the fault's own measure, mean over those clients; 0 without any.
    """

    changed: float
    clients: float
    effect: float


@dataclass(frozen=True)
class HeterogeneityMeasures(SizeMeasures):
    """How unequal clients are. What is None does not exist for these data.

    Attributes:
        quantity_gini: see `clients.heterogeneity.measures.gini`; of all clients.
        label_emd: mean over examples of their client's `label_emd`, in [0, 2].
        label_js: the same of `label_js`: base-2 logarithms, so in [0, 1] bits.
        label_hellinger: the same of `label_hellinger`, in [0, 1].
        feature_shift: mean over examples of their client's energy distance (see `clients.heterogeneity.feature_shift`).
            It is unbiased, so it may be below 0 where the clients' features have one law.
        feature_shift_error: its standard error; None where no client has three examples.
        feature_coefficient: the same on the scale of the energy coefficient, at most 1.
        label_noise: share of training labels that any fault changed, weighted by examples.
        spatial: Moran's I of each quantity of `Holdings.quantities`, where it varies.
        faults: by fault, its changes.
        gradient_dissimilarity: (1/K) sum_k |grad F_k - grad f|^2 at the initial model (as in the server's record).
        b_squared: sum p_k |grad F_k|^2 / |grad f|^2 there (FedProx, definition 3): 1 where clients agree.
        estimated_from: by measured quantity (labels, features, places, faults, noise, gradients), the number of clients
            in the sample; below `clients`, the measure is an estimate.
    """

    quantity_gini: float
    label_emd: float | None = None
    label_js: float | None = None
    label_hellinger: float | None = None
    feature_shift: float | None = None
    feature_shift_error: float | None = None
    feature_coefficient: float | None = None
    label_noise: float | None = None
    spatial: Mapping[str, Moran] = field(default_factory=dict)
    faults: Mapping[str, FaultRate] = field(default_factory=dict)
    gradient_dissimilarity: float | None = None
    b_squared: float | None = None
    estimated_from: Mapping[str, int] = field(default_factory=dict)


def measure_clients(population: Population, seed: int) -> tuple[HeterogeneityMeasures, Holdings]:
    """Measure a population as it is before the first round.

    Args:
        population: the clients.
        seed: root seed, which chooses the sample if there are many clients.

    Returns:
        The measures (without those of gradients, which need a model), and those of the sampled clients.

    Example:
        >>> from clients.sources.custom import custom_population
        >>> import torch
        >>> data = [(torch.zeros(2, 1), torch.tensor([0, 1])), (torch.ones(2, 1), torch.tensor([1, 1]))]
        >>> measures, _ = measure_clients(custom_population(data.__getitem__, [2, 2], outputs=2), seed=0)
        >>> measures.quantity_gini, measures.label_emd, measures.feature_shift
        (0.0, 0.5, 1.0)
    """
    population = population.during(0)
    clients, few = sampled_clients(population.num_clients, seed)
    held, shift = _holdings(population, clients, few, seed)
    estimated = {"labels": len(clients)} if held.label_counts is not None else {}
    estimated |= {"features": len(few)} if shift is not None else {}
    estimated |= {"places": len(clients)} if held.places is not None else {}
    estimated |= {"faults": len(clients)} if held.fault_counts is not None else {}
    noise = None
    if population.history.masks is not None and population.spec.task == "classification":
        noise = label_noise(population.history.masks(clients[few]))
        estimated |= {"noise": len(few)} if noise is not None else {}
    _, mean = label_distances(held.label_counts) if held.label_counts is not None else ({}, {})
    known = shift is not None and np.isfinite(shift.mean)
    return HeterogeneityMeasures(
        **size_measures(population),
        quantity_gini=gini(population.sizes),
        label_emd=mean.get("label_emd"),
        label_js=mean.get("label_js"),
        label_hellinger=mean.get("label_hellinger"),
        feature_shift=shift.mean if known and shift is not None else None,
        feature_shift_error=shift.error if known and shift is not None and np.isfinite(shift.error) else None,
        feature_coefficient=shift.coefficient if known and shift is not None else None,
        label_noise=noise,
        spatial=spatial_measures(held),
        faults=fault_rates(held),
        estimated_from=estimated,
    ), held


def sampled_clients(clients: int, seed: int) -> tuple[I64, I64]:
    """Return the sample: clients, and the positions of the few whose features are measured too."""
    some = streams.choose(streams.keys(seed, "measures"), clients, min(clients, SAMPLE))
    return some, streams.choose(streams.keys(seed, "measures/few"), len(some), min(len(some), FEW))


def _holdings(population: Population, clients: I64, few: I64, seed: int) -> tuple[Holdings, FeatureShift | None]:
    counts = population.clients.label_counts(clients) if population.clients.label_counts is not None else None
    places = population.federation.places
    shift, each = None, None
    if population.spec.task != "objective":
        shift = population_shift(population, clients[few], seed)
        each = np.full(len(clients), np.nan)
        each[few] = shift.each
    held = Holdings(
        clients=clients,
        sizes=population.sizes[clients].astype(np.int64),
        label_counts=counts,
        labels=label_distances(counts)[0] if counts is not None else {},
        feature_shift=each,
        places=places(clients) if places is not None else None,
        fault_counts=population.fault_counts(clients),
    )
    return held, shift


def spatial_measures(held: Holdings) -> dict[str, Moran]:
    """Return Moran's I of every quantity over the places of the clients that have it; empty without places."""
    if held.places is None:
        return {}
    found = {}
    for name, values in held.quantities().items():
        known = np.isfinite(values)
        if np.count_nonzero(known) < 4:
            continue
        moran = morans_i(values[known], nearest(held.places.x[known], held.places.y[known]))
        if moran is not None:
            found[name] = moran
    return found


def fault_rates(held: Holdings) -> dict[str, FaultRate]:
    """Return the changes of each fault in the data of the sampled clients."""
    if held.fault_counts is None or not held.sizes.any():
        return {}
    rates = {}
    for name, changed in held.fault_counts.changed.items():
        hit = np.asarray(changed) > 0
        effect = np.asarray(held.fault_counts.effect[name])
        rates[name] = FaultRate(
            changed=float(np.average(changed, weights=held.sizes)),
            clients=float(hit.mean()),
            effect=float(effect[hit].mean()) if hit.any() else 0.0,
        )
    return rates


def label_noise(masks: Mapping[str, list[Bool]]) -> float | None:
    """Return the share of labels that any fault changed; None where no fault is of labels.

    Args:
        masks: by fault, a bool array a client, as `Population.masks` gives them: masks of labels have one axis.

    Example:
        >>> label_noise({"flip": [np.array([True, False]), np.array([False, False])]})
        0.25
    """
    of_labels = [np.concatenate(each) for each in masks.values() if each and each[0].ndim == 1]
    if not of_labels or not len(of_labels[0]):
        return None
    return float(np.logical_or.reduce(of_labels).mean())
