"""The error rates of the conditions, on made-up records with a known truth and on real runs; writes docs/verdicts.md.

    make verdicts
    PYTHONPATH=tests/support python tests/benchmarks/verdicts.py [--play [SCENARIO ...]] [--seed N] [--grid] [--each N]

Made-up records with an even index, and real runs of the first seed, are the calibration half: `--grid` prints its
accuracy with each threshold halved and doubled. The other half, which nothing was set on, is for the confusion matrix,
which goes between the page's marks. `--play` plays the built-in scenarios whose data need no download to three times
their budget, and writes their curves to verdict_curves.json.gz.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import real_curves
from labelled_curves import MAKERS, Labelled, draw
from report import table

import fedscape as fs
import server.verdicts
from server.convergence.condition import Condition
from server.verdicts import thresholds
from server.verdicts.condition import condition_of
from server.verdicts.judging import contradicts
from simulator.scenario.sources import builtin_names

PAGE = Path(__file__).parents[2] / "docs" / "verdicts.md"
BEGIN, END = "<!-- verdicts: written by make verdicts -->", "<!-- end of verdicts -->"
EACH = 100
KINDS = (*MAKERS, "unclear")
CALIBRATED = (
    "CLEAR", "REMAINING", "LASTING", "SKIPPED", "STRETCHES", "NOISY", "FAST_GROWTH", "SIGNIFICANT", "FEWEST_CYCLES",
    "CYCLE_SHARE", "AMPLITUDE",
)  # fmt: skip
FIXED = (
    "engine.kind=stacked", "engine.tile=20", "engine.threads=1", "engine.workers=1", "engine.compile=never",
    "convergence.stop=never", "evaluation.baselines=false", "evaluation.federated_every=0", "run.certificate=off",
)  # fmt: skip
SEEDS = (7, 8)
"""Of real runs: those of the first calibrate, those of the second report."""
UNSEEN = 1000
"""The first index of the made-up records that report: lower ones were looked at."""
LONGER, MOST_ROUNDS = 3, 1200
Judged = tuple[Labelled, Condition]


def made(half: int, each: int) -> list[Labelled]:
    """Return the made-up records of a half: 0 calibrates, 1 reports."""
    first = UNSEEN * half
    return [draw(kind, 2 * index + half) for kind in MAKERS for index in range(first, first + each)]


def real(half: int) -> list[Labelled]:
    """Return the real records of a half."""
    chosen = [curves for curves in real_curves.read() if curves["seed"] == SEEDS[half]]
    return [cut for curves in chosen for cut in real_curves.cuts(curves)]


def unplayed() -> list[str]:
    """Return the built-in scenarios without a real run: their data need a download, or they take too long."""
    return sorted(set(builtin_names()) - {curves["scenario"] for curves in real_curves.read()})


def judge(records: Sequence[Labelled]) -> list[Judged]:
    """Return each record with its condition."""
    return [(one, condition_of(one.lines, one.convergence, diverged=one.diverged)) for one in records]


def accuracy(found: Sequence[Judged]) -> float:
    """Return the share of records whose condition is the truth."""
    return float(np.mean([one.truth == condition.kind for one, condition in found]))


def play(names: Sequence[str], seed: int) -> None:
    """Play built-in scenarios, all without names, and write their curves in place of those that were there."""
    kept = real_curves.read() if real_curves.FILE.exists() else []
    records = {(one["scenario"], one["seed"]): one for one in kept}
    for name in names or builtin_names():
        scenario = fs.load_scenario(name, sets=FIXED, seed=seed)
        rounds = min(LONGER * scenario.run.rounds, MOST_ROUNDS)
        metric = scenario.convergence.target.metric if scenario.convergence.target is not None else None
        try:
            run = fs.simulate(fs.load_scenario(name, sets=(*FIXED, f"run.rounds={rounds}"), seed=seed), record=False)
        except fs.UserError as error:
            print(f"{name}: left out, {error}", flush=True)
            continue
        records[name, seed] = real_curves.packed(name, seed, list(run.rounds.lines), metric)
        size = real_curves.write([records[one] for one in sorted(records)])
        print(f"{name}: {rounds} rounds, {size:,} bytes in all", flush=True)


@contextmanager
def changed(name: str, factor: float) -> Iterator[None]:
    """Change a threshold wherever a module has imported it."""
    modules = [
        importlib.import_module(f"server.verdicts.{one.name}") for one in pkgutil.iter_modules(server.verdicts.__path__)
    ]
    value = getattr(thresholds, name)
    new = type(value)(value * factor)
    holders = [module for module in modules if hasattr(module, name)]
    for module in holders:
        setattr(module, name, new)
    try:
        yield
    finally:
        for module in holders:
            setattr(module, name, value)


def grid(each: int) -> str:
    """Return a table of the calibration half's accuracy with each threshold halved, as it is, and doubled."""
    records = [*made(0, each), *(one for one in real(0) if one.truth != "unlabelled")]
    rows = []
    for name in CALIBRATED:
        cells = []
        for factor in (0.5, 0.7, 1.0, 1.4, 2.0):
            with changed(name, factor):
                cells.append(f"{accuracy(judge(records)):.1%}")
        rows.append([f"`{name}`", f"{getattr(thresholds, name):g}", *cells])
    return table(["threshold", "value", "half", "× 0.7", "as it is", "× 1.4", "twice"], rows)


def matrix(found: Sequence[Judged]) -> str:
    """Return the confusion matrix: a row for each truth, a column for each condition."""
    count = Counter((one.truth, condition.kind) for one, condition in found)
    columns = [kind for kind in KINDS if any(count[truth, kind] for truth in KINDS)]
    rows = []
    for truth in KINDS:
        total = sum(count[truth, kind] for kind in KINDS)
        if total:
            share = f"{count[truth, truth] / total:.0%}"
            rows.append([f"`{truth}`", *(str(count[truth, kind] or "·") for kind in columns), share])
    said = [sum(count[truth, kind] for truth in KINDS) for kind in columns]
    right = [f"{count[kind, kind] / total:.0%}" if total else "·" for kind, total in zip(columns, said, strict=True)]
    return table(["truth", *(f"`{kind}`" for kind in columns), "right"], [*rows, ["said rightly", *right, ""]])


def false_convergence(found: Sequence[Judged]) -> tuple[int, int]:
    """Return how many records got worse or still moved but would be called converged, and how many there are."""
    wrong = ("overfitted", "diverging", "oscillating", "forgetting", "stuck")
    cases = [condition for one, condition in found if one.truth in wrong]
    return sum(not contradicts(condition) for condition in cases), len(cases)


def false_refusals(found: Sequence[Judged]) -> tuple[int, int]:
    """Return how many records at rest would be refused the word converged, and how many there are."""
    cases = [condition for one, condition in found if one.truth in ("converged", "noise_floor")]
    return sum(contradicts(condition) for condition in cases), len(cases)


def page(each: int) -> str:
    """Return the part of docs/verdicts.md between its marks."""
    synthetic, played = judge(made(1, each)), judge(real(1))
    labelled = [(one, condition) for one, condition in played if one.truth != "unlabelled"]
    periods = [
        abs(condition.numbers["period"] / one.facts["period"] - 1.0) <= 0.1
        for one, condition in synthetic
        if one.truth == "oscillating" and "period" in condition.numbers
    ]
    kinds = [
        one.facts["subkind"] == condition.subkind
        for one, condition in synthetic
        if one.truth == condition.kind == "stuck"
    ]
    known = sum(one.truth != "unlabelled" for one in real(0))
    missed, cases = false_convergence([*synthetic, *labelled])
    refused, rests = false_refusals([*synthetic, *labelled])
    odd = [
        f"{one.name}: {one.truth}, said {condition.kind}" for one, condition in labelled if one.truth != condition.kind
    ]
    return "\n".join([
        f"Made-up records of the reporting half: {len(synthetic)}, of which {accuracy(synthetic):.1%} get their true "
        "condition. Rows are the truth.",
        "",
        matrix(synthetic),
        "",
        f"The period of a cycle is within 10% in {np.mean(periods):.0%} of the cycles found; the reason of a stuck run "
        f"is right in {np.mean(kinds):.0%}.",
        "",
        f"Real runs of the reporting seed, cut at half, three quarters and all of their budget: {len(played)}, of "
        f"which {len(labelled)} have a label and {accuracy(labelled):.0%} of these get it.",
        "",
        matrix(labelled),
        "",
        *([f"Not as labelled: {'; '.join(odd)}.", ""] if odd else []),
        f"The seed of the thresholds has {known} labelled cuts. Of the {len(builtin_names())} built-in scenarios these "
        f"were not played: {', '.join(unplayed())}.",
        "",
        f"Of {cases} records of both kinds that diverged, overfitted, cycled, forgot or never learnt, {missed} could "
        f"be called converged. Of {rests} that rest, {refused} would be refused the word.",
    ])  # fmt: skip


def main(given: Sequence[str]) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--play", nargs="*", metavar="SCENARIO", help="play these built-in scenarios first, or all")
    parser.add_argument("--seed", type=int, nargs="*", default=SEEDS, help="of the runs that are played")
    parser.add_argument("--grid", action="store_true", help="print how the calibration half depends on the thresholds")
    parser.add_argument("--each", type=int, default=EACH, help="made-up records of each kind in each half")
    chosen = parser.parse_args(given)
    if chosen.play is not None:
        for seed in chosen.seed:
            play(chosen.play, seed)
        return
    if chosen.grid:
        print(grid(chosen.each))
        return
    known = [one for one in real(0) if one.truth != "unlabelled"]
    print(f"calibration half: {accuracy(judge(made(0, chosen.each))):.1%} of the made-up records, "
          f"{accuracy(judge(known)):.1%} of {len(known)} real ones")  # fmt: skip
    written = page(chosen.each)
    print(written)
    text = PAGE.read_text("utf-8")
    head, tail = text.index(BEGIN) + len(BEGIN), text.index(END)
    PAGE.write_text(f"{text[:head]}\n\n{written}\n\n{text[tail:]}", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
