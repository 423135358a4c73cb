"""Make mutants with mutmut, and run the tests on each in a fork of a process that has collected them.

mutmut's own runner collects the tests anew for each mutant, which takes seconds, and runs them in no order. Here the
collected tests that reach the changed function run, the fastest first, until one fails: a tenth of a second for most.

Texts are not changed: they are names and words of messages, and would be half of all mutants.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import libcst
import mutmut.__main__ as command
import pytest
from mutmut.mutation import mutators
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state

FOLDER = Path("mutants")
_REACHED = "reached.json"
_LONGEST = 1.0
"""Processor time in seconds of the slowest tests that are tried: a mutant that survives runs all that reach it."""
_SECONDS = 10.0
"""Processor time that a test may take with a mutant, beside 20 times its own."""


def make(processes: int) -> None:
    """Write the sources with all their mutants into `FOLDER`, beside the tests."""
    mutators.mutation_operators[:] = [row for row in mutators.mutation_operators if row[0] is not libcst.BaseString]
    FOLDER.mkdir(exist_ok=True)
    set_mutant_under_test("mutant_generation")
    command.copy_src_dir()
    command.copy_also_copy_files()
    command.create_mutants(processes)


class Trial:
    """A pytest plugin that runs the tests once for each mutant, instead of once.

    Attributes:
        results: by mutant, "killed", "timeout", "survived", "no tests", or "error" where the trial itself failed.
        broken: tests that fail without a mutant.
    """

    def __init__(self, mutants: Sequence[str], processes: int, say: Callable[[str], None], *, anew: bool) -> None:
        self.mutants, self.processes, self.say, self.anew = mutants, processes, say, anew
        self.results: dict[str, str] = {}
        self.broken: list[str] = []
        self._at_import: defaultdict[str, set[str]] = defaultdict(set)  # function -> test files that call it on import
        self._seconds: dict[str, float] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """Let Hypothesis try the same examples for each mutant, and not look for a smaller one that fails."""
        from hypothesis import Phase, settings  # after pytest, which rewrites its assertions

        known = settings.get_profile("fedscape")
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", known, phases=phases, database=None, derandomize=True)
        settings.load_profile("mutants")
        set_mutant_under_test("stats")

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Iterator[None]:
        """Note which functions a test file calls on import: a fork calls them no more."""
        state()._stats.clear()
        report = yield
        for function in state()._stats:
            self._at_import[function].add(collector.nodeid)
        return report

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests without a mutant, then with each."""
        if session.testsfailed:
            self.broken.append("collection of the tests")
            return True
        reached = self._reached(session)
        self._seconds = {test: seconds for test, (seconds, _) in reached.items()}
        tests: defaultdict[str, list[pytest.Item]] = defaultdict(list)
        fast = [item for item in session.items if self._seconds.get(item.nodeid, _LONGEST) < _LONGEST]
        for item in sorted(fast, key=lambda item: self._seconds[item.nodeid]):
            for function in reached[item.nodeid][1]:
                tests[function].append(item)
        if not self.broken:
            self._run(session, tests)
        return True

    def _reached(self, session: pytest.Session) -> dict[str, tuple[float, list[str]]]:
        """Return the time of each test, and the functions it reaches; known ones are read, unless `anew`."""
        file = Path(_REACHED)
        known = {} if self.anew or not file.exists() else json.loads(file.read_text())
        new = [item for item in session.items if item.nodeid not in known]
        self.say(f"{len(new)} of {len(session.items)} tests run without a mutant")
        if new and not (pid := os.fork()):
            with _leaving():
                file.write_text(json.dumps(known | self._observed(session, new)))
        if new:
            os.waitpid(pid, 0)
        found: dict[str, tuple[float, list[str]]] = json.loads(file.read_text())
        self.broken += [item.nodeid for item in session.items if item.nodeid not in found]
        return found

    def _observed(self, session: pytest.Session, items: Sequence[pytest.Item]) -> dict[str, tuple[float, list[str]]]:
        found = {}
        for item, following in zip(items, [*items, None][1:], strict=True):
            state()._stats.clear()
            start, failed = time.process_time(), session.testsfailed
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed == failed:
                found[item.nodeid] = time.process_time() - start, sorted(state()._stats)
        return found

    def _run(self, session: pytest.Session, tests: dict[str, list[pytest.Item]]) -> None:
        waiting, running = list(reversed(self.mutants)), {}
        gc.freeze()  # so that forks copy fewer pages
        while waiting or running:
            while waiting and len(running) < self.processes:
                name = waiting.pop()
                items = tests.get(name.partition("__mutmut_")[0], [])
                pid = os.fork()
                if not pid:
                    with _leaving():
                        self._try(session, name, items)
                running[pid] = name
            pid, status = os.wait()
            name = running.pop(pid)
            self.results[name] = self._verdict(status)
            if self.results[name] not in ("killed", "timeout"):
                self.say(f"{self.results[name]}: {name}")
            if len(self.results) % 50 == 0 or not running:
                alive = sum(result not in ("killed", "timeout") for result in self.results.values())
                self.say(f"{len(self.results)} of {len(self.mutants)} mutants, {alive} survive")

    @staticmethod
    def _verdict(status: int) -> str:
        if os.WIFSIGNALED(status):
            overdue = os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL, signal.SIGALRM)
            return "timeout" if overdue else "killed"
        return {0: "survived", 1: "killed", 5: "no tests"}.get(os.WEXITSTATUS(status), "error")

    def _try(self, session: pytest.Session, name: str, items: Sequence[pytest.Item]) -> None:
        """Leave the process with 1 where a test fails with a mutant, 0 where none does, 5 where there is none."""
        set_mutant_under_test(name)
        files = sorted({file.partition("::")[0] for file in self._at_import[name.partition("__mutmut_")[0]]})
        for item, following in zip(items, [*items, None][1:], strict=True):
            allowed = _SECONDS + 20.0 * self._seconds[item.nodeid]
            used = resource.getrusage(resource.RUSAGE_SELF)
            resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + allowed) + 1, -1))
            signal.alarm(int(20 * allowed))  # it may wait for ever
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                os._exit(1)
        if files:  # in a process that imports them with the mutant
            resource.setrlimit(resource.RLIMIT_CPU, (-1, -1))
            signal.alarm(0)
            files = sorted({item.nodeid.partition("::")[0] for item in items} | set(files))
            arguments = [sys.executable, "-m", "pytest", "-x", "-q", "--rootdir=.", "-p", "no:cacheprovider", *files]
            done = subprocess.run(arguments, check=False, env=os.environ | {"MUTANT_UNDER_TEST": name}, timeout=600)
            os._exit(bool(done.returncode))
        os._exit(0 if items else 5)


@contextmanager
def _leaving() -> Iterator[None]:
    """End a fork, whatever happens in it."""
    try:
        yield
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(3)
