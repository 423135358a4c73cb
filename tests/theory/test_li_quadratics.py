"""Li et al. 2020 (ICLR), theorem 4 and its experiment: with a fixed step, FedAvg misses the optimum unless E = 1.

Five clients share a chain of 21 coordinates, as in Nesterov's worst case: client k holds the squares of the
differences in its stretch of the chain, plus mu |w|^2 / 2. A run is compared with a loop in NumPy, round by round.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import fedscape as fs
from clients.models.options import ParameterVectorOptions
from clients.training.options import LocalOptions
from clients.training.schedule_options import ScheduleOptions
from server.algorithms.options import FedAvgOptions
from server.convergence.monitor import ConvergenceOptions
from simulator.scenario.sections import EvaluationOptions, RunOptions, Scenario

CLIENTS, STRETCH, MU = 5, 4, 2e-4
DIMENSION = CLIENTS * STRETCH + 1
ETA = 0.5


def chain() -> tuple[np.ndarray, np.ndarray]:
    """Return H (5, 21, 21) and b (5, 21) of F_k = w' H_k w / 2 - b_k' w."""
    hessians = np.stack([MU * np.eye(DIMENSION)] * CLIENTS)
    for link in range(CLIENTS * STRETCH):
        block = np.ix_((link, link + 1), (link, link + 1))
        hessians[link // STRETCH][block] += np.array([[1.0, -1.0], [-1.0, 1.0]])
    hessians[0, 0, 0] += 1.0
    pulls = np.zeros((CLIENTS, DIMENSION))
    pulls[0, 0] = 1.0
    return hessians, pulls


HESSIANS, PULLS = chain()
OPTIMUM = np.linalg.solve(HESSIANS.mean(0), PULLS.mean(0))


def objective(w: np.ndarray) -> float:
    return float(w @ HESSIANS.mean(0) @ w / 2 - PULLS.mean(0) @ w)


def reference(steps: int, rounds: int, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """Return |w - w*| and f(w) - f* after each round, round 0 first, by plain loops."""
    w = np.zeros(DIMENSION)
    path = [w]
    for t in range(rounds):
        eta = ETA / (1 + decay * t)
        own = np.tile(w, (CLIENTS, 1))
        for _ in range(steps):
            own = own - eta * ((HESSIANS @ own[:, :, None])[:, :, 0] - PULLS)
        w = own.mean(0)
        path.append(w)
    best = objective(OPTIMUM)
    return np.linalg.norm(np.array(path) - OPTIMUM, axis=1), np.array([objective(w) - best for w in path])


def simulated(steps: int, rounds: int, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the same, from the record of a run."""
    schedule = ScheduleOptions(kind="inverse_time", decay=decay) if decay else ScheduleOptions()
    scenario = Scenario(
        model=ParameterVectorOptions(),
        local=LocalOptions(optimizer="gd", local_lr=ETA, local_steps=steps, schedule=schedule),
        algorithm=FedAvgOptions(),
        convergence=ConvergenceOptions(stop="never"),
        evaluation=EvaluationOptions(federated_every=0),
        run=RunOptions(rounds=rounds, dtype="float64"),
    )
    scenario = replace(scenario, engine=replace(scenario.engine, kind="stacked", threads=1))
    data = fs.quadratics(HESSIANS, linear=-PULLS)
    rounds_of = fs.simulate(scenario, data=data, record=False).rounds
    return np.array(rounds_of["distance_to_optimum"]), np.array(rounds_of["optimality_gap"])


def check(rounds: int, several: tuple[int, ...], decay: float, better: float) -> dict[int, float]:
    """Compare runs with the loop, and among themselves; return the gaps of the fixed step at the end."""
    fixed = {}
    for steps in (1, *several):
        last = []
        for rate in (0.0, decay):
            distance, gap = simulated(steps, rounds, rate)
            expected = reference(steps, rounds, rate)
            np.testing.assert_allclose(distance, expected[0], rtol=1e-9)
            np.testing.assert_allclose(gap, expected[1], rtol=1e-9, atol=1e-14)
            last.append(gap[-1])
        fixed[steps] = last[0]
        assert steps == 1 or last[1] < better * last[0], "a step that decays removes the bias"
    assert sorted(fixed.values()) == [fixed[steps] for steps in (1, *several)], "more local steps end farther away"
    return fixed


def test_more_local_steps_end_farther_from_the_optimum() -> None:
    check(300, (50,), decay=0.05, better=0.3)


@pytest.mark.slow
def test_ten_runs_of_ten_thousand_rounds_equal_the_loop() -> None:
    fixed = check(10_000, (5, 10, 20, 50), decay=0.002, better=0.02)
    assert fixed[1] < 1e-3 * fixed[5]
