"""Scenarios that several lessons start from; engines are fixed, so that a lesson has the same numbers everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Table = dict[str, Any]

ENGINE: Table = {"kind": "stacked", "compile": "never", "native": "never", "threads": 1, "workers": 1}
QUADRATIC: Table = {
    "data": {"kind": "quadratic"},
    "model": {"kind": "quadratic"},
    "local": {"optimizer": "gd", "local_lr": 0.1, "local_steps": 1},
    "algorithm": {"kind": "fedavg", "weighting": "uniform"},
    "evaluation": {"federated_every": 0},
    "convergence": {"stop": "never"},
    "engine": {**ENGINE, "tile": 1},
    "run": {"rounds": 100, "dtype": "float64", "checkpoint_rounds": 1_000_000, "certificate": "off"},
}
"""Quadratic clients, one full gradient step a round, in float64: a round is a step of gradient descent."""
DIGITS: Table = {
    "data": {"kind": "digits"},
    "partition": {"kind": "iid", "clients": 1},
    "model": {"kind": "mlp", "hidden": [32]},
    "local": {"optimizer": "sgd", "local_lr": 0.1, "local_steps": 20, "batch_size": 32},
    "algorithm": {"kind": "fedavg"},
    "evaluation": {"federated_every": 0},
    "convergence": {"stop": "never"},
    "engine": {**ENGINE, "tile": 1},
    "run": {"rounds": 30, "checkpoint_rounds": 1_000_000, "certificate": "off"},
}
"""One client with all handwritten digits: a round is 20 steps of an ordinary network's training."""


def scene(base: Mapping[str, Any], **sections: Mapping[str, Any]) -> Table:
    """Return a base with changed sections; a section that names another `kind` is replaced.

    Example:
        >>> scene({"run": {"rounds": 5, "seed": 1}}, run={"rounds": 9})
        {'run': {'rounds': 9, 'seed': 1}}
    """
    found = {name: dict(section) for name, section in base.items()}
    for name, section in sections.items():
        before = found.get(name, {})
        other = "kind" in section and section["kind"] != before.get("kind")
        found[name] = dict(section) if other else {**before, **section}
    return found
