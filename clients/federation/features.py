"""Normalises and selects features by statistics that are computed without pooling the clients' data.

Statistics come from training examples before the first round and are then fixed. Held-out examples are not used, and
data that change over rounds still change.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, I64, Bool
from clients.core.errors import require
from clients.core.examples import Cohort, CohortData, Examples
from clients.core.on_demand import Made, on_demand_cohort
from clients.core.population import Population
from clients.core.population_parts import CentralExamples
from clients.core.ragged import offsets_of
from clients.federation.faulty_examples import layout_of
from clients.federation.feature_statistics import (
    Scale,
    class_histograms,
    client_sums,
    federated_scale,
    in_blocks,
    mutual_information,
    rows_of,
    scale_of,
    statistics_clients,
)
from clients.federation.options import FeatureOptions

Masks = Callable[[I64], dict[str, list[Bool]]]

POPULATIONS_KEPT = 3
"""How many populations are kept at once of data that change over rounds."""


@dataclass(frozen=True)
class _Rule:
    """How features are normalised and selected.

    Attributes:
        options: the scenario's.
        start: the population before the first round. Clients' statistics come from its training examples.
        scale: the federation's, with deviation 1 where a channel is constant.
        kept: indices of the channels kept, rising; None keeps all.
    """

    options: FeatureOptions
    start: Population
    scale: Scale
    kept: I64 | None

    def apply(self, features: Tensor, owners: I64 | None, sizes: I64 | None = None) -> Tensor:
        """Return features [M, ..., C] normalised and selected.

        Args:
            features: features of the owners, one owner after the other.
            owners: clients, (K,), and -1 for none; None if the examples have no owners.
            sizes: examples of each owner, (K,).
        """
        out = features
        if self.options.normalise != "none":
            mean, deviation = self.scale.mean, self.scale.deviation
            if self.options.normalise == "client" and owners is not None:
                own = self._client_scale(owners)
                row = np.repeat(np.arange(len(owners)), sizes if sizes is not None else 1)
                shape = (len(features), *[1] * (features.dim() - 2), features.shape[-1])
                mean, deviation = own.mean[row].reshape(shape), own.deviation[row].reshape(shape)
            out = ((features.double() - torch.from_numpy(mean)) / torch.from_numpy(deviation)).to(features.dtype)
        return out if self.kept is None else out[..., torch.from_numpy(self.kept)]

    def _client_scale(self, clients: I64) -> Scale:
        """Return each client's own scale, (K, C), or the federation's if it has none."""
        known, where = np.unique(clients, return_inverse=True)
        mean, deviation = (np.tile(values, (len(known), 1)) for values in (self.scale.mean, self.scale.deviation))
        first = int(np.searchsorted(known, 0))
        for start in range(first, len(known), 256):
            part = known[start : start + 256]
            data = self.start.cohort(part)
            own = scale_of(client_sums(rows_of(data)[0], data.sizes))
            known_scale = data.sizes[:, None] > 0
            place = slice(start, start + len(part))
            mean[place] = np.where(known_scale, own.mean, mean[place])
            deviation[place] = np.where(known_scale & (own.deviation > 0), own.deviation, deviation[place])
        return Scale(mean[where], deviation[where])


def with_features(population: Population, options: FeatureOptions, *, seed: int) -> Population:
    """Return a population whose features are normalised and selected.

    Clients are still made on demand; only those that send statistics are made now. Channels that are not selected are
    absent from every example, from `channels` and from the masks of faults.

    Args:
        population: clients with numbers as features, faults included.
        options: how features are normalised and selected.
        seed: root seed; chooses the clients that send statistics.

    Raises:
        UserError: the data are an objective, or their features are no real numbers, or they have no classes or fewer
            channels than `keep`.
    """
    if options.normalise == "none" and options.select == "none":
        return population
    start = population.during(0)
    _check(start, options)
    senders = statistics_clients(start, options.statistics_clients, seed)
    scale = federated_scale(start, senders)
    usable = Scale(scale.mean, np.where(scale.deviation > 0, scale.deviation, 1.0))
    rule = _Rule(options, start, usable, None)
    if options.select != "none":
        worth = scale.deviation**2 if options.select == "variance" else _information(rule, senders)
        assert options.keep is not None
        rule = replace(rule, kept=np.sort(np.argsort(-worth, kind="stable")[: options.keep]))
    record = _record(start, rule, len(senders))
    if population.history.schedule is None:
        return _applied(population, rule, record)
    made: OrderedDict[int, tuple[Population, Population]] = OrderedDict()

    def schedule(round_index: int) -> Population:
        now = population.during(round_index)
        if id(now) not in made:
            made[id(now)] = now, _applied(now, rule, record)  # keeps the first alive, so that no other gets its id
            if len(made) > POPULATIONS_KEPT:
                made.popitem(last=False)
        made.move_to_end(id(now))
        return made[id(now)][1]

    first = schedule(0)
    history = replace(first.history, schedule=schedule, events=population.history.events)
    return replace(first, history=history)


def _check(population: Population, options: FeatureOptions) -> None:
    task, shape = population.spec.task, population.spec.feature_shape
    field = "normalise" if options.normalise != "none" else "select"
    require(task != "objective", field, "needs features, and these data are an objective", fix="Leave it out.")
    require(len(shape) > 0, field, "needs features with channels, and an example here is one number")
    probe = population.cohort(np.flatnonzero(population.sizes)[:1].astype(np.int64)).features
    require(probe.is_floating_point(), field, f"needs real numbers, and the features are {probe.dtype}")
    labelled = task == "classification" or options.select != "mutual_information"
    require(labelled, "select", f"mutual_information needs class labels, and this is {task}", fix='Use "variance".')
    if options.keep is not None:
        require(options.keep <= shape[-1], "keep", f"must be at most the {shape[-1]} channels, got {options.keep}")


def _information(rule: _Rule, senders: I64) -> F64:
    """Return each channel's mutual information with the class, (C,), as the model will see its readings."""
    start, bins = rule.start, rule.options.bins
    # The federation's scale gives the same bins whether or not the model's readings have it.
    as_seen = (
        rule if rule.options.normalise == "client" else replace(rule, options=FeatureOptions(normalise="federated"))
    )
    counts = np.zeros((start.spec.feature_shape[-1], bins, start.spec.outputs), np.int64)
    for block in in_blocks(senders):
        data = start.cohort(block)
        features, labels = rows_of(data)
        counts += class_histograms(as_seen.apply(features, block, data.sizes), labels, bins, start.spec.outputs)
    return mutual_information(counts)


def _record(population: Population, rule: _Rule, senders: int) -> dict[str, str | int | float]:
    """Return the facts about features for the record."""
    found: dict[str, str | int | float] = {"normalise": rule.options.normalise, "statistics_clients": senders}
    if rule.kept is not None:
        spec = population.spec
        names = [c.name for c in spec.channels] or [str(i) for i in range(spec.feature_shape[-1])]
        found |= {"features_selected_by": rule.options.select, "features_kept": len(rule.kept)}
        found["features"] = ", ".join(names[i] for i in rule.kept)
    return found


def _applied(population: Population, rule: _Rule, record: dict[str, str | int | float]) -> Population:
    """Return a population of one round under a rule."""
    kept, spec, held_out = rule.kept, population.spec, population.clients.held_out
    shape = (*spec.feature_shape[:-1], spec.feature_shape[-1] if kept is None else len(kept))
    channels = spec.channels
    if kept is not None and channels:
        channels = tuple(channels[i] for i in kept)
    outputs = int(np.prod(shape)) if spec.reconstructs else spec.outputs
    central = population.central
    return replace(
        population,
        spec=replace(spec, feature_shape=shape, outputs=outputs, channels=channels),
        federation=replace(population.federation, record=population.federation.record | record),
        clients=replace(
            population.clients,
            cohort=_cohort(population, rule, shape),
            held_out=_held_out(held_out, rule) if held_out is not None else None,
        ),
        central=replace(central, validation=_central(central.validation, rule), test=_central(central.test, rule)),
        history=replace(population.history, masks=_masks(population.history.masks, kept)),
    )


def _masks(masks: Masks | None, kept: I64 | None) -> Masks | None:
    """Return masks of the channels that are kept."""
    if masks is None or kept is None:
        return masks

    def masks_kept(clients: I64) -> dict[str, list[Bool]]:
        return {n: [m[..., kept] if m.ndim > 1 else m for m in each] for n, each in masks(clients).items()}

    return masks_kept


def _cohort(population: Population, rule: _Rule, shape: tuple[int, ...]) -> Cohort:
    layout = replace(layout_of(population), feature_shape=shape)
    if population.spec.reconstructs:
        layout = replace(layout, target_shape=(int(np.prod(shape)),))

    def make(clients: I64) -> Made:
        data = population.cohort(clients)
        features, targets = rows_of(data)
        features = rule.apply(features, clients, data.sizes)
        return Made(features, features.flatten(1) if population.spec.reconstructs else targets, data.fault_counts)

    return on_demand_cohort(make, population.sizes, layout, faults=population.history.faults)


def _held_out(cohort: Cohort, rule: _Rule) -> Cohort:
    """Return the examples that clients hold out. They are made anew each time: sizes are known only then."""

    def made(clients: I64) -> CohortData:
        data = cohort(clients)
        features, targets = rows_of(data)
        features = rule.apply(features, clients, data.sizes)
        targets = features.flatten(1) if rule.start.spec.reconstructs else targets
        return CohortData(features, targets, np.arange(len(features), dtype=np.int64), offsets_of(data.sizes))

    return made


def _central(central: CentralExamples | None, rule: _Rule) -> CentralExamples | None:
    if central is None:
        return None
    features = rule.apply(central.examples.features, central.owners)
    targets = features.flatten(1) if rule.start.spec.reconstructs else central.examples.targets
    return replace(central, examples=Examples(features, targets))
