"""The page of a study: study.html, one self-contained file in the study's folder.

    write_study_page(Path("studies/scaffold-1121-0714-7f3a"))

The page loads nothing from the network. Links to the runs' reports are relative, so the folder can be moved.
"""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import Any

from clients.core.errors import UserError
from dashboards.report.pages import CHARTS, MARK, POLICY, inline_json, page_of
from dashboards.study.curves import CurveReader
from dashboards.study.study_data import PAGE, read_study_data
from dashboards.study.study_view import study_view
from server.record.files import OTHER_OUT, place_for, refuse_others, sync_folder, whole_file

DRAWING = (
    "echarts/echarts.common.min.js", *CHARTS, "study_charts.js", "study_marks.js", "study_lanes.js", "study_tables.js",
    "study.js",
)  # fmt: skip


class StudyPage:
    """Writes a study's page, again and again while it is played; a finished run's record is read once.

    Args:
        folder: the study's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._reader = folder, CurveReader()

    def write(self, out: Path | None = None) -> Path:
        """Write the page from the study's table, facts and runs.

        Args:
            out: the file; by default `study.html` in the study's folder.

        Returns:
            The file.

        Raises:
            UserError: `out` is no name of a page.
            RunFolderError: the study cannot be read, or the file cannot be written.
        """
        if out is not None:
            place_for(out, PAGE)
            if out.suffix.lower() not in (".html", ".htm"):
                fix = f"A study has a page: name it {out.with_suffix('.html').name}."
                raise UserError("out", f"must end in .html, got {out.name!r}", fix=fix)
        file = out or self._folder / PAGE
        refuse_others(file, MARK)
        inside = file.resolve().parent == self._folder.resolve()
        place = "" if inside else f"{os.path.relpath(self._folder.resolve(), file.resolve().parent)}/"
        page = study_page(study_view(read_study_data(self._folder), self._reader, place)).encode()
        with whole_file(file, fix=OTHER_OUT) as handle:
            handle.write(page)
        sync_folder(file.parent)
        return file


def write_study_page(folder: Path, out: Path | None = None) -> Path:
    """Write a study's page once; see `StudyPage.write`."""
    return StudyPage(folder).write(out)


def study_page(view: dict[str, Any]) -> str:
    """Return the page of a `study_view`."""
    lines = [view["title"], *view["words"], *view["notices"]]
    words = "\n".join(f"<p>{html.escape(line)}</p>" for line in lines)
    data = f'<script type="application/json" id="data">{inline_json(view)}</script>\n'
    return page_of(f"{view['title']} · fedscape", data, DRAWING, POLICY, words)
