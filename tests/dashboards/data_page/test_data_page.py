"""data.html and data.png: their numbers equal the population's, and they name what they leave out."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from clients.core.errors import RunFolderError, UserError
from clients.core.population import DataHistory, Population
from clients.federation.data_kinds import build_population
from clients.heterogeneity.spatial import Moran
from clients.heterogeneity.table import FaultRate, HeterogeneityMeasures, measure_clients
from clients.sources.options import SyntheticOptions
from clients.tables.options import TableOptions
from dashboards.data_page import text as data_text
from dashboards.data_page.figure import data_figure
from dashboards.data_page.page import data_page, write_data
from dashboards.data_page.view import BINS, curve, data_view, histogram
from tests.support.small_city import DISTRICTS, small_city


def viewed(population: Population) -> dict[str, Any]:
    measures, held = measure_clients(population, seed=0)
    return data_view(population, measures, held, "A title", seed=0)


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    shown: dict[str, Any] = json.loads(found[1])
    return shown


def test_page_contains_the_populations_numbers() -> None:
    p = small_city()
    view = data_of(data_page(viewed(p)))
    measures, held = measure_clients(p, seed=0)
    assert view["sentence"] == data_text.sentence(measures)
    assert view["label_counts"] == p.clients.label_counts(np.arange(24)).tolist()  # type: ignore[misc]
    assert view["names"] == [f"site {k}" for k in range(24)]
    assert view["map"]["x"] == [k // 2 for k in range(24)]
    assert view["map"]["district"] == [k % 2 for k in range(24)]
    assert view["map"]["districts"] == list(DISTRICTS)
    assert view["map"]["values"]["size"] == p.sizes.tolist()
    assert view["map"]["values"]["fault stuck"][22] == pytest.approx(22 / 24, rel=1e-4)
    assert view["faults"]["flip"] == [0.5, 0] * 12
    np.testing.assert_allclose(view["map"]["values"]["feature_shift"], held.feature_shift, rtol=1e-4)
    assert view["curves"]["label_js"]["values"] == sorted(view["map"]["values"]["label_js"], reverse=True)
    assert sum(view["histogram"]["counts"]) == 24


def test_page_names_few_clients_and_states_the_notices() -> None:
    city = small_city()
    view = viewed(replace(city, federation=replace(city.federation, notices=("12 values were filled.",))))
    assert view["notices"] == ["12 values were filled."]
    assert view["sizes"] == city.sizes.tolist()
    named = view["curves"]["label_js"]
    of = dict(zip(view["names"], view["map"]["values"]["label_js"], strict=True))
    assert named["values"] == pytest.approx([of[name] for name in named["names"]], rel=1e-4)
    many = viewed(build_population(SyntheticOptions(clients=41, alpha=0.5, beta=0.5), None, seed=0))
    assert many["curves"]["label_js"]["names"] == []


def test_text_of_the_data_is_escaped() -> None:
    page = data_page(viewed(small_city()))
    assert "South</script>" not in page
    assert page.count('id="data"') == 1
    assert "http://" not in data_page(viewed(small_city())).split("<script>")[-1]


def test_page_has_no_map_without_places_and_no_faults_without_faults() -> None:
    city = small_city()
    p = replace(city, federation=replace(city.federation, places=None, districts=()), history=DataHistory())
    view = viewed(p)
    assert view["map"] is None
    assert view["faults"] == {}
    assert not any("Moran" in row[0] or row[0].startswith("fault") for row in view["rows"])


@pytest.mark.parametrize("what", ["city", "regression", "one client", "single examples"])
def test_both_files_are_written(what: str, tmp_path: Path, population_of: Any) -> None:
    p = {
        "city": small_city,
        "regression": lambda: population_of([3, 5, 9], task="regression"),
        "one client": lambda: population_of([7]),
        "single examples": lambda: population_of([1, 1, 0, 1]),
    }[what]()
    measures, held = measure_clients(p, seed=0)
    picture, page = write_data(tmp_path / "new" / "folder", p, measures, held, title=what, seed=1)
    pixels = imread(picture)
    assert pixels.shape[0] > 400
    assert pixels.shape[1] > 800
    assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 30
    assert data_of(page.read_text("utf-8"))["title"] == what
    assert sorted(f.name for f in page.parent.iterdir()) == ["data.html", "data.png"]


def test_same_data_give_the_same_picture(population_of: Any) -> None:
    view = viewed(population_of([3, 4]))
    assert data_figure(view) == data_figure(view)


def test_picture_draws_names_as_they_are(population_of: Any) -> None:
    p = population_of([3, 4, 5])
    names = ("$x_1^", "a name that is far too long for the picture's margin", "\\frac{1}{2}$")
    named = replace(p, federation=replace(p.federation, client_name=names.__getitem__))
    view = viewed(named)
    assert data_figure(view) != data_figure(viewed(p))  # the names are drawn, and none is read as mathematics
    assert data_figure({**view, "title": "costs $5, not $"})


def test_picture_uses_no_display_and_no_global_state() -> None:
    assert "matplotlib.pyplot" not in sys.modules


def test_impossible_folder_is_refused(tmp_path: Path) -> None:
    p = small_city()
    measures, held = measure_clients(p, seed=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="out: must be a folder"):
        write_data(tmp_path / "file", p, measures, held)
    with pytest.raises(RunFolderError, match="cannot be written"):
        write_data(tmp_path / "file" / "inside", p, measures, held)


def test_page_of_many_clients_names_its_sample() -> None:
    p = build_population(SyntheticOptions(clients=30_000, alpha=0.5, beta=0.5), None, seed=0)
    view = viewed(p)
    assert view["clients"] == 30_000
    assert view["looked_at"] == 2000
    assert len(view["names"]) == len(view["label_counts"]) == 400
    assert sum(view["histogram"]["counts"]) == 30_000
    assert any("estimated from 2,000 clients" in row[2] for row in view["rows"])
    assert any("estimated from 500 clients" in row[2] for row in view["rows"])
    assert len(data_page(view)) < 2_000_000


@pytest.mark.parametrize("sizes", [[5], [0, 0, 3], [0, 10**6], [7, 8, 90, 91], list(range(1, 3000)), [0, 1, 10**9]])
def test_every_client_is_in_the_histogram(sizes: list[int]) -> None:
    found = histogram(np.array(sizes))
    assert sum(found["counts"]) == len(sizes)
    assert len(found["counts"]) == len(found["edges"]) - 1 <= BINS + 1
    assert (np.diff(found["edges"]) > 0).all()


def test_thinned_curve_keeps_both_ends() -> None:
    values = np.random.default_rng(0).normal(size=5000)
    thin = curve(np.append(values, np.nan), most=50)
    assert (thin[0], thin[-1], len(thin)) == (values.max(), values.min(), 50)
    assert (np.diff(thin) <= 0).all()


def test_table_lists_every_measure_once() -> None:
    m = HeterogeneityMeasures(
        clients=1000, examples=5000, smallest=2, median=4.5, largest=90, quantity_gini=0.41, label_emd=1.234,
        label_js=0.3219, label_hellinger=0.456, feature_shift=0.77, feature_coefficient=0.05, label_noise=0.0123,
        spatial={"feature_shift": Moran(0.61, -1 / 99, 0.031, 100), "fault stuck": Moran(-0.2, -1 / 99, 0.03, 100)},
        faults={"stuck": FaultRate(0.031, 0.25, 1.5)}, gradient_dissimilarity=17.9, b_squared=12.4,
        estimated_from={"labels": 1000, "features": 500, "gradients": 64},
    )  # fmt: skip
    rows = {row.name: row for row in data_text.rows(m)}
    assert rows["sizes"].value == "2 to 90"
    assert rows["label JS"].value == "0.322"
    assert "base 2" in rows["label JS"].meaning
    assert "estimated" not in rows["label JS"].meaning
    assert rows["feature shift"] == ("feature shift", "0.77 (coefficient 0.05)", rows["feature shift"].meaning)
    assert "estimated from 500 clients" in rows["feature shift"].meaning
    assert rows["label noise"].value == "1.23%"
    assert rows["fault stuck"].value == "3.1%"
    assert "on 25% of clients; effect 1.5" in rows["fault stuck"].meaning
    assert rows["Moran's I, feature shift"].value == "0.61"
    assert "-0.01 ± 0.031 expected by chance" in rows["Moran's I, feature shift"].meaning
    assert rows["Moran's I, stuck"].value == "-0.2"
    assert rows["gradient dissimilarity"].value == "17.9"
    assert len(rows) == len(data_text.rows(m)) == 12
    assert data_text.sentence(m).startswith(
        "1,000 clients hold 5,000 examples, 2 to 90 each; mean label divergence from all clients (Jensen-Shannon) 0.32 "
    )


@pytest.mark.parametrize(
    ("shift", "error", "shown"),
    [
        (-0.0012, 0.004, "0 within its noise, ± 0.008"),
        (0.006, 0.004, "0 within its noise, ± 0.008"),
        (0.77, 0.01, "0.77 ± 0.02 (coefficient 0.05)"),
        (-0.1, None, "0 (estimated below 0) (coefficient 0.05)"),
    ],
)
def test_feature_shift_within_its_noise_is_shown_as_zero(shift: float, error: float | None, shown: str) -> None:
    m = HeterogeneityMeasures(
        clients=10, examples=50, smallest=5, median=5, largest=5, quantity_gini=0.0, feature_shift=shift,
        feature_shift_error=error, feature_coefficient=0.05,
    )  # fmt: skip
    assert {row.name: row.value for row in data_text.rows(m)}["feature shift"] == shown


def test_table_shows_requests_and_extremes() -> None:
    lines = list(data_text.table(small_city(), measure_clients(small_city(), seed=0)[0]))
    assert any(re.search(r"reached label js +0\.2987 +0\.3 was requested", line) for line in lines)
    assert any("smallest clients" in line and line.endswith("site 0 (4), site 3 (4), site 6 (4)") for line in lines)
    assert any("largest clients" in line and line.endswith("site 2 (8), site 5 (8), site 8 (8)") for line in lines)


@pytest.mark.parametrize("gap", [False, True])
def test_readings_are_drawn_over_the_width_of_their_panel(tmp_path: Path, gap: bool) -> None:
    """Without gaps, the empty box of their marks once took the width of the figure."""
    hours = [f"2024-01-{1 + i // 24:02}T{i % 24:02}:00,{'' if gap and i == 40 else i % 7},{i % 5}" for i in range(600)]
    (tmp_path / "a.csv").write_text("\n".join(["time,north,south", *hours]))
    options = TableOptions(path=str(tmp_path / "a.csv"), window=12, horizon=6, gaps="drop")
    (tmp_path / "data.png").write_bytes(data_figure(viewed(build_population(options, None, seed=0))))
    image = imread(tmp_path / "data.png")[..., :3]
    middle = image[image.shape[0] // 2 :, image.shape[1] // 3 : 2 * image.shape[1] // 3]
    assert (middle.std(axis=(0, 2)) > 0).mean() > 0.9  # nearly every column of pixels in the middle third has ink
