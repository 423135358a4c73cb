"""The error surface on the report: what the page draws, and files that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_records import make_record
from made_surfaces import FOREIGN, made_surface

from dashboards.report.report import write_report
from dashboards.report.run_data import read_run
from dashboards.report.run_view import run_view, share_out
from dashboards.report.surface.view import TOO_MANY
from server.record.records import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_record(tmp_path / "run", rounds=3)


def test_surface_is_drawn_with_its_path_ends_and_words(folder: RunFolder) -> None:
    folder.write_surface(made_surface())
    view = run_view(read_run(folder.path))["surface"]
    picture = view["picture"]
    assert (picture["low"], picture["high"], picture["log"]) == (pytest.approx(0.1), pytest.approx(8.1), True)
    assert picture["loss"][4] == [4.1, 2.35, 1.1, 0.35, 0.1, 0.35, 1.1, 2.35, 4.1]
    assert picture["loss"][-1][-1] is None
    assert len(picture["levels"]) == 12
    assert picture["levels"] == sorted(picture["levels"])
    assert picture["server"]["x"] == [-1.5, -1.0, -0.5, 0.0]
    assert picture["ends"]["names"] == [FOREIGN, "1"]
    assert picture["ends"]["loss"] == [0.4, None]
    assert picture["states"] is None
    assert picture["words"].startswith(
        "Objective over the principal plane of the server's path, through its last state, on 1,000 of 50,000 "
        "examples of round 3. The plane holds 98.8% of the variance of the path."
    )
    assert picture["words"].endswith("all models are measured on these.")
    assert view["line"]["words"] == (
        "Objective of the models between round 0 and the best model. It rises 2.5 above the straight line between the "
        "ends: a barrier."
    )
    assert view["curvature"] == {"rounds": [0, 3], "values": [[9.0, 8.0], [2.0, 2.0]]}


def test_line_without_a_barrier_says_so(folder: RunFolder) -> None:
    surface = made_surface()
    surface["line"] |= {"loss": [3.0, 1.5, 1.0], "barrier": 0.0}
    folder.write_surface(surface)
    words = run_view(read_run(folder.path))["surface"]["line"]["words"]
    assert words.endswith("There is no barrier: it nowhere rises above the straight line between the ends.")


def test_loss_below_zero_has_a_linear_scale(folder: RunFolder) -> None:
    surface = made_surface()
    surface["loss"] = [[value - 5 if value is not None else None for value in row] for row in surface["loss"]]
    folder.write_surface(surface)
    picture = run_view(read_run(folder.path))["surface"]["picture"]
    assert picture["log"] is False
    steps = [b - a for a, b in zip(picture["levels"], picture["levels"][1:], strict=False)]
    assert max(steps) == pytest.approx(min(steps), abs=1e-3)


def test_run_without_a_surface_has_none(folder: RunFolder) -> None:
    assert run_view(read_run(folder.path))["surface"] is None


def test_page_of_many_runs_leaves_surfaces_out(folder: RunFolder) -> None:
    folder.write_surface(made_surface())
    view = run_view(read_run(folder.path), share_out(20))
    assert view["surface"]["picture"] is None
    assert TOO_MANY in view["notes"]


def test_parts_that_do_not_fit_together_are_left_out(folder: RunFolder) -> None:
    surface = made_surface()
    surface["x"] = surface["x"][:-1]
    surface["line"]["t"] = [0.0, 1.0]
    folder.write_surface(surface)
    view = run_view(read_run(folder.path))["surface"]
    assert view["picture"] is None
    assert view["line"] is None
    assert view["curvature"] is not None
    surface = made_surface()
    surface["ends"]["away"] = [0.1]
    folder.write_surface(surface)
    assert run_view(read_run(folder.path))["surface"]["picture"]["ends"] is None


@pytest.mark.parametrize("change", [{"loss": 3}, {"x": "many"}, {"server": {}}, {"curvature": [{"round": -1}]}])
def test_damaged_surface_is_named_and_left_out(change: dict[str, object], folder: RunFolder) -> None:
    (folder.path / "surface.json").write_text(json.dumps(made_surface() | change))
    view = run_view(read_run(folder.path))
    assert view["surface"] is None
    assert any(note.startswith("surface.json: is damaged") for note in view["notes"])
    write_report([folder.path])


def test_surface_of_a_run_that_goes_on_is_removed(folder: RunFolder) -> None:
    folder.write_surface(made_surface())
    folder.truncate(2)
    assert folder.read_surface() is None
