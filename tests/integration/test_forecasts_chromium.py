"""Forecasts on the report and raw series on the data page, in a real browser without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from needs import CHROMIUM

from clients.heterogeneity.table import measure_clients
from clients.tables.options import TableOptions
from clients.tables.table import table_population
from dashboards.data_page.page import write_data
from dashboards.report.report import write_report
from tests.support.chromium import Chromium, chromium
from tests.support.layout import layout_faults
from tests.support.made_records import make_record

pytestmark = CHROMIUM.mark

CARDS = "[...document.querySelectorAll('.card[id^=card-]')].filter((one) => one.offsetParent).map((one) => one.id)"
NAME = "Hall <i>2</i>"


def option(card: str) -> str:
    return f"echarts.getInstanceByDom(document.querySelector('#card-{card} .chart')).getOption()"


def forecasts(*ranks: str) -> dict[str, Any]:
    """Return forecasts of seven hours of each client; three hours are missing after the fourth."""
    steps = [1000, 1001, 1002, 1003, 1007, 1008, 1009]
    client = {
        "client": 1, "name": NAME, "steps": steps, "hours": [float(step) for step in steps],
        "truth": [10.0 + k for k in range(7)], "forecast": [11.0 + k for k in range(7)], "persistence": [9.0] * 7,
        "windows": [7, 900], "error_in_unit": 31.2, "persistence_error_in_unit": 33.9,
    }  # fmt: skip
    return {
        "quantity": "PM2.5", "unit": "ug/m3", "step_hours": 1.0, "origin": "2013-03-01", "lead": [6, 6], "jump": 1,
        "by_step": [10.0, 20.0], "persistence_by_step": [9.0, 22.0], "of_clients": 12,
        "clients": [client | {"rank": rank} for rank in ranks],
    }  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize(("width", "dark"), [(1440, False), (390, True)])
def test_report_draws_forecasts_against_truth(browser: Chromium, tmp_path: Path, width: int, dark: bool) -> None:
    folder = make_record(tmp_path / "run")
    folder.write_forecasts(forecasts("lowest", "median", "highest"))
    page = browser.open(write_report([folder.path]).as_uri(), width=width, dark=dark)
    page.drawn()
    own = ["card-forecast-lowest", "card-forecast-median", "card-forecast-highest", "card-forecast-lead"]
    assert [card for card in page.evaluate(CARDS) if "forecast" in card] == own
    series = f"{option('forecast-median')}.series.map((one) => [one.name, one.data])"
    lines = dict(page.evaluate(series))
    assert list(lines) == ["truth", "forecast", "persistence"]
    assert lines["truth"] == [
        [1000, 10], [1001, 11], [1002, 12], [1003, 13], [1007, None], [1007, 14], [1008, 15], [1009, 16],
    ]  # fmt: skip
    words = page.evaluate("document.querySelector('#card-forecast-median .help').innerText")
    assert words.startswith(f"{NAME}: forecasts made 6 h ahead, in the first 7 of 900 windows of its test part.")
    assert "Error on its test windows 31.2 ug/m3 (root mean squared), of persistence 33.9 ug/m3." in words
    assert page.evaluate(f"{option('forecast-lead')}.xAxis[0].data") == ["1 h", "2 h"]
    assert page.evaluate("timeWords(1000, '2013-03-01', true)") == "2013-04-11 16:00"
    assert page.evaluate("timeWords(1000, '', true)") == "day 42, 16:00"
    assert page.evaluate("timeWords(1000, '', false)") == "1,000"
    card = "document.querySelector('#card-forecast-median')"
    assert page.evaluate(f"[...{card}.querySelectorAll('.entries button')].map((one) => one.textContent)") == list(
        lines
    )
    assert page.evaluate(f"{card}.querySelector('.axis.up').textContent") == "↑ PM2.5, ug/m3"
    assert page.evaluate(f"{card}.querySelector('.axis.across').textContent") == "time →"
    assert layout_faults(page, 80) == []
    assert page.errors == []
    page.close()


def test_report_of_another_run_has_no_section_of_forecasts(browser: Chromium, tmp_path: Path) -> None:
    plain, one = make_record(tmp_path / "plain"), make_record(tmp_path / "one", seed=8)
    page = browser.open(write_report([plain.path]).as_uri())
    page.drawn()
    assert "FORECASTS" not in page.evaluate("document.body.innerText").upper()
    page.close()
    one.write_forecasts(forecasts("only") | {"by_step": [10.0]})
    page = browser.open(write_report([plain.path, one.path], tmp_path / "both.html").as_uri())
    page.drawn()
    assert [card for card in page.evaluate(CARDS) if "forecast" in card] == ["card-forecast-only"]
    assert page.errors == []
    page.close()


def test_data_page_draws_readings_with_gaps_and_parts(browser: Chromium, tmp_path: Path) -> None:
    cells = ["" if t in (10, 20, 21, 22) else str(2.0 * (t % 9)) for t in range(100)]
    (tmp_path / "two.csv").write_text(f"{NAME},b\n" + "".join(f"{cell},{t % 5}\n" for t, cell in enumerate(cells)))
    population = table_population(
        TableOptions(path=str(tmp_path / "two.csv"), window=4, gaps="interpolate", max_gap=1, unit="kW")
    )
    measures, held = measure_clients(population, seed=0)
    _, file = write_data(tmp_path / "out", population, measures, held, title="two", seed=0)
    page = browser.open(file.as_uri())
    page.drawn()
    assert page.evaluate(CARDS)[0] == "card-series"
    drawn = page.evaluate(f"{option('series')}.series.map((one) => [one.type, one.data.map(([, y]) => y)])")
    (_, readings), (_, missing), (_, filled) = drawn
    assert [k for k, y in enumerate(readings) if y is None] == [20, 21, 22]
    assert [k for k, y in enumerate(missing) if y is not None] == [20, 21, 22]
    assert [k for k, y in enumerate(filled) if y is not None] == [10]
    areas = page.evaluate(f"{option('series')}.series[0].markArea.data.map(([a, b]) => [a.name, a.xAxis, b.xAxis])")
    assert layout_faults(page, 30) == []
    assert areas == [["validation", 70, 80], ["test", 80, 99]]
    legend = "document.querySelector('#card-series .legend').innerText"
    assert page.evaluate(legend).startswith(f"{NAME}: 100 readings, 3 missing (3%), 1 filled")
    pick = "const one = document.querySelector('#card-series select'); one.value = '1'"
    page.evaluate(f"(() => {{ {pick}; one.dispatchEvent(new Event('change')); }})()")
    assert page.evaluate(legend).startswith("b: 100 readings, no gaps")
    page.resize(390)
    page.wait(
        "[...document.querySelectorAll('[_echarts_instance_]')].every((one) => one.clientWidth < 360 &&"
        " echarts.getInstanceByDom(one).getWidth() === one.clientWidth)"
    )
    browser.settle(0.3)
    assert layout_faults(page, 30) == []
    assert page.errors == []
    page.close()
