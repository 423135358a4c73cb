"""Change the mathematics one line at a time, and list the changes that no test notices.

`make mutants` runs mutmut over the modules of `[tool.mutmut]` in pyproject.toml: each change is one operator, number or
argument of a function, and the tests that reach the function run against it. A change that all of them accept is a
survivor. `survivors.txt` lists the known ones, each with the reason why it stays: most compute the same numbers in
another way. The command fails on a survivor that is not in the list, and on an entry that has none.

To kill a survivor, write a test of the right value; `mutmut show NAME` prints the change. To keep one, add the block
that this command prints, with a reason.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

import mutating
import pytest
from mutmut.mutation.diff_apply import get_diff_for_mutant
from survivor_list import LIST, Mutant, read_list


def tried(names: Sequence[str], tests: Sequence[str], processes: int) -> dict[str, str]:
    """Make the mutants, and return what became of those whose names match `names`, or of all, under `tests`, or all."""
    if not names:
        shutil.rmtree(mutating.FOLDER, ignore_errors=True)
    mutating.FOLDER.mkdir(exist_ok=True)
    screen = os.fdopen(os.dup(1), "w")
    with open(mutating.FOLDER / "log.txt", "w") as log:
        os.dup2(log.fileno(), 1)
    mutating.make(processes)
    listed = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutmut"]
    files = [mutating.FOLDER / f"{file}.meta" for file in listed["only_mutate"]]
    mutants = [name for file in files for name in json.loads(file.read_text())["exit_code_by_key"]]
    wanted = [name for pattern in names or ["*"] for name in mutants if fnmatch(name, pattern)]
    trial = mutating.Trial(wanted, processes, lambda line: print(line, file=screen, flush=True), anew=not names)
    selection = tests or listed["pytest_add_cli_args_test_selection"]
    os.chdir(mutating.FOLDER)
    sys.path.insert(0, os.getcwd())
    os.environ["PYTHONPATH"] = os.pathsep.join((os.getcwd(), os.environ.get("PYTHONPATH", "")))
    arguments = ["-q", "--rootdir=.", "--tb=native", "--assert=plain", "-p", "no:cacheprovider"]
    pytest.main([*arguments, *selection], plugins=[trial])
    os.dup2(screen.fileno(), 1)
    os.chdir("..")
    if trial.broken:
        raise SystemExit(f"these fail without a mutant (mutants/log.txt): {', '.join(trial.broken)}")
    if failed := [name for name, result in trial.results.items() if result == "error"]:
        raise SystemExit(f"the trial itself failed (mutants/log.txt): {', '.join(failed)}")
    return trial.results


def survivors(results: Mapping[str, str]) -> Iterator[Mutant]:
    """Yield the mutants that no test noticed."""
    for name, result in results.items():
        if result in ("survived", "no tests"):
            changed = [line for line in get_diff_for_mutant(name).splitlines() if re.match(r"[-+](?!--|\+\+)", line)]
            yield Mutant(_place(name), tuple(line[0] + " " + line[1:].strip() for line in changed))


def _place(name: str) -> str:
    """Return 'module.function' or 'module.Class.method' of mutmut's name, which marks functions by x and ǁ."""
    module, _, function = name.rpartition("__mutmut_")[0].rpartition(".")
    return f"{module}.{function.removeprefix('x_').removeprefix('xǁ').replace('ǁ', '.')}"


def _print(title: str, mutants: Iterable[Mutant], reason: str) -> None:
    listed = list(mutants)
    if listed:
        print(f"\n{title}: {len(listed)}\n")
        for mutant in sorted(listed):
            print(mutant.block(reason))


def main(names: list[str], tests: list[str], processes: int) -> int:
    """Try the mutants whose names match `names`, or all, and compare the survivors with the list."""
    alive, listed = (
        Counter(survivors(tried(names, tests, processes))),
        Counter(read_list(LIST.read_text(encoding="utf-8"))),
    )
    fresh, gone = alive - listed, listed - alive
    _print("survivors that are not in the list", fresh.elements(), "...")
    if not names:
        _print("entries of the list that a test kills now, or whose code has changed", gone.elements(), "delete this")
    print(f"{alive.total()} survivors, {fresh.total()} of them not in the list")
    return 1 if fresh or (gone and not names) else 0


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument(
        "names", nargs="*", help="patterns of mutants, such as 'server.rounds.sampling.*'; all by default"
    )
    arguments.add_argument("--tests", nargs="+", default=[], help="files of tests; those of pyproject.toml by default")
    arguments.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    sys.exit(main(**vars(arguments.parse_args())))
