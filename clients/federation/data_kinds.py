"""Every kind of data by name, and the one function that makes a population of it.

Pooled kinds have examples without owners: `digits`, `images` and `huggingface` need a partition, `uci_har` and
`n_baiot` may have one instead of their own clients. The others bring their clients. `custom` data come from Python
only: `clients.sources.custom.custom_population`.
"""

from __future__ import annotations

from typing import Any

import torch

from clients.core.errors import PartitionError, UserError, unknown_name
from clients.core.population import Population
from clients.datasets.air_quality import AirQualityOptions, air_quality_population
from clients.datasets.household_power import HouseholdPowerOptions, household_power_population
from clients.datasets.huggingface import HuggingFaceOptions, huggingface_population
from clients.datasets.metr_la import MetrLaOptions, metr_la_population
from clients.datasets.n_baiot import NBaiotOptions, n_baiot_population
from clients.datasets.uci_har import UciHarOptions, uci_har_population
from clients.partition.partitions import NaturalOptions, PartitionOptions
from clients.partition.pooled import pooled_population
from clients.sources.images import DigitsOptions, ImagesOptions, digits_pool, images_pool
from clients.sources.quadratic import QuadraticOptions, quadratic_population
from clients.sources.synthetic import SyntheticOptions, synthetic_population
from clients.tables.table import TableOptions, table_population

DataOptions = (
    DigitsOptions
    | ImagesOptions
    | TableOptions
    | SyntheticOptions
    | QuadraticOptions
    | MetrLaOptions
    | AirQualityOptions
    | HouseholdPowerOptions
    | UciHarOptions
    | NBaiotOptions
    | HuggingFaceOptions
)

DATA: dict[str, type[Any]] = {
    "digits": DigitsOptions,
    "images": ImagesOptions,
    "table": TableOptions,
    "synthetic": SyntheticOptions,
    "quadratic": QuadraticOptions,
    "metr_la": MetrLaOptions,
    "air_quality": AirQualityOptions,
    "household_power": HouseholdPowerOptions,
    "uci_har": UciHarOptions,
    "n_baiot": NBaiotOptions,
    "huggingface": HuggingFaceOptions,
}


def build_population(
    data: DataOptions, partition: PartitionOptions | None, *, seed: int, dtype: torch.dtype = torch.float32
) -> Population:
    """Make the population a scenario asks for.

    Args:
        data: one of `DATA`.
        partition: one of `PARTITIONS`. Needed by digits and images, and by huggingface without a partitioner; may take
            the place of the clients of uci_har and n_baiot; the other kinds bring their clients and take None (or
            "natural", which says the same).
        seed: root seed.
        dtype: of features and regression targets; theory tests take float64.

    Returns:
        The population.

    Raises:
        DataError: the data cannot be read or hold unusable values.
        PartitionError: the partition is missing, superfluous or cannot be made.

    Example:
        >>> from clients.partition.partitions import IidOptions
        >>> population = build_population(DigitsOptions(), IidOptions(clients=3), seed=0)
        >>> population.sizes.tolist(), len(population.validation), len(population.test)
        ([479, 479, 479], 180, 180)
    """
    if isinstance(data, DigitsOptions | ImagesOptions):
        pool = digits_pool(data) if isinstance(data, DigitsOptions) else images_pool(data)
        return pooled_population(
            pool,
            partition,
            validation_fraction=data.validation_fraction,
            test_fraction=data.test_fraction,
            client_test_fraction=data.client_test_fraction,
            seed=seed,
            dtype=dtype,
        )
    match data:
        case UciHarOptions():
            return uci_har_population(data, partition, seed=seed, dtype=dtype)
        case NBaiotOptions():
            return n_baiot_population(data, partition, seed=seed, dtype=dtype)
        case HuggingFaceOptions():
            return huggingface_population(data, partition, seed=seed, dtype=dtype)
    if partition is not None and not isinstance(partition, NaturalOptions):
        raise PartitionError(
            "kind",
            f"{partition.kind!r} deals out pooled examples, and data '{data.kind}' bring their own clients",
            fix="Leave the partition out.",
        )
    match data:
        case TableOptions():
            return table_population(data, dtype=dtype)
        case SyntheticOptions():
            return synthetic_population(data, seed=seed, dtype=dtype)
        case QuadraticOptions():
            return quadratic_population(data, seed=seed, dtype=dtype)
        case MetrLaOptions():
            return metr_la_population(data, dtype=dtype)
        case AirQualityOptions():
            return air_quality_population(data, dtype=dtype)
        case HouseholdPowerOptions():
            return household_power_population(data, dtype=dtype)
    raise UserError("kind", unknown_name(getattr(data, "kind", data), DATA, "a kind of data"))
