"""Finds the files of tables, without a library that reads them: a scenario's files are also identified."""

from __future__ import annotations

from pathlib import Path

from clients.core.errors import DataError
from clients.core.file_paths import FoundFiles, find_files

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
PARQUET_SUFFIXES = (".parquet", ".pq")
TEXT_SUFFIXES = tuple(
    f"{s}{packed}" for s in (".txt", ".dat", ".data", ".asc", ".tab") for packed in ("", ".gz", ".xz")
)
"""Further endings of text files. A path or a pattern may end in them; a folder's files of them are often notes."""
SUFFIXES = (".csv", ".csv.gz", ".csv.xz", ".tsv", ".tsv.gz", ".tsv.xz", *PARQUET_SUFFIXES, *HDF5_SUFFIXES)


def find_tables(path: str) -> FoundFiles:
    """Return the files of tables at a path: a file, a folder or a pattern.

    Raises:
        DataError: there are none, or one has an ending that is none of a table's.
    """
    found = find_files(path, "path", SUFFIXES)
    typed = next((s for s in (*TEXT_SUFFIXES, ".zip", ".xls", ".xlsx") if path.lower().endswith(s)), "")
    known = (*SUFFIXES, typed) if typed else SUFFIXES  # reading an archive says what it is
    if other := [file for file in found.files if not file.name.lower().endswith(known)]:
        fix = "If it is text in columns, let its name end in .csv, or in .txt and path too."
        raise DataError("path", f"{other[0]} is not one of {', '.join(SUFFIXES)}", fix=fix)
    return found


def leaf_paths(path: str) -> tuple[list[Path], list[Path] | None]:
    """Return the files to train on, and those of the published test set; None without one.

    Raises:
        DataError: there are none.
    """
    train = Path(path).expanduser() / "train"
    if not train.is_dir():
        return find_files(path, "path", (".json",)).files, None
    test = train.parent / "test"
    trained = find_files(str(train), "path", (".json",)).files
    return trained, find_files(str(test), "path", (".json",)).files if test.is_dir() else None
