"""Client rows read by column: NumPy arrays with one value for each client and round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clients.core.arrays import Array
from server.record.client_table import read_clients
from server.record.columns import Columns


class ClientRows(Columns):
    """A run's rows by round and client, in order of rounds.

    Args:
        table: a pyarrow Table, as `server.record.client_table.read_clients` reads it.

    Example:
        >>> import pyarrow as pa
        >>> rows = ClientRows(pa.table({"round": [1, 1, 2], "client": [4, 7, 4], "train_loss": [0.5, 0.25, None]}))
        >>> rows["train_loss"]
        array([0.5 , 0.25,  nan])
        >>> rows.where(client=4)["round"]
        array([1, 2])
        >>> len(rows), rows.columns
        (3, ['round', 'client', 'train_loss'])
    """

    example = "clients['train_loss']"
    what = "a column of this run's clients"

    def __init__(self, table: Any) -> None:
        self._table = table

    @classmethod
    def read(cls, folder: Path) -> ClientRows:
        """Read a run's `clients/` folder; a missing folder has no rows.

        Raises:
            RunFolderError: a part cannot be read.
        """
        return cls(read_clients(folder))

    @property
    def columns(self) -> list[str]:
        """Names of the columns: `round`, `client`, and the measurements of a client in a round."""
        return list(self._table.column_names)

    def __len__(self) -> int:
        """Return the number of rows: one for each participation of a client in a round."""
        return int(self._table.num_rows)

    def __getitem__(self, name: str) -> Array:
        """Return a column, one value for each row.

        Args:
            name: a column, as in `columns`.

        Returns:
            int64 where all rows have an integer; else float64, nan in rounds without the measurement; objects for text.

        Raises:
            UserError: there is no such column.
        """
        self.check_column(name)
        values: Array = self._table[name].to_numpy()
        return values.astype(np.int64) if values.dtype.kind in "iu" else values

    def where(self, *, round: int | None = None, client: int | None = None) -> ClientRows:
        """Return the rows of one round, of one client, or of one client in one round; maybe none."""
        keep = np.ones(len(self), bool)
        for name, value in (("round", round), ("client", client)):
            if value is not None:
                keep &= self[name] == value
        return ClientRows(self._table.take(np.flatnonzero(keep)))
