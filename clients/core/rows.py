"""Tables of kinds: one entry holds everything particular to a kind, its options and what is built from them.

A table is a literal in one module of its room. The module imports the options; the functions that build from them
may be `lazy`, so that reading a scenario does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, Generic, Protocol, TypeVar

from clients.core.errors import UserError, unknown_name


@dataclass(frozen=True)
class Lazy:
    """A function that is imported when it is first called.

    Example:
        >>> lazy("math", "hypot")(3.0, 4.0)
        5.0
    """

    module: str
    name: str

    @cached_property
    def target(self) -> Any:
        """The function itself."""
        return getattr(import_module(self.module), self.name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return self.target(*args, **kwargs)


def lazy(module: str, name: str) -> Lazy:
    """Return a stand-in for the function `name` of `module`, which is imported when it is first called."""
    return Lazy(module, name)


class Kinded(Protocol):
    """Options with the name of their kind."""

    @property
    def kind(self) -> str:
        """The kind."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One entry of a table; each table's own class adds the other fields in which its kinds differ.

    Attributes:
        kind: its name in scenarios.
        options: the dataclass of its options.
    """

    kind: str
    options: type[Any]


R = TypeVar("R", bound=Row)


class Table(Mapping[str, R], Generic[R]):
    """Rows by kind, in the order in which people see them.

    Args:
        what: what a kind is called in messages, with its article.
        rows: the entries; each kind once.

    Example:
        >>> shapes = Table("a shape", Row(kind="circle", options=object))
        >>> list(shapes), shapes["circle"].options
        (['circle'], <class 'object'>)
    """

    def __init__(self, what: str, *rows: R) -> None:
        self.what = what
        self._rows = {row.kind: row for row in rows}
        assert len(self._rows) == len(rows), "each kind has one row"

    def __getitem__(self, kind: str) -> R:
        """Return the row of a kind."""
        return self._rows[kind]

    def __contains__(self, kind: object) -> bool:
        """Return whether there is a row of a kind; a scenario may give a value of any type, even a list."""
        return isinstance(kind, str) and kind in self._rows

    def __iter__(self) -> Iterator[str]:
        """Iterate over the kinds."""
        return iter(self._rows)

    def __len__(self) -> int:
        """Return how many kinds there are."""
        return len(self._rows)

    @property
    def options(self) -> tuple[type[Any], ...]:
        """The classes of options, each once."""
        return tuple(dict.fromkeys(row.options for row in self._rows.values()))

    def row_of(self, options: Kinded) -> R:
        """Return the row that options belong to.

        Raises:
            UserError: their kind is not one of this table.
        """
        if options.kind not in self:
            raise UserError("kind", unknown_name(options.kind, self, self.what))
        return self._rows[options.kind]
