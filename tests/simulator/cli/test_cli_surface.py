"""`fedscape surface`: what it prints and writes, and mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from run_folders import Capture, digits, mistake

import fedscape as fs
from clients.core.errors import UserError
from dashboards.report.run_data import read_run
from dashboards.report.run_view import run_view
from server.record.recorder import sole_writer
from simulator.cli.main import main
from simulator.runs.record import open_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("surface") / "run"
    fs.simulate(digits("run.rounds=4", "run.keep_parameters_every=1"), out=out)
    return out


def test_command_writes_the_surface_and_the_report(run: Path, capsys: Capture) -> None:
    before = {
        p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name not in ("surface.json", "report.html")
    }
    arguments = ["--plane", "0,2,last", "--size", "5", "--of", "validation", "--line", "first,last", "--hessian", "2"]
    assert main(["surface", str(run), *arguments]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("validation over 25 models of the states plane, on 180 examples: from ")
    assert out[1].startswith("the plane holds ")
    assert out[2].startswith("round 0 to round 4: loss from ")
    assert out[3].startswith("largest eigenvalues in round 0: ")
    assert out[-1] == f"report: {run / 'report.html'}"
    assert {p: p.read_bytes() for p in before} == before
    view = run_view(read_run(run))["surface"]
    assert view["picture"]["name"] == "validation loss"
    assert view["picture"]["states"]["names"] == ["round 0", "round 2", "round 4"]
    assert view["line"]["ends"] == ["round 0", "round 4"]
    assert view["curvature"]["rounds"] == [0, 4]
    assert '"surface":{"picture":{' in (run / "report.html").read_text("utf-8")
    assert open_run(run).problems == ()


def test_command_names_mistakes(run: Path, capsys: Capture) -> None:
    assert mistake(capsys, "surface", str(run), "--plane", "0,2").startswith("plane: must be 3 states in a list, got 2")
    assert mistake(capsys, "surface", str(run), "--of", "losses").startswith("of: 'losses' is not a loss.")
    assert mistake(capsys, "surface", str(run), "--line", "0,runs/nowhere").startswith("runs/nowhere: ")
    assert "nowhere" in mistake(capsys, "surface", str(run.parent / "nowhere"))


def test_surface_of_a_run_that_goes_on_is_not_written(run: Path) -> None:
    found = fs.surface(run, size=3)
    with sole_writer(run), pytest.raises(UserError, match="is still running"):
        found.write()


def test_archive_has_all_arrays(run: Path, tmp_path: Path) -> None:
    found = fs.surface(run, size=4, line=(0, 4))
    with np.load(found.to_npz(tmp_path / "a" / "surface.npz")) as arrays:
        np.testing.assert_array_equal(arrays["loss"], found.loss)
        np.testing.assert_array_equal(arrays["axes"], found.directions.axes.numpy())
        assert found.ends is not None
        np.testing.assert_array_equal(arrays["ends_places"], found.ends.places)
        assert found.line is not None
        np.testing.assert_array_equal(arrays["line_loss"], found.line.loss)
        assert "states_places" not in arrays
    with pytest.raises(UserError, match=r"file: must end in \.npz, got 'surface\.txt'"):
        found.to_npz(tmp_path / "surface.txt")


def test_surface_says_what_it_is(run: Path) -> None:
    found = fs.surface(run, size=3)
    assert repr(found) == f"<Surface of {run}: path plane, 3 x 3, objective>"
