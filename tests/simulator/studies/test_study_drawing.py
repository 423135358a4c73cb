"""When a study's page is drawn, and that the process which draws it needs no torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clients.core.errors import UserError
from simulator.studies.conducting import Conductor, Quiet
from simulator.studies.drawing import PageDrawing
from simulator.studies.reading import Changes
from simulator.studies.study import prepare

LONG = 1e9


def conductor(out: Path, *, arms: int, every: float, stops: Callable[[], bool] = lambda: False) -> Conductor:
    """Return the conductor of a study of a quadratic, whose page is drawn every so many seconds while it is played."""
    factors = {"local.local_lr": [0.1 / (arm + 1) for arm in range(arms)]}
    changes = Changes(3, {"run.rounds": 30}, factors, None, {"measure": "optimality_gap"}, None, None)
    made = prepare("quadratic-two-clients", changes, out=out, processes=1, shard=None)
    drawing = PageDrawing(made.folder, every)
    return Conductor(made.plan, made.folder, Quiet(), stops, drawing)


def test_page_exists_before_the_study_has_ended(tmp_path: Path) -> None:
    """A kill leaves it. The study is stopped once it has its page, so without one all of its runs would be played."""
    page = tmp_path / "out" / "study.html"
    study = conductor(tmp_path / "out", arms=2, every=0.0, stops=page.is_file)
    assert not study.conduct(1, (1, 1))
    assert 1 <= sum(row["state"] == "done" for row in study.rows.values()) < 6
    assert b"local_lr 0.05" in page.read_bytes()


def test_processor_without_runs_has_the_page_drawn_once(tmp_path: Path) -> None:
    study = conductor(tmp_path / "out", arms=1, every=LONG)
    study.conduct(1, (1, 1))
    drawing = PageDrawing(study.folder, LONG)
    drawing.draw(spare=False)
    assert drawing.is_due(spare=True)
    drawing.draw(spare=True)
    assert not drawing.is_due(spare=True)


def test_drawing_that_fails_while_runs_are_played_is_tried_again_at_the_end(tmp_path: Path) -> None:
    study = conductor(tmp_path / "out", arms=1, every=LONG)
    study.write()
    (tmp_path / "out" / "study.html").write_text("mine")
    drawing = PageDrawing(study.folder, LONG)
    drawing.draw()
    with pytest.raises(UserError, match="is no page of fedscape's"):
        drawing.finish()
    assert (tmp_path / "out" / "study.html").read_text() == "mine"


def test_process_of_a_study_imports_no_torch_from_start_to_page(tmp_path: Path) -> None:
    """torch takes more than a second to import, for which the end of a study would wait."""
    code = (
        "import sys\nfrom simulator.tuning.tuned_study import study\n"
        f"study('quadratic-two-clients', seeds=1, out={str(tmp_path / 'out')!r}, processes=1)\n"
        "print([name for name in ('torch', 'flwr') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "out" / "study.html").is_file()
