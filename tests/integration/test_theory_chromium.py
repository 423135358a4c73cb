"""Probes on the report, in a real browser without a network, dark and light."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_probes import FAILURE, REMARK, made_probe, write_probes
from needs import CHROMIUM

from dashboards.report.report import write_report
from server.record.jsonlines import RoundWriter
from server.record.records import RunFolder
from tests.support.chromium import Chromium, Page, chromium
from tests.support.layout import layout_faults
from tests.support.made_records import line_of, make_record

pytestmark = CHROMIUM.mark

SHOWN = "[...document.querySelectorAll('[data-section=Theory] .card')].filter((one) => one.offsetParent)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as found:
        yield found


def made(path: Path, *probes: dict[str, Any]) -> RunFolder:
    """Write the record of a run with an optimality gap, and its probes."""
    folder = make_record(path, rounds=0)
    folder.rounds.unlink()
    writer = RoundWriter(folder.rounds)
    for r in range(13):
        writer.append(line_of(r, np.arange(30)) | {"optimality_gap": 2.0 * 0.8**r})
    writer.close()
    if probes:
        write_probes(folder, *probes)
    return folder


def opened(browser: Chromium, file: Path, **how: Any) -> Page:
    page = browser.open(file.as_uri(), **how)
    page.drawn()
    return page


def option(page: Page, card: str, what: str) -> Any:
    return page.evaluate(f"echarts.getInstanceByDom(document.querySelector('#card-{card} .chart')).getOption().{what}")


@pytest.mark.parametrize(("width", "dark"), [(1440, False), (1440, True), (390, True), (390, False)])
def test_report_draws_what_probes_found(browser: Chromium, tmp_path: Path, width: int, dark: bool) -> None:
    folder = made(tmp_path / "run", made_probe(3), made_probe(9, predicts=False, scale=0.5))
    page = opened(browser, write_report([folder.path]), width=width, dark=dark)
    assert page.evaluate(f"{SHOWN}.map((one) => one.id)") == [
        "card-predicted-optimality_gap", "card-local-rate", "card-causes", "probes"
    ]  # fmt: skip
    lines = page.evaluate(
        "[...document.querySelectorAll('#card-predicted-optimality_gap .entries button')].map((one) => one.innerText)"
    )
    assert lines == ["optimality gap", "predicted from round 3"]
    assert layout_faults(page, 40) == []
    assert page.errors == []
    page.close()


def test_predicted_course_is_drawn_with_its_band_beside_the_measured_one(browser: Chromium, tmp_path: Path) -> None:
    page = opened(browser, write_report([made(tmp_path / "run", made_probe(3)).path]))
    series = option(page, "predicted-optimality_gap", "series.map((one) => [one.name, one.data])")
    assert [name for name, _ in series] == ["optimality gap", *["predicted from round 3"] * 3]  # a band is two lines
    measured, low, height, line = (dict(map(tuple, data)) for _, data in series)
    assert list(measured) == list(range(13))
    assert list(line) == list(low) == list(height) == list(range(3, 13))
    log = page.evaluate("document.querySelector('#card-predicted-optimality_gap button[title]').ariaPressed") == "true"
    value = (lambda x: 10.0**x) if log else float
    assert value(line[3]) == pytest.approx(2.0 * 0.8**3, rel=1e-4)
    assert value(line[12]) == pytest.approx(1.024 * 0.9**18 + 0.02 * (1 - 0.9**18), rel=1e-4)
    assert value(low[12] + height[12]) == pytest.approx(1.024 * 0.95**18 + 0.04 * (1 - 0.5**18), rel=1e-4)
    page.close()


def test_limit_is_a_line_beside_the_local_rate(browser: Chromium, tmp_path: Path) -> None:
    page = opened(browser, write_report([made(tmp_path / "run", made_probe(3)).path]), dark=True)
    assert option(page, "local-rate", "series.map((one) => [one.name, one.data])") == [
        ["local rate", [[3, 0.05]]], ["limit 2 / L", [[3, 0.2]]], ["limit of the steepest client", [[3, 0.1]]],
    ]  # fmt: skip
    assert option(page, "local-rate", "series[0].markLine.data.map((one) => one.yAxis)") == [0.2]
    page.close()


def test_causes_are_stacked_bars_and_words_have_totals_and_warnings(browser: Chromium, tmp_path: Path) -> None:
    folder = made(tmp_path / "run", made_probe(3), made_probe(9, predicts=False, scale=0.5))
    page = opened(browser, write_report([folder.path]))
    bars = option(page, "causes", "series.map((one) => [one.name, one.stack, one.data])")
    assert bars == [
        ["local steps", "causes", [4, 2]], ["heterogeneity", "causes", [3, 1.5]], ["gradient noise", "causes", [2, 1]],
        ["client sampling", "causes", [1, 0.5]], ["residual", "causes", [-2, -1]],
    ]  # fmt: skip
    assert option(page, "causes", "xAxis[0].data") == ["3", "9"]
    inks = option(page, "causes", "series.map((one) => one.itemStyle.color)")
    assert len(set(inks)) == 5
    words = page.evaluate("document.getElementById('probes').innerText")
    assert "expected squared error 8 ± 0.1 of the ideal's squared norm" in words
    assert "expected squared error 4 ± 0.1" in words
    assert words.count(REMARK) == 1
    warning = page.evaluate("[...document.querySelectorAll('#probes .warning')].map((one) => one.textContent)")
    assert warning == [f"No prediction: {FAILURE}"]  # as text, not as markup
    page.close()


def test_report_without_probes_has_no_theory(browser: Chromium, tmp_path: Path) -> None:
    page = opened(browser, write_report([made(tmp_path / "run").path]))
    assert page.evaluate(f"{SHOWN}.length") == 0
    assert page.evaluate("document.querySelector('[data-section=Theory]').hidden")
    page.close()


def test_page_of_several_runs_shows_the_probes_of_those_that_have_them(browser: Chromium, tmp_path: Path) -> None:
    plain, one = made(tmp_path / "plain"), made(tmp_path / "one", made_probe(3))
    page = opened(browser, write_report([plain.path, one.path], tmp_path / "both.html"))
    shown = page.evaluate(f"{SHOWN}.map((one) => one.id)")
    assert {"card-causes", "probes", "card-local-rate"} <= set(shown)
    assert page.errors == []
    page.close()
