"""The picture of samples on the report: its pixels, its words, and files that do not fit."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboards.report.report import report_page
from dashboards.report.run_data import read_run
from dashboards.report.run_view import run_view
from dashboards.report.views.sample_view import GAP, PAPER
from server.record.records import RunFolder
from tests.support.made_records import make_record


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_record(tmp_path / "run", rounds=3)


def samples(number: int, shape: tuple[int, int, int] = (1, 2, 3)) -> dict[str, Any]:
    """Return samples of distinct numbers."""
    size = int(np.prod(shape))
    images = (np.arange(number * size).reshape(number, size) * 7) % 256
    return {"shape": list(shape), "images": images.tolist(), "classes": [k % 2 for k in range(number)]}


def pixels(data: str, channels: int) -> np.ndarray[Any, Any]:
    """Return the numbers of a PNG whose rows are not filtered, (height, width, channels)."""
    head, _, body = data.partition(",")
    assert head == "data:image/png;base64"
    raw = base64.b64decode(body)
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    place, parts = 8, {}
    while place < len(raw):
        (length,) = struct.unpack(">I", raw[place : place + 4])
        kind, content = raw[place + 4 : place + 8], raw[place + 8 : place + 8 + length]
        (check,) = struct.unpack(">I", raw[place + 8 + length : place + 12 + length])
        assert check == zlib.crc32(kind + content)
        parts[kind], place = content, place + 12 + length
    width, height, depth, colours = struct.unpack(">IIBB", parts[b"IHDR"][:10])
    assert (depth, colours) == (8, {1: 0, 3: 2}[channels])
    rows = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, channels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("number", [1, 10, 13])
def test_picture_has_every_number_at_its_place(folder: RunFolder, number: int, channels: int) -> None:
    found = samples(number, (channels, 2, 3))
    folder.write_samples(found)
    view = run_view(read_run(folder.path))["samples"]
    page = pixels(view["picture"], channels)
    assert page.shape[:2] == (view["height"], view["width"])
    for place, image in enumerate(found["images"]):
        top, left = (place // 10) * (2 + GAP) + GAP, (place % 10) * (3 + GAP) + GAP
        drawn = page[top : top + 2, left : left + 3]
        assert drawn.transpose(2, 0, 1).reshape(-1).tolist() == image
    assert (page[0] == PAPER).all()
    assert (page[:, 0] == PAPER).all()


def test_words_count_the_classes(folder: RunFolder) -> None:
    folder.write_samples(samples(5))
    words = run_view(read_run(folder.path))["samples"]["words"]
    assert words.startswith("5 samples that the final model draws, 2 x 3 pixels each.")
    assert words.endswith("nearest real example: 0 (3), 1 (2).")
    folder.write_samples(samples(5) | {"classes": [1]})
    assert "class" not in run_view(read_run(folder.path))["samples"]["words"]


def test_run_without_samples_has_no_picture(folder: RunFolder) -> None:
    assert run_view(read_run(folder.path))["samples"] is None


@pytest.mark.parametrize(
    "change", [{"shape": [1, 2, 4]}, {"shape": [2, 2, 3]}, {"shape": [1, 65, 3]}, {"images": []}, {"shape": [1, 0, 3]}]
)
def test_samples_that_do_not_fit_are_left_out(folder: RunFolder, change: dict[str, Any]) -> None:
    folder.write_samples(samples(3) | change)
    assert run_view(read_run(folder.path))["samples"] is None


@pytest.mark.parametrize("change", [{"images": 3}, {"shape": ["1", 2, 3]}, {"images": [["x"]]}])
def test_damaged_samples_are_named_and_left_out(folder: RunFolder, change: dict[str, Any]) -> None:
    (folder.path / "samples.json").write_text(json.dumps(samples(3) | change))
    view = run_view(read_run(folder.path))
    assert view["samples"] is None
    assert any(note.startswith("samples.json: is damaged") for note in view["notes"])


def test_page_and_results_have_the_measures(folder: RunFolder) -> None:
    folder.write_samples(samples(3))
    run = read_run(folder.path)
    outcome = {"test_frechet_distance": 0.25, "test_sample_precision": 0.75, "test_sample_coverage": 0.5}
    run.outcome.update(outcome | {"test_sample_classes": 9})  # type: ignore[union-attr]
    rows = {name: (value, aside) for name, value, aside in run_view(run)["reached"]}
    words = "Fréchet distance 0.25, precision 0.750, coverage 0.500, classes 9"
    assert rows["samples"] == (words, "beside the test examples")
    assert "data:image/png;base64," in report_page([run])
