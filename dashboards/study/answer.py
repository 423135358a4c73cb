"""The answer of a study in words, and the comparisons behind it: of the study's question, and of its other measures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dashboards.report.compared_measures import Measure
from dashboards.report.formats import count
from dashboards.statistics.comparing import Comparison, compare_arms, corrected
from dashboards.statistics.wording import change, interval, p_value
from dashboards.study.ranking import ranked_words
from dashboards.study.study_data import StudyData, value_of

MOST_SENTENCES = 4
MOST_OTHER_PAIRS = 8
"""Pairs whose other measures are compared, where all arms are compared with each other."""


@dataclass(frozen=True)
class Answer:
    """What the study found.

    Attributes:
        words: sentences, the first being the answer.
        comparisons: the pairs by the measure of the question, corrected together.
        others: pairs by the other measures, corrected together.
        notes: sentences on what was left out.
    """

    words: list[str]
    comparisons: list[Comparison]
    others: list[Comparison]
    notes: list[str]


def answer_of(data: StudyData, rankings: Sequence[dict[str, Any]]) -> Answer:
    """Return the answer.

    Args:
        data: the study.
        rankings: of `rankings`, the one of the study's measure first.
    """
    measure = data.measure
    if measure is None:
        return Answer(["No run has ended yet."], [], [], [])
    main = corrected(_compared(data, measure, pair) for pair in data.pairs)
    compared = [one for one in main if one.pairs]
    told = sorted(compared, key=lambda one: not one.distinguishable) if data.is_grouped else compared
    words = [f"{one.sentence}." for one in told[:MOST_SENTENCES]]
    notes = []
    if len(compared) > MOST_SENTENCES:
        notes.append(f"{len(compared) - MOST_SENTENCES} more comparisons are in the table of differences.")
    if data.is_grouped:
        differing = sum(one.distinguishable for one in compared)
        words.insert(0, f"{differing} of {count(len(compared), 'pair')} of arms differ in {measure.spoken}.")
    elif len(compared) != 1:
        words.insert(0, _first(data, measure, rankings[0]))
    kept = data.pairs if data.is_grouped else data.pairs[:MOST_OTHER_PAIRS]
    rest = [other for other in data.measures if other is not measure]
    made = (_compared(data, other, pair) for other in rest for pair in kept)
    others = corrected(found for found in made if found.pairs)
    if others and len(kept) < len(data.pairs):
        notes.append(f"Other measures are compared for the first {len(kept)} of {len(data.pairs)} pairs of arms.")
    return Answer(words, main, others, notes)


def _compared(data: StudyData, measure: Measure, pair: tuple[str, str]) -> Comparison:
    first, second = pair
    return compare_arms(data.by_arm[first], data.by_arm[second], measure, names=pair)


def _first(data: StudyData, measure: Measure, ranking: dict[str, Any]) -> str:
    """Return the sentence on the arm that is first, or on the only one."""
    arm, estimate, interval_words, _ = ranked_words(ranking, data.arms, measure)[0]
    row = ranking["rows"][0]
    seeds = count(row["n"], "run")
    if estimate == "–":
        return "No run has a number yet."
    if row["estimate"] is None:
        missed = f"{row['missed']} of {seeds} missed the target"
        none = "" if len(data.arms) == 1 else "No arm reached the target in most of its runs; "
        return f"{none}{arm}: {missed}."
    shown = f"{'median' if ranking['kind'] == 'median' else 'mean'} {estimate}"
    words = f"{shown}{f' ({interval_words})' if interval_words else ''} over {seeds}"
    if len(data.arms) == 1 or measure.better is None:
        return f"{arm}: {measure.name}, {words}."
    return f"{arm} is first of {len(data.arms)} arms in {measure.spoken}: {words}."


def comparison_row(found: Comparison, arms: Sequence[str]) -> dict[str, Any]:
    """Return a comparison as JSON values: numbers for its chart, text for its table."""
    low, high = found.interval or (None, None)
    one = 1.0 if found.scale == "ratio" else 0.0
    return {
        "first": arms.index(found.first),
        "second": arms.index(found.second),
        "measure": found.quantity.key,
        "scale": found.scale,
        "change": None if math.isnan(found.estimate) else found.change,
        "low": None if low is None else low - one,
        "high": None if high is None else high - one,
        "differs": found.distinguishable,
        "sentence": found.sentence,
        "text": [
            change(found),
            interval(found) or "–",
            f"{found.wins} pairs",
            found.test,
            p_value(found.p),
            p_value(found.p_corrected),
            _needed(found),
        ],
    }


def _needed(found: Comparison) -> str:
    return "–" if found.needed is None else f"{found.needed:,}"


def stated_words(comparisons: Sequence[Comparison]) -> str:
    """Return what difference the needed seeds are for, where all comparisons have the same; else an empty text."""
    ratios = {one.stated for one in comparisons if one.scale == "ratio" and one.needed is not None}
    if len(ratios) == 1 and all(one.scale == "ratio" for one in comparisons if one.needed is not None):
        return f"a difference of {100 * ratios.pop():.3g}%"
    return "a difference of a tenth of the first arm's mean, or of 0.01 of a share"


def ended_of(data: StudyData, measure: Measure) -> int:
    """Return the number of runs with a number or a bound."""
    return sum(value_of(row, measure)[0] is not None for row in data.rows)
