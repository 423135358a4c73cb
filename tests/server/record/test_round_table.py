"""Rounds as columns."""

import sys

import numpy as np
import pytest
from needs import PANDAS

from clients.core.errors import UserError
from server.record.round_table import RoundTable

LINES = [
    {"round": 0, "validation_loss": 2.5, "note": "initial"},
    {"round": 1, "validation_loss": None, "client_drift": {"mean": 0.5, "by_layer": {"0.weight": 1}}, "measured": True},
    {"round": 2, "validation_loss": 1.0, "client_drift": {"mean": -0.25}, "worst": [3, 4], "measured": False},
]


def test_column_has_one_value_a_round_and_nan_where_missing() -> None:
    table = RoundTable(LINES)
    assert len(table) == 3
    np.testing.assert_array_equal(table["validation_loss"], [2.5, np.nan, 1.0])
    np.testing.assert_array_equal(table["client_drift.mean"], [np.nan, 0.5, -0.25])
    np.testing.assert_array_equal(table["client_drift.by_layer.0.weight"], [np.nan, 1.0, np.nan])
    np.testing.assert_array_equal(table["measured"], [np.nan, 1.0, 0.0])
    assert table["round"].dtype == np.int64
    assert table["note"].tolist() == ["initial", None, None]
    assert table["worst"].tolist() == [None, None, [3, 4]]


def test_columns_are_in_order_of_appearance() -> None:
    table = RoundTable(LINES)
    assert list(table) == table.columns
    assert table.columns[:4] == ["round", "validation_loss", "note", "client_drift.mean"]
    assert "measured" in table
    assert "client_drift" not in table
    assert len(RoundTable([])) == len(RoundTable([]).columns) == 0


def test_misspelt_column_names_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"'client_drift\.men' is not in any round of this run. Nearest: 'client_drift\.mean'"
    ):
        RoundTable(LINES)["client_drift.men"]


def test_to_pandas_without_pandas_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"pandas: is not installed in this environment\. Install pandas"):
        RoundTable(LINES).to_pandas()


@PANDAS.mark
def test_to_pandas_has_every_column() -> None:
    frame = RoundTable(LINES).to_pandas()
    assert list(frame["round"]) == [0, 1, 2]
    assert frame["client_drift.mean"].iloc[2] == -0.25
