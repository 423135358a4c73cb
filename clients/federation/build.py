"""Builds the population of a scenario's sections: data, partition, world, faults, features, concept drift."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
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
from clients.faults.options import Faults, LabelFaultOptions
from clients.federation.data_kinds import DATA, build_population, check_no_partition
from clients.federation.effects import check_world, data_notices
from clients.federation.faulty_examples import readings_of, with_faults
from clients.federation.features import with_features
from clients.federation.ground_truth import clock_events, data_ground_truth, training_ends
from clients.federation.named_clients import with_indices
from clients.federation.options import FeatureOptions
from clients.federation.schedule import on_schedule
from clients.federation.series_windows import series_population
from clients.federation.window_examples import window_population
from clients.partition.options import PartitionOptions
from clients.world.options import WorldOptions
from clients.world.world import World, make_world


@dataclass(frozen=True, kw_only=True)
class Federation:
    """The sections of a scenario that describe the clients' data.

    Attributes:
        data: options of one of the kinds of data, or a population.
        partition: how pooled data are dealt out.
        world: the city; None for none, or for the default city of generated sources.
        faults: by name, in order.
        drifts: concept drifts by name, in order.
        features: how features are normalised and selected, after faults.
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


def build_federation(federation: Federation) -> Population:
    """Make the population.

    Raises:
        UserError: names the wrong key with its section.
    """
    world = world_of(federation)
    build: Callable[[Faults], Population]
    if isinstance(federation.data, Population):
        _check_given(federation, federation.data)
        build = _faulty(placed(federation.data, world), federation.seed, world)
    elif DATA.row_of(federation.data).is_generated:
        assert world is not None
        build = _city(federation, world)
    else:
        build = _other(federation, world)
    try:
        clean = build({})
    except UserError as error:
        raise _within("data", error) from error.__cause__
    if (federation.faults or federation.drifts) and clean.task != "objective" and not clean.sizes.any():
        raise UserError("data", "no client has any training example", fix="Check the partition and the splits.")
    of_the_city = is_of_the_city(federation.data)
    check_world(federation.world, federation.faults, clean, is_generated=of_the_city)
    federation = with_named_clients(federation, clean)
    if federation.faults:
        _check_faults(federation.faults, clean, federation.seed)
    faulty = on_schedule(lambda faults: build(faults) if faults else clean, federation.faults)
    try:
        featured = with_features(faulty, federation.features, seed=federation.seed)
    except UserError as error:
        raise _within("features", error) from error.__cause__
    population = with_drifts(featured, federation.drifts, seed=federation.seed)
    notices = data_notices(federation.faults, federation.drifts, population, world, federation.seed)
    if notices:
        facts = population.federation
        population = replace(population, federation=replace(facts, notices=(*facts.notices, *notices)))
    of_rounds = population.history.events
    if of_rounds is None and world is None:
        return population

    def events(round_index: int) -> Sequence[dict[str, Any]]:
        of_the_clock = clock_events(
            population, federation.faults, world, federation.seed, round_index, of_the_city=of_the_city
        )
        return [*(of_rounds(round_index) if of_rounds is not None else ()), *of_the_clock]

    return replace(population, history=replace(population.history, events=events))


def _within(section: str, error: UserError) -> UserError:
    """Put the section before a key. A field that is a whole path, a file or a client is not changed."""
    return error.inside(section) if error.field.isidentifier() else error


def world_of(federation: Federation) -> World | None:
    """Return the city of a federation; generated sources take the default without a [world]."""
    generated = not isinstance(federation.data, Population) and is_of_the_city(federation.data)
    if federation.world is None and not generated:
        return None
    return make_world(federation.world or WorldOptions(), federation.seed)


def is_of_the_city(data: Any) -> bool:
    """Return whether data come from the generated city: a generated source, or a population with places of its own."""
    if isinstance(data, Population):
        return data.federation.places is not None
    return DATA.row_of(data).is_generated


def ground_truth_of(federation: Federation, population: Population) -> dict[str, Any] | None:
    """Return the ground truth about a federation's data, for the record.

    It is None without a city, faults and drifts.
    """
    world = world_of(federation)
    if world is None and not federation.faults and not federation.drifts:
        return None
    found = with_named_clients(federation, population)
    truth = data_ground_truth(population, faults=found.faults, drifts=found.drifts, world=world, seed=federation.seed)
    for section, options in (("faults", federation.faults), ("drifts", federation.drifts)):
        for name, given in options.items():  # as the scenario has them: by name
            truth[section][name]["options"] = asdict(given)
    return truth


def with_named_clients(federation: Federation, population: Population) -> Federation:
    """Return a federation whose faults and drifts have indices of clients in place of names.

    Raises:
        UserError: there is no client of a name.
    """
    facts = population.federation
    return replace(
        federation,
        faults=with_indices(federation.faults, facts, "faults"),
        drifts=with_indices(federation.drifts, facts, "drifts"),
    )


def _city(federation: Federation, world: World) -> Callable[[Faults], Population]:
    """Return a function of faults that makes a generated source's population."""
    try:
        check_no_partition(federation.data, federation.partition)
    except PartitionError as error:
        raise error.inside("partition") from None
    try:
        source: AnySource = DATA[federation.data.kind].build(federation.data, world, federation.seed)
    except UserError as error:
        raise error if "." in error.field else error.inside("data") from error.__cause__
    if isinstance(source, SeriesSource):
        return partial(series_population, source, seed=federation.seed, world=world, dtype=federation.dtype)
    clean = window_population(source, seed=federation.seed, dtype=federation.dtype)
    return partial(with_faults, clean, seed=federation.seed, world=world)


def _other(federation: Federation, world: World | None) -> Callable[[Faults], Population]:
    """Return a function of faults that makes any other population. A world gives its clients places."""
    try:
        clean = build_population(federation.data, federation.partition, seed=federation.seed, dtype=federation.dtype)
    except UserError as error:
        section = "partition" if isinstance(error, PartitionError) else "data"
        raise error if "." in error.field or "/" in error.field else error.inside(section) from error.__cause__
    return _faulty(placed(clean, world), federation.seed, world)


def _faulty(clean: Population, seed: int, world: World | None) -> Callable[[Faults], Population]:
    """Return a function that puts faults into a population: into its series, or else into its examples."""
    into = clean.clients.series_faults or with_faults
    return lambda faults: into(clean, faults=faults, seed=seed, world=world) if faults else clean


def placed(population: Population, world: World | None) -> Population:
    """Return a population with client k at the world's site k, unless the data have places of their own."""
    if world is None or population.federation.places is not None:
        return population
    facts = replace(population.federation, places=world.sites, districts=world.names)
    return replace(population, federation=facts)


def _check_given(federation: Federation, data: Population) -> None:
    """Refuse faults or drifts for a population that already has some: their history would be lost."""
    if federation.faults and (data.history.schedule is not None or data.history.faults):
        problem = "cannot be put into a population that has faults, or changes over rounds, already"
        raise UserError("faults", problem, fix="Give all faults at once.")
    if federation.drifts and data.history.drift_levels is not None:
        problem = "cannot be added to a population that has concept drift already"
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
            channels=readings_of(clean, seed).channels,
            districts=clean.federation.districts,
            task=clean.task,
            classes=clean.spec.outputs,
            has_hours=clean.clients.hours is not None,
        )
    except UserError as error:
        raise error.inside("faults") from error.__cause__
    for name, fault in faults.items():
        if fault.schedule.unit == "hours" and fault.schedule.start >= training_ends(clean):
            problem = f"must be before the training data end, at hour {training_ends(clean):g}"
            raise UserError(f"faults.{name}.schedule.start", f"{problem}, got {fault.schedule.start:g}")
