"""The built-in scenarios in pairs: a clean one, and one with faults or drift."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any

from simulator.scenario.sections import builtin_names

CLEAN = (
    "city-traffic",
    "city-congestion",
    "city-meters",
    "city-air",
    "city-bridge",
    "city-intrusion",
    "city-activity",
)
"""One for every generated source, and two for traffic."""
OTHER_MODELS = ("city-bridge-anomalies", "city-traffic-lstm", "city-traffic-transformer")
"""Clean scenarios that train another model on a source of `CLEAN`."""
TWIN_KEYS = ("title", "faults", "drifts", "local", "features")
"""Where a twin may differ from its clean scenario: in what is done to the data, and in a remedy."""


def pairs() -> dict[str, str]:
    """Return each twin's clean scenario."""
    twins = [name for name in builtin_names() if name not in OTHER_MODELS]
    found = {name: clean for name in twins for clean in CLEAN if name.startswith(f"{clean}-")}
    return {**found, "digits-noisy-sensors": "digits-label-skew"}


def read(name: str) -> dict[str, Any]:
    """Return a built-in scenario's file."""
    return tomllib.loads((resources.files("simulator.scenario") / "builtin" / f"{name}.toml").read_text("utf-8"))


def differing(clean: str, twin: str) -> dict[str, Any]:
    """Return what a twin changes, by its first key; an empty mapping for a section it leaves out."""
    before, after = read(clean), read(twin)
    return {key: after.get(key, {}) for key in {*before, *after} if before.get(key) != after.get(key)}
