"""Writes the list in docs/lessons.md from the table of lessons: `python -m simulator.lessons.page`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from simulator.lessons.table import LESSONS

PAGE = Path(__file__).parents[2] / "docs" / "lessons.md"
START, END = "<!-- lessons: written by python -m simulator.lessons.page -->", "<!-- end of lessons -->"


def page(text: str) -> str:
    """Return the page's text with the list between its two marks.

    Args:
        text: the page as it is.
    """
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n\n" + "\n".join(_list()) + f"\n{END}{after}"


def _list() -> Iterator[str]:
    for group, rows in groupby(LESSONS.values(), key=lambda row: row.group):
        yield f"### {group}\n\n| lesson | question | arms | claims |\n|---|---|---|---|"
        for row in rows:
            claims = " ".join(claim.words for claim in row.claims)
            cells = (f"`{row.name}`", row.question, "; ".join(row.arms), claims)
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        yield ""


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
