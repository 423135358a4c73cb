"""Sets up a Grafana for `dashboards push`: two data sources, a folder, the dashboards, and annotations of runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dashboards.grafana.names import FOLDER_UID, LIVE_UID, RUNS_UID, TAG
from dashboards.grafana.promql import ROUND_0
from dashboards.grafana.server import Done, GrafanaServer
from server.diagnosis.finding import options_of
from server.record.checked.line_files import damaged
from server.record.records import RunFolder

COMMITTED = Path(__file__).parents[1] / "json"
"""The dashboards' JSON, built by `make dashboards`."""

FINDING = "finding"
"""The kind of a note of what `fedscape explain` found."""
LIVE_URL, RUNS_URL = "http://127.0.0.1:9090", "http://127.0.0.1:9099"


@dataclass(frozen=True)
class Note:
    """An event, the outcome or a finding of a run.

    Attributes:
        run_id: the run.
        round_index: the round after which it occurred.
        kind: `converged`, `diverged`, ..., the kind of the event, or `finding`.
        words: its description.
        cause: the kind of a finding's cause; empty for other notes.
    """

    run_id: str
    round_index: int
    kind: str
    words: str
    cause: str = ""

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of its annotation."""
        return (TAG, self.run_id, self.kind, *([self.cause] if self.cause else ()))


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
    """Return the events, the outcome and the findings of a run, read from its record.

    Raises:
        RunFolderError: the folder is not a run's, or cannot be read.
    """
    folder = RunFolder.open(path)
    run_id = run_id_of(folder)
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
    return found + findings(folder)


def notes_by_run(paths: Sequence[Path]) -> dict[str, list[Note]]:
    """Return the notes of some runs by their names; a run without any has an empty list.

    Raises:
        RunFolderError: a folder is not a run's, or cannot be read.
    """
    found: dict[str, list[Note]] = {}
    for path in paths:
        found.setdefault(run_id_of(RunFolder.open(path)), []).extend(notes(path))
    return found


def run_id_of(folder: RunFolder) -> str:
    """Return the name of a run in Grafana and Prometheus.

    Raises:
        RunFolderError: the environment cannot be read.
    """
    return str(((folder.read_environment() or {}).get("run") or {}).get("run_id") or folder.path.resolve().name)


def findings(folder: RunFolder) -> list[Note]:
    """Return what `fedscape explain` found in a run, each with its evidence and the change to try.

    A finding that shows in one round is of that round, another of the last one.

    Raises:
        RunFolderError: the folder cannot be read.
    """
    explanation = folder.read_explanation()
    if explanation is None or not explanation["findings"]:
        return []
    lines, run_id = folder.read_rounds().values, run_id_of(folder)
    last = int(lines[-1]["round"]) if lines else 0
    found = []
    for one in explanation["findings"]:
        at = one.get("round_index")
        found.append(Note(run_id, last if at is None else int(at), FINDING, _finding_words(one), str(one["kind"])))
    return found


def _finding_words(finding: Mapping[str, Any]) -> str:
    title, change = str(finding["title"]), finding.get("change") or {}
    words = f"{title[:1].upper()}{title[1:]}: {'; '.join(map(str, finding['evidence']))}."
    sets = options_of(change.get("sets") or {})
    return words + (f" Try: {change['words']}" + (f" ({sets})" if sets else "") + "." if change else "")


def push(
    server: GrafanaServer, *, title: str, live_url: str, runs_url: str, runs: Mapping[str, Sequence[Note]]
) -> Iterator[tuple[str, Done]]:
    """Set up a Grafana. It is idempotent.

    Args:
        server: the Grafana.
        title: the folder's title.
        live_url: the Prometheus that scrapes, as Grafana reaches it.
        runs_url: the Prometheus that keeps every round, likewise.
        runs: the notes to annotate, by run.

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
    for run_id, found in runs.items():
        yield from annotate(server, run_id, found)


def annotate(server: GrafanaServer, run_id: str, found: Sequence[Note]) -> Iterator[tuple[str, Done]]:
    """Annotate a run; findings that are not among the notes any more are removed. It is idempotent.

    Args:
        server: the Grafana.
        run_id: the run.
        found: its notes, with all of its findings.

    Yields:
        What was annotated, and whether it was created, updated, unchanged or removed.

    Raises:
        UserError: the server refuses.
    """
    for note in found:
        done = server.put_annotation(
            1000 * (ROUND_0 + note.round_index), note.tags, f"{run_id}: {note.words}", moves=note.kind == FINDING
        )
        yield f"annotation {run_id} {note.cause or note.kind}", done
    kept = [note.tags for note in found if note.kind == FINDING]
    if gone := server.remove_annotations((TAG, run_id, FINDING), keep=kept):
        yield f"annotations {run_id} of {gone} earlier finding{'s' * (gone > 1)}", "removed"
