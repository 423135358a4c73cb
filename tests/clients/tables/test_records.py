"""Cells and lines of any CSV equal those of the csv module."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from clients.tables.files import read_frame
from clients.tables.text.dialect import Dialect

CELLS = st.text(st.sampled_from(["a", "7", ";", ",", '"', "\n", " ", "#", "é", "N", "A"]), max_size=5)
ROWS = st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=8)


def by_definition(text: str, delimiter: str, comment: str) -> list[tuple[int, list[str]]]:
    """The line and the cells of every record, one record after the other."""
    records: list[tuple[int, list[str]]] = []
    pending: list[str] = []
    begun = 0
    for number, line in enumerate(io.StringIO(text, newline="\n"), 1):
        if not pending:
            if line.startswith(comment) or not line.strip(" \r\n"):
                continue
            begun = number
        pending.append(line)
        if "".join(pending).count('"') % 2 == 0:
            (cells,) = csv.reader(io.StringIO("".join(pending), newline=""), delimiter=delimiter)
            records.append((begun, cells))
            pending = []
    return records


@settings(max_examples=150, deadline=None)
@given(
    rows=ROWS,
    between=st.lists(st.sampled_from(["", "#x, y;", "  "]), min_size=9, max_size=9),
    style=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    end=st.sampled_from(["\n", "\r\n"]),
    delimiter=st.sampled_from([",", ";"]),
    preamble=st.integers(0, 2),
)
def test_cells_and_lines_equal_the_definition(
    rows: list[list[str]], between: list[str], style: int, end: str, delimiter: str, preamble: int
) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=style, lineterminator=end)  # type: ignore[arg-type]
    out.write(('a "preamble' + end) * preamble)
    for row, extra in zip([["x", "y"], *rows], between, strict=False):
        out.write(extra + end if extra else "")
        if row[0].startswith("#") or not row[0].strip():
            row[0] = "b" + row[0]  # csv.writer does not quote what would be a comment or an empty line
        writer.writerow(row)
    text = out.getvalue()
    known = by_definition(text[len(('a "preamble' + end) * preamble) :], delimiter, "#")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        path.write_bytes(text.encode())
        frame = read_frame(path, Dialect(delimiter=delimiter, comment="#", skip_rows=preamble, encoding="utf-8"))
    assert frame.names == ["x", "y"]
    assert [frame.place(i).rsplit(" ", 1)[1] for i in range(frame.table.num_rows)] == [
        str(line + preamble) for line, _ in known[1:]
    ]
    for column, name in enumerate(frame.names):
        cells = [t if t is not None else "" for t in frame.table.column(name).to_pylist()]
        assert cells == [row[column] for _, row in known[1:]]
