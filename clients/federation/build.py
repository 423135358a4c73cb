"""From the sections of a scenario to its population: data, partition, world, faults, features, concept drift."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from clients.city.source_types import AnySource, SeriesSource
from clients.concept_drift.application import with_drifts
from clients.concept_drift.options import DriftOptions
from clients.core.errors import PartitionError, UserError
from clients.core.population import Population
from clients.faults.checks import check_faults
from clients.faults.options import FaultOptions, LabelFaultOptions
from clients.federation.data_kinds import DATA, build_population, check_no_partition
from clients.federation.examples import shape_of, window_population, with_faults
from clients.federation.features import with_features
from clients.federation.ground_truth import clock_events, data_truth, training_ends
from clients.federation.options import FeatureOptions
from clients.federation.schedule import in_phases
from clients.federation.series_windows import series_population
from clients.partition.options import PartitionOptions
from clients.world.options import WorldOptions
from clients.world.world import World, make_world

Faults = Mapping[str, FaultOptions]


@dataclass(frozen=True, kw_only=True)
class Federation:
    """What a scenario says of the clients' data.

    Attributes:
        data: one of the kinds of data, or a population that is there already.
        partition: who holds what, for data that come pooled.
        world: the city; None where nothing asks for one (generated sources then take the default).
        faults: by name, in order.
        drifts: concept drifts by name, in order.
        features: what is done to the features, once faults are in them.
        seed: root seed.
        dtype: of features and of targets that are numbers.
    """

    data: Any
    partition: PartitionOptions | None = None
    world: WorldOptions | None = None
    faults: Faults = field(default_factory=dict)
    drifts: Mapping[str, DriftOptions] = field(default_factory=dict)
    features: FeatureOptions = field(default_factory=FeatureOptions)
    seed: int = 0
    dtype: torch.dtype = torch.float32


def build_federation(asked: Federation) -> Population:
    """Make the population.

    Raises:
        UserError: naming the key at fault, its section included.
    """
    world = world_of(asked)
    build: Callable[[Faults], Population]
    if isinstance(asked.data, Population):
        _check_given(asked, asked.data)
        build = _faulty(placed(asked.data, world), asked.seed, world)
    elif DATA.row_of(asked.data).is_generated:
        assert world is not None
        build = _city(asked, world)
    else:
        build = _other(asked, world)
    try:
        clean = build({})
    except UserError as error:
        raise _within("data", error) from error.__cause__
    if (asked.faults or asked.drifts) and clean.task != "objective" and not clean.sizes.any():
        raise UserError("data", "no client has any training example", fix="Check the partition and the splits.")
    if asked.faults:
        _check_faults(asked.faults, clean, asked.seed)
    faulty = in_phases(lambda faults: build(faults) if faults else clean, asked.faults)
    try:
        featured = with_features(faulty, asked.features, seed=asked.seed)
    except UserError as error:
        raise _within("features", error) from error.__cause__
    population = with_drifts(featured, asked.drifts, seed=asked.seed)
    told = population.happenings

    def happenings(round_index: int) -> Sequence[dict[str, Any]]:
        from_the_clock = clock_events(population, asked.faults, world, asked.seed, round_index)
        return [*(told(round_index) if told is not None else ()), *from_the_clock]

    return population if told is None and world is None else replace(population, happenings=happenings)


def _within(section: str, error: UserError) -> UserError:
    """Name the section of a key; what names a whole path, a file or a client stays."""
    return error.inside(section) if error.field.isidentifier() else error


def world_of(asked: Federation) -> World | None:
    """Return the city that a federation stands in; generated sources take the default without a [world]."""
    generated = not isinstance(asked.data, Population) and DATA.row_of(asked.data).is_generated
    if asked.world is None and not generated:
        return None
    return make_world(asked.world or WorldOptions(), asked.seed)


def truth_of(asked: Federation, population: Population) -> dict[str, Any] | None:
    """Return the truth about a federation's data, for the record; None where nothing was done to them."""
    world = world_of(asked)
    if world is None and not asked.faults and not asked.drifts:
        return None
    return data_truth(population, faults=asked.faults, drifts=asked.drifts, world=world, seed=asked.seed)


def _city(asked: Federation, world: World) -> Callable[[Faults], Population]:
    """Return what makes a generated source's population with the faults given."""
    try:
        check_no_partition(asked.data, asked.partition)
    except PartitionError as error:
        raise error.inside("partition") from None
    try:
        source: AnySource = DATA[asked.data.kind].build(asked.data, world, asked.seed)
    except UserError as error:
        raise error if "." in error.field else error.inside("data") from error.__cause__
    if isinstance(source, SeriesSource):
        return partial(series_population, source, seed=asked.seed, world=world, dtype=asked.dtype)
    clean = window_population(source, seed=asked.seed, dtype=asked.dtype)
    return partial(with_faults, clean, seed=asked.seed, world=world)


def _other(asked: Federation, world: World | None) -> Callable[[Faults], Population]:
    """Return what makes any other population; a world gives its clients places."""
    try:
        clean = build_population(asked.data, asked.partition, seed=asked.seed, dtype=asked.dtype)
    except UserError as error:
        section = "partition" if isinstance(error, PartitionError) else "data"
        raise error if "." in error.field or "/" in error.field else error.inside(section) from error.__cause__
    return _faulty(placed(clean, world), asked.seed, world)


def _faulty(clean: Population, seed: int, world: World | None) -> Callable[[Faults], Population]:
    """Return what puts faults into a population: into its series where it has them, else into its examples."""
    into = clean.series_faults or with_faults
    return lambda faults: into(clean, faults=faults, seed=seed, world=world) if faults else clean


def placed(population: Population, world: World | None) -> Population:
    """Return a population whose client k lives at the world's site k, where it has no place of its own."""
    if world is None or population.places is not None:
        return population
    return replace(population, places=world.sites, districts=world.names)


def _check_given(asked: Federation, data: Population) -> None:
    """Refuse to change once more what a population from Python says of its own changes: it would be lost."""
    if asked.faults and (data.phase is not None or data.realised is not None):
        problem = "cannot be put into a population that has faults, or changes over rounds, already"
        raise UserError("faults", problem, fix="Give all faults at once.")
    if asked.drifts and data.drift_levels is not None:
        problem = "cannot stand beside the concept drift that the population has already"
        raise UserError("drifts", problem, fix="Give all drifts at once.")


def _check_faults(faults: Faults, clean: Population, seed: int) -> None:
    if clean.task == "objective":
        raise UserError("faults", "need examples, and these data are an objective")
    dtype = clean.cohort(np.flatnonzero(clean.sizes)[:1].astype(np.int64)).features.dtype
    for name, fault in faults.items():
        if not dtype.is_floating_point and not isinstance(fault, LabelFaultOptions):
            raise UserError(f"faults.{name}.kind", f"{fault.kind!r} changes real numbers, and the features are {dtype}")
    try:
        check_faults(
            faults,
            channels=shape_of(clean, seed).channels,
            districts=clean.districts,
            task=clean.task,
            classes=clean.outputs,
            has_hours=clean.hours is not None,
        )
    except UserError as error:
        raise error.inside("faults") from error.__cause__
    for name, fault in faults.items():
        if fault.schedule.unit == "hours" and fault.schedule.start >= training_ends(clean):
            problem = f"must be before the training data end, at hour {training_ends(clean):g}"
            raise UserError(f"faults.{name}.schedule.start", f"{problem}, got {fault.schedule.start:g}")
