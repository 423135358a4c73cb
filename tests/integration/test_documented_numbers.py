"""The numbers of the README's picture and of the pages are those that a run prints.

Words must be equal. Numbers may differ a little, because last bits differ between machines. The engine and one thread
are fixed, so on one machine they are equal.
"""

from __future__ import annotations

import html
import re
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from simulator.scenario.sections import load_scenario

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FIXED = ("engine.kind=stacked", "engine.threads=1", "engine.workers=1")
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?!\w)")
BY_THE_MACHINE = (r"engine [^\n]*", r"[\d,]+ clients/s", r"runs/\S+", r"[━╸╺─]+")
"""What a run prints of the machine and its clock."""

pytestmark = pytest.mark.skipif(not (DOCS / "picture.py").is_file(), reason="docs/ is not installed beside the package")


def picture_module() -> ModuleType:
    spec = spec_from_file_location("picture", DOCS / "picture.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain(text: str) -> str:
    """Return text in one line without what depends on the machine."""
    for pattern in BY_THE_MACHINE:
        text = re.sub(pattern, " ", text)
    return " ".join(text.split())


def picture_text() -> str:
    """Return the text of docs/run.svg, line by line."""
    lines: dict[int, list[tuple[float, str]]] = {}
    pattern = r'<text [^>]*?x="([\d.]+)"[^>]*?clip-path="url\(#[\w-]+-line-(\d+)\)"[^>]*>(.*?)</text>'
    for x, line, words in re.findall(pattern, (DOCS / "run.svg").read_text("utf-8")):
        lines.setdefault(int(line), []).append((float(x), html.unescape(words).replace("\xa0", " ")))
    return "\n".join("".join(words for _, words in sorted(lines[line])) for line in sorted(lines))


@cache
def printed(name: str, *sets: str) -> str:
    """Return what a run prints, with the engine fixed."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        scenario = load_scenario(name, sets=(*FIXED, *sets))
        text: str = picture_module().terminal(scenario, Path(folder) / "run").export_text()
    return re.sub(r"(?<=record|report) +/\S+", "", text)


def masked(text: str) -> tuple[str, list[float]]:
    return NUMBER.sub("#", text), [float(one.replace(",", "")) for one in NUMBER.findall(text)]


def agree(shown: str, found: str) -> bool:
    """Return whether two texts have the same words, and numbers that differ by a tenth at most."""
    (words, numbers), (others, values) = masked(shown), masked(found)
    return words == others and all(
        abs(a - b) <= 0.02 + 0.1 * max(abs(a), abs(b)) for a, b in zip(numbers, values, strict=True)
    )


def without_worst(text: str) -> str:
    """Return text without the names of the clients that drift most: last bits decide between near ones."""
    return re.sub(r"\(clients most often among [^()]*(?:\([^()]*\)[^()]*)*\)", "", text)


def blocks(page: str) -> list[str]:
    """Return the text between fences, whatever its language."""
    return re.findall(r"^```\w*\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)


def holds(block: str, text: str) -> list[str]:
    """Return the lines of a block that a run does not print."""
    starts = re.split(r"\n(?=  \S|\S)", text.replace("\n    ", " "))
    lines = [plain(without_worst(line)) for line in starts]
    wanted = [plain(without_worst(line)) for line in block.splitlines()]
    return [line for line in wanted if line and not any(agree(line, one) for one in lines)]


def test_picture_shows_what_a_run_prints() -> None:
    shown, found = (without_worst(plain(text)) for text in (picture_text(), printed("digits-label-skew")))
    assert masked(shown)[0] == masked(found)[0]
    assert agree(shown, found)
    assert "Converged at round " in shown


def test_pages_show_the_run_of_the_picture() -> None:
    shown = plain(picture_text())
    for page in ("docs/tutorial.md", "docs/convergence.md"):
        block = next(block for block in blocks(page) if block.startswith("Converged at round"))
        assert plain(block) in shown, page
    headline = re.search(r"Converged at round \d+", shown)
    assert headline is not None
    for page in ("README.md", "docs/tutorial.md"):
        for words in re.findall(r"Converged at round \d+|ends at round \d+", (ROOT / page).read_text("utf-8")):
            assert words.split()[-1] == headline[0].split()[-1], (page, words)


@pytest.mark.parametrize(
    ("start", "name", "sets"),
    [
        ("  test accuracy   0.9", "digits-iid", ()),
        ("  to target       26", "digits-label-skew", ("algorithm.kind=scaffold",)),
        ("Diverged at round", "digits-diverges", ()),
    ],
)
def test_tutorial_shows_what_its_runs_print(start: str, name: str, sets: tuple[str, ...]) -> None:
    block = next(block for block in blocks("docs/tutorial.md") if block.startswith(start))
    assert holds(block, printed(name, *sets)) == []


def test_numbers_and_words_that_differ_are_found() -> None:
    assert agree("Converged at round 301, loss 0.167", "Converged at round 299, loss 0.168")
    assert not agree("Converged at round 301", "Converged at round 250")
    assert not agree("Converged at round 301", "converged at round 301")
    assert holds("  rate   0.99 a round\n  gone  1\n", "x\n  rate   0.98 a round\n") == ["gone 1"]
