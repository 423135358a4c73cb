"""Plays planned runs in memory and makes the evidence of each, as `fedscape explain` would."""

from __future__ import annotations

import time
import tomllib
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from plants import FIXED, Plan

import fedscape as fs
from server.diagnosis.evidence import Evidence
from server.diagnosis.federation import cohort_matters
from simulator.explaining.looks import look
from simulator.explaining.pooled import wider_model
from simulator.explaining.trials import State

COLUMNS = ("client", "round", "gradient_norm", "train_loss", "cosine", "update_norm")


class _Watch:
    """Keeps what a record would have."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.columns: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}

    def run_started(self, facts: dict[str, Any]) -> None:
        self.facts = dict(facts)

    def round_finished(self, line: dict[str, Any]) -> None:
        self.lines.append(line)

    def snapshot_taken(self, snapshot: fs.Snapshot) -> None:
        if snapshot.round_index:
            clients = np.asarray(snapshot.clients["client"])
            rounds = np.full(len(clients), snapshot.round_index)
            self.columns.append({**{k: np.asarray(v) for k, v in snapshot.clients.items()}, "round": rounds})


@dataclass
class Played:
    """The evidence of a run, the processor seconds of the run, and those of the looks."""

    evidence: Evidence
    run_seconds: float
    look_seconds: float


def play(plan: Plan, seed: int) -> Played:
    """Play a run and look at it."""
    table = {name: dict(section) if isinstance(section, dict) else section for name, section in plan.table.items()}
    table |= plan.sections
    data = None if plan.arrays is None else fs.arrays(*plan.arrays, **plan.options)
    watch = _Watch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scenario = fs.load_scenario(table, sets=FIXED | plan.sets)
        begun = time.process_time()
        run = fs.simulate(scenario, data=data, seed=seed, record=False, observers=[watch], strategy=plan.strategy)
        played = time.process_time()
        session = run.session
        states = [
            State("start", 0, session.start.params, session.start.buffers),
            State("end", run.verdict.round_index, run.params, run.buffers),
        ]
        cohort = scenario.algorithm.cohort or session.population.num_clients
        counts = session.population.clients.label_counts
        all_clients = np.arange(session.population.num_clients)
        evidence = Evidence(
            scenario=tomllib.loads(fs.to_toml(scenario)),
            lines=watch.lines,
            started=watch.facts,
            columns={name: np.concatenate([c[name] for c in watch.columns]) for name in COLUMNS if watch.columns},
            labels=None if counts is None else np.asarray(counts(all_clients), np.float64),
            outcome=dict(run.outcome),
        )
        begun_to_look = time.process_time()
        wider = wider_model(scenario.model, session.task)
        looks = look(
            session.task, session.engine, session.evaluator, states,
            cohort=cohort, wider=wider, larger_cohort=cohort_matters(evidence),
        )  # fmt: skip
    looked = time.process_time() - begun_to_look
    return Played(replace(evidence, looks=looks), played - begun, looked)
