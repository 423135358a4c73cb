"""Sets up a Grafana for `dashboards push`: two data sources, a folder, the dashboards, and annotations of runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dashboards.grafana.names import FOLDER_UID, LIVE_UID, RUNS_UID, TAG
from dashboards.grafana.promql import ROUND_0
from dashboards.grafana.server import Done, GrafanaServer
from server.record.checked.line_files import damaged
from server.record.records import RunFolder

COMMITTED = Path(__file__).parents[1] / "json"
"""The dashboards' JSON, built by `make dashboards`."""

LIVE_URL, RUNS_URL = "http://127.0.0.1:9090", "http://127.0.0.1:9099"


@dataclass(frozen=True)
class Note:
    """An event or the outcome of a run.

    Attributes:
        run_id: the run.
        round_index: the round after which it occurred.
        kind: `converged`, `diverged`, ... or the kind of the event.
        words: its description.
    """

    run_id: str
    round_index: int
    kind: str
    words: str


def committed() -> list[dict[str, Any]]:
    """Return the dashboards, by file name."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(COMMITTED.glob("*.json"))]


def data_sources(live_url: str = LIVE_URL, runs_url: str = RUNS_URL) -> list[dict[str, Any]]:
    """Return the two data sources in the form of Grafana's API and its provisioning files.

    Rounds are a second apart, so both set the smallest step of a query to one second.
    """
    return [
        {
            "name": f"fedscape {role}",
            "uid": uid,
            "type": "prometheus",
            "access": "proxy",
            "url": url,
            "jsonData": {"timeInterval": "1s", "httpMethod": "POST"},
        }
        for role, uid, url in (("live", LIVE_UID, live_url), ("runs", RUNS_UID, runs_url))
    ]


def notes(path: Path) -> list[Note]:
    """Return the events and the outcome of a run, read from its record.

    Raises:
        RunFolderError: the folder is not a run's, or cannot be read.
    """
    folder = RunFolder.open(path)
    run_id = ((folder.read_environment() or {}).get("run") or {}).get("run_id") or folder.path.resolve().name
    events = folder.read_events()
    if events.damage:
        raise damaged(folder.events, events)
    found = [
        Note(run_id, int(line.get("round") or 0), line.get("kind", "event"), line.get("message", ""))
        for line in events.values
    ]
    outcome = folder.read_outcome()
    if outcome is not None:
        course = outcome.get("drift")
        drift = course.get("words") if isinstance(course, dict) else course
        ended = str(outcome.get("words") or outcome.get("outcome", "ended"))
        condition = (outcome.get("condition") or {}).get("words")
        ended = f"{ended}; what happened: {condition}" if condition and condition not in ended else ended
        words = f"{ended}; drift {drift}" if drift else ended
        found.append(Note(run_id, int(outcome.get("round", 0)), str(outcome.get("outcome", "ended")), words))
    return found


def push(
    server: GrafanaServer, *, title: str, live_url: str, runs_url: str, happened: Sequence[Note] = ()
) -> Iterator[tuple[str, Done]]:
    """Set up a Grafana. It is idempotent.

    Args:
        server: the Grafana.
        title: the folder's title.
        live_url: the Prometheus that scrapes, as Grafana reaches it.
        runs_url: the Prometheus that keeps every round, likewise.
        happened: the notes to annotate.

    Yields:
        What was pushed, and whether it was created, updated or unchanged.

    Raises:
        UserError: the server refuses; earlier parts of the push stay.
    """
    server.require_recent()
    for source in data_sources(live_url, runs_url):
        yield f"data source {source['name']}", server.put_data_source(source)
    yield f"folder {title}", server.put_folder(FOLDER_UID, title)
    for model in committed():
        yield f"dashboard {model['title']}", server.put_dashboard(model, FOLDER_UID)
    for note in happened:
        when, tags = 1000 * (ROUND_0 + note.round_index), (TAG, note.run_id, note.kind)
        yield f"annotation {note.run_id} {note.kind}", server.put_annotation(when, tags, f"{note.run_id}: {note.words}")
