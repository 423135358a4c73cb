"""Times fedscape on a CUDA card, and writes the table of docs/gpu.md.

make gpu                                 tests marked `cuda`, then this, on a machine with a card
python cards.py --need                   exit code 2, and one line, where torch finds no card
python cards.py --quick --device cpu     proves in a minute that every row runs; writes nothing
python cards.py one ROW ROUNDS DEVICE [SECTION.KEY=VALUE ...]

Each cell is a process of its own, since an error of CUDA ends all work of its process.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from machine import Failed, facts, run_child
from report import write_between_marks
from workloads import HIDDEN, WORKLOADS, Workload, examples

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODELS = {"logreg": {"kind": "softmax"}, "2nn": {"kind": "2nn"}, "gru": {"kind": "gru", "hidden": HIDDEN},
          "cnn": {"kind": "cnn"}}  # fmt: skip
SETTLE = 5
"""Rounds left out at the start, which plan, make data and warm up."""
CIFAR = Workload("cifar10", "pfl-research's CIFAR-10 setting, 1.63 million parameters", 1000, 50, 5, 10, (3, 32, 32))
"""Source: publications/pfl of pfl-research, the comparison of frameworks: 1,500 rounds. Images are random here."""
ROWS = {name: WORKLOADS[name] for name in ("logreg", "2nn", "gru", "cnn")} | {CIFAR.name: CIFAR}
ROUNDS = {"logreg": 200, "2nn": 200, "gru": 200, "cnn": 100, "cifar10": 1500}
SETTINGS: dict[str, tuple[str, ...]] = {
    "float32": (),
    "tf32": ("engine.tf32=true",),
    "bf16": ("engine.bf16=true",),
    "plain": ("engine.kind=plain",),
}
"""What the columns set."""


def scenario(w: Workload, rounds: int, device: str) -> dict[str, Any]:
    """Return a row's scenario; its data come from Python."""
    is_cifar = w.name == CIFAR.name
    return {
        **({} if is_cifar else {"model": MODELS[w.name]}),
        "local": {"optimizer": "sgd", "local_lr": 0.1 if is_cifar else 0.01, "batch_size": w.batch, "local_epochs": 1},
        "algorithm": {"kind": "fedavg", "cohort": w.cohort, "weighting": "uniform"},
        "evaluation": {"federated_every": 0, "baselines": False} | ({"test_every": 10} if is_cifar else {}),
        "convergence": {"stop": "never"},
        "engine": {"device": device},
        "run": {"rounds": rounds, "seed": 7},
    }


def cifar_model() -> Any:
    """Return pfl-research's model."""
    from torch import nn

    made = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25),
        nn.Flatten(), nn.Linear(12544, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10),
    )  # fmt: skip
    for part in made:
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
    return made


def one(name: str, rounds: int, device: str, sets: Sequence[str]) -> dict[str, Any]:
    """Run a row with its record, and return the seconds of its rounds."""
    from ours import Stopwatch

    import fedscape as fs

    w, watch = ROWS[name], Stopwatch()
    held_out = {"test": examples(w, 10**6, min(10_000, 500 * rounds))} if w.name == CIFAR.name else {
        "validation": examples(w, 10**6, 500)}  # fmt: skip
    data = fs.custom_population(
        lambda k: examples(w, k, w.examples), [w.examples] * w.clients, outputs=w.outputs,
        task="regression" if w.outputs == 1 else "classification", feature_shape=w.shape, **held_out,
    )  # fmt: skip
    planned = fs.load_scenario(scenario(w, rounds + min(SETTLE, rounds), device), sets=list(sets))
    of_python = {"model": cifar_model} if w.name == CIFAR.name else {}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = fs.simulate(planned, data=data, **of_python, out=folder, stop_asked=watch)
    assert run.session.plan is not None
    words = f"{run.session.device_words}; {run.session.plan.reason}"
    return {"seconds": watch.seconds[min(SETTLE, rounds) :], "whole": time.perf_counter() - started, "engine": words}


@dataclass(frozen=True)
class Cell:
    """A measurement: seconds a round, of the whole run, and the engine; or what went wrong."""

    round: float = 0.0
    whole: float = 0.0
    engine: str = ""
    problem: str = ""

    @property
    def words(self) -> str:
        """The cell of the table."""
        return f"{1e3 * self.round:.2f}" if not self.problem else "failed"


def measured(name: str, rounds: int, device: str, sets: Sequence[str], repeats: int) -> Cell:
    """Time a row in processes of its own; the median over them."""
    command = [sys.executable, str(HERE / "cards.py"), "one", name, str(rounds), device, *sets]
    try:
        found = [run_child(command, timeout=1200).result for _ in range(repeats)]
    except Failed as error:
        return Cell(problem=str(error))
    whole = median(f["whole"] for f in found)
    return Cell(median(median(f["seconds"]) for f in found), whole, found[0]["engine"])


def markdown(cells: dict[str, dict[str, Cell]], card: str) -> str:
    """Return the table, the engines that were chosen, and what failed."""
    columns = list(next(iter(cells.values())))
    m = facts()
    lines = [
        f"Milliseconds a round, medians; {date.today().isoformat()}, {card}, {m['cores']} cores of {m['processor']}, "
        f"torch {m['torch']}, fedscape {m['fedscape']}.", "",
        f"| workload | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}",
    ]  # fmt: skip
    for name, row in cells.items():
        lines.append(f"| {name}: {ROWS[name].words} | {' | '.join(row[c].words for c in columns)} |")
    lines += ["", "Seconds of whole runs, with planning, evaluation and record:", ""]
    for name, row in cells.items():
        whole = ", ".join(f"{c} {cell.whole:.1f}" for c, cell in row.items() if not cell.problem)
        lines.append(f"- {name}, {ROUNDS[name] + SETTLE:,} rounds: {whole or 'none'}")
    failed = [
        f"- {name}, {c}: {cell.problem}" for name, row in cells.items() for c, cell in row.items() if cell.problem
    ]
    engines = [f"- {name}: {row[columns[0]].engine}" for name, row in cells.items() if row[columns[0]].engine]
    return "\n".join([*lines, "", "Engines:", "", *engines, *(["", "Failed:", "", *failed] if failed else [])])


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description="Time fedscape on a CUDA card.")
    parser.add_argument("--need", action="store_true", help="only say whether there is a card")
    parser.add_argument("--device", default="cuda", help="another device, to try the rows")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two rounds of each row; writes nothing")
    parser.add_argument("--no-write", action="store_true", help="print only")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Time the rows; return 1 where one failed, and 2 where there is no card."""
    options = parsed(arguments)
    card = options.device
    if options.need or options.device != "cpu":
        sys.path.insert(0, str(ROOT))
        from simulator.engines.devices import cards_here

        found = cards_here()
        if not found.names:
            print(f"make gpu: {found.words}; nothing was run.")
            return 2
        card = found.names[0]
    if options.need:
        return 0
    settings = {n: SETTINGS[n] for n in options.settings if not (options.device == "cpu" and n == "tf32")}
    cells: dict[str, dict[str, Cell]] = {}
    for name in options.rows:
        cells[name] = {}
        for column, sets in settings.items():
            rounds = 1 if options.quick else ROUNDS[name] if column != "plain" else 20
            cells[name][column] = measured(name, rounds, options.device, sets, 1 if options.quick else options.repeats)
            print(f"{name}, {column}: {cells[name][column]}", flush=True)
    text = markdown(cells, card)
    print(f"\n{text}")
    if not (options.quick or options.no_write or options.device == "cpu"):
        write_between_marks(ROOT / "docs" / "gpu.md", text, by="make gpu")
    return int(any(cell.problem for row in cells.values() for cell in row.values()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        print(json.dumps(one(sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5:])))
    else:
        sys.exit(main())
