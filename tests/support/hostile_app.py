"""A ClientApp that changes what ours replies: it runs in the processes of a SuperNode that `own_nodes` starts."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

DEEDS = "HOSTILE_DEEDS"
"""The variable that names what a node does in rounds 1, 2, ..., with commas between; in later rounds it is honest."""


def hostile(app: ClientApp) -> ClientApp:
    """Return an app that answers as another does, but for the replies to training that `DEEDS` names."""
    deeds, made = os.environ[DEEDS].split(","), ClientApp()

    @made.train()
    def train(message: Message, context: Context) -> Message:
        reply = app(message, context)
        round_index = int(str(message.content.config_records["config"]["server-round"]))
        if round_index <= len(deeds):
            _DEEDS[deeds[round_index - 1]](reply.content)
        return reply

    @made.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return app(message, context)

    @made.query()
    def query(message: Message, context: Context) -> Message:
        return app(message, context)

    return made


def _filled(value: float, wider: int = 0) -> Callable[[RecordDict], None]:
    def change(content: RecordDict) -> None:
        old = content.array_records["arrays"]["parameters"].numpy()
        values = np.full((old.shape[0], old.shape[1] + wider), value, old.dtype)
        content.array_records["arrays"]["parameters"] = Array(values)

    return change


def _metric(name: str, value: int | list[int]) -> Callable[[RecordDict], None]:
    def change(content: RecordDict) -> None:
        content.metric_records["metrics"][name] = value

    return change


def _of_another_app(content: RecordDict) -> None:
    """Reply as the ClientApp of another project does."""
    for name in list(content):
        del content[name]
    content["weights"] = ArrayRecord([np.zeros((3, 4), np.float32)])
    content["results"] = MetricRecord({"num-examples": 1, "loss": 0.5})


_DEEDS: dict[str, Callable[[RecordDict], None]] = {
    "nan": _filled(np.nan),
    "shape": _filled(0.0, wider=1),
    "norm": _filled(1e6),
    "examples": _metric("num-examples", [10**12]),
    "round": _metric("server-round", 7),
    "other-app": _of_another_app,
}
