"""The error surface on the report, in a real browser without a network, dark and light."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_surfaces import FOREIGN, made_surface
from needs import CHROMIUM

from dashboards.report.report import write_report
from tests.support.chromium import Chromium, Page, chromium
from tests.support.layout import layout_faults
from tests.support.made_records import make_record

pytestmark = CHROMIUM.mark

CARD = "document.querySelector('#card-surface')"
CANVAS = f"{CARD}.querySelector('.grid canvas')"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as found:
        yield found


PLOT = (
    f"const c = {CANVAS}, {{ picture }} = JSON.parse(document.getElementById('data').textContent).runs[0].surface;"
    "const placeOf = ([x, y]) => [c.plot.x + partOf(picture.x, x) * c.plot.width,"
    " c.plot.y + (1 - partOf(picture.y, y)) * c.plot.height];"
)
"""A script that names the canvas, the data of the picture, and the pixels of a place of the plane."""


def pixels(page: Page, *places: tuple[float, float]) -> list[list[int]]:
    """Return the colours of the plot at places of the plane, read at once: Chromium warns of several readings."""
    read = "const all = c.getContext('2d').getImageData(0, 0, c.width, c.height);"
    at = "Math.round(y * devicePixelRatio) * c.width + Math.round(x * devicePixelRatio)"
    pick = f".map(placeOf).map(([x, y]) => 4 * ({at})).map((k) => [...all.data.slice(k, k + 3)])"
    found: list[list[int]] = page.evaluate(f"(() => {{ {PLOT} {read} return {[list(p) for p in places]}{pick}; }})()")
    return found


def tip(page: Page, x: float, y: float) -> list[str]:
    """Return the lines of the tooltip at a place of the plane."""
    move = "{clientX: box.left + px, clientY: box.top + py}"
    send = f"const box = c.getBoundingClientRect(); c.dispatchEvent(new PointerEvent('pointermove', {move}));"
    page.evaluate(f"(() => {{ {PLOT} const [px, py] = placeOf([{x}, {y}]); {send} }})()")
    lines: list[str] = page.evaluate(f"[...{CARD}.querySelectorAll('.tip div')].map((one) => one.textContent)")
    return lines


@pytest.mark.parametrize(("width", "dark"), [(1440, False), (1440, True), (390, True), (390, False)])
def test_report_draws_the_surface(browser: Chromium, tmp_path: Path, width: int, dark: bool) -> None:
    folder = make_record(tmp_path / "run", rounds=3)
    folder.write_surface(made_surface(41))
    page = browser.open(write_report([folder.path]).as_uri(), width=width, dark=dark)
    page.drawn()
    assert page.evaluate(f"{CARD}.closest('[data-section]').querySelector('h2').textContent") == "Error surface"
    low, high, bad = pixels(page, (0.13, 0.0), (-2.0, 1.0), (2.0, 1.0))
    assert high == pytest.approx([253, 231, 37], abs=15)  # the largest loss
    assert low == pytest.approx([107, 70, 168] if dark else [68, 1, 84], abs=40)
    assert bad == pytest.approx(page.evaluate("channels(colour('bad'))"), abs=45)  # the place that is not finite
    assert tip(page, 1.0, 0.5)[0] == "objective 2.1"
    assert tip(page, 1.0, 0.5)[1] == "at 1 and 0.5"
    assert tip(page, -1.0, 0.5) == ["server, round 1", "objective 2.1", "0.2 off the plane"]
    assert tip(page, 0.5, 0.1) == [f"client {FOREIGN}, end of round 3", "objective 0.4", "0.3 off the plane"]
    assert tip(page, -0.75, -0.75) == ["client 1, end of round 3", "objective –", "0.4 off the plane"]
    assert tip(page, 2.0, 1.0)[0] == "not a finite number"
    legend = page.evaluate(f"{CARD}.querySelector('.legend').innerText")
    for words in (
        "8.1 objective, logarithmic scale",
        "server's path",
        "ends of clients in round 3",
        "not a finite number",
    ):
        assert words in legend.replace("\n", " ")
    assert layout_faults(page, 40) == []
    assert page.errors == []
    page.close()


def test_contours_cross_where_the_loss_has_their_level(browser: Chromium, tmp_path: Path) -> None:
    folder = make_record(tmp_path / "run", rounds=3)
    folder.write_surface(made_surface(41))
    page = browser.open(write_report([folder.path]).as_uri())
    page.drawn()
    found: list[Any] = page.evaluate(
        "contourOf(JSON.parse(document.getElementById('data').textContent).runs[0].surface.picture.loss, 1.1).flat()"
    )
    assert len(found) > 40
    for column, row in found:  # 0.1 + x^2 + 4 y^2 = 1.1 is an ellipse
        x, y = -2 + column / 10, -1 + row / 20
        assert 0.1 + x * x + 4 * y * y == pytest.approx(1.1, abs=0.02)
    assert page.evaluate("contourOf([[0, 2], [2, 0]], 1)") == [
        [[0.5, 0], [0, 0.5]],
        [[1, 0.5], [0.5, 1]],
    ]
    page.close()


def test_line_and_eigenvalues_are_charts(browser: Chromium, tmp_path: Path) -> None:
    folder = make_record(tmp_path / "run", rounds=3)
    folder.write_surface(made_surface())
    page = browser.open(write_report([folder.path]).as_uri(), dark=True)
    page.drawn()

    def lines(card: str) -> dict[str, Any]:
        chart = f"echarts.getInstanceByDom(document.querySelector('#card-{card} .chart')).getOption()"
        return dict(page.evaluate(f"{chart}.series.map((one) => [one.name, one.data])"))

    straight = [[0, 3], [0.5, 2], [1, 1]]
    assert lines("surface-line") == {
        "objective": [[0, 3], [0.5, 4.5], [1, 1]],
        "straight line between the ends": straight,
    }
    assert lines("surface-curvature") == {"largest": [[0, 9], [3, 8]], "second": [[0, 2], [3, 2]]}
    assert page.errors == []
    page.close()


def test_changing_the_theme_draws_the_surface_again(browser: Chromium, tmp_path: Path) -> None:
    folder = make_record(tmp_path / "run", rounds=3)
    folder.write_surface(made_surface())
    page = browser.open(write_report([folder.path]).as_uri(), dark=False)
    page.drawn()
    before = pixels(page, (0.25, -0.05))
    page.evaluate("document.querySelector('[aria-label=\"dark or light\"]').click()")
    assert pixels(page, (0.25, -0.05)) != before
    page.close()


def test_page_of_several_runs_shows_the_surface_of_the_one_that_has_it(browser: Chromium, tmp_path: Path) -> None:
    plain, one = make_record(tmp_path / "plain"), make_record(tmp_path / "one", seed=8)
    page = browser.open(write_report([plain.path]).as_uri())
    page.drawn()
    assert page.evaluate(f"{CARD}.hidden")
    page.close()
    one.write_surface(made_surface())
    page = browser.open(write_report([plain.path, one.path], tmp_path / "both.html").as_uri())
    page.drawn()
    assert not page.evaluate(f"{CARD}.hidden")
    assert page.errors == []
    page.close()
