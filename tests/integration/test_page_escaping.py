"""Names that are markup: each page shows them as text, in words, charts and tooltips, and runs no script of theirs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needs import CHROMIUM

from clients.core.population import Population
from clients.heterogeneity.table import measure_clients
from dashboards.data_page.page import write_data
from dashboards.report.report import write_report
from dashboards.watch.server import WatchServer
from tests.support.chromium import Chromium, Page, chromium
from tests.support.made_records import make_record, rewrite
from tests.support.small_city import small_city

pytestmark = CHROMIUM.mark

EVIL = """<img src=x onerror="document.documentElement.dataset.hacked=1">'\\&quot;{b}{a|c}"""
"""Markup that runs a script, quotes, an entity, and templates of ECharts."""
NAMED = ("fedavg", "stuck", "seasons", "0.weight", "district 0", "district 1", "made up", "made-up", "plateau",
         "softmax", "fault stuck began: 8 clients", "1 of 30 clients failed: <i>out of memory</i>")  # fmt: skip
"""Names and messages of a made record that are replaced."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as found:
        yield found


def evil_record(path: Path, population_of: Callable[..., Population]) -> Path:
    """Write a record with markup in place of every name and message."""
    population = population_of(range(5, 17), outputs=3)
    population = replace(population, federation=replace(population.federation, client_name=lambda k: f"{EVIL} {k}"))
    words = {"words": EVIL, "headline": EVIL, "reasons": [EVIL], "hint": EVIL}
    folder = make_record(path, clients=12, rounds=12, city=True, partition=population, outcome=words)
    for file in (folder.rounds, folder.environment, folder.events):
        rewrite(file, with_markup)
    own = {"notices": [EVIL], "title": EVIL, "data_facts": {"classes": f"{EVIL} 0, {EVIL} 1, {EVIL} 2"}}
    rewrite(folder.environment, lambda facts: facts | {"run": facts["run"] | own})
    return folder.path


def with_markup(value: Any) -> Any:
    """Return a value of JSON in which every name of `NAMED` has markup."""
    text = json.dumps(value)
    for name in NAMED:
        text = text.replace(json.dumps(name), json.dumps(f"{name} {EVIL}"))
    return json.loads(text)


def hover(page: Page) -> list[str]:
    """Show the tooltip of every chart and grid, and return their texts."""
    return list(
        page.evaluate("""(async () => {
      const found = [], pause = () => new Promise((done) => setTimeout(done, 30));
      for (const holder of document.querySelectorAll("[_echarts_instance_]")) {
        if (!holder.checkVisibility()) continue;
        const chart = echarts.getInstanceByDom(holder);
        for (let row = 0; row < 3; row += 1) {
          chart.dispatchAction({ type: "showTip", seriesIndex: 0, dataIndex: row });
          chart.dispatchAction({ type: "showTip", x: holder.clientWidth / 2, y: holder.clientHeight / 2 });
          await pause();
          found.push(...[...holder.querySelectorAll(".tips")].map((one) => one.innerText));
        }
      }
      for (const canvas of document.querySelectorAll(".grid canvas")) {
        const box = canvas.getBoundingClientRect();
        for (const x of [0.5, 0.9]) for (const y of [0.1, 0.5]) {
          const at = { clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true };
          canvas.dispatchEvent(new PointerEvent("pointermove", at));
          found.push(canvas.parentElement.querySelector(".tip").innerText);
        }
      }
      return found;
    })()""")
    )


def check(page: Page, *places: str) -> None:
    """Assert that no script ran, that no element was made of a name, and that the elements at `places` show it."""
    page.drawn()
    tips = "\n".join(hover(page))
    assert EVIL in tips.replace("\n", " ")
    for place in places:
        shown = page.evaluate(
            f"[...document.querySelectorAll({json.dumps(place)})].map((one) => one.textContent).join(' ')"
        )
        assert EVIL in shown, place
    assert page.evaluate("document.documentElement.dataset.hacked ?? null") is None
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    assert page.errors == []


def test_report_shows_markup_in_names_as_text(
    browser: Chromium, tmp_path: Path, population_of: Callable[..., Population]
) -> None:
    file = write_report([evil_record(tmp_path / EVIL, population_of)])
    page = browser.open(file.as_uri())
    page.drawn()
    assert page.evaluate("document.title").startswith("<img src=x")
    check(page, "h1", "#verdict", "#reasons", ".hint", ".facts", "#notices", "#events", "#card-layers .entries",
          "#card-faults .entries", "#card-faults .notes", "#card-distance .entries")  # fmt: skip
    words = page.evaluate(
        "[...document.querySelectorAll('canvas')].flatMap((one) => one.texts || []).map((t) => t.words)"
    )
    assert sum(word.startswith("<img") for word in words) >= 12
    page.close()


def test_comparison_shows_markup_in_names_as_text(
    browser: Chromium, tmp_path: Path, population_of: Callable[..., Population]
) -> None:
    runs = [evil_record(tmp_path / f"{k} {EVIL}", population_of) for k in "ab"]
    text = runs[1] / "scenario.toml"
    text.write_text(text.read_text("utf-8").replace('"fedavg"', f"'''x{EVIL}'''"), "utf-8")
    page = browser.open(write_report(runs, tmp_path / "both.html").as_uri())
    check(page, "#verdicts", "#reached", ".pairs h3", ".key", "#events", "summary")
    page.close()


def test_watch_shows_markup_in_names_as_text(
    browser: Chromium, tmp_path: Path, population_of: Callable[..., Population]
) -> None:
    evil_record(tmp_path / EVIL, population_of)
    with WatchServer(tmp_path, 0) as server:
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            page = browser.open(server.url)
            page.wait("document.documentElement?.dataset.round")
            check(page, "#runs td:nth-child(6)", "[aria-label=scenario] option", "h1", "#verdict")
            assert page.evaluate("document.querySelector('#runs button').textContent") == EVIL
            page.close()
        finally:
            server.stop()
            thread.join()


def test_data_page_shows_markup_in_names_as_text(browser: Chromium, tmp_path: Path) -> None:
    city = small_city()
    federation = replace(
        city.federation, client_name=lambda k: f"{EVIL} {k}", districts=(EVIL, f"{EVIL} 2"), notices=(EVIL,),
        record={EVIL: EVIL},
    )  # fmt: skip
    population = replace(city, federation=federation)
    _, file = write_data(tmp_path, population, *measure_clients(population, seed=0), title=EVIL, seed=0)
    page = browser.open(file.as_uri())
    page.drawn()
    page.evaluate("""(() => { const one = document.querySelector('#card-map select'); one.value = 'district';
        one.dispatchEvent(new Event('change')); })()""")
    check(page, "h1", ".facts", "#notices", "#reached", "#card-map .legend")
    bars = "echarts.getInstanceByDom(document.querySelector('#card-sizes .chart')).getOption().yAxis[0].data"
    assert np.all([name.startswith(EVIL) for name in page.evaluate(bars)])
    page.close()
