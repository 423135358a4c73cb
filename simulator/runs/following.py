"""A run in a process of torchrun that is not rank 0: it works for rank 0, and returns rank 0's finished run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from clients.core.errors import EngineError
from clients.engines.native.threads import set_threads
from clients.processes.wire import Message
from server.algorithms.state import ServerState
from server.convergence.condition import Condition, Sign
from server.convergence.verdict import Verdict
from server.record.checked.kept_lines import KeptLines
from server.rounds.best_model import BestModel
from simulator.engines.plan import EnginePlan
from simulator.runs.baselines import JOBS
from simulator.runs.building import Overrides
from simulator.runs.playing import Ended
from simulator.runs.session import Session, digest, open_session
from simulator.scenario.data_files import data_digest
from simulator.scenario.sections import Scenario
from simulator.workers.joining import follow
from simulator.workers.preparing import workplace_of
from simulator.workers.ranks import Ranks


def follow_run(scenario: Scenario, given: Overrides, ranks: Ranks) -> tuple[Session, Ended, Path | None]:
    """Work for rank 0 until its run has ended; return the session of this process, and what rank 0's run leaves.

    Raises:
        EngineError: rank 0 runs another scenario or has other data, or is gone.
    """
    rank_0 = follow(ranks)
    session = open_session(scenario, given, plan=EnginePlan.from_dict(rank_0.welcome["plan"]), ranks=ranks)
    if rank_0.welcome["scenario"] != digest(session.scenario):
        problem = f"rank {ranks.rank} of torchrun has another scenario than rank 0"
        raise EngineError("scenario", problem, fix="Start the same script or command, with the same files, everywhere.")
    if rank_0.welcome["data"] != data_digest(session.scenario):
        path = getattr(session.scenario.data, "path", "")
        problem = f"{path} holds other data on rank {ranks.rank} of torchrun than on rank 0"
        raise EngineError("data.path", problem, fix="Give all machines the same files.")
    assert session.engine is not None, "rank 0 has refused a run without an engine"
    set_threads(rank_0.welcome["threads"])
    algorithm = session.played.own.algorithm if session.played.own is not None else None
    end = rank_0.serve(workplace_of(session.engine, algorithm, session.codec.layers, JOBS))
    if "verdict" not in end.head:
        raise EngineError(
            "engine.workers", "rank 0 of torchrun ended the run with an error", fix="Its output says why."
        )
    return session, _ended(end), Path(end.head["path"]) if end.head["path"] else None


def farewell(ended: Ended, path: Path | None) -> Message:
    """Return what rank 0 tells the others of its finished run."""
    lines, best = json.dumps(list(ended.lines)).encode(), ended.best
    head = {"job": "end", "verdict": asdict(ended.verdict), "outcome": ended.outcome,
            "round": ended.state.round_index, "path": str(path) if path is not None else "",
            "best": best.facts}  # fmt: skip
    tensors = {"params": ended.state.params, "buffers": ended.state.buffers,
               "lines": torch.frombuffer(bytearray(lines), dtype=torch.uint8)}  # fmt: skip
    if best.params is not None and best.buffers is not None:
        tensors |= {"best_params": best.params, "best_buffers": best.buffers}
    return Message(head, tensors)


def _ended(end: Message) -> Ended:
    values: Mapping[str, Any] = end.head["verdict"]
    condition, signs = values["condition"], tuple(Sign(**sign) for sign in values["signs"])
    verdict = Verdict(
        **{**values, "reasons": tuple(values["reasons"]), "criteria": tuple(values["criteria"]), "signs": signs,
           "condition": Condition(**condition) if condition is not None else None}
    )  # fmt: skip
    lines = json.loads(end.tensors["lines"].numpy().tobytes())
    state = ServerState(end.head["round"], end.tensors["params"].clone(), end.tensors["buffers"].clone())
    best, facts = BestModel(), end.head["best"]
    if facts:
        params, buffers = end.tensors["best_params"].clone(), end.tensors["best_buffers"].clone()
        best = BestModel(facts["round"], facts["value"], params, buffers, facts["metric"])
    return Ended(verdict, end.head["outcome"], KeptLines(lines), state, best)
