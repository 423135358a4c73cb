"""Runs with a planted cause at three severities, over eleven models and data sources, and healthy ones.

A plant is a change of a healthy run. Whether it does harm is measured against the healthy run of the same seed: a cause
that costs nothing is none.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import fedscape as fs

Arrays = tuple[Any, ...]
SEVERITIES = ("mild", "clear", "strong")
FIXED = {
    "convergence.stop": "never",
    "evaluation.baselines": False,
    "engine.kind": "stacked",
    "engine.workers": 1,
    "engine.threads": 1,
}


@functools.cache
def _blobs(seed: int) -> Arrays:
    """Five Gaussian classes in twenty dimensions."""
    random = np.random.default_rng([1, seed])
    labels = random.integers(0, 5, 2400)
    centres = 0.75 * random.normal(size=(5, 20))
    return (centres[labels] + random.normal(size=(2400, 20))).astype(np.float32), labels


@functools.cache
def _digits() -> Arrays:
    from sklearn.datasets import load_digits

    found = load_digits()
    return (found.data / 16).astype(np.float32), found.target


@functools.cache
def _curve(seed: int) -> Arrays:
    """A smooth function of eight numbers, with noise."""
    random = np.random.default_rng([2, seed])
    x = random.normal(size=(3000, 8))
    mixed = x @ random.normal(size=(8, 6)) / np.sqrt(8)
    return x.astype(np.float32), (0.5 * np.sin(mixed).sum(1) + 0.1 * random.normal(size=3000)).astype(np.float32)


@functools.cache
def _shells(seed: int) -> Arrays:
    """Four classes in eight dimensions, by two of them: the quadrants of a turned plane, twice round."""
    random = np.random.default_rng([7, seed])
    x = random.normal(size=(2400, 8))
    turned, _ = np.linalg.qr(random.normal(size=(8, 8)))
    plane = x @ turned[:, :2]
    labels = np.floor(4 * (np.arctan2(plane[:, 0], plane[:, 1]) / np.pi + 1)).astype(np.int64) % 4
    return x.astype(np.float32), labels


@functools.cache
def _tumours() -> Arrays:
    """Standardised measurements of cells, and whether they are malignant."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    x = (found.data - found.data.mean(0)) / found.data.std(0)
    return x.astype(np.float32), found.target


@functools.cache
def _friedman(seed: int) -> Arrays:
    """Friedman's first function of ten numbers (1991), of which five count, with noise; deviation 1."""
    from sklearn.datasets import make_friedman1

    x, y = make_friedman1(3000, noise=1.0, random_state=seed)
    return (x - 0.5).astype(np.float32) * 12**0.5, ((y - y.mean()) / y.std()).astype(np.float32)


@functools.cache
def _waves(seed: int) -> Arrays:
    """Twelve values of a wave of any height, phase and frequency, and the next one, all with noise."""
    random = np.random.default_rng([9, seed])
    height, phase, speed = (random.uniform(low, high, (2400, 1)) for low, high in ((0.5, 2.0), (0.0, 6.3), (0.3, 0.6)))
    wave = height * np.sin(phase + speed * np.arange(13))
    x = wave[:, :12, None] + 0.1 * random.normal(size=(2400, 12, 1))
    return x.astype(np.float32), (wave[:, 12] + 0.1 * random.normal(size=2400)).astype(np.float32)


@functools.cache
def _plane(seed: int) -> Arrays:
    """A linear function of twenty numbers, with noise."""
    random = np.random.default_rng([8, seed])
    x = random.normal(size=(2400, 20))
    return x.astype(np.float32), (x @ random.normal(size=20) / 4 + 0.3 * random.normal(size=2400)).astype(np.float32)


@dataclass
class Plan:
    """A run to play: the scenario's table, changes, and arrays where the data come from Python.

    Attributes:
        table: the scenario.
        sets: changes after it.
        arrays: features and targets; None where the scenario has data of its own.
        options: of `fs.arrays`.
        sections: whole sections to replace.
        strategy: a strategy from Python, if any.
    """

    table: dict[str, Any]
    sets: dict[str, Any] = field(default_factory=dict)
    arrays: Arrays | None = None
    options: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)
    strategy: Any = None

    @property
    def rate(self) -> float:
        return float(self.table["local"]["local_lr"])

    @property
    def rounds(self) -> int:
        return int(self.sets.get("run.rounds", self.table["run"]["rounds"]))


def _pooled(clients: int, model: dict[str, Any], rate: float, rounds: int) -> dict[str, Any]:
    return {
        "partition": {"kind": "iid", "clients": clients},
        "model": model,
        "local": {"local_lr": rate, "batch_size": 16, "local_epochs": 2},
        "algorithm": {"kind": "fedavg", "cohort": 10},
        "run": {"rounds": rounds},
    }


@functools.cache
def _city(name: str) -> str:
    return fs.to_toml(fs.load_scenario(f"city-{name}"))


def healthy(base: str, seed: int) -> Plan:
    """Return the healthy run of a base."""
    if base == "blobs":
        return Plan(_pooled(40, {"kind": "softmax"}, 0.1, 60), arrays=_blobs(seed))
    if base == "digits":
        return Plan(_pooled(30, {"kind": "mlp", "hidden": [64]}, 0.1, 80), arrays=_digits())
    if base == "curve":
        return Plan(_pooled(40, {"kind": "mlp", "hidden": [32]}, 0.02, 60), arrays=_curve(seed))
    if base == "shells":
        return Plan(_pooled(40, {"kind": "mlp", "hidden": [64]}, 0.2, 200), arrays=_shells(seed))
    if base == "tumours":
        return Plan(_pooled(20, {"kind": "mlp", "hidden": [16]}, 0.1, 60), arrays=_tumours())
    if base == "friedman":
        return Plan(_pooled(40, {"kind": "mlp", "hidden": [32]}, 0.02, 120), arrays=_friedman(seed))
    if base == "waves":
        return Plan(_pooled(40, {"kind": "gru", "hidden": 16}, 0.1, 60), arrays=_waves(seed))
    if base == "plane":
        return Plan(_pooled(40, {"kind": "linear"}, 0.01, 40), arrays=_plane(seed))
    sets: dict[str, Any] = {
        "activity": {"data.windows": 60, "data.style": 0.5, "run.rounds": 120},
        "congestion": {"run.rounds": 40},
        "traffic": {},
    }[base]
    return Plan(tomllib.loads(_city(base)), sets=dict(sets))


DEALT = ("blobs", "digits", "shells", "tumours")
"""Classes whose examples a scenario deals to clients."""
NUMBERS = ("curve", "friedman", "plane", "waves")
"""Numbers, dealt the same way."""
CLASSES = (*DEALT, "activity", "congestion")
BASES = (*CLASSES, *NUMBERS, "traffic")
WIDE = ("digits", "shells", "curve", "friedman")
"""Perceptrons with one hidden layer."""
Change = Callable[[Plan, str, int, int], None]


def _rate(factors: tuple[float, ...]) -> Change:
    def change(plan: Plan, base: str, level: int, seed: int) -> None:
        plan.sets["local.local_lr"] = plan.sets.get("local.local_lr", plan.rate) * factors[level]

    return change


def _skew(plan: Plan, concentration: float) -> None:
    plan.sets |= {"partition.kind": "dirichlet", "partition.concentration": concentration}


def _local_steps(plan: Plan, base: str, level: int, seed: int) -> None:
    _skew(plan, 0.2)
    plan.sets["local.local_epochs"] = (20, 40, 80)[level]


def _heterogeneity(plan: Plan, base: str, level: int, seed: int) -> None:
    _skew(plan, (0.3, 0.1, 0.03)[level])


def _noise(plan: Plan, base: str, level: int, seed: int) -> None:
    plan.sets["local.gradient_noise"] = (0.4, 0.8, 1.6)[level]


def _cohort(plan: Plan, base: str, level: int, seed: int) -> None:
    plan.sets["algorithm.cohort"] = (2, 1, 1)[level]
    if base in DEALT:
        _skew(plan, (0.5, 0.5, 0.2)[level])


def _batch_norm(plan: Plan, base: str, level: int, seed: int) -> None:
    _skew(plan, (0.3, 0.1, 0.03)[level])
    plan.table["model"] = {"kind": "mlp", "hidden": [64]}
    plan.sets["model.norm"] = "batch"


def _bad_clients(plan: Plan, base: str, level: int, seed: int) -> None:
    if base in ("traffic", "waves"):
        fault = {"kind": "noise", "severity": 1.0, "snr_db": (-6.0, -10.0, -14.0)[level]}
    else:
        fault = {"kind": "label_symmetric", "severity": 1.0, "share": (0.6, 0.8, 1.0)[level]}
    plan.sections["faults"] = {"bad": fault | {"clients": (0.1, 0.2, 0.2)[level]}}


def _wrong_labels(plan: Plan, base: str, level: int, seed: int) -> None:
    share = ((0.2, 0.3, 0.4) if base == "tumours" else (0.3, 0.5, 0.7))[level]  # half of two classes is no label
    plan.sections["faults"] = {"wrong": {"kind": "label_symmetric", "severity": 1.0, "share": share}}


class _Biased:
    """A Flower strategy that hardly ever draws some clients."""

    def __init__(self, often: int, share: float, seed: int) -> None:
        self.often, self.share, self.seed = often, share, seed

    def __call__(self, ours: Any) -> Any:
        from flwr.serverapp.strategy import FedAvg

        often, share, seed = self.often, self.share, self.seed

        class Biased(FedAvg):
            def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
                random = np.random.default_rng([seed, server_round])
                nodes = sorted(grid.get_node_ids())
                weights = np.where(np.arange(len(nodes)) < often, 1.0, share)
                chosen = random.choice(len(nodes), 10, replace=False, p=weights / weights.sum())
                kept, grid_ids = [nodes[k] for k in chosen], grid.get_node_ids

                try:
                    grid.get_node_ids = lambda: kept
                    return super().configure_train(server_round, arrays, config, grid)
                finally:
                    grid.get_node_ids = grid_ids

        return Biased(fraction_train=1.0, min_train_nodes=1, min_available_nodes=1, fraction_evaluate=0.0)


def _participation(plan: Plan, base: str, level: int, seed: int) -> None:
    """Clients of the upper half of the classes hardly ever take part."""
    assert plan.arrays is not None
    y = plan.arrays[1]
    random = np.random.default_rng([3, seed])
    low = y < (y.max() + 1) / 2
    owners = np.where(low, random.integers(0, 15, len(y)), random.integers(15, 30, len(y)))
    plan.options["keys"] = {"owner": owners}
    plan.table["partition"] = {"kind": "natural", "key": "owner"}
    plan.strategy = _Biased(15, (0.05, 0.02, 0.0)[level], seed)


def _vanishing(plan: Plan, base: str, level: int, seed: int) -> None:
    depth = (4, 6, 9)[level]
    plan.sets |= {"model.hidden": [32] * depth, "model.activation": "sigmoid", "model.initialisation": "xavier"}


def _exploding(plan: Plan, base: str, level: int, seed: int) -> None:
    """Each layer multiplies what passes through it, and its gradient, by the scale."""
    plan.sets |= {"model.hidden": [64] * 4, "model.initial_scale": (1.5, 2.0, 3.0)[level]}


def _scaled(plan: Plan, base: str, level: int, seed: int) -> None:
    assert plan.arrays is not None
    x, y = plan.arrays
    width = (1.0, 1.5, 2.0)[level]
    factors = 10.0 ** np.random.default_rng([4, seed]).uniform(-width, width, x.shape[1])
    plan.arrays = (x * factors).astype(np.float32), y


def _imbalance(plan: Plan, base: str, level: int, seed: int) -> None:
    plan.options["long_tail"] = float((20, 50, 100)[level])


def _small(plan: Plan, base: str, level: int, seed: int) -> None:
    if base == "activity":
        plan.sets["model.channels"] = [(3, 2, 1)[level]] * 2
    else:
        widths = {"digits": (5, 4, 3), "shells": (6, 4, 2), "curve": (2, 1, 1), "friedman": (3, 2, 1)}[base]
        plan.sets["model.hidden"] = [widths[level]]


def _overfit(plan: Plan, base: str, level: int, seed: int) -> None:
    assert plan.arrays is not None
    number = (400, 250, 150)[level]
    x, y = plan.arrays[0][:number], np.array(plan.arrays[1][:number])
    random = np.random.default_rng([5, seed])
    if base not in NUMBERS:  # a few wrong labels, to have something to fit that is not there
        wrong = random.random(number) < (0.1, 0.2, 0.3)[level]
        y[wrong] = random.integers(0, y.max() + 1, int(wrong.sum()))
    else:
        y = (y + 0.3 * random.normal(size=number)).astype(np.float32)
    plan.arrays = x, y
    width = 128 if base in NUMBERS else 256
    plan.table["model"] = {"kind": "mlp", "hidden": [width]}
    plan.sets |= {"local.local_epochs": 10, "partition.clients": 10, "run.rounds": 80}


def _schedule(plan: Plan, base: str, level: int, seed: int) -> None:
    at, factor = ((4, 0.03), (3, 0.02), (2, 0.01))[level]
    plan.sets |= {"local.schedule.kind": "step", "local.schedule.at": [at], "local.schedule.factor": factor}


def _clipping(plan: Plan, base: str, level: int, seed: int) -> None:
    plan.sets["local.clip_norm"] = (0.03, 0.01, 0.003)[level]


def _rounds(plan: Plan, base: str, level: int, seed: int) -> None:
    plan.sets["run.rounds"] = max(4, int(plan.rounds * (0.2, 0.13, 0.08)[level]))


def _drift(plan: Plan, base: str, level: int, seed: int) -> None:
    start = float(int(0.8 * plan.rounds))
    turn = {"kind": "abrupt", "changes": "p(y|x)", "strength": (0.5, 0.7, 1.0)[level], "start": start}
    plan.sections["drifts"] = {"turn": turn}


def _tails(plan: Plan, base: str, level: int, seed: int) -> None:
    assert plan.arrays is not None
    x, y = plan.arrays
    errors = np.random.default_rng([6, seed]).standard_t((2.0, 1.7, 1.4)[level], len(y))
    plan.arrays = x, (y + 0.3 * errors).astype(np.float32)


PLANTS: dict[str, tuple[tuple[str, ...], Change]] = {
    "rate_too_high": (BASES, _rate((10.0, 20.0, 40.0))),
    "rate_too_low": (BASES, _rate((1 / 20, 1 / 50, 1 / 200))),
    "decayed_too_early": (BASES, _schedule),
    "clipping_dominates": (BASES, _clipping),
    "too_many_local_steps": (DEALT, _local_steps),
    "heterogeneity": (DEALT, _heterogeneity),
    "cohort_too_small": (BASES, _cohort),
    "batch_statistics": (DEALT, _batch_norm),
    "bad_clients": ((*CLASSES, "waves", "traffic"), _bad_clients),
    "wrong_labels": (CLASSES, _wrong_labels),
    "biased_participation": (DEALT, _participation),
    "noise_floor": (BASES, _noise),
    "vanishing": (WIDE, _vanishing),
    "exploding": (("digits", "curve", "friedman", "congestion"), _exploding),
    "badly_scaled": (("blobs", "plane", *WIDE), _scaled),
    "class_imbalance": (DEALT, _imbalance),
    "model_too_small": ((*WIDE, "activity"), _small),
    "overfitting": (("blobs", *WIDE), _overfit),
    "too_few_rounds": (BASES, _rounds),
    "concept_drift": ((*CLASSES, *NUMBERS), _drift),
    "wrong_loss": (NUMBERS, _tails),
}
"""Cause -> the bases in which it can be planted, and how. `congestion` is unbalanced by nature."""
NATURAL = {"congestion": ("class_imbalance",), "activity": ("bad_clients", "heterogeneity", "cohort_too_small")}
"""What is true of a base before anything is planted."""
SAME = {"overfitting": ("overfitting", "model_too_large"), "wrong_labels": ("bad_clients",)}
"""Kinds that count as the planted one."""


def plan_of(cause: str, base: str, level: int, seed: int) -> Plan:
    """Return a run with a planted cause; "healthy" plants none."""
    plan = healthy(base, seed)
    if cause != "healthy":
        PLANTS[cause][1](plan, base, level, seed)
    return plan
