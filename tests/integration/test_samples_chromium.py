"""The samples of a run on its report, in a real browser without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from needs import CHROMIUM

from dashboards.report.report import write_report
from tests.support.chromium import Chromium, chromium
from tests.support.made_records import make_record

pytestmark = CHROMIUM.mark
CARD = "document.querySelector('#card-samples')"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as started:
        yield started


@pytest.mark.parametrize(("width", "dark"), [(1440, False), (390, True)])
def test_report_draws_samples_pixel_by_pixel(browser: Chromium, tmp_path: Path, width: int, dark: bool) -> None:
    folder = make_record(tmp_path / "run", rounds=3)
    images = [[255 * (row == column) for row in range(8) for column in range(8)] for _ in range(12)]
    folder.write_samples({"shape": [1, 8, 8], "images": images, "classes": [1] * 12})
    page = browser.open(write_report([folder.path]).as_uri(), width=width, dark=dark)
    page.drawn()
    assert page.errors == []
    assert page.evaluate(f"{CARD}.closest('[data-section]').querySelector('h2').textContent") == "Samples"
    assert page.evaluate(f"{CARD}.querySelector('.help').textContent").startswith("12 samples that the final model")
    whole = page.evaluate(f"(({{ naturalWidth: w, naturalHeight: h }}) => [w, h])({CARD}.querySelector('img'))")
    assert whole == [91, 19]
    read = (
        f"const i = {CARD}.querySelector('img'), c = document.createElement('canvas'); c.width = 91; c.height = 19;"
        "const x = c.getContext('2d'); x.drawImage(i, 0, 0);"
        "return [[1, 1], [2, 1], [8, 8], [10, 10], [0, 0]].map(([a, b]) => x.getImageData(a, b, 1, 1).data[0]);"
    )
    assert page.evaluate(f"(() => {{ {read} }})()") == [255, 0, 255, 255, 128]
    shown = page.evaluate(f"{CARD}.querySelector('img').clientWidth / 91")
    assert shown >= 3, "a pixel of a sample is several pixels of the screen"


def test_report_of_another_run_has_no_section_of_samples(browser: Chromium, tmp_path: Path) -> None:
    page = browser.open(write_report([make_record(tmp_path / "run", rounds=3).path]).as_uri())
    page.drawn()
    assert page.evaluate(f"{CARD}.hidden") is True
    assert page.evaluate("document.querySelector('[data-section=Samples]').hidden") is True
