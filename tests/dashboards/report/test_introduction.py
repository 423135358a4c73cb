"""The text above the runs of a page is escaped, and its labels name the runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

from dashboards.report.introduction import Introduction
from dashboards.report.report import report_page
from dashboards.report.run_data import read_run
from tests.support.made_records import make_record

EVIL = "</script><b>bold</b>"


def test_introduction_is_escaped_and_labels_name_the_runs(tmp_path: Path) -> None:
    runs = [read_run(make_record(tmp_path / name).path) for name in ("a", "b")]
    text = Introduction(EVIL, "lead", {"What": EVIL}, [("it falls", True, "holds")], [f"title={EVIL}"])
    page = report_page(runs, text, ["slow", "fast"])
    assert EVIL not in page
    found = re.search(r'<script type="application/json" id="data">(.*)</script>\n', page)
    assert found is not None
    payload = json.loads(found[1])
    assert payload["introduction"]["sections"] == [["What", EVIL]]
    assert payload["introduction"]["claims"] == [{"words": "it falls", "holds": True, "state": "holds"}]
    assert payload["compare"]["labels"] == ["slow", "fast"]
    assert payload["compare"]["words"] == []
    assert "introduction" not in json.loads(
        re.search(r'id="data">(.*)</script>\n', report_page(runs))[1]  # type: ignore[index]
    )
