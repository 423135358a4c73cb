"""Several runs side by side: what each reached, and the differences between variants, pair by pair.

Two runs are a pair where they have the same seed and their scenarios are two variants. With the same data and
partition a pair shares its random numbers (clients, batches, initial model), so its difference says more than two
averages would; the interval is Student's for the mean of the differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dashboards.report.compared_measures import MEASURES, Measure, missed_target
from dashboards.report.differences import CENSORED, difference_row, sentence
from dashboards.report.formats import is_number
from dashboards.report.run_data import RunData

IGNORED = ("title", "name", "run.seed", "run.checkpoint_seconds", "run.checkpoint_rounds")
"""Keys of a scenario that do not distinguish variants."""
SHARED = ("data", "partition")
"""Sections that must be equal for a pair to share its random numbers."""
MOST_VARIANTS = 8
LONGEST_TITLE = 60
"""A variant with a longer name is called by the folder of its first run."""


def comparison(runs: Sequence[RunData]) -> dict[str, Any]:
    """Return the tables that compare runs, as text.

    Args:
        runs: at least two.

    Returns:
        `differ`: the keys in which their scenarios differ; `labels`: a short name for each run; `variants` and, where
        there are several with several runs, `variant` of each run; `measures` and `rows`: a row for each run with what
        it reached; `pairs`: for each two variants with common seeds, `title`, `seeds` and rows of (measure, mean
        difference, interval, direction, pairs); `words`: sentences on the first measure of each; `notes`.
    """
    flat = [_flat(run.scenario) for run in runs]
    differ = _telling(flat)
    variants = [_variant(one, differ) for one in flat]
    measures = [m for m in MEASURES if any(is_number(m.of(run)) or m.at_least(run) is not None for run in runs)]
    rows = [[run.state, *(m.text(run) for m in measures)] for run in runs]
    pairs, notes = _pairs(runs, variants, measures)
    if pairs and any(missed_target(run) for run in runs):
        notes.append(CENSORED)
    sections = {key.partition(".")[0] for key in differ}
    apart = sorted(sections & set(SHARED))
    if pairs and apart:
        notes.append(
            f"The runs of a pair also differ in {' and '.join(apart)}, so they do not share their random numbers."
        )
    names = list(dict.fromkeys(variants))
    grouped = 1 < len(names) < len(runs)
    return {
        "differ": differ,
        "labels": _labels(runs, variants, differ),
        "variants": names if grouped else [],
        "variant": [names.index(variant) for variant in variants] if grouped else [],
        "words": [sentence(pair) for pair in pairs if pair["rows"]],
        "measures": [m.name for m in measures],
        "rows": rows,
        "pairs": pairs,
        "notes": notes,
    }


def _flat(scenario: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a scenario's keys with dots, without those in `IGNORED`."""
    found: dict[str, Any] = {}
    for key, value in scenario.items():
        name = prefix + key
        if isinstance(value, Mapping):
            found |= _flat(value, f"{name}.")
        elif name not in IGNORED:
            found[name] = value
    return found


def _telling(flat: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys in which scenarios differ, without those that follow from a different `kind`.

    Example:
        >>> _telling([{"algorithm.kind": "fedavg"}, {"algorithm.kind": "fedprox", "algorithm.mu": 0.1}])
        ['algorithm.kind']
    """

    def values(key: str, of: Sequence[Mapping[str, Any]]) -> set[str]:
        return {str(one.get(key)) for one in of}

    differ = [key for key in dict.fromkeys(key for one in flat for key in one) if len(values(key, flat)) > 1]

    def follows(key: str) -> bool:
        kind = f"{key.rpartition('.')[0]}.kind"
        if kind == key or kind not in differ:
            return False
        return all(len(values(key, [o for o in flat if str(o.get(kind)) == k])) == 1 for k in values(kind, flat))

    return [key for key in differ if not follows(key)]


def _variant(flat: Mapping[str, Any], differ: Sequence[str]) -> str:
    """Return a scenario's variant: the values in which it differs from the others; a kind by its value alone.

    Example:
        >>> _variant({"algorithm.kind": "fedprox", "algorithm.mu": 0.1, "local.local_lr": 0.5},
        ...          ["algorithm.kind", "algorithm.mu"])
        'fedprox, mu = 0.1'
    """
    words = []
    for key in differ:
        if key in flat:
            _, _, rest = key.rpartition(".")
            words.append(str(flat[key]) if rest == "kind" else f"{rest} = {flat[key]}")
    return ", ".join(words)


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
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the tables of paired differences, each later variant against the first, and notes on the pairs."""
    by_variant: dict[str, dict[Any, RunData]] = {}
    again = False
    for run, variant in zip(runs, variants, strict=True):
        seeds = by_variant.setdefault(variant, {})
        again |= run.facts.get("seed") in seeds
        seeds.setdefault(run.facts.get("seed"), run)
    notes = ["Of several runs with the same scenario and seed, the pairs use the first."] if again else []
    names = list(by_variant)
    if len(names) < 2:
        return [], [*notes, "The runs differ only in their seeds, so there are no pairs to compare."]
    if len(names) > MOST_VARIANTS:
        return [], [*notes, f"There are {len(names)} variants; pairs are shown for at most {MOST_VARIANTS}."]
    shown = {
        name: name if len(name) <= LONGEST_TITLE else next(iter(seeds.values())).name
        for name, seeds in by_variant.items()
    }
    first = names[0]
    tables: list[dict[str, Any]] = []
    for other in names[1:]:
        common = [seed for seed in by_variant[first] if seed in by_variant[other]]
        if common:
            both = [(by_variant[first][seed], by_variant[other][seed]) for seed in common]
            sides = (shown[first], shown[other])
            found = [row for m in measures if (row := difference_row(m, both, sides)) is not None]
            tables.append({"title": f"{shown[other]} minus {shown[first]}", "seeds": common, "rows": found})
        else:
            notes.append(f"{shown[other]} and {shown[first]} have no seed in common, so they make no pairs.")
    return tables, notes
