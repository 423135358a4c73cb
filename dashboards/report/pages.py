"""What every page of ours consists of: one HTML file with its data, styles and scripts, which loads nothing.

It reads no run, so a study's process draws its page without torch.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

MARK = " · fedscape</title>".encode()
"""The end of the title of every page."""
CHARTS = (
    "base.js", "frames.js", "charts.js", "options.js", "bars.js", "grids.js", "forecasts.js", "surfaces.js",
    "theory.js", "cards.js", "words.js",
)  # fmt: skip
SCRIPTS = (*CHARTS, "page.js")
DRAWING = ("echarts/echarts.common.min.js", *SCRIPTS)
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def page_of(title: str, data: str, scripts: Sequence[str], policy: str, words: str = "") -> str:
    """Return a page that contains its styles and scripts.

    Args:
        title: the browser's title.
        data: markup with the data that the scripts read.
        scripts: files in `assets`, in order; they share one scope.
        policy: what the page may load.
        words: markup for readers without JavaScript.
    """
    code = "\n".join(asset(name) for name in scripts[1:])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{html.escape(title)}</title>\n<script>{asset('theme.js')}</script>\n<style>{asset('report.css')}</style>\n"
        '</head>\n<body>\n<main id="page"></main>\n'
        f"<noscript>{words}<p>The charts need JavaScript.</p></noscript>\n{data}"
        f'<script>{asset(scripts[0])}</script>\n<script>"use strict";\n{code}</script>\n</body>\n</html>\n'
    )


def inline_json(value: Any) -> str:
    r"""Return JSON that is safe inside a script element, whatever its strings contain.

    Example:
        >>> inline_json({"title": "</script><b>"})
        '{"title":"\\u003c/script>\\u003cb>"}'
    """
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:  # a damaged record may have nan where no run writes it
        text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    """Return a value with None in place of numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


@cache
def asset(name: str) -> str:
    """Return a file of `dashboards/assets` as text."""
    return files("dashboards").joinpath("assets", name).read_text("utf-8")
