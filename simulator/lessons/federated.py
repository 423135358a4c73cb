"""Lessons on federations: local steps, drift, label skew, unequal work, and partial participation."""

from __future__ import annotations

import math

import numpy as np

from clients.core.arrays import F64
from simulator.lessons.lesson import Claim, Lesson, Numbers, Runs
from simulator.lessons.reading import centres, curvatures, floor, last
from simulator.lessons.scenes import DIGITS, QUADRATIC, scene

GROUP = "Federation"
GAP, DISTANCE = "optimality_gap", "distance_to_optimum"
TWO = scene(
    QUADRATIC,
    data={"curvatures": [1.0, 4.0], "centres": [-1.0, 3.0]},
    local={"local_lr": 0.05, "local_steps": 10},
    run={"rounds": 120},
)
"""Two clients whose minima are at -1 and 3; the federation's is at 2.2."""


def _end(runs: Runs, arm: str) -> float:
    """Return the final parameter of a run of one dimension."""
    return float(runs[arm].params[0])


def _steps(runs: Runs, arm: str) -> F64:
    """Return the local steps of each client."""
    steps = runs[arm].session.scenario.local.local_steps or 1
    return np.broadcast_to(np.asarray(steps, np.float64), len(curvatures(runs[arm])))


def _fixed_point(runs: Runs, arm: str, *, per_step: bool = False) -> float:
    """Return the fixed point of averaging K_k local steps: the mean of centres with weights 1 - (1 - eta h_k)^K_k.

    With `per_step` each weight is divided by K_k, as FedNova does.
    """
    h, steps = curvatures(runs[arm])[:, 0], _steps(runs, arm)
    weights = 1 - (1 - runs[arm].session.scenario.local.local_lr * h) ** steps
    weights = weights / steps if per_step else weights
    return float(weights @ centres(runs[arm])[:, 0] / weights.sum())


def _optimum(runs: Runs, arm: str) -> float:
    h = curvatures(runs[arm])[:, 0]
    return float(h @ centres(runs[arm])[:, 0] / h.sum())


def _bias(runs: Runs) -> Numbers:
    found = {"optimum": _optimum(runs, "1 step")}
    for arm in runs:
        key = arm.partition(" ")[0]
        found[f"end_{key}"] = _end(runs, arm)
        found[f"theory_{key}"] = _fixed_point(runs, arm)
    return found


LOCAL_STEPS = Lesson(
    name="local-steps",
    title="The bias of local steps",
    group=GROUP,
    question="Where does FedAvg settle if two unlike clients take 1, 2, 10 or 50 local steps a round?",
    scene=TWO,
    arms={f"{k} step{'s' if k > 1 else ''}": {"local.local_steps": k} for k in (1, 2, 10, 50)},
    numbers=_bias,
    look="The distance to the optimum {optimum:.4f} falls, and then stays. The arms end at {end_1:.4f}, "
    "{end_2:.4f}, {end_10:.4f} and {end_50:.4f}: more local steps settle sooner, and further away.",
    change="--set local.local_lr=0.02 --set run.rounds=300 lowers the bias of all arms: they end at "
    "{then_end_1:.2f}, {then_end_2:.2f}, {then_end_10:.2f} and {then_end_50:.2f}. What counts is the rate times the "
    "number of steps.",
    trial=(
        "local.local_lr=0.02",
        "run.rounds=300",
    ),
    theory="A client that takes K steps moves by the share 1 - (1 - eta h)^K of the way to its own minimum. So "
    "the average settles at the mean of the minima with these weights, instead of h: {theory_1:.4f}, "
    "{theory_2:.4f}, {theory_10:.4f}, {theory_50:.4f} (as in Charles and Konečný 2021; for K large it is the "
    "plain mean of the minima).",
    claims=(
        Claim(
            "Each arm ends at its closed form, to 1e-6.",
            lambda n: all(abs(n[f"end_{k}"] - n[f"theory_{k}"]) < 1e-6 for k in (2, 10, 50)),
        ),
        Claim(
            "One step has no bias.",
            lambda n: abs(n["end_1"] - n["optimum"]) < 1e-6,
        ),
        Claim(
            "The bias grows with the number of steps.",
            lambda n: (
                abs(n["end_2"] - n["optimum"]) < abs(n["end_10"] - n["optimum"]) < abs(n["end_50"] - n["optimum"])
            ),
        ),
    ),
    then={"end_1": 2.2, "end_2": 2.18, "end_10": 2.022, "end_50": 1.43},
    outcome=(
        Claim(
            "Each bias is smaller than before.",
            lambda n: all(n[f"end_{k}"] > before for k, before in ((2, 2.149), (10, 1.761), (50, 1.081))),
        ),
        Claim(
            "Each arm ends at its closed form, to 1e-6.",
            lambda n: all(abs(n[f"end_{k}"] - n[f"theory_{k}"]) < 1e-6 for k in (1, 2, 10, 50)),
        ),
    ),
)


def _drift(runs: Runs) -> Numbers:
    return {
        "optimum": _optimum(runs, "FedAvg"),
        "end_fedavg": _end(runs, "FedAvg"),
        "theory_fedavg": _fixed_point(runs, "FedAvg"),
        "end_scaffold": _end(runs, "SCAFFOLD"),
        "distance_fedavg": last(runs["FedAvg"], DISTANCE),
        "distance_scaffold": last(runs["SCAFFOLD"], DISTANCE),
        "drift_fedavg": last(runs["FedAvg"], "client_drift.mean"),
        "drift_scaffold": last(runs["SCAFFOLD"], "client_drift.mean"),
    }


SCAFFOLD = Lesson(
    name="client-drift",
    title="Client drift, and SCAFFOLD",
    group=GROUP,
    question="Can clients take ten local steps and still find the common optimum?",
    scene=TWO,
    arms={"FedAvg": {}, "SCAFFOLD": {"algorithm.kind": "scaffold"}},
    numbers=_drift,
    look="FedAvg settles at {end_fedavg:.4f}, {distance_fedavg:.3f} from the optimum {optimum:.4f}; there its "
    "clients still walk apart by {drift_fedavg:.3f} in every round. SCAFFOLD ends at {end_scaffold:.4f}, "
    "{distance_scaffold:.1g} away, and its clients' drift is {drift_scaffold:.1g}.",
    change="--set local.local_steps=40 moves FedAvg's end to {then_end_fedavg:.3f}, towards the mean 1 of the two "
    "minima, and SCAFFOLD's not at all: {then_end_scaffold:.3f}.",
    trial=("local.local_steps=40",),
    theory="FedAvg's fixed point solves sum (1 - (1 - eta h)^K)(w - c) = 0: {theory_fedavg:.4f}. SCAFFOLD adds c "
    "- c_k to each local gradient. At the optimum the corrected gradients are 0 for every client, so it is a "
    "fixed point (Karimireddy et al. 2020).",
    claims=(
        Claim("FedAvg ends at its closed form.", lambda n: abs(n["end_fedavg"] - n["theory_fedavg"]) < 1e-6),
        Claim("FedAvg does not reach the optimum.", lambda n: n["distance_fedavg"] > 0.1),
        Claim("SCAFFOLD reaches it.", lambda n: n["distance_scaffold"] < 1e-6),
        Claim("SCAFFOLD's clients stop drifting.", lambda n: n["drift_scaffold"] < 1e-6 < n["drift_fedavg"]),
    ),
    then={"end_fedavg": 1.137, "end_scaffold": 2.2},
    outcome=(
        Claim(
            "FedAvg ends nearer to the mean of the minima than to the optimum.",
            lambda n: abs(n["end_fedavg"] - 1) < abs(n["end_fedavg"] - n["optimum"]),
        ),
        Claim("SCAFFOLD still ends at the optimum.", lambda n: abs(n["end_scaffold"] - n["optimum"]) < 1e-6),
    ),
)


def _work(runs: Runs) -> Numbers:
    return {
        "optimum": _optimum(runs, "FedAvg"),
        "end_fedavg": _end(runs, "FedAvg"),
        "theory_fedavg": _fixed_point(runs, "FedAvg"),
        "end_fednova": _end(runs, "FedNova"),
        "theory_fednova": _fixed_point(runs, "FedNova", per_step=True),
    }


UNEQUAL_WORK = Lesson(
    name="unequal-work",
    title="Unequal work, and FedNova",
    group=GROUP,
    question="Whose optimum is found if one client takes 20 steps a round and the other 1?",
    scene=scene(TWO, local={"local_steps": [20, 1], "local_lr": 0.01}, run={"rounds": 250}),
    arms={"FedAvg": {}, "FedNova": {"algorithm.kind": "fednova"}},
    numbers=_work,
    look="The optimum is {optimum:.3f}. FedAvg ends at {end_fedavg:.3f}, near the minimum -1 of the busy client. "
    "FedNova ends at {end_fednova:.3f}.",
    change='--set "local.local_steps=[20,20]" gives both the same work: the two arms then end at the same point, '
    "{then_end_fedavg:.3f}.",
    trial=("local.local_steps=[20,20]",),
    theory="FedAvg weighs a client by how far it walked: its fixed point has weights 1 - (1 - eta h)^K, "
    "{theory_fedavg:.3f}. FedNova divides each update by its number of steps before it averages; what is left is "
    "the bias of local steps, of order eta K: {theory_fednova:.3f} (Wang et al. 2020, theorem 1).",
    claims=(
        Claim(
            "Both end at their closed forms, to 1e-4.",
            lambda n: (
                abs(n["end_fedavg"] - n["theory_fedavg"]) < 1e-4 and abs(n["end_fednova"] - n["theory_fednova"]) < 1e-4
            ),
        ),
        Claim(
            "FedNova is at least five times as near to the optimum.",
            lambda n: abs(n["end_fedavg"] - n["optimum"]) > 5 * abs(n["end_fednova"] - n["optimum"]),
        ),
    ),
    then={"end_fedavg": 2.016},
    outcome=(
        Claim("Both arms end at the same point.", lambda n: abs(n["end_fedavg"] - n["end_fednova"]) < 1e-6),
        Claim(
            "What is left is the bias of twenty steps, as theory says.",
            lambda n: abs(n["end_fedavg"] - n["theory_fedavg"]) < 1e-4,
        ),
    ),
)


def _cohort_floor(runs: Runs, arm: str) -> float:
    """Return the mean gap of identity curvatures: (1 - r) / (1 + r) x V (N - n) / (2 n (N - 1)), r = (1 - eta)^K.

    It is nan where clients take different numbers of steps K, and 0 where all take part.
    """
    session = runs[arm].session
    scenario, population = session.scenario, session.population
    n_all, steps = population.num_clients, scenario.local.local_steps
    n = min(n_all, scenario.algorithm.cohort or n_all)
    assert population.objective is not None
    if n == n_all or not isinstance(steps, int):
        return 0.0 if n == n_all else math.nan
    variance = 2 * population.objective.optimal_value
    r = (1 - scenario.local.local_lr) ** float(steps)
    return float((1 - r) / (1 + r) * variance * (n_all - n) / (2 * n * (n_all - 1)))


def _participation(runs: Runs) -> Numbers:
    found: dict[str, float] = {}
    for arm, key in (("2 of 20", "2"), ("10 of 20", "10")):
        found[f"floor_{key}"] = floor(runs[arm], GAP, 30)
        found[f"theory_{key}"] = _cohort_floor(runs, arm)
    found["floor_all"] = floor(runs["all 20"], GAP, 100)
    return found


PARTICIPATION = Lesson(
    name="partial-participation",
    title="Partial participation",
    group=GROUP,
    question="What does it cost that only some of the clients train in a round?",
    scene=scene(
        QUADRATIC,
        data={"clients": 20, "dimension": 10, "condition": 1.0, "spread": 1.0},
        local={"local_lr": 0.1, "local_steps": 5},
        engine={"tile": 20},
        run={"rounds": 300, "seed": 5},
    ),
    arms={"2 of 20": {"algorithm.cohort": 2}, "10 of 20": {"algorithm.cohort": 10}, "all 20": {}},
    numbers=_participation,
    look="The optimality gap. With 2 of 20 clients a round it keeps jumping around {floor_2:.3g}, with 10 around "
    "{floor_10:.3g}. With all it falls to {floor_all:.1g}.",
    change="--set local.local_steps=1 makes each round's step smaller, and with it the floors: {then_floor_2:.2g} "
    "and {then_floor_10:.2g}.",
    trial=("local.local_steps=1",),
    theory="The mean of n of N clients differs from the mean of all by the variance V (N - n) / (n (N - 1)). "
    "With equal curvatures and r = (1 - eta)^K, the gap settles at (1 - r)/(1 + r) times half of it: "
    "{theory_2:.3g} and {theory_10:.3g}. It is a noise floor, as that of batches, and shrinks with the step (Li "
    "et al. 2020, ICLR; Cochran 1977 for the finite population).",
    claims=(
        Claim(
            "Both floors are those of theory, within 15%.",
            lambda n: all(abs(n[f"floor_{k}"] / n[f"theory_{k}"] - 1) < 0.15 for k in (2, 10)),
        ),
        Claim("With all clients there is none.", lambda n: n["floor_all"] < 1e-12),
    ),
    then={"floor_2": 0.105, "floor_10": 0.0119},
    outcome=(
        Claim(
            "Each floor is less than a quarter of that before.",
            lambda n: n["floor_2"] < 0.59 / 4 and n["floor_10"] < 0.063 / 4,
        ),
        Claim(
            "Both are those of theory, within 15%.",
            lambda n: all(abs(n[f"floor_{k}"] / n[f"theory_{k}"] - 1) < 0.15 for k in (2, 10)),
        ),
    ),
)


def _skew(runs: Runs) -> Numbers:
    found: dict[str, float] = {}
    for arm, key in (("alike", "alike"), ("skewed", "skewed"), ("one or two labels", "extreme")):
        found[f"accuracy_{key}"] = last(runs[arm], "validation_accuracy")
        found[f"drift_{key}"] = floor(runs[arm], "client_drift.mean", 0)
        found[f"dispersion_{key}"] = floor(runs[arm], "update_dispersion", 0)
    return found


LABEL_SKEW = Lesson(
    name="label-skew",
    title="Label skew",
    group=GROUP,
    question="The same digits, dealt out alike, skewed, and with one or two labels a client: what changes?",
    scene=scene(
        DIGITS,
        partition={"kind": "iid", "clients": 20},
        local={"local_lr": 0.1, "local_steps": 20, "batch_size": 16},
        algorithm={"cohort": 5},
        engine={"tile": 5},
        run={"rounds": 25, "seed": 3},
    ),
    arms={
        "alike": {},
        "skewed": {"partition": {"kind": "dirichlet", "clients": 20, "concentration": 0.3}},
        "one or two labels": {"partition": {"kind": "shards", "clients": 20, "shards_per_client": 2}},
    },
    numbers=_skew,
    look="Validation accuracy after the last round: {accuracy_alike:.1%}, {accuracy_skewed:.1%} and "
    "{accuracy_extreme:.1%}. The clients' updates disagree more: their dispersion is {dispersion_alike:.2f}, "
    "{dispersion_skewed:.2f} and {dispersion_extreme:.2f} on average, and a client drifts by {drift_alike:.2f}, "
    "{drift_skewed:.2f} and {drift_extreme:.2f}.",
    change="--set local.local_steps=2 leaves less time to drift apart between averages. The arms come closer, at "
    "{then_accuracy_alike:.0%}, {then_accuracy_skewed:.0%} and {then_accuracy_extreme:.0%}: all learn less in as "
    "many rounds.",
    trial=("local.local_steps=2",),
    theory="A client with two labels has its minimum where the other labels are never predicted, and local steps lead "
    "there. The gap between the clients' gradients, not the amount of data, slows FedAvg (Zhao et al. 2018; Hsu "
    "et al. 2019).",
    claims=(
        Claim(
            "Either skew costs at least ten points of accuracy.",
            lambda n: n["accuracy_alike"] > max(n["accuracy_skewed"], n["accuracy_extreme"]) + 0.1,
        ),
        Claim(
            "The dispersion of updates grows with skew.",
            lambda n: n["dispersion_alike"] < n["dispersion_skewed"] < n["dispersion_extreme"],
        ),
    ),
    then={"accuracy_alike": 0.717, "accuracy_skewed": 0.578, "accuracy_extreme": 0.522},
    outcome=(
        Claim(
            "The gap between the first and the last arm is smaller than before, by five points at least.",
            lambda n: n["accuracy_alike"] - n["accuracy_extreme"] < 0.27 - 0.05,
        ),
        Claim(
            "All three arms end lower.",
            lambda n: n["accuracy_alike"] < 0.93 and n["accuracy_skewed"] < 0.71 and n["accuracy_extreme"] < 0.66,
        ),
    ),
)

ROWS = (LOCAL_STEPS, SCAFFOLD, LABEL_SKEW, UNEQUAL_WORK, PARTICIPATION)
