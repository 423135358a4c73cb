"""From an algorithm's options to the algorithm: what the rows of `server.algorithms.table` are built from."""

from __future__ import annotations

from dataclasses import replace

from clients.core.errors import StrategyError
from clients.training import rules
from clients.training.optimizers import LINEAR
from clients.training.options import LocalOptions
from server.algorithms import options as kinds
from server.algorithms import transforms
from server.algorithms.aggregation import mean_gradient, normalised_mean, weighted_mean
from server.algorithms.algorithm import Algorithm
from server.algorithms.options import AlgorithmOptions
from server.algorithms.table import ALGORITHMS


def fedavg(o: kinds.AveragingOptions, local: LocalOptions) -> Algorithm:
    """Build FedAvg, FedSGD and Reptile: they differ in their options alone."""
    return Algorithm(o.kind, aggregation=weighted_mean(o.weighting), server=transforms.sgd(o.server_lr))


def fedavgm(o: kinds.FedAvgMOptions, local: LocalOptions) -> Algorithm:
    """Build FedAvgM."""
    server = transforms.momentum(o.server_lr, o.server_momentum, nesterov=o.nesterov)
    return Algorithm(o.kind, aggregation=weighted_mean(o.weighting), server=server)


def fedprox(o: kinds.FedProxOptions, local: LocalOptions) -> Algorithm:
    """Build FedProx."""
    return Algorithm(
        o.kind, rules.proximal(o.mu), aggregation=weighted_mean(o.weighting), server=transforms.sgd(o.server_lr)
    )


def fedadam(o: kinds.FedAdamOptions, local: LocalOptions) -> Algorithm:
    """Build FedAdam."""
    server = transforms.adam(o.server_lr, o.beta1, o.beta2, o.tau)
    return Algorithm(o.kind, aggregation=weighted_mean(o.weighting), server=server)


def fedyogi(o: kinds.FedYogiOptions, local: LocalOptions) -> Algorithm:
    """Build FedYogi."""
    server = transforms.yogi(o.server_lr, o.beta1, o.beta2, o.tau)
    return Algorithm(o.kind, aggregation=weighted_mean(o.weighting), server=server)


def fedadagrad(o: kinds.FedAdagradOptions, local: LocalOptions) -> Algorithm:
    """Build FedAdagrad."""
    server = transforms.adagrad(o.server_lr, o.beta1, o.tau)
    return Algorithm(o.kind, aggregation=weighted_mean(o.weighting), server=server)


def scaffold(o: kinds.ScaffoldOptions, local: LocalOptions) -> Algorithm:
    """Build SCAFFOLD."""
    return Algorithm(
        o.kind,
        rules.control_variate(o.option),
        aggregation=weighted_mean("uniform"),
        server=transforms.control_variate(o.server_lr),
    )


def fednova(o: kinds.FedNovaOptions, local: LocalOptions) -> Algorithm:
    """Build FedNova."""
    return Algorithm(
        o.kind,
        rules.proximal(o.mu),
        aggregation=normalised_mean(o.weighting, local, o.mu),
        server=transforms.sgd(o.server_lr),
    )


def feddyn(o: kinds.FedDynOptions, local: LocalOptions) -> Algorithm:
    """Build FedDyn."""
    return Algorithm(
        o.kind, rules.dynamic(o.alpha), aggregation=weighted_mean("uniform"), server=transforms.dynamic(o.alpha)
    )


def fomaml(o: kinds.FomamlOptions, local: LocalOptions) -> Algorithm:
    """Build first-order MAML.

    Raises:
        StrategyError: the last local step would be no multiple of its gradient.
    """
    if local.optimizer not in ("gd", "sgd"):
        problem = f"'fomaml' reads the gradient of the last local step from it, and {local.optimizer!r} takes another"
        raise StrategyError(
            "local.optimizer", problem, fix="Set local.optimizer = 'sgd', or algorithm.kind = 'reptile'."
        )
    return Algorithm(
        o.kind, rules.LAST_STEP, aggregation=mean_gradient(o.weighting), server=transforms.sgd(o.server_lr)
    )


def build_algorithm(options: AlgorithmOptions, local: LocalOptions) -> Algorithm:
    """Return the algorithm that `options` name.

    Raises:
        StrategyError: it is not defined for the optimiser of local training.
    """
    if isinstance(options, kinds.ScaffoldOptions) and options.option == 2 and local.optimizer not in LINEAR:
        problem = (
            f"is 2, which computes a client's mean gradient from how far it moved, and {local.optimizer!r} does not "
            "move in proportion to its gradients"
        )
        allowed = ", ".join(map(repr, LINEAR))
        fix = f"Set algorithm.option = 1, or local.optimizer to one of {allowed}."
        raise StrategyError("algorithm.option", problem, fix=fix)
    return dropping_partial_work(options, ALGORITHMS.row_of(options).build(options, local))


def dropping_partial_work(options: AlgorithmOptions, algorithm: Algorithm) -> Algorithm:
    """Return the algorithm as it plays under `options`: clients forget partial work that the server drops."""
    if options.partial_work == "drop" and algorithm.local_work.remembers:
        return replace(algorithm, local=replace(algorithm.local, forgets_partial_work=True))
    return algorithm


def local_for(options: AlgorithmOptions, local: LocalOptions) -> LocalOptions:
    """Return the local training that an algorithm runs: as configured, unless its row fixes it."""
    fixed = ALGORITHMS.row_of(options).fixed_local
    return local if fixed is None else replace(local, **fixed.values)
