"""Checks for your own algorithms; every built-in algorithm passes them.

Each check raises an `AssertionError` that says what is wrong. `check_algorithm` runs them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clients.core.errors import StrategyError
from clients.core.population import Population
from clients.models.options import SoftmaxOptions
from clients.sources.custom import custom_population
from clients.training.options import LocalOptions
from clients.training.rules import LocalResult, LocalRule
from server.algorithms.algorithm import Algorithm
from server.algorithms.options import FedAvgOptions
from server.algorithms.state import ServerState
from server.algorithms.transforms import Aggregate, ServerTransform
from simulator.engines.options import EngineOptions
from simulator.scenario.sections import EvaluationOptions, RunOptions, Scenario
from simulator.testing.stepper import Stepper

SIZES = (12, 5, 9, 1, 7, 3)
"""Training examples of the clients in the checks: unequal sizes, one client with a single example."""
CLASSES, FEATURES = 3, 4


def small_federation(
    algorithm: Algorithm | None = None,
    *,
    engine: str = "plain",
    order: tuple[int, ...] = tuple(range(len(SIZES))),
    cohort: int | None = None,
    keep_bytes: int = 1 << 30,
    tile: int = 1000,
    seed: int = 0,
    **local: Any,
) -> Stepper:
    """Return a stepper of six clients of unequal sizes and softmax regression, in float64.

    Args:
        algorithm: the algorithm; None takes FedAvg.
        engine: "plain" or "stacked".
        order: which client's data each client holds.
        cohort: clients a round; None takes all.
        keep_bytes: the largest size of updates that are kept whole.
        tile: clients trained together by the stacked engine.
        seed: root seed.
        **local: options of local training, instead of two epochs of batches of 4 at `local_lr` 0.1.
    """
    options = LocalOptions(**{"local_lr": 0.1, "batch_size": 4, "local_epochs": 2} | local)
    scenario = Scenario(
        model=SoftmaxOptions(),
        local=options,
        algorithm=FedAvgOptions(cohort=cohort),
        engine=EngineOptions(
            kind="stacked" if engine == "stacked" else "plain",
            tile=tile if engine == "stacked" else None,
            threads=1,
            compile="never",
            keep_bytes=keep_bytes,
        ),
        evaluation=EvaluationOptions(federated_every=0),
        run=RunOptions(seed=seed, dtype="float64", rounds=3),
    )
    return Stepper(scenario, data=_clients(order), algorithm=algorithm)


def _clients(order: tuple[int, ...]) -> Population:
    def examples(k: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        label = order[k]
        random = np.random.default_rng((7, label))
        features = random.normal(size=(SIZES[label], FEATURES)) + 0.3 * label
        return features, random.integers(0, CLASSES, SIZES[label])

    return custom_population(examples, [SIZES[label] for label in order], outputs=CLASSES, dtype=torch.float64)


def check_local_rule(rule: LocalRule) -> None:
    """Check that a rule is elementwise, and that `finish` returns what the rule declares."""
    noise = torch.Generator().manual_seed(0)

    def rows(k: int) -> Tensor:
        return torch.randn(k, 6, generator=noise, dtype=torch.float64)

    gradient, params, anchor = rows(3), rows(3), rows(1)[0]
    broadcast = {n: rows(1)[0] for n in rule.broadcast}
    state = {n: rows(3) for n in rule.client_state}
    if rule.correct is not None:
        whole = rule.correct(gradient.clone(), params, anchor, broadcast, state)
        assert whole.shape == gradient.shape, f"local rule {rule.name!r} changes the shape of the gradient"
        for k in range(3):
            for p in range(6):
                one = rule.correct(
                    gradient[k : k + 1, p : p + 1].clone(),
                    params[k : k + 1, p : p + 1],
                    anchor[p : p + 1],
                    {n: v[p : p + 1] for n, v in broadcast.items()},
                    {n: v[k : k + 1, p : p + 1] for n, v in state.items()},
                )
                assert torch.allclose(one[0, 0], whole[k, p], rtol=1e-12, atol=1e-14), (
                    f"local rule {rule.name!r} is not elementwise: its result at one place depends on other places"
                )
    if rule.finish is not None:
        steps, full = torch.full((3, 1), 4.0, dtype=torch.float64), rows(3)
        found = rule.finish(LocalResult(anchor, params, steps, 0.1, broadcast, state, full, steps))
        for what, names, vectors in (
            ("client state", rule.client_state, found[0]),
            ("extras", rule.returns, found[1]),
        ):
            assert set(vectors) == set(names), (
                f"finish of {rule.name!r} returns the {what} {sorted(vectors)}, and the rule declares {sorted(names)}"
            )
            assert all(v.shape == params.shape for v in vectors.values()), f"{what} of {rule.name!r} are not [K, P]"


def check_server_transform(transform: ServerTransform, *, extras: tuple[str, ...] = ()) -> None:
    """Check that a transform is a pure function of flat vectors; `extras` names the extra vectors that it reads."""
    params = torch.linspace(-1, 1, 5, dtype=torch.float64)
    start = ServerState(0, params, params[:0], transform.init(params))
    pseudo_gradient = torch.linspace(1, 2, 5, dtype=torch.float64)
    aggregate = Aggregate(pseudo_gradient, {n: pseudo_gradient.flip(0) for n in extras}, 0.5)
    held = {n: v.clone() for n, v in start.vectors.items()} | {"params": params.clone(), "g": pseudo_gradient.clone()}
    try:
        once = transform.step(start, aggregate, seed=1)
    except StrategyError as error:
        raise AssertionError(str(error)) from error
    again = transform.step(start, aggregate, seed=1)
    name = f"server transform {transform.name!r}"
    now = {**start.vectors, "params": params, "g": pseudo_gradient}
    for key, value in held.items():
        assert torch.equal(value, now[key]), f"{name} writes to its input {key!r}"
    assert torch.equal(once.params, again.params), f"{name} gives two results for the same input"
    assert once.params.shape == params.shape, f"{name} changes the number of parameters"
    assert once.vectors.keys() == start.vectors.keys(), (
        f"{name} starts with the vectors {sorted(start.vectors)} and returns {sorted(once.vectors)}"
    )
    assert all(v.shape == params.shape for v in once.vectors.values()), f"{name} keeps vectors that are not [P]"


def check_same_seed_same_bits(algorithm: Algorithm) -> None:
    """Check in both engines that runs with the same seed have the same bits, and that another seed gives others."""
    for engine in ("plain", "stacked"):
        runs = [small_federation(algorithm, engine=engine, cohort=4, seed=seed).step(3) for seed in (3, 3, 4)]
        assert torch.equal(runs[0], runs[1]), f"two runs with the same seed differ ({engine} engine)"
        assert not torch.equal(runs[0], runs[2]), f"runs with different seeds are equal ({engine} engine)"


def check_engines_agree(algorithm: Algorithm) -> None:
    """Check that the plain and the stacked engine give the same three rounds, to float64 rounding."""
    plain, stacked = (
        small_federation(algorithm, engine=engine, cohort=4, partial_work=0.5) for engine in ("plain", "stacked")
    )
    _close(plain.step(3), stacked.step(3), "the plain and the stacked engine give different parameters")


def check_tiles_change_nothing(algorithm: Algorithm) -> None:
    """Check that updates summed tile by tile give the same parameters as updates kept whole."""
    if algorithm.aggregation.needs_rows:
        return
    work: dict[str, Any] = {"engine": "stacked", "tile": 2, "partial_work": 0.4}
    kept, summed = (small_federation(algorithm, keep_bytes=keep, **work) for keep in (1 << 30, 0))
    _close(kept.step(3), summed.step(3), "updates summed tile by tile give different parameters")


def check_order_of_clients_changes_nothing(algorithm: Algorithm) -> None:
    """Check that clients in another order give the same rounds (full batches, everyone takes part)."""
    full: dict[str, Any] = {"batch_size": "full", "local_epochs": 3}
    base = small_federation(algorithm, **full)
    moved = small_federation(algorithm, order=(3, 0, 5, 1, 4, 2), **full)
    _close(base.step(3), moved.step(3), "the order of the clients changes the result")


def check_rounds_depend_on_the_state(algorithm: Algorithm) -> None:
    """Check that a round whose result is dropped does not change later rounds."""
    base, tried = small_federation(algorithm, cohort=4), small_federation(algorithm, cohort=4)
    base.step(1)
    tried.step(1)
    tried.probe(tried.params + 1.0, round_index=2)
    assert torch.equal(base.step(2), tried.step(2)), (
        "a round that was dropped changes later rounds: some state is kept outside the server's state"
    )


CHECKS: dict[str, Callable[[Algorithm], None]] = {
    "local rule": lambda algorithm: check_local_rule(algorithm.local),
    "server transform": lambda algorithm: check_server_transform(algorithm.server, extras=algorithm.local.returns),
    "same seed, same bits": check_same_seed_same_bits,
    "engines agree": check_engines_agree,
    "tiles change nothing": check_tiles_change_nothing,
    "order of clients changes nothing": check_order_of_clients_changes_nothing,
    "rounds depend on the state": check_rounds_depend_on_the_state,
}
"""Every check of an algorithm, by name."""


def check_algorithm(algorithm: Algorithm) -> None:
    """Run every check on an algorithm.

    Raises:
        AssertionError: a check failed; its message says what is wrong.

    Example:
        >>> check_algorithm(Algorithm("fedavg"))
    """
    for check in CHECKS.values():
        check(algorithm)


def _close(one: Tensor, other: Tensor, problem: str) -> None:
    distance = float((one - other).abs().max())
    assert torch.allclose(one, other, rtol=1e-10, atol=1e-12), f"{problem}: by up to {distance:.3g}"
