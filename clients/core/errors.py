"""Every error fedscape raises on purpose.

FedscapeError
 |- UserError (also ValueError)    the user's mistake: printed without a traceback, exit code 2
 |   |- ScenarioError              a scenario file or a --set
 |   |- DataError                  a data set, a file, or the examples in it
 |   |- PartitionError             a partition that cannot be made
 |   |- EngineError                a named engine that cannot run the scenario
 |   |- StrategyError              a Flower strategy or app that cannot run the scenario
 |   `- RunFolderError             a run folder, record or checkpoint
 `- ServiceError                 a node's local service, which did not start or did not answer
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from numbers import Real

from clients.core.shown.text import presentable

MOST_NAMES = 40
"""The most names that the message on an unknown one lists."""


class FedscapeError(Exception):
    """Base of every error fedscape raises on purpose."""


class UserError(FedscapeError, ValueError):
    """A mistake in the user's settings or files.

    Args:
        field: dotted name of the setting or the file at fault, such as `local.batch_size`.
        problem: the value given and what is allowed, as the end of a sentence that starts with `field`.
        fix: the usual fix, a sentence; may be empty.

    Example:
        >>> print(UserError("algorithm.mu", "must be >= 0, got -0.1", fix="mu = 0 is FedAvg."))
        algorithm.mu: must be >= 0, got -0.1. mu = 0 is FedAvg.
    """

    def __init__(self, field: str, problem: str, *, fix: str = "") -> None:
        super().__init__(field, problem, fix)
        self.field, self.problem, self.fix = field, problem, fix

    def __str__(self) -> str:
        """Field, problem and fix on one line; names in them may be foreign, so they are made printable."""
        end = "" if self.problem.endswith((".", "?", "!")) else "."
        return presentable(f"{self.field}: {self.problem}{end} {self.fix}".rstrip())

    def inside(self, section: str) -> UserError:
        """Return the same error with its field under `section` (scenario files have two levels)."""
        return type(self)(f"{section}.{self.field}", self.problem, fix=self.fix)


class ScenarioError(UserError):
    """A scenario file, or a `--set`, does not describe a valid experiment."""


class DataError(UserError):
    """A data set, a file of it, or the examples inside cannot be used."""


class PartitionError(UserError):
    """The requested partition does not exist for these examples."""


class EngineError(UserError):
    """The engine that was named cannot run this scenario."""


class StrategyError(UserError):
    """A Flower strategy or app cannot take part as configured."""


class RunFolderError(UserError):
    """A run folder, its record or its checkpoint cannot be used."""


class ServiceError(FedscapeError):
    """A node's local service could not be started, or did not answer."""


def require(condition: bool, field: str, problem: str, *, fix: str = "") -> None:
    """Raise `UserError` unless `condition` holds."""
    if not condition:
        raise UserError(field, problem, fix=fix)


def require_kind(value: object, kind: type, field: str, *, fix: str = "") -> None:
    """Raise `UserError` unless `value` is an object of the class `kind`."""
    if isinstance(value, kind):
        return
    name = getattr(value, "__name__", type(value).__name__)
    got = f"the class {name}" if isinstance(value, type) else f"the function {name}" if callable(value) else f"a {name}"
    if value is None or isinstance(value, str | int | float):
        got = f"{value!r:.60}"
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    raise UserError(field, f"must be {article} {kind.__name__}, got {got}", fix=fix)


def require_numbers(**values: object) -> None:
    """Raise `UserError` unless all values are real numbers.

    Example:
        >>> require_numbers(server_lr=1, beta=0.9)
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise UserError(name, f"must be a number, got {value!r:.60}")


def unknown_name(value: object, allowed: Collection[str], what: str) -> str:
    """Return the message that `value` is not one of `allowed`, with the nearest name.

    Example:
        >>> unknown_name("fedaveg", ["fedavg", "fedprox"], "an algorithm")
        "'fedaveg' is not an algorithm. Nearest: 'fedavg'. All: fedavg, fedprox"
    """
    words = value if isinstance(value, str) else _written(value)
    near = [name for name in allowed if words in name.split("_")][:1]
    near = near or get_close_matches(words, list(allowed), n=1, cutoff=0.5)
    nearest = f" Nearest: {near[0]!r}." if near else ""
    shown = shortened(repr(value) if isinstance(value, str) else words)
    return f"{shown} is not {what}.{nearest} All: {listed(allowed, MOST_NAMES)}"


def _written(value: object) -> str:
    """Return a value as text; Python writes no whole number of more than 4,300 digits."""
    large = isinstance(value, int) and value.bit_length() > 10_000
    return "a whole number of thousands of digits" if large else repr(value)


def listed(names: Iterable[str], most: int = 5, mark: str = ", ") -> str:
    """Return names for a message: the first `most` of them, and the number of the others.

    Example:
        >>> listed("abcdefg"), listed("abc", mark="; ")
        ('a, b, c, d, e and 2 more', 'a; b; c')
    """
    every = list(names)
    more = f" and {len(every) - most:,} more" if len(every) > most else ""
    return mark.join(every[:most]) + more


def shortened(text: str, most: int = 80) -> str:
    """Return a text cut to at most so many characters, for messages."""
    return text if len(text) <= most else f"{text[: most - 4]}..."


def any_of(words: list[str]) -> str:
    """Return alternatives in words, for a message.

    Example:
        >>> any_of(["a"]), any_of(["a", "b"]), any_of(["a", "b", "c"])
        ('a', 'a or b', 'a, b or c')
    """
    return " or ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)
