"""The notebook of lessons runs from its first cell to its last."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[3] / "docs" / "lessons.ipynb"


def test_notebook_of_lessons_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its cells share their names, as in a kernel; they are plain Python."""
    if not NOTEBOOK.is_file():
        pytest.skip("docs/ is not installed beside the package")
    monkeypatch.chdir(tmp_path)
    cells = [c for c in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
    assert cells
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in cells:
        assert cell["outputs"] == [], "the notebook is kept without outputs"
        exec(compile("".join(cell["source"]), f"{NOTEBOOK}:{cell['id']}", "exec", dont_inherit=True), names)
    printed = capsys.readouterr().out
    assert "What theory says" in printed
    assert "['The factors are" not in printed
    assert "Above 2/L it grows." in printed
    assert sorted(path.name for path in (tmp_path / "lessons").iterdir()) == [
        "client-drift", "learning-rate", "learning-rate-2", "local-minimum-and-saddle", "local-minimum-and-saddle-2",
    ]  # fmt: skip
