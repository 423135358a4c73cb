"""What every options dataclass shares: strictness, and the checks that many of them make.

Options are frozen, keyword-only dataclasses in a module that imports no heavy library. They check themselves in
`__post_init__`, naming the bare field; the scenario loader adds the section. `__pydantic_config__: ClassVar = STRICT`
makes one strict when it is read from a file. A check takes the options and the names of their fields, in the order in
which mistakes are reported.
"""

from __future__ import annotations

import math
from typing import Any

from clients.core.errors import require

STRICT: Any = {"extra": "forbid", "strict": True}


def check_at_least(options: object, least: float, *names: str) -> None:
    """Refuse fields below `least`; None passes."""
    for name in names:
        value = getattr(options, name)
        require(value is None or value >= least, name, f"must be >= {least}, got {value}")


def check_positive(options: object, *names: str) -> None:
    """Refuse fields that are not finite and above 0."""
    for name in names:
        value = getattr(options, name)
        require(0 < value < math.inf, name, f"must be > 0, got {value}")


def check_not_negative(options: object, *names: str) -> None:
    """Refuse fields that are not finite and at least 0."""
    for name in names:
        value = getattr(options, name)
        require(0 <= value < math.inf, name, f"must be >= 0, got {value}")


def check_below_one(options: object, *names: str) -> None:
    """Refuse fields outside [0, 1)."""
    for name in names:
        value = getattr(options, name)
        require(0 <= value < 1, name, f"must be in [0, 1), got {value}")
