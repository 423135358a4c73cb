"""How often the diagnosis is right: runs with planted causes, and healthy ones.

    make causes
    python tests/benchmarks/causes/measure.py [--seeds N] [--healthy N] [--only CAUSE ...] [--on BASE ...]
        [--keep FOLDER] [--minutes M] [--misses]

Runs of seeds below 100 were looked at while causes were written. The tables of docs/explaining.md, written between
their marks, are those of seeds from 100 on. With --keep, played runs are kept and not played again. With --minutes, no
run is begun after that time; the planted runs that were played are then a random sample of all, and the text says how
many there are.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import pickle
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from plants import BASES, NATURAL, PLANTS, SAME, SEVERITIES, plan_of  # noqa: E402
from playing import Played, play  # noqa: E402
from report import table  # noqa: E402

from server.diagnosis.diagnose import diagnose  # noqa: E402
from server.diagnosis.evidence import Evidence  # noqa: E402

DOCS = ROOT / "docs" / "explaining.md"
BEGIN, END = "<!-- causes: written by make causes -->", "<!-- end of causes -->"
UNSEEN = 100
"""Seeds below it were looked at when causes were written."""
MAKERS = ("tests/benchmarks/causes/plants.py", "tests/benchmarks/causes/playing.py",
          *(f"simulator/explaining/{name}.py" for name in ("looks", "pooled", "reference", "trials")))  # fmt: skip
"""The files of which kept evidence is a result; with others it is made again."""
HARM = 0.02
"""Share of the healthy run's gain by which a planted run must be worse: a cause that costs nothing is none."""


@dataclass(frozen=True)
class Case:
    """One run to play."""

    cause: str
    base: str
    level: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.cause}-{self.base}-{self.level}-{self.seed}"


@dataclass(frozen=True)
class Result:
    """What the diagnosis said of a run."""

    case: Case
    found: tuple[str, ...]
    harmed: bool
    share: float
    seconds: float


def cases(causes: Iterable[str], bases: Sequence[str], seeds: Sequence[int], healthy: Sequence[int]) -> list[Case]:
    """Return the healthy runs of all bases and their seeds, and the planted ones in a fixed random order.

    Where time ends before the plays do, the planted runs that were played are then a random sample of all.
    """
    plain = [Case("healthy", base, 0, seed) for base in bases for seed in healthy]
    planted = [
        Case(cause, base, level, seed)
        for cause in causes
        for base in PLANTS[cause][0]
        if base in bases
        for level in range(len(SEVERITIES))
        for seed in seeds
    ]
    return plain + sorted(planted, key=lambda case: hashlib.blake2b(case.name.encode()).digest())


def _play(job: tuple[Case, Path | None, float]) -> tuple[Case, Played | None]:
    """Return the evidence of a run; None where it is not kept and time is over."""
    case, keep, end = job
    code = hashlib.blake2b(b"".join((ROOT / name).read_bytes() for name in MAKERS), digest_size=6)
    place = keep / f"{case.name}-{code.hexdigest()}.pickle" if keep is not None else None
    if place is not None and place.exists():
        return case, pickle.loads(place.read_bytes())
    if time.time() >= end:
        return case, None
    played = play(plan_of(case.cause, case.base, case.level, case.seed), case.seed)
    if place is not None:
        place.write_bytes(pickle.dumps(played))
    return case, played


def harmed(e: Evidence, twin: Evidence) -> bool:
    """Return whether a planted run ends clearly worse than its healthy twin, or not at a finite loss."""
    if e.diverged or not len(e.loss):
        return True
    return float(np.median(e.loss[-5:]) - np.median(twin.loss[-5:])) > HARM * twin.gained


def results(played: Mapping[Case, Played]) -> list[Result]:
    """Diagnose every run."""
    found = []
    for case, one in played.items():
        twin = played[Case("healthy", case.base, 0, case.seed)]
        kinds = tuple(finding.kind for finding in diagnose(one.evidence).findings)
        is_harmed = case.cause == "healthy" or harmed(one.evidence, twin.evidence)
        share = one.look_seconds / max(one.run_seconds, 1e-9)
        found.append(Result(case, kinds, is_harmed, share, one.run_seconds))
    return found


def _right(result: Result, most: int) -> bool:
    wanted = SAME.get(result.case.cause, (result.case.cause,))
    return any(kind in wanted for kind in result.found[:most])


def _false(result: Result) -> list[str]:
    """Return the causes named of a healthy run that are not true of its base."""
    return [kind for kind in result.found if kind not in NATURAL.get(result.case.base, ())]


def scores(found: Sequence[Result]) -> list[list[str]]:
    """Return a row a cause: runs, those it harmed, top-1, top-3 by severity and in all, precision, recall."""
    harmful = [r for r in found if r.case.cause != "healthy" and r.harmed]
    first = Counter(r.found[0] for r in found if r.found and (r.harmed or r.case.cause == "healthy"))
    rows = []
    for cause in PLANTS:
        of = [r for r in harmful if r.case.cause == cause]
        played = sum(r.case.cause == cause for r in found)
        if not of:
            rows.append([cause, f"{played}", "0", *["–"] * 6])
            continue
        levels = [[r for r in of if r.case.level == level] for level in range(len(SEVERITIES))]
        kinds = SAME.get(cause, (cause,))
        named = sum(first[kind] for kind in kinds)
        rows.append([
            cause, f"{played}", f"{len(of)}", _share(_right(r, 1) for r in of),
            *[_share(_right(r, 3) for r in level) for level in levels], _share(_right(r, 3) for r in of),
            f"{sum(_right(r, 1) and r.found[0] in kinds for r in harmful) / named:.0%}" if named else "–",
        ])  # fmt: skip
    planted = sum(r.case.cause != "healthy" for r in found)
    first_place, first_three = (_share(_right(r, most) for r in harmful) for most in (1, 3))
    return [*rows, ["**all**", f"{planted}", f"{len(harmful)}", first_place, "", "", "", first_three, ""]]


def by_base(found: Sequence[Result]) -> list[list[str]]:
    """Return a row a base: harmed runs, the cause first, among the first three, healthy runs, false alarms."""
    rows = []
    for base in BASES:
        here = [r for r in found if r.case.base == base]
        healthy = [r for r in here if r.case.cause == "healthy"]
        harmful = [r for r in here if r.case.cause != "healthy" and r.harmed]
        firsts = (_share(_right(r, most) for r in harmful) for most in (1, 3))
        rows.append([base, f"{len(harmful)}", *firsts, f"{len(healthy)}", f"{sum(bool(_false(r)) for r in healthy)}"])
    return rows


def _share(values: Iterable[bool]) -> str:
    known = list(values)
    return f"{np.mean(known):.0%}" if known else "–"


def _interval(right: int, of: int) -> str:
    """Return Wilson's 95% interval of a share, as words."""
    z = 1.96
    if not of:
        return "–"
    middle, width = (
        (right + z * z / 2) / (of + z * z),
        z * math.sqrt(right * (of - right) / of + z * z / 4) / (of + z * z),
    )
    return f"{right / of:.0%} (95% interval {max(0.0, middle - width):.0%} to {min(1.0, middle + width):.0%})"


def words(found: Sequence[Result], planned: int) -> str:
    """Return the tables of the docs; `planned` are the runs that all cases have."""
    healthy = [r for r in found if r.case.cause == "healthy"]
    harmful = [r for r in found if r.case.cause != "healthy" and r.harmed]
    alarms = [r for r in healthy if _false(r)]
    kinds = Counter(kind for r in alarms for kind in _false(r))
    head = ["planted cause", "runs", "harmed", "first", *SEVERITIES, "first three", "precision"]
    which = ", ".join(f"{kind} {times}" for kind, times in kinds.most_common()) or "none"
    cost = np.median([r.share for r in healthy])
    low, high = (np.quantile([r.seconds for r in healthy], q) for q in (0.0, 1.0))
    sample = "" if len(found) == planned else ": a random sample of the planted runs, in an order fixed in advance"
    bases = ["run", "harmed", "first", "first three", "healthy runs", "false alarms"]
    return "\n\n".join([
        table(head, scores(found)),
        table(bases, by_base(found)),
        f"{len(found)} of {planned} runs were played, {len(healthy)} healthy ones among them{sample}.",
        f"Planted cause among the first three: {_interval(sum(_right(r, 3) for r in harmful), len(harmful))} of "
        f"{len(harmful)} harmed runs.",
        f"False alarms: {len(alarms)} of {len(healthy)} healthy runs, {_interval(len(alarms), len(healthy))}: {which}.",
        f"Looking took {cost:.0%} of the processor time of a run (median of the healthy ones, which last {low:.1f} to "
        f"{high:.1f} seconds).",
    ])  # fmt: skip


def main() -> None:
    """Play, diagnose, print, and write the docs' tables where everything was played."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--healthy", type=int, default=40, help="seeds of healthy runs, at least as many")
    parser.add_argument("--first", type=int, default=UNSEEN, help="the first seed")
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--on", nargs="*", default=())
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no run after this time")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--misses", action="store_true", help="print the runs of the looked-at seeds that were missed")
    given = parser.parse_args()
    if given.keep is not None:
        given.keep.mkdir(parents=True, exist_ok=True)
    first = given.first
    seeds, healthy = (range(first, first + number) for number in (given.seeds, max(given.seeds, given.healthy)))
    planned, end = cases(given.only or PLANTS, given.on or BASES, seeds, healthy), time.time() + 60 * given.minutes
    jobs = [(case, given.keep, end) for case in planned]
    with ProcessPoolExecutor(given.processes, get_context("spawn")) as pool:
        made = {case: one for case, one in pool.map(_play, jobs, chunksize=4) if one is not None}
    played = {case: one for case, one in made.items() if Case("healthy", case.base, 0, case.seed) in made}
    found = results(played)
    known, reported = ([r for r in found if (r.case.seed < UNSEEN) == old] for old in (True, False))
    halves = (("seeds that were looked at", known, True), ("seeds that are reported", reported, False))
    for name, some, old in halves:
        number = sum((case.seed < UNSEEN) == old for case in planned)
        print(f"\n{name}\n\n{words(some, number)}" if some else f"\n{name}: none")
    if given.misses:
        for r in found:
            missed = _false(r) if r.case.cause == "healthy" else r.harmed and not _right(r, 3)
            if missed and r.case.seed < UNSEEN:
                print(r.case.name, r.found[:4])
    if not (given.only or given.on) and reported:
        text = DOCS.read_text()
        before, _, rest = text.partition(BEGIN)
        after = rest.partition(END)[2]
        number = sum(case.seed >= UNSEEN for case in planned)
        DOCS.write_text(f"{before}{BEGIN}\n\n{words(reported, number)}\n\n{END}{after}")


if __name__ == "__main__":
    main()
