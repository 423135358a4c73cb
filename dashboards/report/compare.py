"""Several runs side by side: what each reached, and the differences of arms, pair by pair.

Two runs are a pair where they have the same seed and their scenarios are two arms. With the same data and partition a
pair shares its random numbers (clients, batches, initial model), so its difference says more than two averages would.
Pairs that do not share them, or their rounds and sizes, are marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dashboards.report.arm_names import arm_names, differing_keys, flat_scenario
from dashboards.report.compared_measures import MEASURES, Measure
from dashboards.report.differences import CENSORED, comparisons, seed_of, sentences, table
from dashboards.report.formats import is_number
from dashboards.report.pair_marks import marks
from dashboards.report.run_data import RunData

MOST_VARIANTS = 8
LONGEST_TITLE = 60
"""An arm with a longer name is called by the folder of its first run."""


def comparison(runs: Sequence[RunData], labels: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the tables that compare runs, as text.

    Args:
        runs: at least two.
        labels: a distinct name for each run; by default what differs between them.

    Returns:
        `differ`: the keys in which their scenarios differ; `labels`: a short name for each run; `variants` and, where
        there are several with several runs, `variant` of each run; `measures` and `rows`: a row for each run with what
        it reached; `pairs`: for each arm but the first that has seeds of the first, `title`, `seeds`, `marks` (what
        the pairs do not share), `columns` and `rows`; `words`: sentences on the most important measures of each;
        `notes`.
    """
    flat = [flat_scenario(run.scenario) for run in runs]
    differ = differing_keys(flat)
    variants = list(labels) if labels else arm_names(flat) if differ else [""] * len(runs)
    measures = [m for m in MEASURES if any(is_number(m.of(run)) or m.at_least(run) is not None for run in runs)]
    rows = [[run.state, *(m.text(run) for m in measures)] for run in runs]
    pairs, words, notes = _pairs(runs, variants, measures)
    names = list(dict.fromkeys(variants))
    grouped = 1 < len(names) < len(runs)
    return {
        "differ": differ,
        "labels": list(labels) if labels else _labels(runs, variants, differ),
        "variants": names if grouped else [],
        "variant": [names.index(variant) for variant in variants] if grouped else [],
        "words": words,
        "measures": [m.name for m in measures],
        "rows": rows,
        "pairs": pairs,
        "notes": notes,
    }


def _labels(runs: Sequence[RunData], variants: Sequence[str], differ: Sequence[str]) -> list[str]:
    """Return a distinct name for each run: its variant and seed where these are distinct, else its folder's name."""
    seeds = {run.facts.get("seed") for run in runs}
    labels = [
        " · ".join(part for part in (variant, f"seed {run.facts.get('seed')}" if len(seeds) > 1 else "") if part)
        for run, variant in zip(runs, variants, strict=True)
    ]
    short = differ and max(map(len, labels)) <= LONGEST_TITLE
    named = [run.name for run in runs]
    if len(set(labels)) == len(labels) and (short or not differ):
        return labels
    if len(set(named)) == len(named):
        return named
    return [f"{name} ({index})" for index, name in enumerate(named, start=1)]


def _pairs(
    runs: Sequence[RunData], variants: Sequence[str], measures: Sequence[Measure]
) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Return the tables of pairs, each later arm against the first, sentences on them, and notes."""
    arms, notes = _arms(runs, variants)
    names = list(arms)
    if len(names) < 2:
        return [], [], [*notes, "The runs differ only in their seeds, so there are no pairs to compare."]
    if len(names) > MOST_VARIANTS:
        return [], [], [*notes, f"There are {len(names)} variants; pairs are shown for at most {MOST_VARIANTS}."]
    shown = [
        name if len(name) <= LONGEST_TITLE or not seeds else next(iter(seeds.values())).name
        for name, seeds in arms.items()
    ]
    first, others = arms[names[0]], list(zip(shown[1:], (arms[name] for name in names[1:]), strict=True))
    paired = [(name, seeds) for name, seeds in others if first.keys() & seeds.keys()]
    alone = [name for name, seeds in others if not first.keys() & seeds.keys()]
    notes += [f"{name} and {shown[0]} have no seed in common, so they make no pairs." for name in alone]
    if not paired:
        return [], [], notes
    compared = [(name, list(seeds.values())) for name, seeds in [(shown[0], first), *paired]]
    tables, words = [], []
    for found, (name, seeds) in zip(comparisons(compared, measures), paired, strict=True):
        common = [seed for seed in first if seed in seeds]
        marked = marks([(first[seed], seeds[seed]) for seed in common])
        tables.append({"title": f"{name} against {shown[0]}", "seeds": common, "marks": marked, **table(found)})
        words += [f"{one} ({'; '.join(marked)})" if marked else one for one in sentences(found)]
        if any(one.censored for one in found) and CENSORED not in notes:
            notes.append(CENSORED)
    if len(paired) > 1 and any(len(each["seeds"]) > 1 for each in tables):
        notes.append(f"Each p is corrected for the {len(paired)} variants compared with {shown[0]} (Holm).")
    return tables, words, notes


def _arms(runs: Sequence[RunData], variants: Sequence[str]) -> tuple[dict[str, dict[int, RunData]], list[str]]:
    """Return for each arm its runs by seed, the first of each, and notes on the runs left out."""
    arms: dict[str, dict[int, RunData]] = {}
    again, seedless = False, []
    for run, variant in zip(runs, variants, strict=True):
        seeds, seed = arms.setdefault(variant, {}), seed_of(run)
        if seed is None:
            seedless.append(run.name)
            continue
        again |= seed in seeds
        seeds.setdefault(seed, run)
    notes = ["Of several runs with the same scenario and seed, the pairs use the first."] if again else []
    notes += [f"{', '.join(seedless)}: no seed is recorded, so these runs make no pairs."] if seedless else []
    return arms, notes
