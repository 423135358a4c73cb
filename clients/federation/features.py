"""Normalisation and selection of features by statistics that clients agree on without pooling their data.

Everything is learnt from training examples, before the first round, and kept: nothing is learnt from what is held
out, and data that change over rounds are still seen to change.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, I64, Bool
from clients.core.errors import require
from clients.core.on_demand import Layout, lazy_cohort
from clients.core.population import CohortData, Examples, Population
from clients.core.ragged import Cohort, offsets_of
from clients.federation.feature_statistics import (
    Scale,
    asked_clients,
    class_histograms,
    client_sums,
    federated_scale,
    in_blocks,
    mutual_information,
    rows_of,
    scale_of,
)
from clients.federation.options import FeatureOptions

PHASES_KEPT = 3
"""Populations of data that change over rounds that are kept at once."""


@dataclass(frozen=True)
class _Rule:
    """What is done to features.

    Attributes:
        options: what was asked for.
        start: the population before the first round, whose training examples client statistics are of.
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
            features: of the owners, one after the other.
            owners: clients, (K,), and -1 for none; None where nobody owns the examples.
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
        """Return each client's own scale, (K, C), or the federation's where it has none."""
        known, where = np.unique(clients, return_inverse=True)
        mean, deviation = (np.tile(values, (len(known), 1)) for values in (self.scale.mean, self.scale.deviation))
        first = int(np.searchsorted(known, 0))
        for start in range(first, len(known), 256):
            part = known[start : start + 256]
            data = self.start.cohort(part)
            own = scale_of(client_sums(rows_of(data)[0], data.sizes))
            told = data.sizes[:, None] > 0
            place = slice(start, start + len(part))
            mean[place] = np.where(told, own.mean, mean[place])
            deviation[place] = np.where(told & (own.deviation > 0), own.deviation, deviation[place])
        return Scale(mean[where], deviation[where])


def with_features(population: Population, options: FeatureOptions, *, seed: int) -> Population:
    """Return a population whose features are normalised and selected.

    Clients are made when they are asked for, as before; only those that tell their statistics are asked for now.
    Channels that are left out are left out of every example, of `channels` and of the masks of faults.

    Args:
        population: with features that are numbers, its faults in them.
        options: what is done.
        seed: root seed; chooses who tells.

    Raises:
        UserError: the data are an objective, or their features are no real numbers, or they have no classes or fewer
            channels than asked for.
    """
    if options.normalise == "none" and options.select == "none":
        return population
    start = population.during(0)
    _check(start, options)
    asked = asked_clients(start, options.statistics_clients, seed)
    scale = federated_scale(start, asked)
    usable = Scale(scale.mean, np.where(scale.deviation > 0, scale.deviation, 1.0))
    rule = _Rule(options, start, usable, None)
    if options.select != "none":
        worth = scale.deviation**2 if options.select == "variance" else _information(rule, asked)
        assert options.keep is not None
        rule = replace(rule, kept=np.sort(np.argsort(-worth, kind="stable")[: options.keep]))
    facts = _facts(start, rule, len(asked))
    if population.phase is None:
        return _applied(population, rule, facts)
    made: OrderedDict[int, tuple[Population, Population]] = OrderedDict()

    def phase(round_index: int) -> Population:
        now = population.during(round_index)
        if id(now) not in made:
            made[id(now)] = now, _applied(now, rule, facts)  # the first is kept, so that no other takes its id
            if len(made) > PHASES_KEPT:
                made.popitem(last=False)
        made.move_to_end(id(now))
        return made[id(now)][1]

    return replace(phase(0), phase=phase, happenings=population.happenings)


def _check(population: Population, options: FeatureOptions) -> None:
    task, shape = population.task, population.feature_shape
    field = "normalise" if options.normalise != "none" else "select"
    require(task != "objective", field, "needs features, and these data are an objective", fix="Leave it out.")
    require(len(shape) > 0, field, "needs features with channels, and an example here is one number")
    probe = population.cohort(np.flatnonzero(population.sizes)[:1].astype(np.int64)).features
    require(probe.is_floating_point(), field, f"needs real numbers, and the features are {probe.dtype}")
    labelled = task == "classification" or options.select != "mutual_information"
    require(labelled, "select", f"mutual_information needs class labels, and this is {task}", fix='Use "variance".')
    if options.keep is not None:
        require(options.keep <= shape[-1], "keep", f"must be at most the {shape[-1]} channels, got {options.keep}")


def _information(rule: _Rule, asked: I64) -> F64:
    """Return each channel's mutual information with the class, (C,), as the model will see its readings."""
    start, bins = rule.start, rule.options.bins
    # The federation's scale bins readings alike whether or not the model sees them in it.
    as_seen = (
        rule if rule.options.normalise == "client" else replace(rule, options=FeatureOptions(normalise="federated"))
    )
    counts = np.zeros((start.feature_shape[-1], bins, start.outputs), np.int64)
    for block in in_blocks(asked):
        data = start.cohort(block)
        features, labels = rows_of(data)
        counts += class_histograms(as_seen.apply(features, block, data.sizes), labels, bins, start.outputs)
    return mutual_information(counts)


def _facts(population: Population, rule: _Rule, asked: int) -> dict[str, str | int | float]:
    said: dict[str, str | int | float] = {"normalise": rule.options.normalise, "statistics_clients": asked}
    if rule.kept is not None:
        names = [c.name for c in population.channels] or [str(i) for i in range(population.feature_shape[-1])]
        said |= {"features_selected_by": rule.options.select, "features_kept": len(rule.kept)}
        said["features"] = ", ".join(names[i] for i in rule.kept)
    return said


def _applied(population: Population, rule: _Rule, facts: dict[str, str | int | float]) -> Population:
    """Return a population (of one phase) under a rule."""
    kept, held_out, masks = rule.kept, population.cohort_test, population.masks
    width = population.feature_shape[-1] if kept is None else len(kept)
    shape = (*population.feature_shape[:-1], width)
    channels = population.channels
    if kept is not None and channels:
        channels = tuple(channels[i] for i in kept)

    def masks_kept(clients: I64) -> dict[str, list[Bool]]:
        assert masks is not None
        found = masks(clients)
        return {n: [m[..., kept] if m.ndim > 1 and kept is not None else m for m in each] for n, each in found.items()}

    return replace(
        population,
        feature_shape=shape,
        outputs=int(np.prod(shape)) if population.reconstructs else population.outputs,
        cohort=_cohort(population, rule, shape),
        cohort_test=_held_out(held_out, rule) if held_out is not None else None,
        validation=_central(population.validation, population.validation_clients, rule),
        test=_central(population.test, population.test_clients, rule),
        channels=channels,
        masks=masks_kept if masks is not None else None,
        facts=population.facts | facts,
    )


def _cohort(population: Population, rule: _Rule, shape: tuple[int, ...]) -> Cohort:
    probe = population.cohort(np.flatnonzero(population.sizes)[:1].astype(np.int64))
    target_shape = (int(np.prod(shape)),) if population.reconstructs else tuple(probe.targets.shape[1:])
    layout = Layout(shape, target_shape, probe.features.dtype, probe.targets.dtype)

    def make(clients: I64) -> tuple[Tensor, Tensor]:
        data = population.cohort(clients)
        features, targets = rows_of(data)
        features = rule.apply(features, clients, data.sizes)
        return features, features.flatten(1) if population.reconstructs else targets

    return lazy_cohort(make, population.sizes, layout)


def _held_out(cohort: Cohort, rule: _Rule) -> Cohort:
    """Return what clients hold out, made anew each time: how much each holds is not known before it is asked."""

    def made(clients: I64) -> CohortData:
        data = cohort(clients)
        features, targets = rows_of(data)
        features = rule.apply(features, clients, data.sizes)
        targets = features.flatten(1) if rule.start.reconstructs else targets
        return CohortData(features, targets, np.arange(len(features), dtype=np.int64), offsets_of(data.sizes))

    return made


def _central(examples: Examples | None, owners: I64 | None, rule: _Rule) -> Examples | None:
    if examples is None:
        return None
    features = rule.apply(examples.features, owners)
    return Examples(features, features.flatten(1) if rule.start.reconstructs else examples.targets)
