"""The base of every options dataclass, and checks that many of them share.

Options are frozen, keyword-only dataclasses in a module that imports no heavy library. They check themselves in
`__post_init__`, and their errors name the bare field; the scenario loader adds the section.
A check takes the options and the names of their fields, in the order in which it reports mistakes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.core.errors import listed, require, require_numbers
from clients.core.numbers.bounds import Name

ClientChoice = float | str | tuple[str | Name | float, ...]
"""Which clients: a share of them, a name, or a list of names. A whole number in a list is a name."""


@dataclass(frozen=True, kw_only=True)
class KindOptions:
    """The base of the options of every kind.

    Attributes:
        kind: name of the kind.
    """

    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class DataOptions(KindOptions):
    """Options of a kind of data: where the clients' examples come from."""

    @property
    def is_scaled(self) -> bool:
        """Whether readings are divided by their deviation, so that errors are in deviations."""
        return True

    @property
    def takes_partition(self) -> bool:
        """Whether a partition may deal out the examples, where some data of the kind allow one."""
        return True

    @property
    def foreseen_bytes(self) -> int:
        """Bytes that making the data takes, where that follows from the options; 0 where it does not."""
        return 0

    def files(self) -> list[Path]:
        """Return the files that the data are read from, in a fixed order; none for data that are generated.

        Raises:
            DataError: there are none where there must be some.
        """
        return []


class HeldOutOptions(DataOptions):
    """Options of examples in a pool: some are held out, and a partition deals out the rest.

    This is no dataclass: each kind declares these fields at their place among its own.

    Attributes:
        validation_fraction: share held centrally for criteria.
        test_fraction: share held centrally for the end.
        client_test_fraction: share of its own examples each client holds out.
    """

    validation_fraction: float
    test_fraction: float | None
    client_test_fraction: float

    def __post_init__(self) -> None:
        validation, test = self.validation_fraction, self.test_fraction or 0.0
        shares = ("validation_fraction", "test_fraction", "client_test_fraction")
        check_below_one(self, *shares, words="at least 0 and below 1")
        left = f"validation and test together must be below 1, got {validation} + {test}"
        require(validation + test < 1, "validation_fraction", left, fix="Something must be left to train on.")


def unread_of(kind: str, readers: Mapping[str, Collection[str]], what: str) -> dict[str, str]:
    """Return why a key has no effect, for each key of `readers` that `kind` does not read.

    Example:
        >>> unread_of("sgd", {"rho": ("rmsprop",)}, "optimizer")
        {'rho': "optimizer 'sgd' does not read it; 'rmsprop' does"}
    """
    return {
        key: f"{what} {kind!r} does not read it; {', '.join(map(repr, who))} {'do' if len(who) > 1 else 'does'}"
        for key, who in readers.items()
        if kind not in who
    }


def check_at_least(options: object, least: float, *names: str, words: str = ">= {:g}") -> None:
    """Refuse fields below `least`; None passes. `words` describes the limit."""
    for name in names:
        value = _number(options, name)
        require(value is None or value >= least, name, f"must be {words.format(least)}, got {value}")


def _number(options: object, name: str) -> Any:
    """Return a field that must hold a number or None. From Python, it may hold anything."""
    value = getattr(options, name)
    if value is not None:
        require_numbers(**{name: value})
    return value


def check_positive(options: object, *names: str, words: str = "> 0") -> None:
    """Refuse fields that are not finite and above 0."""
    for name in names:
        value = _number(options, name)
        require(value is not None and 0 < value < math.inf, name, f"must be {words}, got {value}")


def check_not_negative(options: object, *names: str, words: str = ">= 0") -> None:
    """Refuse fields that are not finite and at least 0."""
    for name in names:
        value = _number(options, name)
        require(value is not None and 0 <= value < math.inf, name, f"must be {words}, got {value}")


def check_range(options: object, low: float, high: float, *names: str, words: str = "from {:g} to {:g}") -> None:
    """Refuse fields outside [low, high]."""
    for name in names:
        value = _number(options, name)
        require(value is not None and low <= value <= high, name, f"must be {words.format(low, high)}, got {value}")


def check_below_one(options: object, *names: str, words: str = "in [0, 1)") -> None:
    """Refuse fields outside [0, 1); None passes."""
    for name in names:
        value = _number(options, name)
        require(value is None or 0 <= value < 1, name, f"must be {words}, got {value}")


def check_clients(options: Any) -> None:
    """Refuse a `ClientChoice` in the field `clients` that is no share, names nobody, or names a client twice."""
    if not isinstance(options.clients, str | tuple):
        check_range(options, 0, 1, "clients")
        return
    chosen = names_of(options.clients)
    require(bool(chosen), "clients", "must name at least one client, got none", fix="clients = 0 chooses none.")
    wrong = [name for name in chosen if isinstance(name, float)]
    problem = f"must be a share from 0 to 1, or names of clients, got {list(chosen)}"
    fix = 'A share is a number by itself: clients = 0.5. Names are a list: clients = ["Huairou", "Shunyi"].'
    require(not wrong, "clients", problem, fix=fix)
    names = [str(name) for name in chosen]
    twice = next((name for name in names if names.count(name) > 1), "")
    require(not twice, "clients", f"names {twice!r} twice")


def names_of(chosen: ClientChoice) -> tuple[str | int | float, ...]:
    """Return the names in a choice, or after `with_indices` the indices; none of a share."""
    return (chosen,) if isinstance(chosen, str) else chosen if isinstance(chosen, tuple) else ()


def clients_words(chosen: ClientChoice, name_of: Callable[[int], str]) -> str:
    """Return which clients are chosen, in words.

    Args:
        chosen: a share, or indices of clients.
        name_of: index -> name.

    Example:
        >>> clients_words(0.25, str), clients_words((3, 5), "station {}".format)
        ('25% of clients', 'clients station 3, station 5')
    """
    if not isinstance(chosen, tuple):
        return f"{chosen:.0%} of clients"
    return f"client{'s' if len(chosen) > 1 else ''} {listed(name_of(int(k)) for k in chosen)}"
