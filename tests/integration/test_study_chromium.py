"""The page of a study in a real browser without a network: 200 runs are drawn, in every look, without a fault."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needs import CHROMIUM

from dashboards.study.page import write_study_page
from tests.support.chromium import Chromium, Page, chromium
from tests.support.layout import layout_faults
from tests.support.made_studies import Row, made_facts, made_rows, without_numbers, write_study

pytestmark = CHROMIUM.mark

DRAWN = "(one) => one.type === 'line' && one.lineStyle.width > 0"
"""A line of a chart, not the edge of a band."""
LOOKS = [(width, dark) for width in (1440, 390) for dark in (False, True)]
CARDS = "[...document.querySelectorAll('.card[id^=card-]')].filter((one) => one.offsetParent)"
SHOWN = f"{CARDS}.map((one) => one.id.slice(5))"
EVERY = {
    "ranking", "differences", "reached-target", "curve-validation_loss", "curve-validation_accuracy",
    "curve-train_loss", "curve-client_drift-mean", "tradeoff", "interaction", "lanes",
}  # fmt: skip
EVIL = """<img src=x onerror="document.documentElement.dataset.hacked=1">'\\&quot;{b}{a|c}"""
TUNED = {
    "name": "fedavg", "measure": "validation_loss", "better": "lower", "seeds": [7], "best": {"local.local_lr": 0.1},
    "value": 0.2, "at_least": False, "untuned": None, "within": 0.05, "as_good": 3, "notes": [],
    "flatness": [{"key": "local.local_lr", "best": 0.1, "low": 0.1, "high": 0.3, "choices": [], "at_edge": False,
                  "importance": None}],
    "trials": [{"number": k, "state": "complete", "value": 0.2 + 0.1 * abs(k - 5), "at_least": k == 0,
                "values": {"local.local_lr": float(10 ** (-2 + k / 5)), "algorithm.kind": "fedavg"}}
               for k in range(10)],
}  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a study with 200 runs, of which some failed, diverged, were stopped, or are to come."""
    rows = made_rows(rates=(0.01, 0.02, 0.05, 0.1, 0.2))
    rows[3], rows[4] = (without_numbers(row, "failed", "MemoryError: the machine is full") for row in rows[3:5])
    rows[25]["state"] = "diverged"
    rows = [
        without_numbers(r, "stopped", "it was worse") if r["arm"].endswith("0.01") and r["seed"] > 4 else r
        for r in rows
    ]
    rows[-1] = without_numbers(rows[-1], "planned")
    facts = made_facts(rows, stopped={rows[0]["arm"]: "it was worse"}, early={"kind": "racing"})
    tuning = {"sentences": ["Each arm was tuned with 10 trials."], "arms": {"fedavg": TUNED}}
    path = tmp_path_factory.mktemp("studies") / "many"
    return write_study_page(write_study(path, rows, facts, tuning=tuning, reports=True))


@contextmanager
def opened(browser: Chromium, file: Path, width: int = 1440, dark: bool = False) -> Iterator[Page]:
    page = browser.open(file.as_uri(), width=width, height=900 if width > 600 else 844, dark=dark)
    page.drawn()
    yield page
    assert page.errors == []
    assert page.requests == [file.as_uri()]
    page.close()


def chart(card: str) -> str:
    """Return the JavaScript expression for a card's chart."""
    return f"echarts.getInstanceByDom(document.querySelector('#card-{card} .chart')).getOption()"


def test_two_hundred_runs_are_drawn_without_a_network(browser: Chromium, many: Path) -> None:
    assert many.stat().st_size < 5_000_000
    with opened(browser, many) as page:
        assert set(page.evaluate(SHOWN)) == {*EVERY, "tuning"}
        assert page.evaluate("document.querySelectorAll('#runs tbody tr').length") == 200
        assert page.evaluate("document.querySelectorAll('#card-lanes polyline').length") == 200 - 2 - 20 - 1
        assert page.evaluate("document.getElementById('verdict').innerText").startswith(
            "fednova, local_lr 0.2 is first of 20"
        )
        notices = page.evaluate("document.getElementById('notices').innerText")
        for words in ("199 of 200 runs have ended", "2 runs failed", "1 run diverged", "was stopped early (racing)"):
            assert words in notices
        assert page.evaluate(f"{chart('ranking')}.yAxis[0].data.length") == 20
        words = page.evaluate("document.body.innerText")
        assert "What tuning found for fedavg" in words
        assert "Each arm was tuned with 10 trials." in words


@pytest.mark.parametrize(("width", "dark"), LOOKS)
def test_page_has_no_layout_fault(width: int, dark: bool, browser: Chromium, many: Path) -> None:
    with opened(browser, many, width, dark) as page:
        assert page.evaluate("document.documentElement.dataset.theme") == ("dark" if dark else "light")
        assert layout_faults(page, 300) == []
        bare = f"""{CARDS}.filter((card) => [".up", ".across"].some((side) =>
            ![...card.querySelectorAll(".axis" + side)].some((one) => one.innerText.trim()))).map((card) => card.id)"""
        assert page.evaluate(bare) == []


def test_every_chart_has_words_for_readers_who_do_not_see_it(browser: Chromium, many: Path) -> None:
    with opened(browser, many) as page:
        told = (
            "[...document.querySelectorAll('.card .chart [aria-label], .card .chart[aria-label], .card svg[role=img]')]"
        )
        words = page.evaluate(f"{told}.map((one) => one.getAttribute('aria-label'))")
        assert len(words) == len(EVERY) + 1
        assert all(len(one) > 20 for one in words)


def test_axes_change_curves_and_the_share_that_reached_the_target(browser: Chromium, many: Path) -> None:
    with opened(browser, many) as page:
        before = page.evaluate(f"{chart('reached-target')}.xAxis[0].max")
        page.evaluate("[...document.querySelectorAll('.bar button')].find((b) => b.innerText === 'Data sent').click()")
        page.drawn()
        assert page.evaluate(f"{chart('reached-target')}.xAxis[0].max") > 1000 * before
        assert page.evaluate(f"{chart('curve-validation_loss')}.xAxis[0].max") == 2 * 38_480 * 40  # of scaffold


def test_key_hides_and_shows_arms_in_every_chart(browser: Chromium, tmp_path: Path) -> None:
    rows = made_rows(("fedavg", "scaffold"), (0.05,), 4, misses=False)
    with opened(browser, write_study_page(write_study(tmp_path / "s", rows, made_facts(rows)))) as page:
        assert set(page.evaluate(SHOWN)) == EVERY - {"interaction"}
        lines = f"{chart('curve-validation_loss')}.series.filter({DRAWN}).map((one) => one.name)"
        assert page.evaluate(lines) == ["fedavg", "scaffold"]
        assert page.evaluate(f"{chart('curve-validation_loss')}.series.length") == 6  # two bands of two edges
        page.evaluate("document.querySelector('[data-section=Curves] .key button').focus()")
        page.evaluate("document.activeElement.click()")
        assert page.evaluate(lines) == ["scaffold"]
        assert page.evaluate("document.activeElement.innerText") == "fedavg"  # the focus stays
        assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "false"
        assert page.evaluate(f"{chart('reached-target')}.series.filter({DRAWN}).length") == 1
        page.evaluate("document.activeElement.click()")
        assert page.evaluate(lines) == ["fedavg", "scaffold"]


def test_charts_have_the_numbers_of_the_table(browser: Chromium, tmp_path: Path) -> None:
    rows = made_rows(("fedavg", "scaffold"), (0.05,), 5, misses=False)
    needed = {kind: [row["rounds_to_target"] for row in rows if row["arm"] == kind] for kind in ("fedavg", "scaffold")}
    with opened(browser, write_study_page(write_study(tmp_path / "s", rows, made_facts(rows)))) as page:
        names = page.evaluate(f"{chart('ranking')}.yAxis[0].data")
        points = page.evaluate(f"{chart('ranking')}.series.at(-1).data.map((one) => one.value[0])")
        assert dict(zip(names, points, strict=True)) == {k: pytest.approx(np.mean(v)) for k, v in needed.items()}
        dots = page.evaluate(f"{chart('ranking')}.series[0].data.map((one) => one.value[0])")
        assert sorted(dots) == sorted(needed["fedavg"] + needed["scaffold"])
        steps = page.evaluate(
            f"{chart('reached-target')}.series.filter({DRAWN}).find((one) => one.name === 'fedavg').data"
        )
        assert [x for x, _ in steps][1:] == sorted(set(needed["fedavg"]))
        assert steps[-1][1] == 1
        pick = "document.querySelector('#card-ranking select')"
        page.evaluate(f"(() => {{ {pick}.value = 'test_accuracy'; {pick}.dispatchEvent(new Event('change')); }})()")
        means = page.evaluate(f"{chart('ranking')}.series.at(-1).data.map((one) => one.value[0])")
        assert means == sorted(means, reverse=True)


def test_table_of_runs_is_searched_sorted_and_linked(browser: Chromium, many: Path) -> None:
    with opened(browser, many) as page:
        seen = "[...document.querySelectorAll('#runs tbody tr')].filter((row) => !row.hidden)"
        headings = "[...document.querySelectorAll('#runs th button')]"
        column = f"{headings}.map((one) => one.innerText).indexOf('rounds to the target')"
        heading = f"{headings}[{column}]"
        values = f"{seen}.map((row) => row.cells[{column}].innerText)"
        page.evaluate(f"{heading}.click()")
        up = [float(v) for v in page.evaluate(values) if v[0].isdigit()]
        assert up == sorted(up)
        page.evaluate(f"{heading}.click()")
        assert page.evaluate("document.querySelector('[aria-sort]').getAttribute('aria-sort')") == "descending"
        assert page.evaluate(values)[-1] == "–"  # what is missing stays last
        page.evaluate(
            "(() => { const one = document.querySelector('[type=search]'); one.value = 'scaffold failed';"
            "one.dispatchEvent(new Event('input')); })()"
        )
        assert page.evaluate(f"{seen}.length") == 0
        assert page.evaluate("document.querySelector('.filters').innerText") == "0 of 200 runs"
        page.evaluate(
            "(() => { const one = document.querySelector('[type=search]'); one.value = 'scaffold 0.05 seed 3';"
            "one.dispatchEvent(new Event('input')); })()"
        )
        assert page.evaluate(f"{seen}.length") == 1
        href = page.evaluate(f"{seen}[0].querySelector('a').getAttribute('href')")
        assert (many.parent / href).is_file()


def test_markup_in_names_is_shown_as_text(browser: Chromium, tmp_path: Path) -> None:
    rows: list[Row] = []
    for row in made_rows(("a", "b"), (0.1, 0.2), 3):
        renamed = {"arm": f"{row['arm']} {EVIL}", "algorithm.kind": f"{row['algorithm.kind']} {EVIL}", "verdict": EVIL}
        rows.append({**row, **renamed, f"x.{EVIL}": row["algorithm.kind"]})
    rows[0] = {**rows[0], "state": "failed"}
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    shared = [{"arms": arms[:2], "parts": {EVIL: True}}]
    tuning = {"sentences": [EVIL], "arms": {EVIL: {**TUNED, "notes": [EVIL], "best": {EVIL: EVIL}}}}
    facts: dict[str, Any] = made_facts(rows, title=EVIL, shared=shared, notes=[EVIL])
    file = write_study_page(write_study(tmp_path / "evil", rows, facts, tuning=tuning))
    page = browser.open(file.as_uri())
    page.drawn()
    tips = page.evaluate("""(async () => {
      const found = [], pause = () => new Promise((done) => setTimeout(done, 30));
      for (const holder of document.querySelectorAll("[_echarts_instance_]")) {
        const chart = echarts.getInstanceByDom(holder);
        for (let series = 0; series < 3; series += 1) {
          chart.dispatchAction({ type: "showTip", seriesIndex: series, dataIndex: 0 });
          chart.dispatchAction({ type: "showTip", x: holder.clientWidth / 2, y: holder.clientHeight / 2 });
          await pause();
          found.push(...[...holder.querySelectorAll(".tips")].map((one) => one.innerText));
        }
      }
      return found.join(" ");
    })()""")
    assert EVIL in tips.replace("\n", " ")
    for place in (
        "h1",
        "#verdict",
        "#notices",
        "#shared",
        "#runs",
        "#ranks",
        ".key",
        "#notes",
        "#card-interaction select",
    ):
        shown = page.evaluate(
            f"[...document.querySelectorAll({json.dumps(place)})].map((one) => one.textContent).join(' ')"
        )
        assert EVIL in shown, place
    assert page.evaluate("document.documentElement.dataset.hacked ?? null") is None
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    assert page.errors == []
    page.close()


@pytest.mark.parametrize("kind", ["nothing yet", "one arm", "one seed", "no record", "no target"])
def test_odd_studies_are_drawn_without_an_error(kind: str, browser: Chromium, tmp_path: Path) -> None:
    rows = made_rows(("a",) if kind == "one arm" else ("a", "b"), (0.1,), 1 if kind == "one seed" else 3)
    if kind == "nothing yet":
        rows = [without_numbers(row, "planned") for row in rows]
    if kind == "no target":
        rows = [{k: float("nan") if "_to_target" in k else v for k, v in row.items()} for row in rows]
    path = write_study(tmp_path / "s", rows, None, records=kind != "no record")
    page = browser.open(write_study_page(path).as_uri(), width=390)
    page.wait("document.querySelectorAll('#runs tbody tr').length > 0")
    if kind != "nothing yet":
        page.drawn()
    shown = set(page.evaluate(SHOWN))
    assert page.errors == []
    assert layout_faults(page, 10) == []
    assert ("reached-target" in shown) == (kind not in ("nothing yet", "no target"))
    assert any(card.startswith("curve") for card in shown) == (kind not in ("nothing yet", "no record"))
    assert ("differences" in shown) == (kind not in ("nothing yet", "one arm"))
    page.close()
