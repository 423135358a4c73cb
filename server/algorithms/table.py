"""The table of algorithms, with one row for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from clients.training import rules
from clients.training.options import LocalOptions
from server.algorithms import transforms
from server.algorithms.aggregation import normalised_mean, weighted_mean
from server.algorithms.algorithm import Algorithm
from server.algorithms.options import (
    AlgorithmOptions,
    CohortOptions,
    FedAdagradOptions,
    FedAdamOptions,
    FedAvgMOptions,
    FedAvgOptions,
    FedDynOptions,
    FedNovaOptions,
    FedProxOptions,
    FedSgdOptions,
    FedYogiOptions,
    ScaffoldOptions,
)


def _fedavg(o: FedAvgOptions | FedSgdOptions, local: LocalOptions) -> Algorithm:
    return Algorithm(o.kind, aggregation=weighted_mean(o.weighting), server=transforms.sgd(o.server_lr))


def _fedavgm(o: FedAvgMOptions, local: LocalOptions) -> Algorithm:
    server = transforms.momentum(o.server_lr, o.server_momentum)
    return Algorithm(o.kind, aggregation=weighted_mean(o.weighting), server=server)


def _fedprox(o: FedProxOptions, local: LocalOptions) -> Algorithm:
    return Algorithm(
        o.kind, rules.proximal(o.mu), aggregation=weighted_mean(o.weighting), server=transforms.sgd(o.server_lr)
    )


def _fedadam(o: FedAdamOptions, local: LocalOptions) -> Algorithm:
    server = transforms.adam(o.server_lr, o.beta1, o.beta2, o.tau)
    return Algorithm(o.kind, aggregation=weighted_mean(o.weighting), server=server)


def _fedyogi(o: FedYogiOptions, local: LocalOptions) -> Algorithm:
    server = transforms.yogi(o.server_lr, o.beta1, o.beta2, o.tau)
    return Algorithm(o.kind, aggregation=weighted_mean(o.weighting), server=server)


def _fedadagrad(o: FedAdagradOptions, local: LocalOptions) -> Algorithm:
    server = transforms.adagrad(o.server_lr, o.beta1, o.tau)
    return Algorithm(o.kind, aggregation=weighted_mean(o.weighting), server=server)


def _scaffold(o: ScaffoldOptions, local: LocalOptions) -> Algorithm:
    return Algorithm(
        o.kind,
        rules.control_variate(o.option),
        aggregation=weighted_mean("uniform"),
        server=transforms.control_variate(o.server_lr),
    )


def _fednova(o: FedNovaOptions, local: LocalOptions) -> Algorithm:
    return Algorithm(
        o.kind,
        rules.proximal(o.mu),
        aggregation=normalised_mean(o.weighting, local, o.mu),
        server=transforms.sgd(o.server_lr),
    )


def _feddyn(o: FedDynOptions, local: LocalOptions) -> Algorithm:
    return Algorithm(
        o.kind, rules.dynamic(o.alpha), aggregation=weighted_mean("uniform"), server=transforms.dynamic(o.alpha)
    )


def _one_full_batch(local: LocalOptions) -> LocalOptions:
    """Return FedSGD's local work: one step on all examples of a client."""
    return replace(local, batch_size="full", local_steps=1, local_epochs=None, partial_work=0.0)


@dataclass(frozen=True)
class AlgorithmRow:
    """A row of the table.

    Attributes:
        options: the algorithm's options in a scenario.
        build: (options, local training) -> the algorithm.
        local_work: how it changes [local]; None leaves [local] as configured.
    """

    options: type[CohortOptions]
    build: Callable[[Any, LocalOptions], Algorithm]
    local_work: Callable[[LocalOptions], LocalOptions] | None = None


ALGORITHMS: dict[str, AlgorithmRow] = {
    "fedavg": AlgorithmRow(FedAvgOptions, _fedavg),
    "fedsgd": AlgorithmRow(FedSgdOptions, _fedavg, _one_full_batch),
    "fedavgm": AlgorithmRow(FedAvgMOptions, _fedavgm),
    "fedprox": AlgorithmRow(FedProxOptions, _fedprox),
    "fedadam": AlgorithmRow(FedAdamOptions, _fedadam),
    "fedyogi": AlgorithmRow(FedYogiOptions, _fedyogi),
    "fedadagrad": AlgorithmRow(FedAdagradOptions, _fedadagrad),
    "scaffold": AlgorithmRow(ScaffoldOptions, _scaffold),
    "fednova": AlgorithmRow(FedNovaOptions, _fednova),
    "feddyn": AlgorithmRow(FedDynOptions, _feddyn),
}


def build_algorithm(options: AlgorithmOptions, local: LocalOptions) -> Algorithm:
    """Return the algorithm of `options`."""
    return dropping_partial_work(options, ALGORITHMS[options.kind].build(options, local))


def dropping_partial_work(options: CohortOptions, algorithm: Algorithm) -> Algorithm:
    """Return the algorithm under `options`: client states skip partial work that the server drops."""
    if options.partial_work == "drop" and algorithm.local_work.remembers:
        return replace(algorithm, local=replace(algorithm.local, forgets_partial_work=True))
    return algorithm


def local_for(options: AlgorithmOptions, local: LocalOptions) -> LocalOptions:
    """Return an algorithm's local training: as configured, unless its row changes it."""
    change = ALGORITHMS[options.kind].local_work
    return local if change is None else change(local)
