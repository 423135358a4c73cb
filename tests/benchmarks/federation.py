"""Runs a federation and says where the seconds of a round go: `federation.py MODE NODES ROUNDS SET ...`.

Every process marks its moments (`federation_marks/sitecustomize.py`). A round takes as long as its slowest node, so the
steps are those of the node that replied last; together they are the round. The last line is one JSON object.

MODE is `flower` (Flower's own programs and waits, no local service), `service` (with the local service), or `forked`
(what `fedscape federate` does).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MODES = ("flower", "service", "forked")
SCENARIO = "digits-label-skew"
STEPS = {
    "making": "ServerApp makes the messages",
    "pushing": "ServerApp gives them to the SuperLink",
    "looking": "SuperNode looks for its message, SuperExec for its task",
    "starting": "the ClientApp's process starts, and imports",
    "taking": "it takes message and app from the SuperNode, and loads the app",
    "answering": "the answer: data, engine, training",
    "giving": "it gives the reply to the SuperNode",
    "sending": "SuperNode looks for the reply, and sends it",
    "collecting": "ServerApp looks for the reply, and takes it",
    "recording": "aggregation, measures, record, checkpoint",
}
"""The steps of a round in their order."""
Mark = Mapping[str, Any]


def read_marks(file: Path) -> list[dict[str, Any]]:
    """Return the marks of a federation in the order of time."""
    return sorted((json.loads(line) for line in file.read_text().splitlines()), key=lambda mark: mark["at"])


def rounds_of(marks: Sequence[Mark]) -> list[dict[str, float]]:
    """Return the seconds of each step of each round, and `processor`: those of the ClientApp's process."""
    begins = [mark["at"] for mark in marks if mark["what"] == "round begins"]
    ends = [mark["at"] for mark in marks if mark["what"] == "round ends"]
    supernodes = {mark["node"]: mark["pid"] for mark in marks if mark["what"] == "node is known"}
    return [_steps(marks, begin, end, supernodes) for begin, end in pairwise([*begins, ends[-1]])]


def _last(marks: Sequence[Mark], what: str, until: float, **of: object) -> Mark:
    """Return the last mark of a kind until a time."""
    return next(
        mark for mark in reversed(marks)
        if mark["what"] == what and mark["at"] <= until and all(mark[key] == value for key, value in of.items())
    )  # fmt: skip


def _steps(marks: Sequence[Mark], begin: float, end: float, supernodes: Mapping[str, int]) -> dict[str, float]:
    pulled = _last(marks, "pulled", end)
    replied = [_last(marks, "node has replied", pulled["at"], pid=supernodes[node]) for node in pulled["nodes"]]
    sent = max(replied, key=lambda mark: mark["at"])
    launch = _last(marks, "launch", sent["at"], parent=sent["pid"])
    app = [
        _last(marks, what, sent["at"], parent=launch["pid"])["at"]
        for what in ("app begins", "app works", "app replies", "app has replied")
    ]
    pushed = next(mark["at"] for mark in marks if mark["what"] == "pushed" and mark["at"] >= begin and mark["nodes"])
    making = _last(marks, "sending", pushed)["at"]
    times = [begin, making, pushed, launch["at"], *app, sent["at"], pulled["at"], end]
    ordered = list(accumulate(times, max))  # a SuperNode may take a message before all of them are given
    used = _last(marks, "app ends", end, parent=launch["pid"])["processor"]
    return dict(zip(STEPS, (b - a for a, b in pairwise(ordered)), strict=True)) | {"processor": used}


def played(mode: str, nodes: int, rounds: int, sets: Sequence[str]) -> dict[str, Any]:
    """Run a federation; return the seconds of its rounds' steps, before the first and after the last."""
    started = time.time()
    with tempfile.TemporaryDirectory(prefix="fs-") as folder:
        marks = Path(folder, "marks")
        os.environ["FEDERATION_MARKS"] = str(marks)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE / "federation_marks"), os.environ.get("PYTHONPATH", "")])
        from simulator.federate import federation
        from simulator.federate import nodes as supernodes
        from simulator.federate.wanted import Wanted
        from simulator.scenario.sections import load_scenario

        if mode != "forked":
            federation.write_programs = lambda folder: None  # type: ignore[assignment]
            federation.is_ready = lambda folder: True  # type: ignore[assignment]
        if mode == "flower":
            config = supernodes.node_config
            supernodes.node_config = lambda *of: config(*of) | {"service": "off"}  # type: ignore[assignment]
        given = [f"run.rounds={rounds}", "convergence.stop=never", "algorithm.cohort=", *sets]
        wanted = Wanted(load_scenario(SCENARIO, sets=given), nodes, Path(folder, "run"))
        federation.federate(wanted)
        found = read_marks(marks)
    whole = rounds_of(found)
    begin = next(mark["at"] for mark in found if mark["what"] == "round begins")
    last = _last(found, "round ends", time.time())["at"]
    return {"rounds": whole, "before": begin - started, "after": time.time() - last}


if __name__ == "__main__":
    print(json.dumps(played(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])))
