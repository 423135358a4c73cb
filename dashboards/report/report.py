"""The report: one self-contained HTML file, of one run or of several side by side.

    write_report([Path("runs/digits-...")])                  # into the run's folder
    write_report([run_a, run_b], Path("compare.html"))

The page loads nothing from the network; its content security policy enforces that.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clients.core.errors import UserError
from dashboards.report.compare import comparison
from dashboards.report.introduction import Introduction
from dashboards.report.pages import DRAWING, MARK, POLICY, inline_json, page_of
from dashboards.report.run_data import RunData, read_run
from dashboards.report.run_view import run_view, share_out
from server.record.files import OTHER_OUT, free_name, place_for, refuse_others, sync_folder, whole_file
from server.record.records import RunFolder

MOST_RUNS = 100


class ReportWriter:
    """The observer that writes a run's report once its record is complete.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def run_finished(self, outcome: Mapping[str, Any]) -> None:
        """Write report.html from the run's folder."""
        write_report([self._folder.path])


def write_report(
    paths: Sequence[Path],
    out: Path | None = None,
    *,
    introduction: Introduction | None = None,
    labels: Sequence[str] | None = None,
) -> Path:
    """Write the report of one or several runs.

    Args:
        paths: the runs' folders; given several, those that differ in one thing are compared pair by pair.
        out: the file, new or an earlier page; by default `report.html` in the folder of one run, and for several
            `compare.html` here, or `compare-2.html` and so on where it exists.
        introduction: a text above the runs.
        labels: a distinct name for each of several runs; by default what differs between them.

    Returns:
        The file.

    Raises:
        UserError: no run, too many, or the same twice; or `out` is a folder.
        RunFolderError: a run cannot be read, or the file cannot be written.
    """
    if not paths:
        raise UserError("runs", "must name at least one run's folder")
    if len(paths) > MOST_RUNS:
        raise UserError("runs", f"must be at most {MOST_RUNS}, got {len(paths)}", fix="Choose the runs to compare.")
    again = next((path for i, path in enumerate(paths) if path.resolve() in {p.resolve() for p in paths[:i]}), None)
    if again is not None:
        raise UserError("runs", f"must differ from each other, got {str(again)!r} twice")
    if out is not None:
        place_for(out, "report.html")
        if out.suffix.lower() not in (".html", ".htm"):
            fix = f"The report is a page: name it {out.with_suffix('.html').name}."
            raise UserError("out", f"must end in .html, got {out.name!r}", fix=fix)
        refuse_others(out, MARK)
    runs = [read_run(path) for path in paths]
    file = out or (runs[0].folder.report if len(runs) == 1 else free_name(Path("compare.html")))
    page = report_page(runs, introduction, labels).encode()
    with whole_file(file, fix=OTHER_OUT) as handle:
        handle.write(page)
    sync_folder(file.parent)
    return file


def report_page(
    runs: Sequence[RunData], introduction: Introduction | None = None, labels: Sequence[str] | None = None
) -> str:
    """Return the page; see `write_report`."""
    budget = share_out(len(runs))
    views = [run_view(run, budget) for run in runs]
    compare = comparison(runs, labels) if len(runs) > 1 else None
    title = views[0]["name"] if len(views) == 1 else f"{len(views)} runs"
    lines = [line for view in views for line in _plain_words(view)]
    payload: dict[str, Any] = {"runs": views, "compare": compare}
    if introduction is not None:
        title, lines = introduction.title, [*introduction.plain_words(), *lines]
        payload["introduction"] = introduction.view()
        if compare is not None:
            compare["words"] = []  # the introduction says what differs
    words = "\n".join(f"<p>{html.escape(line)}</p>" for line in lines)
    data = f'<script type="application/json" id="data">{inline_json(payload)}</script>\n'
    return page_of(f"{title} · fedscape", data, (*DRAWING, "report.js"), POLICY, words)


def _plain_words(view: Mapping[str, Any]) -> list[str]:
    """Return the verdict and its reasons, for readers without JavaScript."""
    return [f"{view['name']}: {view['verdict']}", *(f"- {reason}" for reason in view["reasons"])]
