"""Make the README's pictures from a real run of the default scenario: `make picture`.

docs/run.svg: what the terminal prints. docs/report.png: the top of the report, docs/surface.png: the error surface, in
headless Chromium (left as they are where that is not installed). `tests/integration/test_documented_numbers.py`
compares the picture of the terminal with a run.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from simulator.cli.console import ConsoleObserver
from simulator.cli.looking import say_report
from simulator.runs.run import simulate
from simulator.scenario.sections import Scenario, load_scenario
from simulator.surface.measuring import surface
from tests.support.chromium import PROGRAM, chromium

HERE = Path(__file__).resolve().parent
NAME = "digits-label-skew-1121-0714-7f3a"
COLUMNS = 112
THREADS = ("engine.threads=1",)
"""With one thread, a run does not depend on the number of cores."""
NIGHT = TerminalTheme(
    (21, 25, 32), (214, 219, 228),
    [(30, 35, 44), (255, 122, 133), (76, 195, 138), (240, 178, 77), (123, 164, 255), (238, 130, 189), (79, 198, 216),
     (214, 219, 228)],
    [(92, 101, 117), (255, 122, 133), (76, 195, 138), (240, 178, 77), (123, 164, 255), (238, 130, 189), (79, 198, 216),
     (255, 255, 255)],
)  # fmt: skip


class Wrapping(Console):
    """A terminal that records its text, and folds long lines at words."""

    def print(self, *objects: Any, **how: Any) -> None:
        """Print as ever, but never beyond the edge."""
        super().print(*objects, **(how | {"soft_wrap": False}))


def terminal(scenario: Scenario, path: Path) -> Console:
    """Run a scenario into a folder, and return the terminal with all that a run prints."""
    screen = Wrapping(file=io.StringIO(), record=True, width=COLUMNS, force_terminal=True, color_system="truecolor",
                      highlight=False, markup=False, emoji=False, legacy_windows=False)  # fmt: skip
    screen.print(Text.assemble(("$ ", "dim"), "fedscape run"))
    observer = ConsoleObserver(io.StringIO(), live=True, clock=lambda: -1.0)  # nothing is due until the end
    observer._console = screen
    observer.progress = lambda facts: None  # type: ignore  # the picture shows the end
    observer._draw = lambda now: screen.print(observer._fitted(observer._line, now))  # type: ignore
    simulate(scenario, out=path, observers=[observer])
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        say_report(path)
    # the empty line at the end: the edge would cut the descenders of the last one
    screen.print(printed.getvalue().rstrip() + "\n")
    return screen


def main() -> None:
    """Run, and write both pictures."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        path = Path("runs") / NAME
        screen = terminal(load_scenario(sets=THREADS), path)
        text = screen.export_svg(title="fedscape", theme=NIGHT, code_format=_offline(CONSOLE_SVG_FORMAT))
        (HERE / "run.svg").write_text(text, "utf-8")
        if PROGRAM is None:
            print("chromium is not installed: docs/report.png and docs/surface.png stay as they are", file=sys.stderr)
            return
        with chromium() as browser:
            page = browser.open((path / "report.html").resolve().as_uri(), width=1180)
            page.drawn()
            end = page.evaluate(
                "document.getElementById('card-distance').getBoundingClientRect().bottom + scrollY + 16"
            )
            page.picture(HERE / "report.png", height=int(end))
        picture_of_surface(path)


def picture_of_surface(path: Path) -> None:
    """Measure the error surface of a run, and write the picture of its card in the report."""
    report = surface(path, round=5).write()
    with chromium() as browser:
        page = browser.open(report.resolve().as_uri(), width=1180)
        page.drawn()
        page.evaluate("document.querySelector('main').replaceChildren(document.getElementById('card-surface'))")
        end = page.evaluate("document.getElementById('card-surface').getBoundingClientRect().bottom + scrollY + 16")
        page.picture(HERE / "surface.png", height=int(end))


def _offline(template: str) -> str:
    """Return rich's template without the fonts it would fetch."""
    plain = re.sub(r"@font-face \{\{.*?\}\}", "", template, flags=re.DOTALL)
    return plain.replace("Fira Code, monospace", "'Fira Code', 'SF Mono', 'Cascadia Mono', Menlo, Consolas, monospace")


if __name__ == "__main__":
    main()
