"""The report and the watch page in a real browser without a network: everything is drawn without an error."""

import math
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from needs import CHROMIUM

from clients.core.population import Population
from dashboards.report.report import write_report
from dashboards.watch.server import WatchServer
from server.record.client_table import ClientTable
from server.record.jsonlines import RoundWriter, to_json
from server.record.records import RunFolder
from simulator.runs.run import Run, simulate
from tests.support.chromium import Chromium, Page, chromium
from tests.support.made_records import TITLE, line_of, make_record
from tests.support.run_folders import digits

pytestmark = CHROMIUM.mark

CLIENTS = np.arange(30)
CARDS = "[...document.querySelectorAll('.card[id^=card-]')].filter((one) => one.offsetParent)"
SHOWN = f"{CARDS}.map((one) => one.id.slice(5))"
INKS = f"""Object.fromEntries({CARDS}.map((card) => {{
  const canvas = card.querySelector("canvas"), inks = new Set();
  const {{ data }} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < data.length; at += 4) if (data[at + 3] > 200) inks.add(data.slice(at, at + 3).join());
  return [card.id.slice(5), inks.size];
}}))"""
TEXT = "document.body.innerText"
REASONS = "[...document.querySelectorAll('#reasons li')].map((one) => one.innerText)"
WORDS = """[...document.querySelectorAll('.words, #reasons, #reached, .card h3, .card .help, .legend, .notes')]
    .map((one) => one.innerText).join(' ')"""
"""The page's text without names from the scenario."""
VERDICT = "document.getElementById('verdict')?.innerText"


def picture(card: str) -> str:
    """Return the JavaScript expression for a card's drawing."""
    return f"document.querySelector('#card-{card} canvas').toDataURL()"


def chart(card: str) -> str:
    """Return the JavaScript expression for a card's chart."""
    return f"echarts.getInstanceByDom(document.querySelector('#card-{card} .chart'))"


def click(where: str, words: str) -> str:
    """Return the JavaScript expression that clicks the button with this label."""
    return f"[...document.querySelectorAll('{where} button')].find((one) => one.textContent === '{words}').click()"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a real run of a few rounds."""
    sets = (
        "evaluation.gradient_every=4",
        "run.rounds=24",
        "convergence.target.at_least=0.5",
        "engine.threads=1",
        "engine.workers=1",
    )
    return simulate(digits(*sets), out=tmp_path_factory.mktemp("runs") / "real")


def opened(browser: Chromium, file: Path, **how: bool | int) -> Page:
    page = browser.open(file.as_uri(), **how)  # type: ignore[arg-type]
    page.drawn()
    assert page.errors == []
    assert page.requests == [file.as_uri()]
    return page


def shown(page: Page) -> set[str]:
    return set(page.evaluate(SHOWN))


def test_report_draws_every_chart_of_a_real_run_without_a_network(browser: Chromium, run: Run) -> None:
    assert run.path is not None
    page = opened(browser, run.path / "report.html")
    assert shown(page) == {
        "loss", "score", "classes", "distance", "rate", "step", "drift", "cosine", "dispersion", "norms", "layers",
        "layer_norms", "clients", "sizes", "labels", "bytes", "time", "speed",
    }  # fmt: skip
    inks = page.evaluate(INKS)
    assert set(inks) == shown(page)
    assert min(inks.values()) >= 3, inks  # at least a line, an axis and a label
    assert page.evaluate(VERDICT) == run.verdict.headline
    assert page.evaluate(REASONS) == list(run.verdict.reasons)
    assert "_" not in page.evaluate(WORDS)
    assert "test accuracy" in page.evaluate(TEXT)
    # two bands of two edges, the median, the mean
    assert page.evaluate(f"{chart('drift')}.getOption().series.length") == 6
    page.close()


def test_report_draws_the_city_of_a_run(browser: Chromium, tmp_path: Path) -> None:
    city, plain = (make_record(tmp_path / name, city=name == "city").path for name in ("city", "plain"))
    page = opened(browser, write_report([city]))
    own = {"faults", "beside", "concept", "districts"}
    assert own <= shown(page)
    inks = page.evaluate(INKS)
    assert min(inks[name] for name in own) >= 3, inks
    assert page.evaluate(f"{chart('faults')}.getOption().series.map((one) => one.name)") == ["stuck", "noise.db"]
    marked = f"{chart('faults')}.getOption().series[0].markLine.data.map((one) => one.xAxis)"
    assert page.evaluate(marked) == [5, 11, 12, 20]
    assert page.evaluate(f"{chart('concept')}.getOption().yAxis[0].max") == 1
    assert page.evaluate("document.querySelectorAll('#events tbody tr').length") == 6
    assert page.evaluate(TEXT).count("power cut <i>in Old Town</i>") == 1
    assert (
        "CITY" not in page.evaluate("[...document.querySelectorAll('h2')].map((one) => one.innerText).join()").upper()
    )
    before = page.evaluate(picture("districts"))
    pick = "const one = document.querySelector('#card-districts select'); one.value = 'changed'"
    page.evaluate(f"(() => {{ {pick}; one.dispatchEvent(new Event('change')); }})()")
    assert page.evaluate(picture("districts")) != before
    assert page.errors == []
    page.close()
    page = opened(browser, write_report([plain]))
    assert not own & shown(page)
    assert "CITY" not in page.evaluate(TEXT).upper()
    page.close()
    page = opened(browser, write_report([city, plain], tmp_path / "both.html"))
    assert own <= shown(page)
    page.close()


def test_page_fits_a_phone_in_the_dark_theme(browser: Chromium, run: Run) -> None:
    assert run.path is not None
    page = opened(browser, run.path / "report.html", width=390, dark=True)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(f"Math.min(...{CARDS}.map((one) => one.querySelector('canvas').clientWidth))") > 250
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.evaluate("document.querySelector('[aria-label=\"dark or light\"]').click()")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.drawn()
    assert page.errors == []
    page.close()


def test_axes_zoom_and_pickers_redraw_the_charts(browser: Chromium, run: Run) -> None:
    assert run.path is not None
    page = opened(browser, run.path / "report.html")
    last = run.rounds.lines[-1]
    for name, end in (("Data sent", last["bytes_total"]), ("Simulated time", last["simulated_seconds_total"])):
        page.evaluate(click(".bar", name))
        assert page.evaluate(f"{chart('loss')}.getOption().xAxis[0].max") == pytest.approx(end, rel=1e-5)
    page.evaluate(click(".bar", "Rounds"))
    page.evaluate(f"{chart('loss')}.dispatchAction({{ type: 'dataZoom', startValue: 5, endValue: 9 }})")
    page.wait(f"Math.round({chart('cosine')}.getOption().dataZoom[0].endValue) === 9")
    page.evaluate(click(".bar", "whole run"))
    page.wait(f"{chart('loss')}.getOption().dataZoom[0].end === 100")
    before = page.evaluate(picture("clients"))
    pick = "const one = document.querySelector('#card-clients select'); one.value = 'cosine'"
    page.evaluate(f"(() => {{ {pick}; one.dispatchEvent(new Event('change')); }})()")
    assert page.evaluate(picture("clients")) != before
    page.evaluate(f"{chart('loss')}.dispatchAction({{ type: 'showTip', x: 200, y: 120 }})")
    page.wait("document.querySelector('#card-loss .tips')?.innerText.startsWith('round')")
    assert page.errors == []
    page.close()


def test_changed_value_changes_only_the_chart_that_shows_it(browser: Chromium, tmp_path: Path) -> None:
    def pictures(name: str, change: Callable[[RunFolder], None]) -> dict[str, str]:
        folder = make_record(tmp_path / name / "run")
        change(folder)
        page = opened(browser, write_report([folder.path]))
        found = {card: page.evaluate(picture(card)) for card in shown(page)}
        page.close()
        return found

    def loss(folder: RunFolder) -> None:
        lines = [line_of(r, CLIENTS) for r in range(41)]
        lines[20]["train_loss"] *= 1.2
        folder.rounds.write_text("".join(to_json(line) + "\n" for line in lines))

    def cell(folder: RunFolder) -> None:
        shutil.rmtree(folder.clients)
        table = ClientTable(folder.clients)
        for r in range(1, 41):
            drift = (1.0 + CLIENTS % 7) / (10.0 + r)
            drift[11] *= 2.0 if r == 20 else 1.0
            table.add(r, {"client": CLIENTS, "client_drift": drift, "cosine": np.cos(CLIENTS + r / 9.0)})
        table.flush()

    plain, again = pictures("plain", lambda _: None), pictures("again", lambda _: None)
    assert plain == again
    with_loss, with_cell = pictures("loss", loss), pictures("cell", cell)
    assert {card for card in plain if plain[card] != with_loss[card]} == {"loss"}
    assert {card for card in plain if plain[card] != with_cell[card]} == {"clients"}


def test_several_runs_are_overlaid_with_their_differences(browser: Chromium, tmp_path: Path) -> None:
    shifts = {("fedavg", 1): 0.0, ("fedavg", 2): 0.02, ("scaffold", 1): -0.1, ("scaffold", 2): -0.06}
    for (kind, seed), shift in shifts.items():
        make_record(tmp_path / f"{kind}-{seed}", kind=kind, seed=seed, shift=shift)
    file = write_report([tmp_path / f"{kind}-{seed}" for kind, seed in shifts], tmp_path / "all.html")
    page = opened(browser, file)
    text = page.evaluate(TEXT)
    assert "4 runs that differ in algorithm.kind" in text
    assert "scaffold and fedavg are indistinguishable in test accuracy: 0.090 higher" in text
    assert "scaffold against fedavg" in text
    assert "Student's 95% interval" in text
    assert {"loss", "score", "distance", "drift", "cosine", "clients", "bytes"} <= shown(page)
    assert min(page.evaluate(INKS).values()) >= 3
    lines = f"{chart('loss')}.getOption().series.map((one) => one.name)"
    assert page.evaluate(lines) == ["fedavg · seed 1", "fedavg · seed 2", "scaffold · seed 1", "scaffold · seed 2"]
    page.evaluate(click(".key", "fedavg"))
    assert page.evaluate(lines) == ["scaffold · seed 1", "scaffold · seed 2"]
    assert page.errors == []
    page.close()


def _diverged(folder: RunFolder) -> None:
    writer = RoundWriter(folder.rounds)
    for r, loss in ((41, 1e30), (42, math.inf), (43, math.nan)):
        line = line_of(r, CLIENTS) | {"train_loss": loss, "validation_loss": loss, "update_dispersion": loss}
        writer.append(line | {"client_drift": dict.fromkeys(line["client_drift"], loss)})
    writer.close()
    folder.write_outcome(
        {"outcome": "diverged", "round": 43, "words": "diverged at round 43: train_loss is nan", "hint": "less"}
    )


@pytest.mark.parametrize(
    "name", ["diverged", "killed", "one round", "no round", "no clients", "no environment", "partition"]
)
def test_odd_records_are_drawn_without_an_error(
    name: str, browser: Chromium, tmp_path: Path, population_of: Callable[..., Population]
) -> None:
    rounds = {"one round": 1, "no round": 0}.get(name, 40)
    partition = population_of([0, 40, 5, 1, *[7] * 26], outputs=120) if name == "partition" else None
    folder = make_record(tmp_path / "run", rounds=rounds, ended=name != "killed", partition=partition)
    if name == "diverged":
        _diverged(folder)
    if name == "no clients":
        shutil.rmtree(folder.clients)
    if name == "no environment":
        folder.environment.unlink()
    page = opened(browser, write_report([folder.path]))
    words = page.evaluate(VERDICT)
    assert words.split()[0] == {"diverged": "diverged", "killed": "Unfinished"}.get(name, "stopped")
    assert "loss" in shown(page)
    assert ("clients" in shown(page)) == (name not in ("no clients", "no environment", "no round"))
    assert ("labels" in shown(page)) == (name == "partition")
    if name != "no environment":
        assert page.evaluate("document.querySelector('h1').innerText") == TITLE
    page.close()


def test_watch_page_follows_a_run_past_its_end(browser: Chromium, tmp_path: Path) -> None:
    with WatchServer(tmp_path, 0) as server:
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            _follow(browser, server.url, tmp_path)
        finally:
            server.stop()
            thread.join()


def _follow(browser: Chromium, url: str, root: Path) -> None:
    page = browser.open(url)
    page.wait("document.getElementById('quiet')?.innerText.startsWith('No runs in')")
    folder = make_record(root / "first & only", rounds=5, ended=False)
    page.wait("document.documentElement.dataset.round === '5'")
    assert page.drawn() >= 12
    assert page.evaluate(VERDICT) == "Running: round 5 of at most 100"
    before = page.evaluate(picture("loss"))
    writer = RoundWriter(folder.rounds)
    for r in range(6, 20):
        writer.append(line_of(r, CLIENTS))
    writer.close()
    with folder.rounds.open("a") as file:
        file.write('{"round": 20, "valid')
    page.wait("document.documentElement.dataset.round === '19'")
    page.drawn()
    assert page.evaluate(picture("loss")) != before
    folder.write_outcome({"outcome": "converged", "round": 19, "words": "converged at round 19: it did"})
    page.wait(f"{VERDICT} === 'converged at round 19: it did'")
    make_record(root / "second", rounds=3)
    page.wait("document.querySelectorAll('#runs tbody tr').length === 2")
    assert page.evaluate("document.documentElement.dataset.open") == "first & only"  # the reader's run stays open
    page.evaluate(click("#runs", "second"))
    page.wait("document.documentElement.dataset.round === '3'")
    shutil.rmtree(root / "second")
    page.wait("document.getElementById('quiet').innerText === 'second no longer exists.'")
    assert page.evaluate("document.getElementById('verdict').offsetParent === null")
    assert page.errors == []
    assert {request[: len(url)] for request in page.requests} == {url}
    assert page.evaluate("location.hash") == "#second"
    page.close()
