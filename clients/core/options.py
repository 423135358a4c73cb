"""The base of every options dataclass: strictness, and checks that many of them share.

Options are frozen, keyword-only dataclasses in a module that imports no heavy library. They check themselves in
`__post_init__`, and their errors name the bare field; the scenario loader adds the section.
`__pydantic_config__: ClassVar = STRICT` makes a class strict when it is read from a file. A check takes the options and
the names of their fields, in the order in which it reports mistakes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from clients.core.errors import require

STRICT: Any = {"extra": "forbid", "strict": True}


@dataclass(frozen=True, kw_only=True)
class KindOptions:
    """The base of the options of every kind.

    Attributes:
        kind: name of the kind.
    """

    kind: str = ""
    __pydantic_config__: ClassVar = STRICT


@dataclass(frozen=True, kw_only=True)
class DataOptions(KindOptions):
    """Options of a kind of data: where the clients' examples come from."""

    @property
    def is_scaled(self) -> bool:
        """Whether readings are divided by their deviation, so that errors are in deviations."""
        return True


def check_at_least(options: object, least: float, *names: str, words: str = ">= {:g}") -> None:
    """Refuse fields below `least`; None passes. `words` describes the limit."""
    for name in names:
        value = getattr(options, name)
        require(value is None or value >= least, name, f"must be {words.format(least)}, got {value}")


def check_positive(options: object, *names: str, words: str = "> 0") -> None:
    """Refuse fields that are not finite and above 0."""
    for name in names:
        value = getattr(options, name)
        require(0 < value < math.inf, name, f"must be {words}, got {value}")


def check_not_negative(options: object, *names: str, words: str = ">= 0") -> None:
    """Refuse fields that are not finite and at least 0."""
    for name in names:
        value = getattr(options, name)
        require(0 <= value < math.inf, name, f"must be {words}, got {value}")


def check_range(options: object, low: float, high: float, *names: str, words: str = "from {:g} to {:g}") -> None:
    """Refuse fields outside [low, high]."""
    for name in names:
        value = getattr(options, name)
        require(low <= value <= high, name, f"must be {words.format(low, high)}, got {value}")


def check_below_one(options: object, *names: str, words: str = "in [0, 1)") -> None:
    """Refuse fields outside [0, 1)."""
    for name in names:
        value = getattr(options, name)
        require(0 <= value < 1, name, f"must be {words}, got {value}")


def check_held_out(validation: float, test: float, client_test: float = 0.0) -> None:
    """Refuse held-out fractions that are negative or leave nothing to train on."""
    for name, value in (("validation", validation), ("test", test), ("client_test", client_test)):
        require(0 <= value < 1, f"{name}_fraction", f"must be at least 0 and below 1, got {value}")
    left = f"validation and test together must be below 1, got {validation} + {test}"
    require(validation + test < 1, "validation_fraction", left, fix="Something must be left to train on.")
