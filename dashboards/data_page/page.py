"""The clients' data as files: data.html, one self-contained page, and data.png."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from clients.core.errors import UserError
from clients.core.population import Population
from clients.heterogeneity.table import HeterogeneityMeasures, Holdings
from dashboards.data_page.figure import data_figure
from dashboards.data_page.view import data_view
from dashboards.report.pages import CHARTS, MARK, POLICY, inline_json, page_of
from server.record.files import refuse_others, sync_folder, whole_file, writing

PAGE, PICTURE = "data.html", "data.png"
OTHER_FOLDER = "Make room, or choose another folder."
DRAWING = ("echarts/echarts.common.min.js", *CHARTS, "data_charts.js", "series_charts.js", "data.js")


def write_data(
    folder: Path,
    population: Population,
    measures: HeterogeneityMeasures,
    held: Holdings,
    *,
    title: str = "",
    seed: int | None = None,
) -> tuple[Path, Path]:
    """Write the picture and the page of a population.

    Args:
        folder: the folder; created where it does not exist. An earlier picture and page are replaced atomically.
        population: the population.
        measures: its heterogeneity measures.
        held: the data of the sampled clients.
        title: the scenario's title.
        seed: the run's seed.

    Returns:
        The picture and the page.

    Raises:
        UserError: `folder` is a file, or has files of these names that are no data page's.
        RunFolderError: something cannot be written.
    """
    check_folder(folder)
    refuse_others(folder / PAGE, MARK)
    if not (folder / PAGE).exists() and (folder / PICTURE).exists():
        problem = f"{str(folder / PICTURE)!r} exists, and no {PAGE} of fedscape's is beside it"
        raise UserError("out", problem, fix="Choose another folder.")
    with writing(folder, fix=OTHER_FOLDER):
        folder.mkdir(parents=True, exist_ok=True)
    view = data_view(population, measures, held, title, seed)
    with whole_file(folder / PICTURE, fix=OTHER_FOLDER) as handle:
        handle.write(data_figure(view))
    with whole_file(folder / PAGE, fix=OTHER_FOLDER) as handle:
        handle.write(data_page(view).encode())
    sync_folder(folder)
    return folder / PICTURE, folder / PAGE


def check_folder(folder: Path) -> None:
    """Raise `UserError` where the folder is a file."""
    if folder.exists() and not folder.is_dir():
        raise UserError("out", f"must be a folder, and {str(folder)!r} is a file", fix="Choose another name.")


def data_page(view: dict[str, Any]) -> str:
    """Return the page of a `data_view`; it loads nothing from the network."""
    words = "\n".join(f"<p>{html.escape(' '.join(row))}</p>" for row in [[view["sentence"]], *view["rows"]])
    data = f'<script type="application/json" id="data">{inline_json(view)}</script>\n'
    return page_of(f"Data of {view['title']} · fedscape", data, DRAWING, POLICY, words)
