"""Checks that a change moves no number: runs the same small cases on the code of a commit and of the working tree.

    python tests/benchmarks/same_records BASE [--only NAME]... [--set KEY=VALUE]... [--allow NAME[@KEY]=reason]...

BASE is checked out with `git worktree add` and removed at the end. Each tree runs in its own processes with the same
interpreter. All files of a run are compared to the last bit, except values of the clock and checksums that cover those.
`--set engine.native=never` compares torch with torch, also on a commit without kernels. Exit status: 0 if only allowed
values differ, 1 if others do, 2 for a mistake, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from cases import CASES
from compare import Allowance, Found, compare

HERE = Path(__file__).resolve().parent
CHILD = HERE / "child.py"
QUIET = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0", "HF_HUB_DISABLE_TELEMETRY": "1",
         "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
Results = dict[str, Found]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the cases, print one line per case, and return the exit status."""
    options = _parser().parse_args(arguments)
    if options.list:
        print("\n".join(CASES))
        return 0
    names = [n for n in CASES if not options.only or any(fnmatch.fnmatchcase(n, p) for p in options.only)]
    try:
        allowed = [Allowance.parse(text) for text in options.allow]
    except ValueError as error:
        _mistake(str(error))
    for pattern in [*options.only, *(a.name for a in allowed)]:
        if not fnmatch.filter(CASES, pattern):
            _mistake(f"no case has the name {pattern}; --list prints all names")
    if bool(options.base) == bool(options.against or options.save):
        _mistake("name BASE, a commit; or else --save FILE or --against FILE")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with _scratch() as scratch:
        base, here = _results(options, names, scratch)
    if options.save:
        Path(options.save).write_text(json.dumps({"made_with": _made_with(options.sets), "results": here}))
    if base is None:
        bad = {n: here.get(n, {"error": "the process ended"}) for n in names if "record" not in here.get(n, {})}
        print("\n".join(f"{n}: {found['error']}" for n, found in bad.items()) or f"{len(here)} cases saved")
        return 1 if bad else 0
    answers = [compare(n, base.get(n), here.get(n), allowed, numbers_only=options.numbers_only) for n in names]
    print("\n".join(map(str, answers)))
    kinds = [a.kind for a in answers]
    print(", ".join(f"{kinds.count(k)} {k}" for k in dict.fromkeys(kinds)))
    nothing = all(k in ("only here", "error") for k in kinds)
    if nothing:
        print("no case ran on both trees: nothing was compared")
    return 0 if all(a.passes for a in answers) and not nothing else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default="", metavar="BASE", help="the commit to compare with")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="only these cases; * matches any")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="sets",
                        help="a change of every case, but for keys of [engine] that a tree lacks")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the cases and exit")
    parser.add_argument("--allow", action="append", default=[], metavar="NAME[@KEY]=reason",
                        help="a difference made on purpose; it is listed and does not fail")  # fmt: skip
    parser.add_argument("--numbers-only", action="store_true", help="ignore differences of text")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once (2: one a tree)")
    parser.add_argument("--cache", metavar="FOLDER", help="keep BASE's results in FOLDER/<commit>.json")
    parser.add_argument("--save", metavar="FILE", help="save the working tree's results")
    parser.add_argument("--against", metavar="FILE", help="compare with saved results instead of a commit's")
    return parser


def _mistake(problem: str) -> NoReturn:
    print(f"same_records: {problem}", file=sys.stderr)
    sys.exit(2)


@contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="same-records-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _results(options: argparse.Namespace, names: list[str], scratch: Path) -> tuple[Results | None, Results]:
    """Return the results of the cases on BASE (None if nothing is compared) and on the working tree."""
    root = Path(_git(HERE, "rev-parse", "--show-toplevel"))
    if not options.base:
        saved = _load(Path(options.against), options.sets) if options.against else None
        return saved, _run({root: names}, options, scratch)[root]
    commit = _git(root, "rev-parse", "--verify", "--quiet", f"{options.base}^{{commit}}")
    cache = Path(options.cache) / f"{commit}.json" if options.cache else None
    known = _load(cache, options.sets) if cache is not None and cache.exists() else {}
    missing = [n for n in names if n not in known]
    if not missing:
        print(f"{commit[:10]}: known from {cache}", flush=True)
        return known, _run({root: names}, options, scratch)[root]
    with _checkout(root, commit, scratch) as tree:
        found = _run({tree: missing, root: names}, options, scratch)
    base = known | found[tree]
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        new = cache.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps({"made_with": _made_with(options.sets), "results": base}))
        new.replace(cache)
    return base, found[root]


def _load(file: Path, sets: list[str]) -> Results:
    """Return saved results. A cache made with other cases or packages is empty."""
    try:
        table = json.loads(file.read_text())
        made_with, results = table["made_with"], table["results"]
    except (OSError, ValueError, KeyError) as error:
        _mistake(f"{file} cannot be read: {error}")
    if made_with == _made_with(sets):
        return dict(results)
    if len(file.stem) == 40:  # a cache: run the commit again
        return {}
    _mistake(f"{file} was made by other cases or packages; save it again")


def _made_with(sets: list[str]) -> str:
    """Return what results depend on besides the tree: the cases, the interpreter and the numeric packages."""
    parts = [(HERE / f"{n}.py").read_text() for n in ("bases", "cases", "parts", "child")]
    parts += [metadata.version(n) for n in ("torch", "numpy", "scipy", "scikit-learn", "flwr", "pyarrow")]
    parts += [*sets, sys.version, platform.platform(), platform.processor()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        _mistake(f"git {' '.join(arguments)}: {done.stderr.strip() or 'no such commit'}")
    return done.stdout.strip()


@contextmanager
def _checkout(root: Path, commit: str, scratch: Path) -> Iterator[Path]:
    """Check out a commit in a worktree, and remove it at the end, also after an error."""
    tree = scratch / "base"
    try:
        _git(root, "worktree", "add", "--detach", "--force", str(tree), commit)
        yield tree
    finally:
        again = ["git", "-C", str(root), "worktree", "remove", "--force", str(tree)]
        subprocess.run(again, capture_output=True, check=False)


def _run(work: dict[Path, list[str]], options: argparse.Namespace, scratch: Path) -> dict[Path, Results]:
    """Run the cases of each tree in `options.jobs` processes at once, and return the results by tree."""
    jobs = max(1, options.jobs)
    parts = max(1, jobs // len(work))
    waiting = [(tree, names[i::parts]) for i in range(parts) for tree, names in work.items() if names[i::parts]]
    print(", ".join(f"{len(names)} cases on {tree}" for tree, names in work.items()), flush=True)
    started, running, files = time.perf_counter(), dict[Path, subprocess.Popen[bytes]](), dict[Path, Path]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                tree, names = waiting.pop(0)
                out = scratch / f"part-{len(files)}.jsonl"
                files[out], running[out] = tree, _start(tree, out, options.sets, names, scratch)
            for out, process in list(running.items()):
                if process.poll() is not None:
                    del running[out]
                    print(f"{files[out]}: {time.perf_counter() - started:.0f} s", flush=True)
                    if process.returncode:
                        printed = out.with_suffix(".err").read_text().strip().splitlines()
                        print(f"{files[out]} ended early: {printed[-1] if printed else process.returncode}", flush=True)
            time.sleep(0.05)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    results: dict[Path, Results] = {tree: {} for tree in work}
    for out, tree in files.items():
        for line in out.read_text().splitlines() if out.exists() else ():
            found = json.loads(line)
            results[tree][found.pop("name")] = found
    return results


def _start(tree: Path, out: Path, sets: list[str], names: list[str], scratch: Path) -> subprocess.Popen[bytes]:
    """Start a process on a tree. It does not receive Ctrl-C; the main process stops it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("FEDSCAPE_", "PYTHON"))} | QUIET
    environment |= {"PYTHONPATH": str(tree), "TMPDIR": str(scratch)}
    with out.with_suffix(".err").open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-P", str(CHILD), str(tree), str(out), json.dumps(sets), *names],
            env=environment, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True,
        )  # fmt: skip


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
