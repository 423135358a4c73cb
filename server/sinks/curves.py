"""The numbers of a round that become curves, and their names, for tools that draw one curve a name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from server.metrics.samples import Labels, Sample, outcome_samples, samples
from server.metrics.table import PREFIX, ROUND

CURVES = [m for m in ROUND if m.kind != "histogram" and m.name != "run_state" and not m.name.endswith("_client")]
"""Metrics that become curves; a client's index is none, and a histogram is not one number."""


@lru_cache(maxsize=4096)
def curve_name(name: str, labels: Labels) -> str:
    """Return the name of a series' curve; its labels follow a slash, by which tools group charts.

    Example:
        >>> curve_name("fedscape_loss", (("split", "validation"),))
        'loss/validation'
    """
    return "/".join((name.removeprefix(PREFIX), *(word for _, word in labels)))


def round_curves(counted: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a round by curve, from the result of `RunFold.observe` for its line."""
    return _by_name(samples(CURVES, counted))


def outcome_numbers(outcome: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of an outcome by name."""
    return _by_name(outcome_samples(outcome))


def plain_facts(facts: Mapping[str, Any]) -> dict[str, str | int | float]:
    """Return the facts of a run that are texts and numbers."""
    return {key: value for key, value in facts.items() if isinstance(value, str | int | float)}


def _by_name(found: list[Sample]) -> dict[str, float]:
    return {curve_name(name, labels): value for name, labels, value in found}
