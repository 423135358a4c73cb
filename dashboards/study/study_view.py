"""A study as its page draws it: words, tables and series, as JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from dashboards.report.formats import count, is_number, rounded
from dashboards.study.answer import answer_of, comparison_row, stated_words
from dashboards.study.curves import CurveReader, curves_view
from dashboards.study.interactions import factor_text, interactions_view
from dashboards.study.ranking import FORMATS, ranked_words, rankings
from dashboards.study.study_data import ENDED, StudyData, factor_value, value_of
from dashboards.study.survival import survival_view
from dashboards.study.tradeoff import tradeoff_view
from dashboards.study.tuning_view import tuning_view, tuning_words

DIGITS = 6
STATES = ("done", "stopped", "diverged", "failed", "running", "planned")
PARTS = {"data": "data", "partition": "partition", "faults": "faults", "drifts": "concept drifts", "cohorts": "cohorts",
         "model": "initial model", "batches": "batches"}  # fmt: skip
"""What arms may share for a seed, in words."""
MOST_NAMED = 6
"""Runs or pairs that a sentence names."""


def study_view(data: StudyData, reader: CurveReader | None = None, place: str = "") -> dict[str, Any]:
    """Return everything that a study's page shows.

    Args:
        data: the study.
        reader: reads the runs' curves; the same one for a study whose page is written again and again.
        place: the study's folder as the page's links name it, with a slash at its end; empty for a page inside it.
    """
    reader = reader or CurveReader()
    ranked = rankings(data)
    answer = answer_of(data, ranked)
    curves = curves_view(reader.read(data))
    facts = data.facts
    return {
        "title": str(facts.get("title") or facts.get("name") or data.path.resolve().name),
        "name": data.path.resolve().name,
        "words": answer.words,
        "facts": _facts(data),
        "notices": [*_notices(data), *reader.problems],
        "notes": [*answer.notes, *_own_notes(data)],
        "arms": data.arms,
        "grouped": data.is_grouped,
        "factors": _factors(data),
        "measure": data.measure.key if data.measure else None,
        "measures": {m.key: {"name": m.name, "better": m.better, "format": FORMATS.get(m.shown, "number")}
                     for m in data.measures},
        "rankings": ranked,
        "ranks": ranked_words(ranked[0], data.arms, data.measure) if data.measure else [],
        "comparisons": [comparison_row(one, data.arms) for one in answer.comparisons if one.pairs],
        "others": [comparison_row(one, data.arms) for one in answer.others],
        "stated": stated_words(answer.comparisons),
        "curves": curves,
        "survival": survival_view(data),
        "tradeoff": tradeoff_view(data),
        "interactions": interactions_view(data),
        "shared": _shared(data),
        "tuning": tuning_view(facts.get("tuning")),
        "tuned": tuning_words(facts.get("tuning")),
        "runs": [_run(data, row, place) for row in data.rows],
        "values": {m.key: [_short(value_of(row, m)[0]) for row in data.rows] for m in data.measures},
        "bounds": {m.key: _missed(data, m) for m in data.measures if any(_missed(data, m))},
    }  # fmt: skip


def _facts(data: StudyData) -> list[str]:
    """Return facts in a few words each."""
    states = [f"{data.states[state]:,} {state}" for state in STATES if data.states[state]]
    strange = [f"{number:,} {state}" for state, number in data.states.items() if state not in STATES]
    found = [
        f"{count(len(data.arms), 'arm')} × {count(len(data.seeds), 'seed')}",
        f"{count(len(data.rows), 'run')}: {', '.join([*states, *strange])}",
    ]
    found += [f"scenario {data.facts['scenario']}"] if data.facts.get("scenario") else []
    found += [f"fedscape {data.facts['version']}"] if data.facts.get("version") else []
    spent = math.fsum(row["seconds"] for row in data.rows if is_number(row.get("seconds")))
    return [*found, *([f"{spent:,.0f} s of computing" if spent >= 1 else ""] if spent >= 1 else [])]


def _notices(data: StudyData) -> list[str]:
    """Return sentences on runs that have not ended, failed, diverged or were stopped."""
    left = sum(data.states[state] for state in ("planned", "running"))
    found = []
    if left:
        ended = len(data.rows) - left
        found.append(f"{ended:,} of {count(len(data.rows), 'run')} have ended. The page has the numbers of these.")
    for state, words in (("failed", "failed and have no numbers"), ("diverged", "diverged")):
        rows = [row for row in data.rows if row["state"] == state]
        if rows:
            named = [f"{row['arm']}, seed {row['seed']}" for row in rows[:MOST_NAMED]]
            more = f"; and {len(rows) - MOST_NAMED:,} more" if len(rows) > MOST_NAMED else ""
            words = words.replace(" have ", " has ") if len(rows) == 1 else words
            found.append(f"{count(len(rows), 'run')} {words}: {'; '.join(named)}{more}.")
    return [*found, *_stopped(data)]


def _stopped(data: StudyData) -> list[str]:
    """Return sentences on the arms that were stopped early, because the study asks for it."""
    rows = [row for row in data.rows if row["state"] == "stopped"]
    reasons = data.facts.get("stopped")
    early = data.facts.get("early")
    kind = str(early.get("kind", "")).replace("_", " ") if isinstance(early, Mapping) else ""
    found = []
    for arm in dict.fromkeys(str(row["arm"]) for row in rows):
        number = sum(str(row["arm"]) == arm for row in rows)
        reason = str(reasons.get(arm) or "") if isinstance(reasons, Mapping) else ""
        how = f" ({kind})" if kind not in ("", "off") else ""
        found.append(
            f"{arm} was stopped early{how}: {count(number, 'run')} not played{f', {reason}' if reason else ''}."
        )
    return found


def _factors(data: StudyData) -> list[dict[str, Any]]:
    """Return each factor: its levels as text, and each arm's value (a number where all values are numbers)."""
    found = []
    for name, levels in data.factors.items():
        values = [factor_value(rows[0], name) for rows in data.by_arm.values()]
        numeric = all(is_number(value) for value in values)
        texts = [factor_text(level) for level in (sorted(levels) if numeric else levels)]
        found.append({"key": name, "numeric": numeric, "levels": texts,
                      "values": values if numeric else [factor_text(value) for value in values]})  # fmt: skip
    return found


def _shared(data: StudyData) -> list[dict[str, Any]]:
    """Return what the arms of pairs share for a seed and what differs, with the pairs of which it holds, in words."""
    listed = data.facts.get("shared")
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for one in listed if isinstance(listed, list) else ():
        arms, parts = (one.get("arms"), one.get("parts")) if isinstance(one, Mapping) else (None, None)
        if isinstance(arms, list) and len(arms) == 2 and isinstance(parts, Mapping):
            first, second = map(str, arms)
            names = {True: [], False: []}  # type: dict[bool, list[str]]
            for part, is_shared in parts.items():
                names[bool(is_shared)].append(PARTS.get(part, str(part)))
            groups.setdefault((tuple(names[True]), tuple(names[False])), []).append(f"{second} and {first}")
    found = []
    for (shared, differ), pairs in groups.items():
        more = f"; and {len(pairs) - MOST_NAMED:,} more" if len(pairs) > MOST_NAMED else ""
        named = "every pair" if len(groups) == 1 and len(pairs) > 1 else "; ".join(pairs[:MOST_NAMED]) + more
        found.append({"pairs": named, "shared": list(shared), "differ": list(differ)})
    return found


def _own_notes(data: StudyData) -> list[str]:
    """Return sentences on what the study left out, and what its arms' scenarios state."""
    facts = data.facts
    found = _texts(facts.get("notes"))
    if is_number(left := facts.get("left_out_seeds")) and left:
        found.append(f"{count(left, 'seed')} are left out, so that the study stays within budget.runs.")
    by_notice: dict[str, list[str]] = {}
    by_engine: dict[str, list[str]] = {}
    for arm in facts.get("arms") or ():
        name, own = (str(arm.get("name")), arm) if isinstance(arm, Mapping) else ("", {})
        for notice in _texts(own.get("notices")):
            by_notice.setdefault(notice, []).append(name)
        if isinstance(engine := own.get("engine"), Mapping) and engine.get("words"):
            by_engine.setdefault(str(engine["words"]), []).append(name)
    found += [f"{_some(data, arms)}: {notice}" for notice, arms in by_notice.items()]
    if by_engine:
        chosen = "; ".join(f"{_some(data, arms)}: {words}" for words, arms in by_engine.items())
        found.append(f"Engines: {chosen}. Each was chosen once and kept for all seeds, so no bit depends on timing.")
    return found


def _some(data: StudyData, arms: Sequence[str]) -> str:
    """Return the names of arms, at most `MOST_NAMED`."""
    if len(arms) == len(data.arms):
        return "Every arm"
    more = f" and {len(arms) - MOST_NAMED:,} more" if len(arms) > MOST_NAMED else ""
    return f"{', '.join(arms[:MOST_NAMED])}{more}"


def _run(data: StudyData, row: Mapping[str, Any], place: str) -> dict[str, Any]:
    folder = data.folder_of(row)
    has_page = folder is not None and (folder / "report.html").is_file()
    rounds, seconds = row.get("rounds"), row.get("seconds")
    return {
        "arm": data.arms.index(str(row["arm"])),
        "seed": str(row["seed"]),
        "state": str(row["state"]),
        "verdict": str(row.get("verdict") or ""),
        "rounds": int(rounds) if is_number(rounds) and row["state"] in ENDED else None,
        "seconds": _short(seconds) if is_number(seconds) and row["state"] in ENDED else None,
        "href": quote(f"{place}{row['run']}/report.html") if has_page else "",
    }


def _missed(data: StudyData, measure: Any) -> list[int]:
    """Return for each run 1 where its number is only a lower bound."""
    found = [value_of(row, measure) for row in data.rows]
    return [int(value is not None and not hit) for value, hit in found]


def _short(value: float | None) -> float | None:
    return rounded(value, DIGITS)


def _texts(value: Any) -> list[str]:
    """Return sentences of a fact: a text or a list of them."""
    listed: Sequence[Any] = [value] if isinstance(value, str) else value if isinstance(value, list) else ()
    return [str(one) for one in listed if one]
