"""Times fedscape, a plain loop, Flower, pfl-research and FedJAX in turn, and writes the results.

make bench                               every part, with the peers that `make bench-peers` has installed
make bench PARTS="race ragged"           some parts; the others keep their results
make bench OPTIONS=--quick               proves in two minutes that every part runs; writes nothing

Writes tests/benchmarks/results.json, and the tables of docs/benchmarks.md between its two marks.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

from machine import Failed, busy_share, facts
from parts import PARTS
from race import HERE, Say, competitors, race
from report import markdown, write_between_marks
from workloads import WORKLOADS

ROOT = HERE.parent.parent
RESULTS = HERE / "results.json"
ALL = ("race", *PARTS)
QUIET = 3
"""Seconds of the look at the machine before a part."""


def measured(name: str, options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Run one part, and return its results with the machine, the versions and what else the machine did."""
    busy, load, started = busy_share(QUIET), os.getloadavg()[0], time.perf_counter()
    say(f"{name}: load average {load:.2f}, the machine is {busy:.0%} busy")
    repeats = 1 if options.quick else options.repeats
    about: dict[str, Any] = {"date": date.today().isoformat(), "machine": facts(), "repeats": repeats}
    try:
        if name == "race":
            who, about["peers"] = competitors(options.peers, quick=options.quick)
            for peer, version in about["peers"].items():
                say(f"  {peer} {version or 'is not installed (make bench-peers)'}")
            found = {"rows": {w: race(who, w, repeats, say) for w in options.workloads}}
        else:
            found = PARTS[name](repeats, quick=options.quick, say=say)
    except Failed as error:
        say(f"  {error}")
        found = {"problem": str(error)}
    ended = {"busy_before": busy, "load": [load, os.getloadavg()[0]], "took": time.perf_counter() - started}
    return about | ended | found


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description="Time fedscape and other simulators in turn.")
    parser.add_argument("--parts", nargs="+", choices=ALL, default=list(ALL), metavar="PART", help=", ".join(ALL))
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS), help="of the race")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each competitor, workload and setting")
    parser.add_argument("--peers", type=Path, default=ROOT, help="the folder that holds the peers' environments")
    parser.add_argument("--quick", action="store_true", help="one small process of everything; writes nothing")
    parser.add_argument("--no-write", action="store_true", help="print only")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the parts that the arguments name; return 1 where one failed."""
    options = parsed(arguments)
    say: Say = lambda text: print(text, flush=True)  # noqa: E731
    found: dict[str, Any] = {}
    before = os.getloadavg()[0]
    for name in options.parts:
        found[name] = {"load_before_run": before} | measured(name, options, say)
        if not (options.quick or options.no_write):
            write({name: found[name]})
    say(f"\n{markdown(found)}")
    return int(any("problem" in part for part in found.values()))


def write(found: dict[str, Any]) -> None:
    """Replace the results of these parts, and make the tables of the page from all."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results = {name: part for name in ALL if (part := found.get(name, kept.get(name))) is not None}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write_between_marks(ROOT / "docs" / "benchmarks.md", markdown(results))


if __name__ == "__main__":
    sys.exit(main())
