"""Parts of `make bench` that need no other simulator: a race of small programs, our own rounds, and the tables."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from clients.models.build import outlined_model

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "tests" / "benchmarks"
PROGRAM = """
import json, pathlib, sys
name, log, times, workload, rounds, *threads = sys.argv[1:]
with open(log, "a") as file:
    print(name, *threads, file=file)
print(json.dumps({"seconds": [json.loads(times)["".join(threads)]] * int(rounds)}))
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Return a function that imports a module of the benchmarks, whose folder is on no path otherwise."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def a_competitor(race: ModuleType, tmp_path: Path, name: str, times: dict[str, float], threads: tuple[int, ...] = ()):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = (sys.executable, str(program), name, str(tmp_path / "log"), json.dumps(times))
    return race.Competitor(name, command, {"logreg": 3}, threads)


def test_race_takes_turns_and_goes_on_with_the_faster_number_of_threads(module, tmp_path):
    race = module("race")
    who = [
        a_competitor(race, tmp_path, "fedscape", {"": 0.5}),
        a_competitor(race, tmp_path, "peer", {"1": 3.0, "2": 2.0}, (1, 2)),
    ]
    found = race.race(who, "logreg", 3, lambda text: None)
    turns = (tmp_path / "log").read_text().splitlines()
    assert turns == ["fedscape", "peer 1", "peer 2", "fedscape", "peer 2", "fedscape", "peer 2"]
    assert found["peer"]["threads"] == 2
    assert found["peer"]["ratio"] == 4.0
    assert found["peer"]["seconds"] == 2.0
    assert found["fedscape"]["rounds"] == 9


def test_competitor_that_fails_is_reported_and_stops_no_other(module, tmp_path):
    race, report = module("race"), module("report")
    who = [
        a_competitor(race, tmp_path, "fedscape", {"": 0.5}),
        a_competitor(race, tmp_path, "pfl-research", {"other": 1.0}, (1,)),
        a_competitor(race, tmp_path, "Flower", {"1": 150.0}, (1,)),
    ]
    found = race.race(who, "logreg", 2, lambda text: None)
    assert "KeyError" in found["pfl-research"]["problem"]
    assert found["Flower"]["ratio"] == 300.0
    text = report.markdown({"race": a_part({"logreg": found}, repeats=2, peers={"Flower": "9", "FedJAX": ""})})
    assert "| workload | fedscape, a round | plain loop | Flower 9 | pfl-research | FedJAX: not installed |" in text
    assert "| logreg | 500 ms |  | 300x (200x) | failed |  |" in text.replace(" ⚠", "")


def a_part(rows: object, **others: object) -> dict[str, object]:
    machine = dict.fromkeys(("cores", "processor", "memory_gb", "system", "python", "torch", "fedscape"), "x")
    about = {"date": "2026-01-02", "machine": machine, "load": [0.1, 1.5], "busy_before": 0.01, "took": 60.0}
    return about | {"load_before_run": 0.1, "repeats": 3, "rows": rows} | others


def workers(others: float) -> dict[str, object]:
    return {"gru": {"one": 0.2, "two": 0.125, "ratio": 1.6, "others": others}}


def test_tables_of_a_quiet_machine_have_no_warning(module):
    text = module("report").markdown({"workers": a_part(workers(0.02))})
    assert "| gru | 200 ms | 125 ms | 1.60x |" in text
    assert "Load average 0.10 at the start, 1.50 at the end." in text
    assert "⚠" not in text


@pytest.mark.parametrize(
    ("others", "about", "warning"),
    [
        (0.3, {}, "Other programs used up to 30% of the machine"),
        (0.02, {"busy_before": 0.4}, "Other programs used up to 40% of the machine"),
        (0.02, {"load_before_run": 2.25}, "The load average was 2.25 before the run"),
    ],
)
def test_tables_warn_where_the_machine_had_other_work(module, others, about, warning):
    text = module("report").markdown({"workers": a_part(workers(others), **about)})
    assert warning in text
    assert ("| gru ⚠ |" in text) == (others == 0.3)


def test_ragged_clients_beyond_the_aim_are_called_missed(module):
    rows = {s: {"seconds": 0.01, "ratio": r, "longest": 88} for s, r in (("0.0", 1.0), ("0.5", 1.6), ("1.0", 1.61))}
    text = module("report").markdown({"ragged": a_part({"mlp": rows | {"others": 0.0}})})
    assert "| mlp | 10.0 ms | 1.60x (1.6x) | 1.61x (**missed 1.6x**) | 88 |" in text


def test_documented_tables_are_those_of_the_results(module):
    report = module("report")
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    measured = text.partition(report.BEGIN.format(by="make bench"))[2].partition(report.END)[0].strip()
    assert measured == report.markdown(json.loads((BENCHMARKS / "results.json").read_text())).strip()


@pytest.mark.parametrize("name", ["logreg", "mlp", "gru", "2nn", "cnn"])
def test_fedscape_and_the_others_train_the_same_model(module, name):
    workloads, ours = module("workloads"), module("ours")
    w = workloads.WORKLOADS[name]
    theirs = sorted(tuple(p.shape) for p in workloads.model(w).parameters())
    model = outlined_model(ours.scenario(w, 3).model, ours.population(w))
    assert sorted(tuple(p.shape) for p in model.parameters()) == theirs


def test_ragged_sizes_have_the_total_work_of_equal_ones(module):
    workloads, ours = module("workloads"), module("ours")
    w = workloads.WORKLOADS["logreg"]
    equal, unequal = (ours.log_normal(w, sigma) for sigma in (0.0, 1.0))
    assert np.all(equal == w.examples)
    assert unequal.sum() == equal.sum()
    assert np.all(unequal % w.batch == 0)
    assert 0.9 < np.log(unequal / w.batch).std() < 1.1  # sigma is 1; whole batches and 1,000 draws blur it


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (("ours.py", "user", "gru", "2", "1.0", "engine.kind=stacked"), {"seconds": 2}),
        (("ours.py", "observing", "logreg", "2", "engine.kind=stacked"), {"observed": 2, "bare": 2}),
        (("growth.py", "1000", "10", "3", "algorithm.kind=scaffold"), {"seconds": 2}),
    ],
)
def test_program_prints_the_seconds_of_each_round(module, command, keys):
    script, *arguments = command
    child = module("machine").run_child([sys.executable, str(BENCHMARKS / script), *arguments])
    for key, rounds in keys.items():
        assert len(child.result[key]) == rounds
        assert all(s > 0 for s in child.result[key])
    assert child.peak > 10**7


def test_command_measures_one_part_and_writes_nothing_when_quick():
    before = (BENCHMARKS / "results.json").read_bytes()
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--quick", "--parts", "race", "--workloads", "logreg"]
    done = subprocess.run([*command, "--peers", "none"], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "FedJAX is not installed (make bench-peers)" in done.stdout
    assert re.search(r"\| logreg( ⚠)? \| [0-9.]+ m?s \| [0-9.]+x", done.stdout), "ours and the plain loop were timed"
    assert (BENCHMARKS / "results.json").read_bytes() == before


def test_gpu_benchmark_says_in_one_line_that_there_is_no_card():
    """`make gpu` begins with it, and ends there: make stops at an exit code."""
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(BENCHMARKS)}
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "cards.py"), "--need"],
        env=hidden,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"make gpu: there is no CUDA card: torch .*; nothing was run\.\n", done.stdout)
    target = re.search(r"(?m)^gpu:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text())
    lines = target[1].splitlines()
    assert "cards.py --need" in lines[0]
    assert "-m cuda" in lines[1]


def test_gpu_benchmark_runs_a_row_and_makes_its_table(module, capsys):
    assert (
        module("cards").main(["--quick", "--device", "cpu", "--rows", "logreg", "--settings", "float32", "tf32"]) == 0
    )
    printed = capsys.readouterr().out
    assert re.search(r"\| logreg: softmax regression 60-10 \| \d+\.\d\d \|", printed)
    assert "| workload | float32 |" in printed, "TF32 is of cards alone"


def test_gpu_benchmark_reports_what_failed(module, capsys):
    found = module("cards").measured("logreg", 1, "cuda:999", (), 1)
    assert "engine.device" in found.problem
    text = module("cards").markdown({"logreg": {"float32": found}}, "no card")
    assert "| failed |" in text
    assert "Failed:" in text


def test_cifar_model_of_the_gpu_benchmark_has_the_size_of_pfl_research(module):
    assert sum(p.numel() for p in module("cards").cifar_model().parameters()) == 1_626_442
