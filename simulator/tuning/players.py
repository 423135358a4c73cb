"""Plays the trials of a search: in this process, or several at once in processes of their own.

This process alone talks to Optuna's storage. A process of its own is a child that gets trials as lines of JSON and
answers with values; it lives for many trials, so torch is imported once.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clients.core.errors import FedscapeError
from simulator.engines.limits import processors
from simulator.scenario.data_files import data_digest
from simulator.scenario.sections import Scenario, load_scenario, to_toml
from simulator.studies.pinning import engine_group
from simulator.tuning.measures import SeedResult
from simulator.tuning.search import Proposal, Search, with_values
from simulator.tuning.trial_runs import Played, Task, play

END_SECONDS = 30.0
"""Seconds in which a child must end after its last trial."""


@dataclass(frozen=True)
class Players:
    """What all trials of a search have in common.

    Attributes:
        search: the trials.
        seeds: the seeds of each.
        folder: the folder of the study in whose `runs/` their runs are.
        measure: the key of the measure.
        every: rounds between reports.
        trial_ended: called with the number of each trial that ended.
        stop_asked: called after each round; if it returns True, trials stop and are queued again.
        data: the digest of the tuned scenario's data files when the tuning began; empty for data without files.
    """

    search: Search
    seeds: tuple[int, ...]
    folder: Path
    measure: str
    every: int
    trial_ended: Callable[[int], object]
    stop_asked: Callable[[], bool]
    data: str = ""

    def play_here(self) -> None:
        """Play one trial after another in this process."""
        while not self.stop_asked() and (proposal := self.search.next()) is not None:
            trial = proposal.trial
            try:
                task = self._task(proposal, 1)
                played = play(task, lambda step, value: self.search.report(trial, step, value), self.stop_asked)  # noqa: B023
            except FedscapeError as error:
                self.search.fail(trial, str(error))
            except BaseException:
                self.search.put_back(trial)
                raise
            else:
                self._end(proposal, played)
            self.trial_ended(trial.number)

    def play_in(self, processes: int) -> None:
        """Play several trials at once.

        Raises:
            FedscapeError: three trials in turn failed.
        """
        children: dict[Any, _Child] = {}
        with selectors.DefaultSelector() as selector:
            try:
                while True:
                    while len(children) < processes and not self.stop_asked():
                        if (proposal := self.search.next()) is None:
                            break
                        child = _Child.started()
                        children[child.output] = child
                        selector.register(child.output, selectors.EVENT_READ)
                        child.begin(proposal, self._task(proposal, processes))
                    busy = [child for child in children.values() if child.proposal is not None]
                    if not busy:
                        return
                    for key, _ in selector.select(timeout=0.2):
                        child = children[key.fileobj]
                        if not self._heard(child, processes):
                            selector.unregister(child.output)
                            del children[child.output]
                            child.close()
                    if self.stop_asked():
                        for child in busy:
                            child.stop()
            finally:
                for child in children.values():
                    if child.proposal is not None:
                        self.search.put_back(child.proposal.trial)
                    child.close()

    def _heard(self, child: _Child, processes: int) -> bool:
        """Take a child's message; return False where the child is of no more use."""
        proposal, message = child.proposal, child.message()
        assert proposal is not None
        if message is None:  # it was killed, such as by the system for its memory
            child.proposal = None
            self.search.fail(proposal.trial, f"its process ended ({child.ending()})")
        elif message["kind"] == "value":
            child.answer(self.search.report(proposal.trial, message["step"], message["value"]))
            return True
        elif message["kind"] == "failed":
            child.proposal = None
            self.search.fail(proposal.trial, message["words"])
        else:
            child.proposal = None
            results = tuple(SeedResult(**result) for result in message["results"])
            self._end(proposal, Played(results, message["is_whole"]))
        self.trial_ended(proposal.trial.number)
        if message is None or self.stop_asked() or (following := self.search.next()) is None:
            return False
        child.begin(following, self._task(following, processes))
        return True

    def _end(self, proposal: Proposal, played: Played) -> None:
        """End a trial in the study; one that Ctrl-C stopped is queued again."""
        if not played.is_whole and self.stop_asked():
            self.search.put_back(proposal.trial)
        else:
            self.search.finish(proposal.trial, played)

    def _task(self, proposal: Proposal, processes: int) -> Task:
        scenarios = tuple(for_trial(proposal.scenario, seed) for seed in self.seeds)
        shaping = {p.key for p in self.search.parameters if not p.keeps_shape}
        shape = with_values(self.search.scenario, {k: v for k, v in proposal.values.items() if k in shaping})
        threads = max(1, processors() // processes)
        is_own = proposal.scenario.data == self.search.scenario.data
        data = self.data if is_own else data_digest(proposal.scenario)
        return Task(scenarios, self.folder, self.measure, self.every, threads, f"tuning-{engine_group(shape)}", data)


def for_trial(scenario: Scenario, seed: int) -> Scenario:
    """Return the scenario of one run of a trial: with its seed, and without baselines, which no measure reads."""
    evaluation = replace(scenario.evaluation, baselines=False)
    return replace(scenario, evaluation=evaluation, run=replace(scenario.run, seed=seed))


class _Child:
    """A process that plays trials."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self.output = process.stdin, process.stdout
        self.proposal: Proposal | None = None
        self._stopped = False

    @classmethod
    def started(cls) -> _Child:
        """Start a process in a session of its own: Ctrl-C of the terminal reaches this process alone."""
        root = Path(__file__).parents[2]
        paths = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH", ""))))
        return cls(
            subprocess.Popen(
                [sys.executable, "-m", "simulator.tuning.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": paths},
            )
        )

    def begin(self, proposal: Proposal, task: Task) -> None:
        """Send a trial's runs."""
        self.proposal = proposal
        self._send(task_message(task))

    def answer(self, goes_on: bool) -> None:
        """Say whether the trial goes on."""
        self._send({"kind": "answer", "goes_on": goes_on})

    def stop(self) -> None:
        """Have the trial stop after its round."""
        if not self._stopped:
            self._stopped = True
            self._send({"kind": "stop"})

    def message(self) -> dict[str, Any] | None:
        """Return the next message; None where the process has ended."""
        line = self.output.readline()
        found: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return found

    def ending(self) -> str:
        """Return how the process ended."""
        code = self._process.wait(END_SECONDS)
        return f"signal {-code}" if code < 0 else f"code {code}"

    def close(self) -> None:
        """End the process: at once where it plays a trial."""
        with suppress(BrokenPipeError):
            self._input.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.output.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        with suppress(BrokenPipeError):  # it has ended, and the next message says so
            self._input.write(json.dumps(message).encode() + b"\n")
            self._input.flush()


def task_message(task: Task) -> dict[str, Any]:
    """Return a trial's runs as plain values."""
    return {
        "kind": "task",
        "scenarios": [to_toml(scenario) for scenario in task.scenarios],
        "folder": str(task.folder.resolve()),
        "measure": task.measure,
        "every": task.every,
        "threads": task.threads,
        "engine": task.engine,
        "data": task.data,
    }


def task_of(message: Mapping[str, Any]) -> Task:
    """Return the runs in a message."""
    scenarios = tuple(load_scenario(tomllib.loads(text)) for text in message["scenarios"])
    given = {key: message[key] for key in ("measure", "every", "threads", "engine", "data")}
    return Task(scenarios, Path(message["folder"]), **given)
