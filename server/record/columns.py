"""What the tables of a record share: columns by name, also as a pandas DataFrame."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from clients.core.arrays import Array
from clients.core.errors import UserError, unknown_name


class Columns(ABC):
    """A table that is read by column: `table[name]` is an array with one value a row.

    Attributes:
        example: how a column is taken, for messages.
        what: what its columns are, for messages.
    """

    example: ClassVar[str]
    what: ClassVar[str]

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """Names of the columns."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def __getitem__(self, name: str) -> Array:
        """Return one value a row.

        Raises:
            UserError: there is no such column.
        """

    def __repr__(self) -> str:
        """Return the number of rows and columns; the values may be many."""
        return f"<{type(self).__name__}: {len(self)} rows, {len(self.columns)} columns>"

    def __contains__(self, name: object) -> bool:
        """Return whether there is a column `name`."""
        return name in self.columns

    def __iter__(self) -> Iterator[str]:
        """Iterate over the columns' names."""
        return iter(self.columns)

    def check_column(self, name: str) -> None:
        """Refuse a name that is no column's.

        Raises:
            UserError: with the nearest name.
        """
        if name not in self.columns:
            raise UserError("column", unknown_name(name, self.columns, self.what))

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame.

        Raises:
            UserError: pandas is not installed (fedscape does not need it).
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            fix = f"Install pandas, or take columns as arrays: {self.example}."
            raise UserError("pandas", "is not installed in this environment", fix=fix) from None
        return pandas.DataFrame({name: self[name] for name in self.columns})
