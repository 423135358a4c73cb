"""The weights p_k of the global objective f(w) = sum p_k F_k(w) that an algorithm minimises."""

from __future__ import annotations

import numpy as np

from clients.core.arrays import F64, I64
from clients.core.errors import StrategyError
from clients.core.population_parts import FederationFacts
from server.algorithms.aggregation import ClientFacts
from server.algorithms.algorithm import Algorithm


def objective_weights(
    algorithm: Algorithm | None,
    federation: FederationFacts,
    *,
    local_lr: float = 1.0,
    drawn_by_examples: bool = False,
) -> F64:
    """Return p_k of every client, float64 (N,), with sum 1; 0 for clients without data.

    They are the coefficients that the aggregation gives if all clients with data take part, one local step each. A
    round's cohort has them on average, so its fixed point is the minimiser of this f where the algorithm has one.

    Args:
        algorithm: the algorithm; None for a user's strategy, which counts as weighing by examples.
        federation: sizes, and shares where the data give them.
        local_lr: for aggregations that read it.
        drawn_by_examples: whether cohorts are drawn in proportion to examples, which weighs clients once more; not
            those that keep a state, such as SCAFFOLD's and FedDyn's: their states cancel at the same point, however
            often each client is drawn.

    Raises:
        StrategyError: the aggregation's weights have no positive sum.

    Example:
        >>> from server.algorithms.aggregation import weighted_mean
        >>> people = FederationFacts(name="three", sizes=np.array([3, 0, 1], np.int32))
        >>> objective_weights(Algorithm("fedavg"), people).tolist()
        [0.75, 0.0, 0.25]
        >>> objective_weights(Algorithm("uniform", aggregation=weighted_mean("uniform")), people).tolist()
        [0.5, 0.0, 0.5]
    """
    sizes = federation.sizes.astype(np.int64)
    clients = np.flatnonzero(sizes).astype(np.int64)
    by_objective = federation.weights_of(clients, sizes[clients])
    raw = by_objective
    if algorithm is not None:
        raw = algorithm.aggregation.weights_of(_round_of_everyone(federation, clients, local_lr))
        if drawn_by_examples and not algorithm.local.client_state:
            raw = raw * by_objective
    if not raw.sum() > 0:
        name = "the strategy" if algorithm is None else repr(algorithm.aggregation.name)
        problem = f"needs weights with a positive sum, and those of {name} add up to {raw.sum():g}"
        raise StrategyError("evaluation.objective_every", problem, fix="Leave it out.")
    weights = np.zeros(len(sizes))
    weights[clients] = raw / raw.sum()
    return weights


def _round_of_everyone(federation: FederationFacts, clients: I64, local_lr: float) -> ClientFacts:
    """Return the facts of a round in which the clients with data take one local step each."""
    ones, sizes = np.ones(len(clients), np.int64), federation.sizes.astype(np.int64)[clients]
    return ClientFacts(
        num_examples=sizes,
        draws=ones,
        local_steps=ones,
        total_examples=int(sizes.sum()),
        population=len(clients),
        cohort=len(clients),
        local_lr=local_lr,
        shares=None if federation.shares is None else federation.shares[clients],
    )
