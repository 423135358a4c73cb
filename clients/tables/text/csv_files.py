"""Reads CSV files as columns of text. Files with the same header and dialect are read as one stack."""

from __future__ import annotations

import gzip
import lzma
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clients.core.arrays import I64
from clients.core.errors import DataError
from clients.tables.text.dialect import DELIMITERS, USUAL_MISSING, Dialect, cells_of, find_delimiter, find_encoding
from clients.tables.text.formats import looks_like_time
from clients.tables.text.records import Records, read_cells, split_records

_SAMPLE = 40  # records that the dialect is found in
_BLOCK = 1 << 24
_OTHER_KINDS = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "Unpack it, or save the sheet as CSV."),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "Save the sheet as CSV."),
    (b"PAR1", "a Parquet file", "Let its name end in .parquet."),
    (b"\x89HDF", "an HDF5 file", "Let its name end in .h5."),
)


@dataclass(frozen=True)
class Source:
    """The rows of a frame that come from one file.

    Attributes:
        file: its path.
        rows: how many.
        lines: each row's line, or None if they follow each other from `first` on.
        first: line of the first row.
        word: "line", or "row" where a file has no lines.
    """

    file: Path
    rows: int
    lines: I64 | None = None
    first: int = 2
    word: str = "line"

    def place(self, row: int) -> str:
        """Describe the place of row `row`, from 0."""
        line = row + self.first if self.lines is None else int(self.lines[row])
        return f"{self.file}, {self.word} {line}"


@dataclass(frozen=True)
class CsvFile:
    """A CSV whose dialect is known and whose cells are not yet cut.

    Attributes:
        file: its path.
        records: its records; the first is the header.
        names: names of its columns.
        dialect: the dialect, as given or found; the decimal mark is still open.
        header: the header as it is in the file.
        remarks: what was changed.
    """

    file: Path
    records: Records
    names: tuple[str, ...]
    dialect: Dialect
    header: bytes
    remarks: tuple[str, ...] = ()


def read_bytes(file: Path) -> bytes:
    """Return a file's content, unpacked. Its first bytes tell that it is packed, or no text, under any name.

    Raises:
        DataError: it is a file of another kind.
    """
    suffix = file.suffix.lower()
    with file.open("rb") as stream:
        begin = stream.read(8)
    for mark, what, fix in _OTHER_KINDS:
        if begin.startswith(mark):
            raise DataError("path", f"{file} is {what} and no text", fix=fix)
    packed = gzip.open if begin.startswith(b"\x1f\x8b") else lzma.open if begin.startswith(b"\xfd7zXZ") else None
    opener = packed or (gzip.open if suffix == ".gz" else lzma.open if suffix == ".xz" else open)
    with opener(file, "rb") as stream:
        content: bytes = stream.read()
    return content


def open_csv(file: Path, dialect: Dialect, before: CsvFile | None = None) -> CsvFile:
    """Read a file and find its records and its dialect.

    Args:
        file: plain or compressed.
        dialect: what is known of it.
        before: the file before it; one with the same header has the same dialect.

    Raises:
        DataError: it is empty, or is not text of the encoding.
    """
    raw = read_bytes(file)
    encoding = dialect.encoding or find_encoding(raw)
    try:
        known = encoding == "utf-8" and (not dialect.encoding or raw.isascii())
        text = raw if known else raw.decode(encoding).encode()
    except (UnicodeError, LookupError) as error:
        problem = f"{file} is not text in {encoding} ({error})"
        raise DataError("encoding", problem, fix="Leave encoding out to find it.") from error
    text = text.removeprefix(b"\xef\xbb\xbf")
    if dialect.delimiter == " ":  # runs of spaces separate columns as one does
        text = re.sub(rb"(?m)^ | (?=\r?$)", b"", re.sub(rb"[ \t]+", b" ", text))
    records = split_records(text, skip_rows=dialect.skip_rows, comment=dialect.comment)
    hint = (records.head(1) or [""])[0]
    if not dialect.delimiter and len(hint) == 5 and hint.lower().startswith("sep="):  # Excel writes it
        dialect = replace(dialect, delimiter=hint[4])
        records = replace(records, starts=records.starts[1:], ends=records.ends[1:], lines=records.lines[1:])
    if not len(records):
        raise DataError("path", f"{file} cannot be read (Empty CSV file)")
    header = records.text[int(records.starts[0]) : int(records.ends[0])].rstrip(b"\r\n")
    if before is not None and header == before.header and not records.multiline:
        found = replace(before.dialect, encoding=encoding)
        return CsvFile(file, records, before.names, found, header, before.remarks)
    sample = records.head(_SAMPLE)
    delimiter = dialect.delimiter or find_delimiter(sample)
    if not dialect.delimiter:
        _refuse_preamble(file, records, sample)
    cells = cells_of(sample, delimiter)
    names, remarks = _names(cells)
    below = dict(zip(names, cells[1] if len(cells) > 1 else [], strict=False))
    if data := next((n for n in names if looks_like_time(n) and looks_like_time(below.get(n))), ""):
        problem = f"{file}, line {int(records.lines[0])}: {data!r} is where a column's name belongs"
        raise DataError("path", problem, fix="Add a first line with the names of the columns, or set skip_rows.")
    return CsvFile(file, records, names, replace(dialect, delimiter=delimiter, encoding=encoding), header, remarks)


def _refuse_preamble(file: Path, records: Records, sample: list[str]) -> None:
    """Refuse a file whose first line has one cell, where most lines have several: its header comes later."""
    if any(len(cells_of(sample[:1], d)[0]) > 1 for d in DELIMITERS):
        return
    for sign in (d for d in DELIMITERS if d != ","):
        widths = [len(cells) for cells in cells_of(sample, sign)]
        commonest, count = Counter(widths).most_common(1)[0]
        if commonest > 1 and 2 * count > len(widths) == len(sample):
            before = int(records.lines[widths.index(commonest)]) - 1
            problem = f"{file}: the first line has no {sign!r}, and most lines have {commonest} columns with it"
            raise DataError("skip_rows", problem, fix=f"The header may come later: set skip_rows = {before}.")


def _is_number(text: str) -> bool:
    return re.match(r"^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$", text, re.I) is not None


def _names(cells: list[list[str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the columns, without spaces around them."""
    names = [name.strip() for name in cells[0]]
    changed = [old for old, new in zip(cells[0], names, strict=True) if old != new]
    if len(names) > 1 and all(map(_is_number, names)) and names != [str(i) for i in range(len(names))]:
        return tuple(names), (f"the columns' names are numbers ({names[0]!r}); is the first line data?",)
    plural = "s" * (len(changed) > 1)
    remarks = [f"spaces around {len(changed)} column name{plural} left out ({changed[0]!r})"] if changed else []
    wider = [row for row in cells[1:] if len(row) == len(names) + 1 and not row[-1]]
    if wider and len(wider) == len(cells) - 1:  # every row ends in a separator, and the header does not
        names.append("")
    return tuple(names), tuple(remarks)


def read_text_columns(files: Sequence[CsvFile]) -> tuple[Any, Any, list[Source]]:
    """Cut the cells of files with the same names and dialect.

    Args:
        files: at least one.

    Returns:
        A `pyarrow.Table` of text, null where a cell is empty; the same with null for every unquoted text that marks a
        missing value, where a quoted one occurs, else None; and the files' rows.

    Raises:
        DataError: a row has more or fewer cells than the header; it is named.
    """
    import pyarrow as pa

    body = b"".join([f.records.body() for f in files])
    rows = [len(f.records) - 1 for f in files]
    try:
        table = _parse(body, files[0], ("",))
    except pa.ArrowInvalid as error:
        raise _width_error(files, str(error)) from error
    if table.num_rows != sum(rows):
        if len(files) > 1:
            return _one_by_one(files)
        lines = np.asarray(read_cells(files[0].records, files[0].dialect.delimiter)[0], np.int64)
        sources = [Source(files[0].file, table.num_rows, lines[: table.num_rows])]
    else:
        sources = [_source(f, n) for f, n in zip(files, rows, strict=True)]
    markers = (*USUAL_MISSING, *files[0].dialect.missing)
    quoted = b'"' in body and any(f'"{m}"'.encode() in body for m in markers if m)
    return table, _parse(body, files[0], markers) if quoted else None, sources


def _one_by_one(files: Sequence[CsvFile]) -> tuple[Any, Any, list[Source]]:
    import pyarrow as pa

    read = [read_text_columns([f]) for f in files]
    named = pa.concat_tables([n if n is not None else t for t, n, _ in read])
    return pa.concat_tables([t for t, _, _ in read]), named, [s for _, _, each in read for s in each]


def _source(file: CsvFile, rows: int) -> Source:
    lines = file.records.lines[1:]
    if rows and int(lines[-1] - lines[0]) == rows - 1:
        return Source(file.file, rows, None, int(lines[0]))
    return Source(file.file, rows, lines)


def _parse(body: bytes, like: CsvFile, nulls: tuple[str, ...]) -> Any:
    """Return the cells of `body` as text; texts of `nulls` are null unless they are quoted."""
    import pyarrow as pa
    from pyarrow import csv

    names = [str(i) for i in range(len(like.names))]
    block = max(_BLOCK, 64 * len(names))
    if like.records.multiline or len(body) < _BLOCK:
        block = min(len(body) + 1, 2**31 - 1)
    if not body:
        return pa.table({n: pa.array([], pa.string()) for n in names}).rename_columns(list(like.names))
    table = csv.read_csv(
        pa.BufferReader(body),
        csv.ReadOptions(column_names=names, block_size=block),
        csv.ParseOptions(delimiter=like.dialect.delimiter, newlines_in_values=True),
        csv.ConvertOptions(
            column_types={n: pa.string() for n in names},
            null_values=list(nulls),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    return table.rename_columns(list(like.names))


def _width_error(files: Sequence[CsvFile], problem: str) -> DataError:
    """Return the error for the first row that has more or fewer cells than the header."""
    for file in files:
        width = len(file.names)
        lines, cells = read_cells(file.records, file.dialect.delimiter)
        wrong = [(line, row) for line, row in zip(lines, cells, strict=True) if len(row) != width]
        if not wrong:
            continue
        line, row = wrong[0]
        shown = file.dialect.delimiter.join(row)[:60]
        text = f"{file.file} cannot be read (line {line}: Expected {width} columns, got {len(row)}: {shown})"
        if len(wrong) * 2 > len(cells):
            widest = max(len(row) for row in cells)
            before = next((n for n, r in zip(lines, cells, strict=True) if len(r) == widest), 2) - 1
            fix = f"The header may come later: try skip_rows = {before}, or name the delimiter or a comment sign."
        else:
            fix = "Correct the line, or name the delimiter or a comment sign."
        return DataError("path", text, fix=fix)
    return DataError("path", f"{files[0].file} cannot be read ({problem[:200]})")
