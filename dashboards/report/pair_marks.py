"""What the runs of a pair do not share although a comparison takes it for granted: rounds, sizes, data, target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dashboards.report.arm_names import differing_keys, flat_scenario
from dashboards.report.run_data import RunData

SHARED = {"data": "other data", "partition": "another partition"}
"""Sections that must be equal for a pair to share its random numbers, and the mark where they are not."""
SIZES = {"clients": "clients", "examples": "examples", "cohort": "clients a round"}
"""Facts of a run that are sizes of its federation."""


def marks(pairs: Sequence[tuple[RunData, RunData]]) -> list[str]:
    """Return what the second runs of pairs have other than the first, in words; empty where all is shared.

    Args:
        pairs: of a run of the first arm, and the run of the second with the same seed.
    """
    found: dict[str, None] = {}
    for one, two in pairs:
        found |= dict.fromkeys(_rounds(one, two) + _sizes(one, two) + _sections(one, two))
    return list(found)


def _rounds(one: RunData, two: RunData) -> list[str]:
    return [f"other rounds: {words}" for words in _other(one.facts, two.facts, "rounds")]


def _sizes(one: RunData, two: RunData) -> list[str]:
    return [
        f"other sizes: {words} {name}" for key, name in SIZES.items() for words in _other(one.facts, two.facts, key)
    ]


def _other(one: Mapping[str, Any], two: Mapping[str, Any], key: str) -> list[str]:
    a, b = one.get(key), two.get(key)
    return [f"{b:,}, not {a:,}"] if a != b and isinstance(a, int) and isinstance(b, int) else []


def _sections(one: RunData, two: RunData) -> list[str]:
    """Return the sections that a pair must share and does not."""
    keys = differing_keys([flat_scenario(one.scenario), flat_scenario(two.scenario)])
    found = [
        f"{mark}: {', '.join(key for key in keys if key.startswith(f'{section}.'))}"
        for section, mark in SHARED.items()
        if any(key.startswith(f"{section}.") for key in keys)
    ]
    target = [key for key in keys if key.startswith("convergence.target.")]
    return [*found, f"another target: {', '.join(target)}"] if target else found
