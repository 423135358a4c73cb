"""The algorithm table: an algorithm is a row, local rule x aggregation x server transform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from clients.training import rules
from clients.training.options import LocalOptions
from clients.training.rules import LocalRule
from server.algorithms import transforms
from server.algorithms.aggregation import Coefficients, normalised, weighted
from server.algorithms.options import (
    AlgorithmOptions,
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
from server.algorithms.transforms import ServerTransform


@dataclass(frozen=True)
class Algorithm:
    """A row of the table, ready to run."""

    name: str
    rule: LocalRule
    coefficients: Coefficients
    transform: ServerTransform


def _server(o: AlgorithmOptions) -> ServerTransform:
    match o:
        case FedAvgMOptions():
            return transforms.momentum(o.server_lr, o.server_momentum)
        case FedAdamOptions():
            return transforms.adaptive("adam", o.server_lr, o.beta1, o.beta2, o.tau)
        case FedYogiOptions():
            return transforms.adaptive("yogi", o.server_lr, o.beta1, o.beta2, o.tau)
        case FedAdagradOptions():
            return transforms.adaptive("adagrad", o.server_lr, o.beta1, 0.0, o.tau)
        case ScaffoldOptions():
            return transforms.control_variate(o.server_lr)
        case FedDynOptions():
            return transforms.dynamic(o.alpha)
        case _:
            return transforms.descent(o.server_lr)


Row = Callable[[AlgorithmOptions, LocalOptions], Algorithm]


def _averaging(rule: Callable[[AlgorithmOptions], LocalRule] = lambda o: rules.PLAIN) -> Row:
    return lambda o, local: Algorithm(o.kind, rule(o), weighted(getattr(o, "weighting", "uniform")), _server(o))


def _mu(o: AlgorithmOptions) -> float:
    return float(getattr(o, "mu", 0.0))


ALGORITHMS: dict[str, tuple[type[AlgorithmOptions], Row]] = {
    "fedavg": (FedAvgOptions, _averaging()),
    "fedsgd": (FedSgdOptions, _averaging()),
    "fedavgm": (FedAvgMOptions, _averaging()),
    "fedprox": (FedProxOptions, _averaging(lambda o: rules.proximal(_mu(o)))),
    "fedadam": (FedAdamOptions, _averaging()),
    "fedyogi": (FedYogiOptions, _averaging()),
    "fedadagrad": (FedAdagradOptions, _averaging()),
    "scaffold": (ScaffoldOptions, _averaging(lambda o: rules.control_variate(getattr(o, "option", 2)))),
    "fednova": (
        FedNovaOptions,
        lambda o, local: Algorithm(
            o.kind, rules.proximal(_mu(o)), normalised(getattr(o, "weighting", "examples"), local, _mu(o)), _server(o)
        ),
    ),
    "feddyn": (FedDynOptions, _averaging(lambda o: rules.dynamic(getattr(o, "alpha", 0.1)))),
}


def build_algorithm(options: AlgorithmOptions, local: LocalOptions) -> Algorithm:
    """Return the row that `options` name."""
    row = ALGORITHMS[options.kind][1](options, local)
    if options.partial_work == "drop" and row.rule.own:
        return replace(row, rule=replace(row.rule, forgets_partial_work=True))
    return row


def local_for(options: AlgorithmOptions, local: LocalOptions) -> LocalOptions:
    """Return the local training an algorithm runs: FedSGD's is one full-batch step, the others' as configured."""
    if options.kind == "fedsgd":
        return replace(local, batch_size="full", local_steps=1, local_epochs=None, partial_work=0.0)
    return local
