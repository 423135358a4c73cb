"""Runs cases of `same_records` on the tree that PYTHONPATH names, and writes one JSON line per case.

    PYTHONPATH=TREE python -P child.py TREE OUT SETS NAME...

SETS is a JSON list of changes as after `--set`, made in every case. Keys of [engine] that the tree lacks are left out:
such a tree computes as the cases pin newer ones, in one process and with torch. The child uses only `import fedscape`
and a run's files, so it works with any layout of the tree.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

import numpy as np
import pyarrow.parquet as pq
from bases import BASES
from cases import CASES, Case
from parts import PARTS, write_files
from safetensors.torch import load_file

import fedscape as fs

BY_THE_CLOCK = ("wall_seconds", "clients_per_second", "finished_at", "workers")
"""Keys of a round's line, an event and an outcome that hold time or speed; all other keys are compared."""
OF_FILES = ("chain", "checksum", "seals")
"""Keys of checksums of files and lines, which hold values of the clock."""
OF_THE_PLACE = ("record",)
"""Keys of an outcome that hold a path."""


def main(tree: Path, out: Path, sets: list[str], names: list[str]) -> None:
    """Run the cases in order with further changes; a case that fails has its error as its result."""
    _check_tree(tree)
    known = {f"engine.{field.name}" for field in dataclasses.fields(fs.load_scenario("digits-iid").engine)}
    folder = tempfile.mkdtemp(prefix="same-records-")
    try:
        os.chdir(folder)
        write_files(Path("."))
        with out.open("a") as file:
            for name in names:
                started = time.perf_counter()
                case = CASES[name]
                changes = [c for c in (*case.sets, *sets) if not c.startswith("engine.") or c.split("=")[0] in known]
                found = _guarded(name, dataclasses.replace(case, sets=tuple(changes)))
                found["seconds"] = round(time.perf_counter() - started, 3)
                file.write(json.dumps({"name": name, **found}, default=_plain) + "\n")
                file.flush()
        _check_tree(tree)
    finally:
        os.chdir("/")
        shutil.rmtree(folder)


def _guarded(name: str, case: Case) -> dict[str, Any]:
    try:
        return {"record": _describe(name, case) if case.describe else _run(name, case)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}


def _scenario(name: str, case: Case) -> Any:
    if case.base not in BASES:
        return fs.load_scenario(case.base, sets=case.sets)
    file = Path(f"{name}.toml")
    file.write_text(BASES[case.base])
    return fs.load_scenario(file, sets=case.sets)


def _run(name: str, case: Case) -> dict[str, Any]:
    """Run a case, stop and resume it at its cuts, and read its folder."""
    scenario, folder = _scenario(name, case), Path(name)
    cuts = list(case.cuts)
    run = fs.simulate(scenario, out=folder, stop_asked=_after(cuts.pop(0) if cuts else None), **PARTS[case.parts]())
    for rounds in [*cuts, None] if case.cuts else []:
        assert run.verdict.outcome == "interrupted", f"ended before it was stopped: {run.verdict}"
        run = fs.resume(folder, stop_asked=_after(rounds), **PARTS[case.parts]())
    found = _read(folder)
    shutil.rmtree(folder)
    return found if case.parts else {"data": list(_data(scenario))} | found


def _after(rounds: int | None) -> Callable[[], bool]:
    """Return a `stop_asked` that returns True from its call number `rounds` on; never for None."""
    left = iter(range(rounds or 10**9))
    next(left)
    return lambda: next(left, None) is None


def _describe(name: str, case: Case) -> dict[str, Any]:
    measures = fs.describe_data(_scenario(name, case))
    return {"measures": dataclasses.asdict(measures) if dataclasses.is_dataclass(measures) else vars(measures)}


def _data(scenario: Any) -> Iterator[dict[str, Any]]:
    """Yield the data of some clients before the first round and in a late one, and the masks of faults."""
    people = fs.population(scenario)
    clients = np.arange(min(4, people.num_clients))
    for round_index in (0, 4):
        now = people.during(round_index)
        held, masks = now.cohort(clients), now.masks(clients) if now.masks is not None else {}
        for j, client in enumerate(clients.tolist()):
            examples = held.client(j)
            changed = {fault: _digest(each[j]) for fault, each in masks.items()}
            yield {
                "round": round_index,
                "client": client,
                "features": _digest(examples.features),
                "targets": _digest(examples.targets),
                "changed": changed,
            }
        if now.validation is not None:
            yield {"round": round_index, "validation": _digest(now.validation.features)}


def _digest(values: Any) -> dict[str, Any]:
    array = np.ascontiguousarray(values)
    digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
    return {"shape": list(array.shape), "sum": float(array.sum(dtype=np.float64)), "bytes": digest}


def _read(folder: Path) -> dict[str, Any]:
    """Return a run's files by name: a list of rows for a file with a row a round, a table of values for others."""
    found: dict[str, Any] = {
        name: [_without(json.loads(line)) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("rounds", "events")
    }
    parts = [pq.read_table(part) for part in sorted((folder / "clients").glob("*.parquet"))]
    found["clients"] = [row for part in parts for row in part.to_pylist()]
    found["columns"] = {field.name: str(field.type) for part in parts[:1] for field in part.schema}
    for name in ("partition", "data_truth", "outcome"):
        file = folder / f"{name}.json"
        found[name] = _without(json.loads(file.read_text())) if file.exists() else None
    model = folder / "model.safetensors"
    norms = {name: float(np.linalg.norm(t.double().numpy())) for name, t in load_file(model).items()}
    found["model"] = {"norm": norms, "bytes": hashlib.sha256(model.read_bytes()).hexdigest()}
    return found


def _without(table: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in table.items() if k not in BY_THE_CLOCK + OF_FILES + OF_THE_PLACE}


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _check_tree(tree: Path) -> None:
    """Refuse modules of another checkout: the one installed in the environment would replace missing modules."""
    allowed = [tree, Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parent]
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_absolute() and not any(Path(file).is_relative_to(a) for a in allowed):
            sys.exit(f"same_records: {name} comes from {file}, not from {tree}")
    assert fs.__file__ is not None
    if not Path(fs.__file__).is_relative_to(tree):
        sys.exit(f"same_records: fedscape comes from {fs.__file__}, not from {tree}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4:])
