"""The table of algorithms, with one row for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clients.core.rows import Row, Table, lazy
from server.algorithms.options import (
    FedAdagradOptions,
    FedAdamOptions,
    FedAvgMOptions,
    FedAvgOptions,
    FedDynOptions,
    FedNovaOptions,
    FedProxOptions,
    FedSgdOptions,
    FedYogiOptions,
    FomamlOptions,
    ReptileOptions,
    ScaffoldOptions,
)


@dataclass(frozen=True, kw_only=True)
class FixedLocal:
    """Local work that is part of an algorithm's definition, whatever the defaults of [local] are.

    Attributes:
        words: what a client does, for messages.
        values: the keys of [local] that it fixes.
        same: other values that [local] may give for these keys, because they mean the same.
        instead: an algorithm that leaves local work to [local].
    """

    words: str
    values: Mapping[str, Any]
    same: Mapping[str, Any] = field(default_factory=dict)
    instead: str

    def conflict(self, given: Mapping[str, Any]) -> tuple[str, Any] | None:
        """Return the first key of [local] whose given value would be ignored, and that value; None without one."""
        for key, value in self.values.items():
            if key in given and given[key] not in (value, self.same.get(key, value)):
                return key, given[key]
        return None


@dataclass(frozen=True, kw_only=True)
class AlgorithmRow(Row):
    """An entry of the table.

    Attributes:
        build: (options, local training) -> the algorithm (`server.algorithms.algorithm.Algorithm`).
        fixed_local: what it fixes of local work; None leaves [local] as configured.
    """

    build: Callable[..., Any]
    fixed_local: FixedLocal | None = None


def _built(name: str) -> Callable[..., Any]:
    return lazy("server.algorithms.build", name)


ONE_FULL_BATCH = FixedLocal(
    words="takes one full-batch step a round",
    values={"batch_size": "full", "local_steps": 1, "local_epochs": None, "partial_work": 0.0},
    same={"local_epochs": 1},
    instead="fedavg",
)

ALGORITHMS: Table[AlgorithmRow] = Table(
    "an algorithm",
    AlgorithmRow(kind="fedavg", options=FedAvgOptions, build=_built("fedavg")),
    AlgorithmRow(kind="fedsgd", options=FedSgdOptions, build=_built("fedavg"), fixed_local=ONE_FULL_BATCH),
    AlgorithmRow(kind="fedavgm", options=FedAvgMOptions, build=_built("fedavgm")),
    AlgorithmRow(kind="fedprox", options=FedProxOptions, build=_built("fedprox")),
    AlgorithmRow(kind="fedadam", options=FedAdamOptions, build=_built("fedadam")),
    AlgorithmRow(kind="fedyogi", options=FedYogiOptions, build=_built("fedyogi")),
    AlgorithmRow(kind="fedadagrad", options=FedAdagradOptions, build=_built("fedadagrad")),
    AlgorithmRow(kind="scaffold", options=ScaffoldOptions, build=_built("scaffold")),
    AlgorithmRow(kind="fednova", options=FedNovaOptions, build=_built("fednova")),
    AlgorithmRow(kind="feddyn", options=FedDynOptions, build=_built("feddyn")),
    AlgorithmRow(kind="reptile", options=ReptileOptions, build=_built("fedavg")),
    AlgorithmRow(kind="fomaml", options=FomamlOptions, build=_built("fomaml")),
)
