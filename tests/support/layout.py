"""What a page shows of its text, found in a browser: boxes that overlap, are cut off or have too little contrast.

Text is that of HTML, of ECharts' canvases (read from its display list) and of the canvases of `grids.js`, which keep
the boxes of their labels.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.chromium import Page

LEAST_CONTRAST = 4.5
"""WCAG 2's ratio for text of normal size."""

FAULTS = Path(__file__).with_suffix(".js").read_text("utf-8").replace("LEAST", str(LEAST_CONTRAST))


def layout_faults(page: Page, least_texts: int = 1) -> list[str]:
    """Return sentences on texts of a page that overlap, are cut off, or are too faint.

    Args:
        page: the page, drawn.
        least_texts: the number of texts that must be found, so that a page that shows nothing does not pass.
    """
    found = page.evaluate(FAULTS)
    few = [f"only {found['texts']} texts were found"] if found["texts"] < least_texts else []
    return [*few, *found["faults"]]
