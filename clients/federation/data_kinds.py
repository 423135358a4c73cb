"""The table of all kinds of data, and the function that makes a population of data that are not generated.

`custom` data come from Python only: `clients.sources.custom.custom_population`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from clients.city.series_options import AirOptions, MetersOptions, TrafficOptions
from clients.city.window_options import ActivityOptions, BridgeOptions, IntrusionOptions
from clients.core.errors import PartitionError
from clients.core.options import DataOptions
from clients.core.rows import Row, Table, lazy
from clients.datasets.example_options import HuggingFaceOptions, NBaiotOptions, UciHarOptions
from clients.datasets.series_options import AirQualityOptions, HouseholdPowerOptions, MetrLaOptions
from clients.partition.options import PartitionOptions
from clients.partition.table import PARTITIONS
from clients.sources.landscapes.options import DoubleWellOptions
from clients.sources.made_options import ChurnOptions, PointsOptions, ReviewsOptions
from clients.sources.options import (
    DigitsOptions,
    DiracOptions,
    ImagesOptions,
    QuadraticOptions,
    SineOptions,
    SyntheticOptions,
)
from clients.tables.options import TableOptions

if TYPE_CHECKING:
    import torch

    from clients.core.population import Population


@dataclass(frozen=True, kw_only=True)
class DataRow(Row):
    """A kind of data.

    Attributes:
        build: makes the data: for a generated kind (options, world, seed) -> source; for the others
            (options, partition, *, seed, dtype) -> population, without the partition if it is refused, and without the
            seed if nothing is drawn.
        partition: whether a partition is needed, may replace the data's own clients, or is refused.
        is_generated: whether sensors of a generated city read it.
        is_drawn: whether it depends on the seed.
        unread_world: keys of [world] on which data of a generated kind do not depend.
    """

    build: Callable[..., Any]
    partition: Literal["needed", "taken", "refused"]
    is_generated: bool = False
    is_drawn: bool = True
    unread_world: tuple[str, ...] = ()


def _pooled(kind: str, options: type[DataOptions], module: str, *, needed: bool = False) -> DataRow:
    """Return the row of a kind of examples that a partition can deal out."""
    build = lazy(f"clients.{module}", f"{kind}_population")
    return DataRow(kind=kind, options=options, build=build, partition="needed" if needed else "taken")


def _drawn(kind: str, options: type[DataOptions], *, needed: bool = True) -> DataRow:
    """Return the row of generated examples that a partition must or may deal out."""
    return _pooled(kind, options, f"sources.{kind}", needed=needed)


def _owned(kind: str, options: type[DataOptions], module: str, *, is_drawn: bool = False) -> DataRow:
    """Return the row of a kind of data with their own clients."""
    build = lazy(f"clients.{module}", f"{kind}_population")
    return DataRow(kind=kind, options=options, build=build, partition="refused", is_drawn=is_drawn)


def _generated(kind: str, options: type[DataOptions], *, without: tuple[str, ...] = ()) -> DataRow:
    """Return the row of a source of the generated city, which does not depend on the keys `without` of [world]."""
    build = lazy(f"clients.city.{kind}", f"{kind}_source")
    return DataRow(
        kind=kind, options=options, build=build, partition="refused", is_generated=True, unread_world=without
    )


DATA: Table[DataRow] = Table(
    "a kind of data",
    _pooled("digits", DigitsOptions, "sources.images", needed=True),
    _pooled("images", ImagesOptions, "sources.images", needed=True),
    _pooled("table", TableOptions, "tables.table"),
    _drawn("points", PointsOptions),
    _drawn("churn", ChurnOptions, needed=False),
    _drawn("reviews", ReviewsOptions, needed=False),
    _owned("synthetic", SyntheticOptions, "sources.synthetic", is_drawn=True),
    _owned("quadratic", QuadraticOptions, "sources.quadratic", is_drawn=True),
    _owned("double_well", DoubleWellOptions, "sources.landscapes.double_well", is_drawn=True),
    _owned("dirac", DiracOptions, "sources.dirac", is_drawn=True),
    _owned("sine", SineOptions, "sources.sine", is_drawn=True),
    _owned("metr_la", MetrLaOptions, "datasets.metr_la"),
    _owned("air_quality", AirQualityOptions, "datasets.air_quality"),
    _owned("household_power", HouseholdPowerOptions, "datasets.household_power"),
    _pooled("uci_har", UciHarOptions, "datasets.uci_har"),
    _pooled("n_baiot", NBaiotOptions, "datasets.n_baiot"),
    _pooled("huggingface", HuggingFaceOptions, "datasets.huggingface"),
    _generated("traffic", TrafficOptions, without=("mean_temperature", "seasonal_swing")),
    _generated("meters", MetersOptions, without=("events_per_week",)),
    _generated("air", AirOptions),
    _generated("bridge", BridgeOptions),
    _generated("intrusion", IntrusionOptions, without=("rain_share",)),
    _generated(
        "activity",
        ActivityOptions,
        without=("start", "mean_temperature", "seasonal_swing", "rain_share", "events_per_week"),
    ),
)

GENERATED = {kind: row for kind, row in DATA.items() if row.is_generated}
"""The kinds of data that sensors of a generated city read."""


def build_population(
    data: DataOptions, partition: PartitionOptions | None, *, seed: int, dtype: torch.dtype | None = None
) -> Population:
    """Make the population of data that are not generated.

    Args:
        data: options of one of `DATA`.
        partition: options of one of `PARTITIONS`, if the kind of data takes one.
        seed: root seed.
        dtype: of features and regression targets, float32 by default; theory tests take float64.

    Raises:
        DataError: the data cannot be read or hold unusable values.
        PartitionError: the partition is missing, superfluous or cannot be made.

    Example:
        >>> from clients.partition.options import IidOptions
        >>> population = build_population(DigitsOptions(), IidOptions(clients=3), seed=0)
        >>> population.sizes.tolist(), len(population.validation), len(population.test)
        ([479, 479, 479], 180, 180)
    """
    row = DATA.row_of(data)
    assert not row.is_generated, "generated data are built with their world, by build_federation"
    given: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    if row.is_drawn:
        given["seed"] = seed
    if row.partition == "refused" or not data.takes_partition:
        check_no_partition(data, partition)
        population: Population = row.build(data, **given)
    else:
        population = row.build(data, partition, **given)
    return population


def check_no_partition(data: DataOptions, partition: PartitionOptions | None) -> None:
    """Refuse a partition of data that have their own clients.

    Raises:
        PartitionError: the partition would deal them out.
    """
    if partition is not None and not PARTITIONS.row_of(partition).keeps_clients:
        raise PartitionError(
            "kind",
            f"{partition.kind!r} deals out pooled examples, and data '{data.kind}' bring their own clients",
            fix="Leave the partition out: --set partition=.",
        )
