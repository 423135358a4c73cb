"""The effect of each fault of the built-in scenarios: each is compared with its clean scenario over the same seeds.

    make pairs
    PYTHONPATH=tests/support python tests/benchmarks/pairs.py [--seeds N] [--only NAME ...] [--processes N]

Every run uses its full budget of rounds, so that scores are of equally long runs. The engine is fixed, so that the same
seed gives the same numbers. Writes tests/benchmarks/pairs.json and the table of docs/what-faults-do.md between its two
marks; with --only, it replaces only the rows that were run.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from report import table
from scenario_pairs import CLEAN, differing, pairs
from scipy import stats

import fedscape as fs

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BEGIN, END = "<!-- pairs: written by make pairs -->", "<!-- end of pairs -->"
FIXED = (
    "engine.kind=stacked",
    "engine.tile=20",
    "engine.threads=1",
    "engine.workers=1",
    "engine.compile=never",
    "convergence.stop=never",
    "evaluation.baselines=false",
    "evaluation.federated_every=0",
)
HEADS = (
    "scenario: what was done",
    "changed",
    "rounds to target",
    "difference",
    "client drift",
    "test score",
)
Found = Mapping[str, Any]


def measure(name: str, seed: int) -> dict[str, Any]:
    """Run a scenario to its budget and return the numbers for the table."""
    scenario = fs.load_scenario(name, sets=FIXED, seed=seed)
    assert scenario.convergence.target is not None, f"{name} has no target"
    began = time.perf_counter()
    run = fs.simulate(scenario, record=False)
    lines = run.rounds.lines[1:]
    score = scenario.convergence.target.metric.replace("validation", "test")
    drift = [line["client_drift"]["mean"] for line in lines if line.get("client_drift")]
    done = {"faults": "changed", "concept_drift": "level"}
    means = {
        key: {name: float(np.mean([line[section][name][key] for line in lines])) for name in lines[0].get(section, {})}
        for section, key in done.items()
    }
    return {
        "outcome": run.verdict.outcome,
        "budget": scenario.run.rounds,
        "rounds": (run.outcome["to_target"] or {}).get("rounds"),
        "drift": float(np.mean(drift)),
        "score_name": score,
        "score": run.outcome[score],
        **means,
        "seconds": time.perf_counter() - began,
    }


def _job(job: tuple[str, int]) -> tuple[str, int, dict[str, Any]]:
    return *job, measure(*job)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and the ends of Student's 95% interval for it.

    Example:
        >>> interval([1.0, 1.0, 1.0])
        (1.0, 1.0, 1.0)
    """
    v = np.asarray(values, np.float64)
    mean, half = float(v.mean()), float(stats.t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / math.sqrt(len(v)))
    return mean, mean - half, mean + half


def _rounds(runs: Sequence[Found]) -> str:
    """Return the mean rounds to the target, in words. Missed targets count as the budget, so ≥ marks a lower bound."""
    missed = sum(run["rounds"] is None for run in runs)
    mean = np.mean([spent(run) for run in runs])
    return f"{mean:.0f}" if not missed else f"≥ {mean:.0f} ({missed} of {len(runs)} missed)"


def spent(run: Found) -> int:
    """Return the rounds to the target, or the budget."""
    return int(run["budget"] if run["rounds"] is None else run["rounds"])


def row(clean: str, twin: str, results: Mapping[str, Mapping[str, Found]]) -> list[str]:
    """Return a row of the table."""
    seeds = sorted(set(results[clean]) & set(results[twin]), key=int)
    before, after = [results[clean][s] for s in seeds], [results[twin][s] for s in seeds]
    cells = [f"`{twin}`: {difference(clean, twin)}", realised(after), f"{_rounds(before)} → {_rounds(after)}"]
    late = interval([spent(b) - spent(a) for a, b in zip(before, after, strict=True)])
    missed = [any(run["rounds"] is None for run in runs) for runs in (before, after)]
    bound = {(False, False): "", (False, True): "≥ ", (True, False): "≤ ", (True, True): "? "}[missed[0], missed[1]]
    cells.append(f"{bound}{late[0]:+.0f} [{late[1]:+.0f}, {late[2]:+.0f}]")
    diverged = sum(run["outcome"] == "diverged" for run in after)
    if diverged:
        return [*cells, f"{diverged} of {len(after)} diverge", "–"]
    ratio = interval([math.log(b["drift"] / a["drift"]) for a, b in zip(before, after, strict=True)])
    cells.append("× {:.2g} [{:.2g}, {:.2g}]".format(*(math.exp(v) for v in ratio)))
    gain = interval([b["score"] - a["score"] for a, b in zip(before, after, strict=True)])
    score, base = before[0]["score_name"].removeprefix("test_").replace("_", " "), np.mean([a["score"] for a in before])
    return [*cells, f"{score} {base:.3f} {gain[0]:+.3f} [{gain[1]:+.3f}, {gain[2]:+.3f}]"]


def realised(runs: Sequence[Found]) -> str:
    """Return in words the share of readings or labels that each fault changed, or the level of a concept drift.

    Means over rounds and seeds.
    """
    words = [f"{100 * np.mean([run['changed'][name] for run in runs]):.0f}%" for name in runs[0]["changed"]]
    words += [f"level {np.mean([run['level'][name] for run in runs]):.2f}" for name in runs[0]["level"]]
    return ", ".join(words) or "–"


def difference(clean: str, twin: str) -> str:
    """Return the settings in which a twin differs, such as "noise, snr_db 3"."""
    words = []
    changed = differing(clean, twin)
    for fault in [*changed.get("faults", {}).values(), *changed.get("drifts", {}).values()]:
        kind = " ".join(str(fault[key]) for key in ("kind", "changes") if key in fault)
        settings = [_setting(key, fault[key]) for key in fault if key not in ("kind", "changes")]
        words.append(", ".join([kind, *settings]))
    before = fs.load_scenario(clean)
    for section in ("local", "features"):
        old = vars(getattr(before, section))
        remedies = [_setting(key, v) for key, v in changed.get(section, {}).items() if old[key] != v]
        words += [f"remedy: {', '.join(remedies)}"] if remedies else []
    return "; ".join(words).replace("|", "\\|")  # p(y|x) in a Markdown table


def _setting(key: str, value: Any) -> str:
    if isinstance(value, list):
        return f"{key} ({', '.join(str(v) for v in value)})"
    return f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"


def markdown(results: Mapping[str, Mapping[str, Found]]) -> str:
    """Return the table of every pair that was run."""
    rows = [row(clean, twin, results) for twin, clean in _ordered() if clean in results and twin in results]
    return table(HEADS, rows)


def _ordered() -> list[tuple[str, str]]:
    """Return (twin, clean) in the order of the docs: traffic first, digits last."""
    rank = {name: i for i, name in enumerate(CLEAN)}
    return sorted(pairs().items(), key=lambda pair: (rank.get(pair[1], len(CLEAN)), pair[0]))


def write_between(path: Path, text: str) -> None:
    """Replace the text between the marks of a file."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"{path} has lost its mark {BEGIN}"
    assert end, f"{path} has lost its mark {END}"
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main() -> int:
    """Run the pairs and write the table."""
    parser = argparse.ArgumentParser(description="What each fault of the built-in scenarios did, over paired seeds.")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="seeds 0 to N - 1; at least 2")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="twins, such as city-bridge-noise")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    known = pairs()
    unknown = [name for name in options.only if name not in known]
    if unknown or options.seeds < 2:
        parser.error(f"no such twin: {', '.join(unknown)}" if unknown else "--seeds must be at least 2")
    chosen = {t: c for t, c in known.items() if not options.only or t in options.only}
    names = list(dict.fromkeys([*chosen.values(), *chosen]))
    stored = HERE / "pairs.json"
    results = json.loads(stored.read_text())["runs"] if options.only and stored.exists() else {}
    results |= {name: {} for name in names}
    began = time.perf_counter()
    jobs = [(name, seed) for name in names for seed in range(options.seeds)]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for done, (name, seed, found) in enumerate(pool.map(_job, jobs), 1):
            results[name][str(seed)] = found
            if seed == options.seeds - 1:
                print(f"{done}/{len(jobs)} {name}, {time.perf_counter() - began:.0f} s", flush=True)
    text = markdown(results)
    print(text)
    if not options.no_write:
        stored.write_text(json.dumps({"runs": results}, indent=1) + "\n")
        write_between(ROOT / "docs" / "what-faults-do.md", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
