"""Client rows are kept by reference, written in complete parts, read back, and trimmed on resume."""

from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from clients.core.errors import RunFolderError
from server.record.client_table import ClientTable, read_clients


def filled(folder: Path, rounds: range) -> ClientTable:
    table = ClientTable(folder)
    for index in rounds:
        table.add(index, {"client": np.array([index, 100 + index]), "train_loss": np.array([0.5, -0.25]) * index})
    return table


def names(folder: Path) -> list[str]:
    return sorted(part.name for part in folder.iterdir() if part.name != "_parts.jsonl")


def test_added_rows_are_read_back_in_order(tmp_path: Path) -> None:
    table = filled(tmp_path, range(1, 4))
    assert read_clients(tmp_path).num_rows == 0
    table.flush()
    table.flush()
    filled(tmp_path, range(4, 6)).flush()
    assert names(tmp_path) == ["part-00000001-00000003.parquet", "part-00000004-00000005.parquet"]
    read = read_clients(tmp_path)
    assert read.equals(parquet.read_table(tmp_path)), "any reader of Parquet folders sees the same rows"
    assert read["round"].to_pylist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert read["client"].to_pylist() == [1, 101, 2, 102, 3, 103, 4, 104, 5, 105]
    assert read["train_loss"].to_pylist()[-2:] == [2.5, -1.25]


def test_columns_may_differ_between_rounds(tmp_path: Path) -> None:
    table = ClientTable(tmp_path)
    table.add(1, {"client": np.array([1, 2]), "cosine": np.array([np.nan, 0.5], np.float32)})
    table.add(2, {"client": np.array([3]), "name": np.array(["Tiantan"]), "local_steps": np.array([7], np.int32)})
    table.add(3, {"client": np.array([4]), "name": np.array(["Gucheng é"], object), "local_steps": np.array([8])})
    table.flush()
    table.add(4, {"client": np.array([], np.int64)})
    table.add(5, {"client": np.array([5]), "weight": np.array([0.5])})
    table.flush()
    table.add(6, {"client": np.array([6]), "weight": np.array([np.nan])})
    table.flush()
    read = read_clients(tmp_path)
    assert read.column_names == ["round", "client", "cosine", "name", "local_steps", "weight"]
    cosine = read["cosine"].to_pylist()
    assert np.isnan(cosine[0])  # measured as nan, which differs from not measured
    assert cosine[1:] == [0.5, None, None, None, None]
    assert read["name"].to_pylist() == [None, None, "Tiantan", "Gucheng é", None, None]
    assert read["local_steps"].to_pylist() == [None, None, 7, 8, None, None]
    *weights, last = read["weight"].to_pylist()
    assert weights == [None] * 4 + [0.5]
    assert np.isnan(last)


def test_add_keeps_its_own_mapping(tmp_path: Path) -> None:
    table, columns = ClientTable(tmp_path), {"client": np.array([1])}
    table.add(1, columns)
    columns["client"] = np.array([2])
    table.flush()
    assert read_clients(tmp_path)["client"].to_pylist() == [1]


def test_many_rows_are_written_before_a_flush(tmp_path: Path) -> None:
    table = ClientTable(tmp_path, max_rows=5)
    for index in range(1, 6):
        table.add(index, {"client": np.arange(2)})
    assert names(tmp_path) == ["part-00000001-00000003.parquet"]
    table.flush()
    assert read_clients(tmp_path)["round"].to_pylist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_rows_must_fit_and_rounds_come_in_order(tmp_path: Path) -> None:
    table = filled(tmp_path, range(3, 4))
    with pytest.raises(AssertionError, match="one value for each client"):
        table.add(4, {"client": np.arange(2), "weight": np.ones(3)})
    with pytest.raises(AssertionError, match="in order"):
        table.add(3, {"client": np.arange(2)})


@pytest.mark.parametrize("last_round", range(8))
def test_truncate_drops_exactly_the_later_rounds(tmp_path: Path, last_round: int) -> None:
    filled(tmp_path, range(1, 4)).flush()
    table = filled(tmp_path, range(4, 7))
    table.flush()
    table.add(7, {"client": np.arange(2)})
    (tmp_path / ".part-00000007-00000009.parquet.tmp").write_bytes(b"killed")
    table.truncate(last_round)
    table.truncate(last_round)
    kept = [index for index in range(1, 8) for _ in range(2) if index <= last_round]
    assert read_clients(tmp_path)["round"].to_pylist() == [index for index in kept if index < 7]
    assert not list(tmp_path.glob(".*"))
    table.add(last_round + 1, {"client": np.arange(2)})
    table.flush()
    assert read_clients(tmp_path)["round"].to_pylist() == [*kept, last_round + 1, last_round + 1]


def test_interrupted_truncate_counts_no_row_twice(tmp_path: Path) -> None:
    filled(tmp_path, range(1, 4)).flush()
    whole = (tmp_path / "part-00000001-00000003.parquet").read_bytes()
    ClientTable(tmp_path).truncate(2)
    (tmp_path / "part-00000001-00000003.parquet").write_bytes(whole)  # as after a kill before its removal
    assert read_clients(tmp_path)["round"].to_pylist() == [1, 1, 2, 2, 3, 3]
    ClientTable(tmp_path).truncate(2)
    assert names(tmp_path) == ["part-00000001-00000002.parquet"]


def test_damaged_part_is_named(tmp_path: Path) -> None:
    filled(tmp_path, range(1, 4)).flush()
    part = tmp_path / "part-00000001-00000003.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(RunFolderError, match=r"part-00000001-00000003\.parquet: is damaged"):
        read_clients(tmp_path)
    part.rename(tmp_path / "part-one.parquet")
    with pytest.raises(RunFolderError, match="is not named part-<first round>"):
        read_clients(tmp_path)


def test_impossible_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot be written"):
        ClientTable(tmp_path / "file" / "clients")


def test_rows_stay_when_a_part_cannot_be_written(tmp_path: Path) -> None:
    table = filled(tmp_path / "clients", range(1, 3))
    (tmp_path / "clients").rmdir()
    with pytest.raises(RunFolderError, match="cannot be written: No such file"):
        table.flush()
    (tmp_path / "clients").mkdir()
    table.flush()
    assert read_clients(tmp_path / "clients").num_rows == 4
