"""The effect of each fault of the built-in scenarios: the study `what-faults-do`, as the table of its docs page.

    make pairs
    PYTHONPATH=tests/support python tests/benchmarks/pairs.py [--seeds N] [--study FOLDER] [--processes N]

Every run uses its full budget of rounds, so that scores are of equally long runs. The engine is fixed, so that the same
seed gives the same numbers. Writes the table of docs/what-faults-do.md between its two marks. The runs stay in the
study's folder; --study goes on with one, such as after Ctrl-C.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from report import table
from scenario_pairs import CLEAN, differing

import fedscape as fs
from dashboards.statistics.paired import student_interval
from simulator.cli.study.console import StudyConsole
from simulator.cli.study.interrupting import two_step_interrupt

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BEGIN, END = "<!-- pairs: written by make pairs -->", "<!-- end of pairs -->"
FIXED = {"engine.kind": "stacked", "engine.tile": 20, "engine.threads": 1, "engine.workers": 1,
         "engine.compile": "never"}  # fmt: skip
HEADS = (
    "scenario: what was done",
    "changed",
    "rounds to target",
    "difference",
    "client drift",
    "test score",
)
Found = Mapping[str, Any]


def measure(run: fs.Record) -> dict[str, Any]:
    """Return the numbers of a run for the table."""
    scenario, outcome, lines = run.scenario, run.outcome, run.rounds.lines[1:]
    assert outcome is not None, f"{run.path} is not over"
    assert scenario.convergence.target is not None, f"{scenario.name} has no target"
    score = scenario.convergence.target.metric.replace("validation", "test")
    drift = [line["client_drift"]["mean"] for line in lines if line.get("client_drift")]
    done = {"faults": "changed", "concept_drift": "level"}
    means = {
        key: {name: float(np.mean([line[section][name][key] for line in lines])) for name in lines[0].get(section, {})}
        for section, key in done.items()
    }
    return {
        "outcome": outcome["outcome"],
        "budget": scenario.run.rounds,
        "rounds": (outcome["to_target"] or {}).get("rounds"),
        "drift": float(np.mean(drift)),
        "score_name": score,
        "score": outcome[score],
        **means,
    }


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and the ends of Student's 95% interval for it.

    Example:
        >>> interval([1.0, 1.0, 1.0])
        (1.0, 1.0, 1.0)
    """
    mean = float(np.mean(values))
    return mean, *(student_interval(np.asarray(values, np.float64)) or (mean, mean))


def _rounds(runs: Sequence[Found]) -> str:
    """Return the mean rounds to the target, in words. Missed targets count as the budget, so ≥ marks a lower bound."""
    missed = sum(run["rounds"] is None for run in runs)
    mean = np.mean([spent(run) for run in runs])
    return f"{mean:.0f}" if not missed else f"≥ {mean:.0f} ({missed} of {len(runs)} missed)"


def spent(run: Found) -> int:
    """Return the rounds to the target, or the budget."""
    return int(run["budget"] if run["rounds"] is None else run["rounds"])


def row(clean: str, twin: str, results: Mapping[str, Mapping[int, Found]]) -> list[str]:
    """Return a row of the table."""
    seeds = sorted(set(results[clean]) & set(results[twin]))
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


def markdown(study: fs.Study) -> str:
    """Return the table of the pairs that the study compares: traffic first, digits last."""
    scenarios = {arm.name: arm.scenario.name for arm in study.plan.arms}
    results: dict[str, dict[int, Found]] = {name: {} for name in scenarios.values()}
    for arm, seed in study.runs:
        results[scenarios[arm]][seed] = measure(study.runs[arm, seed])
    rank = {name: i for i, name in enumerate(CLEAN)}
    compared = [(scenarios[clean], scenarios[twin]) for clean, twin in study.plan.pairs]
    compared.sort(key=lambda pair: (rank.get(pair[0], len(CLEAN)), pair[1]))
    return table(HEADS, [row(clean, twin, results) for clean, twin in compared])


def write_between(path: Path, text: str) -> None:
    """Replace the text between the marks of a file."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"{path} has lost its mark {BEGIN}"
    assert end, f"{path} has lost its mark {END}"
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main() -> int:
    """Play the study, or go on with it, and write the table."""
    parser = argparse.ArgumentParser(description="What each fault of the built-in scenarios did, over paired seeds.")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="seeds 0 to N - 1; at least 2")
    parser.add_argument("--study", type=Path, metavar="FOLDER", help="the study's folder, new or to go on with")
    parser.add_argument("--processes", type=int, metavar="N", help="runs at once; one a processor by default")
    parser.add_argument("--rounds", type=int, metavar="N", help="of every run, for a quick look; writes no page")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds must be at least 2")
    changes = FIXED | ({} if options.rounds is None else {"run.rounds": options.rounds})
    console = StudyConsole(sys.stdout)
    try:
        with two_step_interrupt() as stop_asked:
            study = fs.study("what-faults-do", seeds=options.seeds, set=changes, out=options.study,
                             processes=options.processes, observer=console, stop_asked=stop_asked)  # fmt: skip
    finally:
        console.close()
    if not study.complete or study.failures:
        print(f"not all runs have ended; go on with --study {study.path}")
        return 1
    text = markdown(study)
    print(text)
    if options.rounds is None:
        write_between(ROOT / "docs" / "what-faults-do.md", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
