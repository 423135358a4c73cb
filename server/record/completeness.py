"""Compares a run's files with its record: what is missing, what is damaged, and what has no checksum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from clients.core.errors import RunFolderError
from server.record.checked.json_files import read_json
from server.record.checked.line_files import RecordedLines
from server.record.checked.regular_files import LARGEST_PART, read_regular
from server.record.checked.seals import UNLIKE, checksum
from server.record.checkpoint import CheckpointStore
from server.record.client_table import listed_parts, part_files, read_index, read_part, rounds_of
from server.record.records import RunFolder

Line = Mapping[str, Any]
NO_CHECKSUMS = "An earlier version wrote this record without checksums, so a damaged number in it is not noticed."
MOST_SPANS = 5


def problems_of(folder: RunFolder, rounds: RecordedLines, outcome: Line | None) -> list[str]:
    """Return sentences on what the files of a run lack, compared with its record.

    Args:
        folder: the run's folder.
        rounds: its rounds.
        outcome: how it ended; None where it has not.

    Returns:
        Missing rounds, missing or damaged client rows, a changed scenario or model, and missing checksums.
    """
    ended = outcome is not None and outcome.get("outcome") != "interrupted"
    reached = _reached(folder, outcome)
    seals = _seals(folder)
    found = list(_rounds(folder, rounds, seals, reached))
    kept = min(reached, _finite(outcome, reached))
    found += client_problems(folder.clients, rounds.values, kept) + score_problems(folder.scores, rounds.values, kept)
    found += _files(folder, seals if ended else {})
    if rounds.values and not rounds.has_links:
        return [*found, NO_CHECKSUMS]
    return [*found, *(f"{name}: has no checksum." for name in unsealed_files(folder))]


def _seals(folder: RunFolder) -> Mapping[str, str]:
    """Return the checksums in the outcome; none before the end of the run, or where the outcome is damaged."""
    with suppress(RunFolderError):
        return folder.read_seals()
    return {}


def _reached(folder: RunFolder, outcome: Line | None) -> int:
    """Return the last round that is known to be on disk: the end of the run, or its last checkpoint."""
    checkpoint = CheckpointStore.last_round_in(folder.checkpoint) or 0
    return max(outcome.get("round", 0), checkpoint) if outcome is not None else checkpoint


def _finite(outcome: Line | None, reached: int) -> int:
    """Return the last round whose client rows are kept: a round whose parameters are not finite has none."""
    if outcome is None or outcome.get("outcome") != "diverged":
        return reached
    return int(outcome.get("last_finite_round", reached - 1))


def _rounds(folder: RunFolder, rounds: RecordedLines, seals: Mapping[str, str], reached: int) -> Iterator[str]:
    """Yield sentences on rounds and events that are missing; `seals` has the heads of their chains at the end."""
    have = [line["round"] for line in rounds.values]
    if any(later <= earlier for earlier, later in pairwise(have)):
        yield "rounds.jsonl: rounds are recorded twice or out of order."
    gaps = [(a + 1, b - 1) for a, b in pairwise([-1, *sorted(have), max([reached + 1, *(r + 1 for r in have)])])]
    lost = [gap for gap in gaps if gap[0] <= gap[1]]
    if lost and (have or reached):
        are = "is" if lost == [(lost[0][0], lost[0][0])] else "are"
        yield f"rounds.jsonl: {_in_words(lost)} {are} missing; the run reached round {max(reached, *have, 0)}."
    if "rounds.jsonl" in seals and rounds.head().hex() != seals["rounds.jsonl"]:
        yield "rounds.jsonl: is not the record that the outcome was computed from; lines were changed or removed."
    if "events.jsonl" in seals:
        with suppress(RunFolderError):
            heads = {head.hex() for head in folder.read_events().heads}
            if heads and seals["events.jsonl"] not in heads:
                yield "events.jsonl: lacks events that the run recorded."


def _files(folder: RunFolder, seals: Mapping[str, str]) -> Iterator[str]:
    """Yield sentences on a changed scenario, and on lost or changed models where `seals` has their checksums."""
    with suppress(RunFolderError):
        if problem := folder.scenario_problem():
            yield f"scenario.toml: {problem}."
    for model in (folder.model, folder.best_model):
        stated = seals.get(model.name)
        if stated is not None and (problem := _problem_of(model, stated)):
            yield f"{model.name}: {problem}."


def _problem_of(model: Path, stated: str) -> str:
    """Return that a model is missing or has another checksum than stated, as a clause; empty where it is whole."""
    if not model.is_file():
        return "is missing"
    try:
        return UNLIKE if checksum(read_regular(model, most=LARGEST_PART)) != stated else ""
    except RunFolderError as error:
        return error.problem


def client_problems(clients: Path, lines: Sequence[Line], reached: int) -> list[str]:
    """Return sentences on client rows that are missing or damaged.

    A round has a row for each respondent, and so many that it counts them in `histograms`.

    Args:
        clients: the folder of the parts.
        lines: the rounds.
        reached: rows of rounds up to this one must be there.
    """
    wanted = {
        line["round"]: int(line.get("respondents") or 0)
        for line in lines
        if 0 < line["round"] <= reached and line.get("histograms")
    }
    return _row_problems("Client rows", clients, wanted, reached)


def score_problems(scores: Path, lines: Sequence[Line], reached: int) -> list[str]:
    """Return sentences on rows of scores that are missing or damaged; none without the folder, as in earlier versions.

    Args:
        scores: the folder of the parts.
        lines: the rounds; `client_spread` has the number of clients that evaluated the model.
        reached: rows of rounds up to this one must be there.
    """
    if not scores.is_dir():
        return []
    evaluated = [line for line in lines if line.get("client_spread") and 0 < line["round"] <= reached]
    wanted = {line["round"]: int(line["client_spread"].get("clients") or 0) for line in evaluated}
    return _row_problems("Scores", scores, wanted, reached)


def _row_problems(what: str, folder: Path, wanted: Mapping[int, int], reached: int) -> list[str]:
    """Return sentences on rows that are missing or damaged; `wanted` has how many each round has."""
    if not wanted:
        return []
    found: list[str] = []
    have: dict[int, int] = {}
    try:
        index = read_index(folder)
        found += [f"{folder.name}/_parts.jsonl: {index.damage}."] if index.damage else []
        listed = listed_parts(folder)
    except RunFolderError as error:
        listed = {}
        found.append(f"{folder.name}/_parts.jsonl: {error.problem}.")
    for part in _parts(folder, reached):
        try:
            rounds = read_part(part, ["round"], listed.get(part.name))["round"].to_numpy()
        except RunFolderError as error:
            found.append(f"{folder.name}/{part.name}: {error.problem}.")
            continue
        for r, rows in zip(*np.unique(rounds, return_counts=True), strict=True):
            have[int(r)] = max(have.get(int(r), 0), int(rows))
    short = {r: rows - have.get(r, 0) for r, rows in wanted.items() if have.get(r, 0) < rows}
    if short:
        words, lost = _in_words(_spans(short)), sum(short.values())
        found.append(f"{what} of {words} are missing: {lost:,} of {sum(wanted.values()):,} rows.")
    return found


def _parts(clients: Path, reached: int) -> Iterator[Path]:
    """Yield the parts with rounds up to `reached`; a kill may leave half a part after it."""
    for part in part_files(clients):
        with suppress(RunFolderError):
            if rounds_of(part)[0] <= reached:
                yield part


def _spans(rounds: Iterable[int]) -> list[tuple[int, int]]:
    """Return the spans of consecutive rounds.

    Example:
        >>> _spans([1, 2, 3, 7])
        [(1, 3), (7, 7)]
    """
    spans: list[tuple[int, int]] = []
    for r in sorted(rounds):
        if spans and r == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], r)
        else:
            spans.append((r, r))
    return spans


def _in_words(spans: Sequence[tuple[int, int]]) -> str:
    """Return spans of rounds in words.

    Example:
        >>> _in_words([(3, 3)]), _in_words([(1, 3), (7, 7)])
        ('round 3', 'rounds 1 to 3, 7')
    """
    words = [str(a) if a == b else f"{a} to {b}" for a, b in spans[:MOST_SPANS]]
    one = len(spans) == 1 and spans[0][0] == spans[0][1]
    return f"round{'' if one else 's'} {', '.join(words)}{', ...' if len(spans) > MOST_SPANS else ''}"


def unsealed_files(folder: RunFolder) -> list[str]:
    """Return the names of JSON files without a checksum, in a run whose lines have links."""
    found = []
    for path in (
        folder.environment,
        folder.outcome,
        folder.partition,
        folder.truth,
        folder.forecasts,
        folder.samples,
        folder.surface,
        folder.explanation,
        folder.probes,
    ):
        with suppress(RunFolderError):
            read = read_json(path)
            found += [path.name] if read is not None and not read[1] else []
    return found
