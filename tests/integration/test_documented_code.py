"""The Python of README and the pages that promise runnable code runs, block after block."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGES = (
    *("README.md", "docs/extending.md", "docs/from-python.md"),
    *("docs/studies.md", "docs/tuning.md", "docs/branching.md", "docs/drift-by-cause.md", "docs/surface.md"),
    *("docs/explaining.md", "docs/lessons.md"),
)


@pytest.mark.parametrize("page", PAGES)
def test_python_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page share their names, as for a reader who types them one after another."""
    path = ROOT / page
    if not path.is_file():
        pytest.skip("docs/ is not installed beside the package")
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    text = path.read_text("utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    assert blocks
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        line = text[: block.start(1)].count("\n")
        exec(compile("\n" * line + block[1], str(path), "exec", dont_inherit=True), names)
    torch.set_num_threads(threads)
