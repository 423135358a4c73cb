"""Reads data frames in HDF5 in pandas' "fixed" format, the published form of METR-LA and PEMS-BAY.

A frame is a group: `axis0` holds the column names, `axis1` the index (times since 1970, the unit in its attribute
`kind`), and for every type of number i `block<i>_items` has the names of its columns and `block<i>_values` their values
[rows, columns].
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from clients.core.arrays import F64
from clients.core.errors import DataError

TIME = "time"
"""Name of the column of times."""


def read_hdf5(file: Path) -> Any:
    """Read the one data frame of a file.

    Args:
        file: an HDF5 file.

    Returns:
        A `pyarrow.Table`: the column `TIME` where the index is of times, then the frame's columns as float64.

    Raises:
        DataError: h5py is not installed, or the file is cut short, holds no frame or several, or its shapes do not fit.
    """
    try:
        h5py: Any = importlib.import_module("h5py")
    except ImportError as error:
        fix = "Install it with pip install 'fedscape[hdf5]', or save the table as CSV or Parquet."
        raise DataError("path", f"{file} needs the package h5py to be read, which is not installed", fix=fix) from error
    try:
        with h5py.File(file, "r") as archive:
            return _table(file, _frame(file, archive))
    except (OSError, KeyError, RuntimeError) as error:
        raise DataError("path", f"{file} cannot be read ({error})", fix="Is the download complete?") from error


def _frame(file: Path, archive: Any) -> Any:
    """Return the group that holds the frame."""
    groups: list[Any] = []
    names: list[str] = []

    def visit(name: str, item: Any) -> None:
        names.append(name)
        if hasattr(item, "keys") and {"axis0", "axis1", "block0_values"} <= set(item.keys()):
            groups.append(item)

    archive.visititems(visit)
    if len(groups) != 1:
        held = ", ".join(names[:8]) or "nothing"
        found = f"{len(groups)} data frames" if groups else "no data frame in pandas' fixed format"
        raise DataError("path", f"{file} holds {found}, and must hold one; it holds {held}")
    return groups[0]


def _table(file: Path, group: Any) -> Any:
    import pyarrow as pa

    index = np.asarray(group["axis1"])
    columns: dict[str, Any] = {}
    kind = _text(group["axis1"].attrs.get("kind", "integer"))
    if kind.startswith("datetime64"):
        unit = kind[len("datetime64") :].strip("[]").split(",")[0] or "ns"
        columns[TIME] = pa.array(index.astype(np.int64).view(f"M8[{unit}]").astype("M8[us]"))
    blocks: dict[str, F64] = {}
    for i in range(sum(name.endswith("_values") for name in group)):
        names = [_text(name) for name in np.asarray(group[f"block{i}_items"])]
        values = np.asarray(group[f"block{i}_values"])
        if values.dtype.kind not in "iufb":
            raise DataError("path", f"{file}: the columns {', '.join(names[:4])} hold {values.dtype}, not numbers")
        if values.shape != (len(index), len(names)):
            problem = f"{file}: block{i}_values has shape {values.shape}, and there are {len(index)} rows"
            raise DataError("path", f"{problem} and {len(names)} columns", fix="Fetch it again.")
        blocks.update(zip(names, values.astype(np.float64).T, strict=True))
    for name in map(_text, np.asarray(group["axis0"])):
        if name not in blocks:
            raise DataError("path", f"{file}: no block holds the column {name!r}", fix="Fetch it again.")
        # A missing value is null, as in the other formats.
        columns[name] = pa.array(blocks[name], from_pandas=True)
    return pa.table(columns)


def _text(name: Any) -> str:
    """Return a name or an attribute as text: they are bytes, text or numbers."""
    return name.decode("utf-8") if isinstance(name, bytes) else str(name)
