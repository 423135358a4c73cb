"""The best model by validation so far: kept in memory, and in checkpoints, beside the last model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from server.algorithms.state import ServerState
from server.convergence.facts import NO_AGGREGATE
from server.record.checkpoint import Checkpoint
from server.record.jsonlines import Line

METRICS = ("validation_frechet_distance", "validation_loss")
"""What models are compared by, the first that a run measures: the distance of samples from the validation examples (the
loss of a game is no measure of its generator), or the loss on these examples as they were in the model's round."""
_PARAMS, _BUFFERS = "best/parameters", "best/buffers"


@dataclass
class BestModel:
    """The model of the round with the lowest of `METRICS`; of equals, the first.

    Attributes:
        round_index: its round; None while nothing was measured by validation.
        value: its value.
        params: its parameters [P], a copy.
        buffers: its buffers [Q], a copy.
        metric: what `value` is.
    """

    round_index: int | None = None
    value: float = math.inf
    params: Tensor | None = None
    buffers: Tensor | None = None
    metric: str = METRICS[-1]

    def observe(self, state: ServerState, line: Line) -> None:
        """Take in the model after a round, with the round's line."""
        metric = next((name for name in METRICS if line.get(name) is not None), METRICS[-1])
        value = line.get(metric)
        if value is None or line.get(NO_AGGREGATE) or not value < self.value:  # nan is not below
            return
        self.round_index, self.value, self.metric = state.round_index, float(value), metric
        self.params, self.buffers = state.params.clone(), state.buffers.clone()

    @property
    def facts(self) -> dict[str, Any]:
        """What a checkpoint's facts and the outcome have of it; empty without one."""
        if self.round_index is None:
            return {}
        return {"round": self.round_index, "metric": self.metric, "value": self.value}

    def tensors(self, state: ServerState) -> dict[str, Tensor]:
        """Return what a checkpoint of `state` keeps of it; nothing where it is that state's own model."""
        if self.params is None or self.buffers is None or self.round_index == state.round_index:
            return {}
        return {_PARAMS: self.params, _BUFFERS: self.buffers}

    def restore(self, checkpoint: Checkpoint, facts: Mapping[str, Any] | None) -> None:
        """Go on from a checkpoint; `facts` are what it has of the best model, None in those of earlier versions."""
        if not facts:
            return
        tensors, own = checkpoint.tensors, facts["round"] == checkpoint.round_index
        self.round_index, self.value, self.metric = facts["round"], facts["value"], facts["metric"]
        self.params = tensors["parameters" if own else _PARAMS].clone()
        self.buffers = tensors["buffers" if own else _BUFFERS].clone()
