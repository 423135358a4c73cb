"""Client rows as Parquet: kept in memory by reference, written in complete parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clients.core.arrays import Array
from clients.core.errors import RunFolderError
from server.record.files import reading, sync_folder, temporary, whole_file, writing

Columns = Mapping[str, Array]
PARTS = "part-*.parquet"


def _part(folder: Path, first: int, last: int) -> Path:
    """Return the file of rounds `first` to `last`."""
    return folder / f"part-{first:08d}-{last:08d}.parquet"


def _rounds_of(part: Path) -> tuple[int, int]:
    """Return the first and the last round of a part, from its name."""
    try:
        _, first, last = part.stem.split("-")
        return int(first), int(last)
    except ValueError:
        raise RunFolderError(str(part), "is not named part-<first round>-<last round>.parquet") from None


def part_files(folder: Path) -> list[Path]:
    """Return the files of a run's `clients/` folder that may be parts, by name; none if the folder is gone."""
    try:
        return sorted(folder.glob(PARTS))
    except FileNotFoundError:  # it vanished while it was listed
        return []


def _parts(folder: Path) -> list[Path]:
    """Return the parts in order of rounds. Of two with the same start (after an interrupted trim), take the longer."""
    longest = {_rounds_of(part)[0]: part for part in part_files(folder)}
    return [longest[first] for first in sorted(longest)]


def _column(parts: list[Array | None], sizes: list[int]) -> Any:
    """Join a column's rounds into an Arrow array; rounds without the measurement give nulls."""
    import pyarrow as pa

    dtype = next(part.dtype for part in parts if part is not None)
    filler = "" if dtype.kind in "UO" else 0
    values = [np.full(n, filler, dtype) if p is None else p for p, n in zip(parts, sizes, strict=True)]
    missing = np.repeat([part is None for part in parts], sizes)
    return pa.array(np.concatenate(values), mask=missing if missing.any() else None, from_pandas=False)


def _table(rounds: list[tuple[int, Columns]]) -> Any:
    """Return an Arrow table of these rounds: `round`, then all their columns in order of appearance."""
    import pyarrow as pa

    sizes = [len(columns["client"]) for _, columns in rounds]
    names = dict.fromkeys(name for _, columns in rounds for name in columns)
    arrays = {"round": pa.array(np.repeat(np.array([r for r, _ in rounds], np.int32), sizes))}
    return pa.table(arrays | {name: _column([columns.get(name) for _, columns in rounds], sizes) for name in names})


def _write(path: Path, table: Any) -> None:
    """Write one part; it gets its name once complete."""
    import pyarrow.parquet as pq

    words = [field.name for field in table.schema if str(field.type) in ("string", "int32")]
    with whole_file(path) as file:  # a dictionary of numbers that hardly repeat only costs time
        pq.write_table(table, file, compression="zstd", use_dictionary=words)


class ClientTable:
    """Rows of (round, client), added round by round and written in Parquet parts.

    Args:
        folder: the folder of the parts; made if it does not exist.
        max_rows: a part is written when this many rows are in memory.

    Raises:
        RunFolderError: the folder cannot be made.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     table = ClientTable(Path(folder))
        ...     table.add(1, {"client": np.array([4, 7]), "train_loss": np.array([0.5, 0.25])})
        ...     table.flush()
        ...     read_clients(Path(folder)).to_pylist()[1]
        {'round': 1, 'client': 7, 'train_loss': 0.25}
    """

    def __init__(self, folder: Path, *, max_rows: int = 2_000_000) -> None:
        self.folder, self.max_rows = folder, max_rows
        self._pending: list[tuple[int, Columns]] = []
        self._rows = 0
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, round_index: int, columns: Columns) -> None:
        """Add one round's rows, in a few microseconds: the arrays are kept without a copy and must not change.

        Args:
            round_index: the round, later than all rounds before.
            columns: name -> array (K,), with `client`; other columns may differ between rounds.
        """
        rows = len(columns["client"])
        assert "round" not in columns
        assert all(len(column) == rows for column in columns.values()), "every column has one value for each client"
        assert not self._pending or round_index > self._pending[-1][0], "rounds are added once and in order"
        self._pending.append((round_index, dict(columns)))
        self._rows += rows
        if self._rows >= self.max_rows:
            self.flush()

    def flush(self) -> None:
        """Write the rounds since the last part as one part; without rounds, write nothing.

        Raises:
            RunFolderError: the part cannot be written; its rows stay in memory.
        """
        if not self._pending:
            return
        _write(_part(self.folder, self._pending[0][0], self._pending[-1][0]), _table(self._pending))
        sync_folder(self.folder)
        self._pending, self._rows = [], 0

    def truncate(self, last_round: int) -> None:
        """Drop the rounds after `last_round`, on disk and in memory. It can be repeated after an interruption.

        Raises:
            RunFolderError: a part cannot be read, written or removed.
        """
        self._pending = [(r, columns) for r, columns in self._pending if r <= last_round]
        self._rows = sum(len(columns["client"]) for _, columns in self._pending)
        for part in sorted(self.folder.glob(PARTS)):
            first, last = _rounds_of(part)
            if first <= last_round < last:
                table = _read([part])
                _write(_part(self.folder, first, last_round), table.filter(_up_to(table["round"], last_round)))
            if last > last_round:
                with writing(part):
                    part.unlink()
        with writing(self.folder):
            for unfinished in self.folder.glob(temporary(self.folder / PARTS).name):
                unfinished.unlink()


def _up_to(rounds: Any, last_round: int) -> Any:
    """Return which rows belong to `last_round` or an earlier round."""
    import pyarrow.compute as pc

    return pc.less_equal(rounds, last_round)


def _read(parts: Iterable[Path]) -> Any:
    """Read parts into one table; a column is null in parts that lack it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [pa.table({"round": pa.array([], pa.int32()), "client": pa.array([], pa.int64())})]
    for part in parts:
        try:
            with reading(part):
                tables.append(pq.read_table(part, partitioning=None))
        except pa.ArrowInvalid as error:
            raise RunFolderError(
                str(part), f"is damaged: {error}", fix="Remove it to read the other rounds."
            ) from error
    return pa.concat_tables(tables, promote_options="permissive")


def read_clients(path: Path) -> Any:
    """Read all parts of a run's `clients/` folder.

    Args:
        path: the folder.

    Returns:
        A pyarrow Table with `round`, `client` and the measurements, in order of rounds. A value is null in rounds
        without the measurement, and nan where the measurement is nan. Rounds after the last written part are missing.

    Raises:
        RunFolderError: a part cannot be read.
    """
    return _read(_parts(path))
