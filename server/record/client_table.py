"""Client rows as Parquet: kept in memory by reference, written in complete parts.

`_parts.jsonl` lists each part with its rows and checksum, as lines of a chain. A part is written before its line.
Readers of Parquet folders skip names that begin with `_`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from clients.core.arrays import Array
from clients.core.errors import RunFolderError
from server.record.checked.line_files import RecordedLines, read_record
from server.record.checked.regular_files import LARGEST_PART, read_regular
from server.record.checked.seals import START, UNLIKE, checksum
from server.record.files import sync_folder, temporary, whole_file, writing
from server.record.jsonlines import RoundWriter, line_after

Columns = Mapping[str, Array]
PARTS, INDEX = "part-*.parquet", "_parts.jsonl"
_NAME = re.compile(r"part-(\d{8,12})-(\d{8,12})\.parquet")


def _part(folder: Path, first: int, last: int) -> Path:
    """Return the file of rounds `first` to `last`."""
    return folder / f"part-{first:08d}-{last:08d}.parquet"


def rounds_of(part: Path) -> tuple[int, int]:
    """Return the first and the last round of a part, from its name.

    Raises:
        RunFolderError: no part has this name.
    """
    named = _NAME.fullmatch(part.name)
    if named is None:
        raise RunFolderError(str(part), "is not named part-<first round>-<last round>.parquet")
    return int(named[1]), int(named[2])


def part_files(folder: Path) -> list[Path]:
    """Return the files of a run's `clients/` folder that may be parts, by name; none if the folder is gone."""
    try:
        return sorted(folder.glob(PARTS))
    except FileNotFoundError:  # it vanished while it was listed
        return []


def _parts(folder: Path) -> list[Path]:
    """Return the parts in order of rounds. Of two with the same start (after an interrupted trim), take the longer."""
    longest = {rounds_of(part)[0]: part for part in part_files(folder)}
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


def _write(path: Path, table: Any) -> dict[str, Any]:
    """Write one part, which gets its name once complete; return its line of the index."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    words = [field.name for field in table.schema if str(field.type) in ("string", "int32")]
    made = pa.BufferOutputStream()  # a dictionary of numbers that hardly repeat only costs time
    pq.write_table(table, made, compression="zstd", use_dictionary=words)
    content = memoryview(made.getvalue())
    with whole_file(path) as file:
        file.write(content)
    return {"part": path.name, "rows": table.num_rows, "size": len(content), "checksum": checksum(content)}


def read_index(folder: Path) -> RecordedLines:
    """Return the lines of the index of parts; none where an earlier version wrote the parts.

    Raises:
        RunFolderError: it cannot be read.
    """
    index = folder / INDEX
    return read_record(index, inside=folder.parent) if os.path.lexists(index) else RecordedLines()


def listed_parts(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of the index by the name of the part.

    Raises:
        RunFolderError: the index cannot be read.
    """
    return {line["part"]: line for line in read_index(folder).values if _NAME.fullmatch(line["part"])}


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
        self._index: RoundWriter | None = None
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
        self._list(_write(_part(self.folder, self._pending[0][0], self._pending[-1][0]), _table(self._pending)))
        sync_folder(self.folder)
        self._pending, self._rows = [], 0

    def _list(self, line: Mapping[str, Any]) -> None:
        """Append a part to the index. It needs no sync: a part whose line is lost is read without a checksum."""
        self._index = self._index or RoundWriter(self.folder / INDEX)
        self._index.append(line)

    def close(self) -> None:
        """Close the index; a second call does nothing."""
        if self._index is not None:
            self._index.close()
            self._index = None

    def truncate(self, last_round: int) -> None:
        """Drop the rounds after `last_round`, on disk and in memory. It can be repeated after an interruption.

        A damaged part with rounds after `last_round` is dropped whole.

        Raises:
            RunFolderError: a part cannot be written or removed.
        """
        self._pending = [(r, columns) for r, columns in self._pending if r <= last_round]
        self._rows = sum(len(columns["client"]) for _, columns in self._pending)
        self.close()
        lines = listed_parts(self.folder)
        gone = []
        for part in sorted(self.folder.glob(PARTS)):
            first, last = rounds_of(part)
            if first <= last_round < last:
                with suppress(RunFolderError):
                    table = _read([part])
                    cut = _part(self.folder, first, last_round)
                    lines[cut.name] = _write(cut, table.filter(_up_to(table["round"], last_round)))
            if last > last_round:
                gone.append(part)
        self._relist([line for name, line in sorted(lines.items()) if rounds_of(Path(name))[1] <= last_round])
        with writing(self.folder):
            for unfinished in (*gone, *self.folder.glob(temporary(self.folder / PARTS).name)):
                unfinished.unlink(missing_ok=True)

    def _relist(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Replace the index where it differs from these lines."""
        wanted = [dict(line) for line in lines]
        found = read_index(self.folder)
        if found.values == wanted and not found.damage and not found.truncated:
            return
        head = START
        with whole_file(self.folder / INDEX) as file:
            for line in wanted:
                raw, head = line_after(head, line)
                file.write(raw)
        sync_folder(self.folder)


def _up_to(rounds: Any, last_round: int) -> Any:
    """Return which rows belong to `last_round` or an earlier round."""
    import pyarrow.compute as pc

    return pc.less_equal(rounds, last_round)


def _read(parts: Iterable[Path]) -> Any:
    """Read parts into one table; a column is null in parts that lack it."""
    import pyarrow as pa

    tables = [pa.table({"round": pa.array([], pa.int32()), "client": pa.array([], pa.int64())})]
    return pa.concat_tables([*tables, *map(read_part, parts)], promote_options="permissive")


def read_part(part: Path, columns: list[str] | None = None, listed: Mapping[str, Any] | None = None) -> Any:
    """Read one part as a pyarrow table.

    Args:
        part: the file.
        columns: the columns to read, as far as the part has them; by default all.
        listed: its line of the index, with its checksum; None where no line lists it.

    Raises:
        RunFolderError: the part cannot be read, or is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    fix = "Remove it to read the other rounds."
    content = read_regular(part, most=LARGEST_PART, inside=part.parents[1])
    if listed is not None and checksum(content) != listed["checksum"]:
        raise RunFolderError(str(part), UNLIKE, fix=fix)
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        names = file.schema_arrow.names
        table = file.read(names if columns is None else [name for name in columns if name in names])
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RunFolderError(str(part), f"is damaged: {error}", fix=fix) from error
    if not {"round", "client"} <= set(names):
        raise RunFolderError(str(part), "is damaged: it lacks the columns round and client", fix=fix)
    return table


def read_clients(path: Path) -> Any:
    """Read all parts of a run's `clients/` folder.

    Args:
        path: the folder.

    Returns:
        A pyarrow Table with `round`, `client` and the measurements, in order of rounds. A value is null in rounds
        without the measurement, and nan where the measurement is nan. Rounds after the last written part are missing.

    Raises:
        RunFolderError: a part cannot be read, or is damaged.
    """
    import pyarrow as pa

    listed = listed_parts(path)
    tables = [_read([])]
    tables += [read_part(part, listed=listed.get(part.name)) for part in _parts(path)]
    return pa.concat_tables(tables, promote_options="permissive")
