"""Client rows as arrays, and the verdict of a run that is read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from needs import PANDAS
from run_folders import digits, stop_after

import fedscape as fs
from clients.core.errors import RunFolderError, UserError
from server.record.client_rows import ClientRows
from server.record.client_table import ClientTable


def table(folder: Path) -> ClientRows:
    written = ClientTable(folder)
    written.add(1, {"client": np.array([4, 7]), "steps": np.array([3, 5]), "loss": np.array([0.5, np.nan])})
    written.flush()
    written.add(2, {"client": np.array([7]), "steps": np.array([6]), "name": np.array(["site 7"])})
    written.flush()
    return ClientRows.read(folder)


def test_columns_cover_all_parts_with_nan_where_missing(tmp_path: Path) -> None:
    rows = table(tmp_path)
    assert len(rows) == 3
    assert list(rows) == rows.columns == ["round", "client", "steps", "loss", "name"]
    assert rows["round"].tolist() == [1, 1, 2]
    assert rows["client"].tolist() == [4, 7, 7]
    assert rows["steps"].dtype == rows["round"].dtype == np.int64
    np.testing.assert_array_equal(rows["loss"], [0.5, np.nan, np.nan])
    assert rows["name"].tolist() == [None, None, "site 7"]


def test_rows_select_by_round_by_client_and_by_both(tmp_path: Path) -> None:
    rows = table(tmp_path)
    assert rows.where(client=7)["steps"].tolist() == [5, 6]
    assert rows.where(round=1)["steps"].tolist() == [3, 5]
    assert rows.where(round=2, client=7)["steps"].tolist() == [6]
    assert len(rows.where(client=5)) == 0
    assert rows.where(client=0)["steps"].dtype == np.int64


def test_misspelt_column_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"column: 'los' is not a column of this run's clients. Nearest: 'loss'"):
        table(tmp_path)["los"]
    assert "los" not in table(tmp_path)


def test_to_pandas_needs_pandas(tmp_path: Path) -> None:
    if PANDAS.met:
        assert table(tmp_path).to_pandas()["steps"].tolist() == [3, 5, 6]
        return
    with pytest.raises(UserError, match="pandas: is not installed"):
        table(tmp_path).to_pandas()


def test_record_read_back_has_the_verdict_and_the_rows_of_the_run(tmp_path: Path) -> None:
    run = fs.simulate(digits(), out=tmp_path / "run")
    record = fs.open_run(tmp_path / "run")
    assert record.verdict == run.verdict
    assert str(record.verdict) == str(run.verdict) == "Stopped at round 8: the budget of 8 rounds is spent"
    rows = record.clients
    assert len(rows) == 8 * 4
    for r, line in enumerate(run.rounds.lines[1:], start=1):
        of_round = rows.where(round=r)
        assert of_round["client_drift"].mean() == pytest.approx(line["client_drift"]["mean"], rel=1e-12)
        weighted = np.average(of_round["train_loss"], weights=of_round["num_examples"])
        assert weighted == pytest.approx(line["train_loss"], rel=1e-6)
    np.testing.assert_array_equal(run.clients["update_norm"], rows["update_norm"])


def test_diverged_run_read_back_is_diverged(tmp_path: Path) -> None:
    run = fs.simulate("digits-diverges", out=tmp_path / "run")
    record = fs.open_run(tmp_path / "run")
    assert record.verdict == run.verdict
    assert record.verdict is not None
    assert record.verdict.outcome == "diverged"
    assert record.verdict.quantity
    assert record.verdict.hint


def test_unfinished_run_has_no_verdict(tmp_path: Path) -> None:
    fs.simulate(digits(), out=tmp_path / "run", stop_asked=stop_after(3))
    verdict = fs.open_run(tmp_path / "run").verdict
    assert verdict is not None
    assert verdict.outcome == "interrupted"
    (tmp_path / "run" / "outcome.json").unlink()  # as a kill leaves it
    assert fs.open_run(tmp_path / "run").verdict is None
    (tmp_path / "run" / "outcome.json").write_text("{}")
    with pytest.raises(RunFolderError, match="lacks 'outcome'"):
        _ = fs.open_run(tmp_path / "run").verdict


def test_empty_record_has_no_clients() -> None:
    run = fs.simulate("quadratic-two-clients", record=False)
    with pytest.raises(RunFolderError, match="record: is False"):
        _ = run.clients
