"""Each page in a real browser at two widths, light and dark: no text overlaps, is cut off, or is too faint to read."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from needs import CHROMIUM

from clients.core.population import Population
from clients.heterogeneity.table import measure_clients
from dashboards.data_page.page import write_data
from dashboards.report.report import write_report
from dashboards.watch.server import WatchServer
from server.record.jsonlines import RoundWriter
from server.record.records import RunFolder
from simulator.runs.run import simulate
from tests.support.chromium import Chromium, Page, chromium
from tests.support.layout import layout_faults
from tests.support.made_probes import made_probe, write_probes
from tests.support.made_records import line_of, make_record
from tests.support.small_city import small_city

pytestmark = CHROMIUM.mark

LOOKS = [(width, dark) for width in (1440, 390) for dark in (False, True)]
EACH_ONCE = [(1440, False), (390, True)]
"""Both widths, which alone move texts, and both themes, which alone colour them."""
STATIONS = ("Aotizhongxin", "Changping", "Dingling", "Dongsi", "Guanyuan", "Gucheng", "Huairou", "Nongzhanguan",
            "Shunyi", "Tiantan", "Wanliu", "Wanshouxigong, beside the botanical garden of the north")  # fmt: skip
CARDS = "[...document.querySelectorAll('.card[id^=card-]')].filter((one) => one.offsetParent)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as found:
        yield found


def named(population: Population, names: tuple[str, ...] = STATIONS) -> Population:
    return replace(population, federation=replace(population.federation, client_name=names.__getitem__))


@contextmanager
def opened(browser: Chromium, url: str, width: int = 1440, dark: bool = False) -> Iterator[Page]:
    page = browser.open(url, width=width, height=900 if width > 600 else 844, dark=dark)
    page.drawn()
    yield page
    assert page.errors == []
    page.close()


def check(browser: Chromium, url: str, least_texts: int, looks: list[tuple[int, bool]] = EACH_ONCE) -> None:
    """Assert that a page has no layout fault in some looks, and that each of its charts has titles on both axes."""
    for width, dark in looks:
        with opened(browser, url, width, dark) as page:
            assert page.evaluate("document.documentElement.dataset.theme") == ("dark" if dark else "light")
            assert layout_faults(page, least_texts) == [], (width, dark)
            bare = f"""{CARDS}.filter((card) => [".up", ".across"].some((side) =>
                ![...card.querySelectorAll(".axis" + side)].some((one) => one.innerText.trim())))
                .map((card) => card.id)"""
            assert page.evaluate(bare) == []


def regression(path: Path, population: Population) -> RunFolder:
    """Write the record of a regression whose first error is far above the others."""
    folder = make_record(path, rounds=0, clients=12, partition=population)
    folder.rounds.unlink()
    writer = RoundWriter(folder.rounds)
    for r in range(13):
        line = line_of(r, np.arange(12))
        error = 2.03 if r == 0 else 0.7 + 0.1 / r
        del line["validation_accuracy"]
        writer.append(line | {"validation_error": error, "validation_mae": error / 2})
    writer.close()
    return folder


def probed(path: Path) -> RunFolder:
    """Write the record of a run with an optimality gap and two probes, of which one predicts."""
    folder = make_record(path, rounds=0)
    folder.rounds.unlink()
    writer = RoundWriter(folder.rounds)
    for r in range(13):
        writer.append(line_of(r, np.arange(30)) | {"optimality_gap": 2.0 * 0.8**r, "objective": 1.5 + 2.0 * 0.8**r})
    writer.close()
    write_probes(folder, made_probe(2), made_probe(9, predicts=False))
    return folder


def report_of(kind: str, folder: Path, population_of: Callable[..., Population]) -> Path:
    """Write a report of a kind of run."""
    if kind == "real":
        run = simulate("quadratic-two-clients", out=folder)
        assert run.path is not None
        return run.path / "report.html"
    stations = named(population_of(range(8000, 8012), outputs=3))
    made = {
        "city": lambda: make_record(folder, city=True),
        "stations": lambda: make_record(folder, clients=12, partition=stations),
        "regression": lambda: regression(folder, stations),
        "converged": lambda: make_record(folder, outcome={"outcome": "converged"}),
        "diverged": lambda: make_record(folder, rounds=1, outcome={"outcome": "diverged", "hint": "Lower local_lr."}),
        "one client": lambda: make_record(folder, clients=1, rounds=3, partition=population_of([7])),
        "unfinished": lambda: make_record(folder, rounds=7, ended=False),
        "probed": lambda: probed(folder),
    }[kind]()
    return write_report([made.path])


@pytest.mark.parametrize(
    "kind", ["real", "city", "stations", "regression", "converged", "diverged", "one client", "unfinished", "probed"]
)
def test_report_has_no_layout_fault(
    kind: str, browser: Chromium, tmp_path: Path, population_of: Callable[..., Population]
) -> None:
    file = report_of(kind, tmp_path / "run", population_of)
    check(browser, file.as_uri(), 60, LOOKS if kind == "city" else EACH_ONCE)


def test_comparison_of_fifteen_runs_has_no_layout_fault(browser: Chromium, tmp_path: Path) -> None:
    runs = [
        make_record(tmp_path / f"{kind}-{seed}", kind=kind, seed=seed, rounds=12, shift=0.01 * seed).path
        for kind in ("fedavg", "scaffold", "fednova")
        for seed in range(5)
    ]
    file = write_report(runs, tmp_path / "compare.html")
    check(browser, file.as_uri(), 200)
    with opened(browser, file.as_uri(), 390) as page:
        table = "document.getElementById('reached').closest('.scroll')"
        assert page.evaluate(f"{table}.scrollWidth > {table}.clientWidth")
        assert page.evaluate(f"{table}.nextElementSibling.offsetParent !== null")  # the words that it scrolls
        page.evaluate(f"{table}.scrollLeft = 300")
        first = f"{table}.querySelector('tbody td').getBoundingClientRect().left - {table}.getBoundingClientRect().left"
        assert abs(page.evaluate(first)) < 1  # the first column stays
        assert page.evaluate(f"{table}.tabIndex") == 0


@pytest.mark.parametrize("kind", ["city", "stations", "many"])
def test_data_page_has_no_layout_fault(
    kind: str, browser: Chromium, tmp_path: Path, population_of: Callable[..., Population]
) -> None:
    city = small_city()
    population = {
        "city": lambda: replace(city, federation=replace(city.federation, notices=("Read as: 12 files, ';', utf-8.",))),
        "stations": lambda: named(population_of(range(8000, 8012), outputs=3)),
        "many": lambda: population_of([3 + k % 70 for k in range(300)]),
    }[kind]()
    _, file = write_data(tmp_path, population, *measure_clients(population, seed=0), title="A title", seed=0)
    check(browser, file.as_uri(), 40, LOOKS if kind == "city" else EACH_ONCE)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a watch page with 100 runs."""
    root = tmp_path_factory.mktemp("watched")
    ends = ("stopped", "converged", "diverged")
    first = [make_record(root / f"run-{k}", rounds=4, outcome={"outcome": end}).path for k, end in enumerate(ends)]
    make_record(root / "live", rounds=4, ended=False)
    for k in range(3, 99):
        shutil.copytree(first[k % 3], root / f"run-{k}")
    with WatchServer(root, 0) as server:
        thread = threading.Thread(target=server.serve)
        thread.start()
        yield server.url
        server.stop()
        thread.join()


def test_watch_page_of_a_hundred_runs_has_no_layout_fault(browser: Chromium, watched: str) -> None:
    check(browser, f"{watched}#live", 90, LOOKS)


def test_watch_list_is_searched_filtered_and_kept_in_the_address(browser: Chromium, watched: str) -> None:
    names = "[...document.querySelectorAll('#runs tbody button')].map((one) => one.textContent)"
    with opened(browser, watched) as page:
        assert len(page.evaluate(names)) == 100
        page.evaluate(
            "(() => { const one = document.querySelector('[aria-label=outcome]'); one.value = 'converged';"
            "one.dispatchEvent(new Event('change')); })()"
        )
        assert len(page.evaluate(names)) == 33
        page.evaluate(
            "(() => { const one = document.querySelector('[type=search]'); one.value = 'RUN-1 seed'; one.focus();"
            "one.dispatchEvent(new Event('input')); })()"
        )
        kept = page.evaluate(names)
        assert sorted(kept) == sorted(f"run-{k}" for k in (1, *range(10, 20)) if k % 3 == 1)
        assert "5 of 100 runs" in page.evaluate("document.querySelector('.filters').innerText")
        address = page.evaluate("location.href")
        down = "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowDown', bubbles: true}))"
        page.evaluate("document.querySelector('#runs tbody button').focus()")
        page.evaluate(down)
        assert page.evaluate("document.activeElement.textContent") == kept[1]
        page.evaluate("document.activeElement.click()")
        page.wait(f"document.documentElement.dataset.open === '{kept[1]}'")
        assert page.evaluate("location.search") == "?search=RUN-1+seed&outcome=converged"
        browser.settle(2.0)  # the list is read again: it keeps the filter and the focus
        assert page.evaluate(names) == kept
        assert page.evaluate("document.activeElement.textContent") == kept[1]
    with opened(browser, address) as page:
        assert page.evaluate(names) == kept
        assert page.evaluate("document.querySelector('[type=search]').value") == "RUN-1 seed"
        assert page.evaluate("document.querySelector('[aria-label=outcome]').value") == "converged"


def test_watch_list_cuts_no_row(browser: Chromium, watched: str) -> None:
    for width in (1440, 390):
        with opened(browser, watched, width) as page:
            edge = "document.querySelector('.runs .scroll').getBoundingClientRect().bottom"
            rows = "[...document.querySelectorAll('#runs tbody tr')].map((one) => one.getBoundingClientRect())"
            cut = f"{rows}.filter((one) => one.top < {edge} - 1 && one.bottom > {edge} + 1).length"
            assert page.evaluate(cut) == 0
            page.evaluate("document.querySelector('.runs .scroll').scrollTop = 777")
            browser.settle(0.3)
            assert page.evaluate(cut) == 0


def test_regression_shows_later_errors_and_names_the_start_beyond_the_axis(
    browser: Chromium, tmp_path: Path, population_of: Callable[..., Population]
) -> None:
    file = report_of("regression", tmp_path / "run", population_of)
    with opened(browser, file.as_uri()) as page:
        chart = "echarts.getInstanceByDom(document.querySelector('#card-score .chart'))"
        assert page.evaluate(f"{chart}.getOption().yAxis[0].max") <= 1.0
        arrows = page.evaluate(f"{chart}.getOption().series.find((one) => one.markPoint).markPoint.data")
        assert [one["coord"][0] for one in arrows] == [0]
        note = "document.querySelector('#card-score .notes').innerText"
        assert "Above the axis in round 0: validation error 2.03." in page.evaluate(note)
        page.evaluate("document.querySelector('#card-score .head button').click()")  # the logarithmic scale shows it
        assert 10 ** page.evaluate(f"{chart}.getOption().yAxis[0].max") > 2.03
        assert page.evaluate(f"{note} ?? ''") == ""


def test_legend_hides_and_shows_a_line(browser: Chromium, tmp_path: Path) -> None:
    file = write_report([make_record(tmp_path / "run").path])
    with opened(browser, file.as_uri(), 390) as page:
        card = "document.querySelector('#card-loss')"
        entries = f"[...{card}.querySelectorAll('.entries button')]"
        hidden = f"echarts.getInstanceByDom({card}.querySelector('.chart')).getOption().legend[0].selected"
        names = ["validation loss", "training loss", "loss on the clients"]
        assert page.evaluate(f"{entries}.map((one) => one.textContent)") == names
        page.evaluate(f"{entries}[1].click()")
        assert page.evaluate(hidden)["training loss"] is False
        page.evaluate(f"{card}.querySelector('.head button').click()")  # another scale keeps the choice
        assert page.evaluate(hidden) == {"training loss": False}
        assert page.evaluate(f"{entries}.map((one) => one.getAttribute('aria-pressed'))") == ["true", "false", "true"]
        page.evaluate(f"{entries}[1].click()")
        assert page.evaluate(hidden)["training loss"] is True


def test_score_of_a_loss_has_the_unit_of_a_loss(browser: Chromium, tmp_path: Path) -> None:
    run = simulate("quadratic-two-clients", out=tmp_path / "run")
    assert run.path is not None
    with opened(browser, (run.path / "report.html").as_uri()) as page:
        title = "document.querySelector('#card-score .axis.up').textContent"
        assert page.evaluate(title) == "↑ mean loss of an example"
    file = write_report([make_record(tmp_path / "made").path])
    with opened(browser, file.as_uri()) as page:
        assert page.evaluate(title) == "↑ share of examples that are right"


def test_few_clients_are_named_in_bars_and_rows(
    browser: Chromium, tmp_path: Path, population_of: Callable[..., Population]
) -> None:
    file = report_of("stations", tmp_path / "run", population_of)
    with opened(browser, file.as_uri()) as page:
        bars = "echarts.getInstanceByDom(document.querySelector('#card-sizes .chart')).getOption()"
        assert page.evaluate(f"{bars}.yAxis[0].data") == list(reversed(STATIONS))  # the largest first
        assert page.evaluate(f"{bars}.series[0].data") == list(range(8011, 7999, -1))
        for card in ("clients", "labels"):
            words = page.evaluate(f"document.querySelector('#card-{card} canvas').texts.map((one) => one.words)")
            assert set(STATIONS[:11]) <= set(words), card
            long = next(word for word in words if word.startswith("Wanshou"))
            assert long == STATIONS[11] if card == "clients" else long.endswith("…")  # cut names say that they are


META = '<!doctype html><meta name="viewport" content="width=device-width, initial-scale=1">'
BAD = f"""{META}<body style="margin:0;background:#fff;color:#000;font:16px sans-serif">
<p style="margin:0">first words</p><p style="margin:-14px 0 0">second words</p>
<div style="width:60px;overflow:hidden;white-space:nowrap">words that are cut at the side</div>
<div style="height:26px;overflow:hidden">a line<br>another line<br>a third</div>
<div style="position:absolute;left:380px;top:200px;white-space:nowrap">beyond the edge of the page</div>
<p style="color:#bbb">faint words</p></body>"""
GOOD = f"""{META}<body style="margin:0;background:#fff;color:#000;font:16px sans-serif">
<p>first words</p><p>second words</p></body>"""


def test_layout_check_finds_each_kind_of_fault(browser: Chromium, tmp_path: Path) -> None:
    found = {}
    for name, text in (("bad", BAD), ("good", GOOD)):
        (tmp_path / f"{name}.html").write_text(text)
        page = browser.open((tmp_path / f"{name}.html").as_uri(), width=390, height=844)
        page.wait("document.readyState === 'complete'")
        found[name] = layout_faults(page, 2)
        assert layout_faults(page, 99)[0].startswith("only ")
        page.close()
    assert found["good"] == []
    for start in (
        'overlap: "first words" and "second words"',
        'cut at the side: "words that are cut',
        'cut in height: "another line"',
        'beyond the page: "beyond the edge',
        "the page scrolls sideways",
        "contrast 1.92 of",
    ):
        assert any(fault.startswith(start) for fault in found["bad"]), (start, found["bad"])
