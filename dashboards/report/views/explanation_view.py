"""Why a run went as it did, as the page shows it: what `fedscape explain` found, or what the record alone shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dashboards.report.run_data import RunData
from server.diagnosis.diagnose import diagnose
from server.diagnosis.evidence import Evidence, labels_of
from server.diagnosis.finding import options_of

MOST_CLIENTS = 12


def explanation_view(run: RunData) -> dict[str, Any] | None:
    """Return the causes of a finished run, the most likely first; None while it is unfinished.

    Returns:
        `source`, a sentence; `healthy`; and `findings` with `title`, `evidence`, `clients`, `try` and `sets`.
    """
    if run.explanation is not None:
        source = "From the record, from the data and gradients of a sample of clients, and from trials of one round."
        return _shown(run.explanation["findings"], source)
    if run.outcome is None or not run.lines:
        return None
    found = diagnose(
        Evidence(
            scenario=run.scenario,
            lines=run.lines,
            started=run.facts,
            labels=labels_of(run.partition),
            outcome=run.outcome,
        )
    )
    source = "From the record alone. `fedscape explain RUN` also looks at data and gradients, and finds more causes."
    return _shown([asdict(finding) for finding in found.findings], source)


def _shown(findings: list[Mapping[str, Any]], source: str) -> dict[str, Any]:
    return {"source": source, "findings": [_finding(finding) for finding in findings]}


def _finding(finding: Mapping[str, Any]) -> dict[str, Any]:
    change, clients = finding.get("change") or {}, list(finding.get("clients") or ())
    more = [f"and {len(clients) - MOST_CLIENTS} more"] if len(clients) > MOST_CLIENTS else []
    return {
        "title": str(finding["title"]),
        "evidence": [str(clause) for clause in finding["evidence"]],
        "clients": [*map(str, clients[:MOST_CLIENTS]), *more],
        "try": str(change.get("words") or ""),
        "sets": options_of(change.get("sets") or {}),
        "because_of": str(finding.get("because_of") or ""),
    }
