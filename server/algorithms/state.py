"""The state of the server between two rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from clients.training.rules import Vectors


@dataclass(frozen=True)
class ServerState:
    """The server after a round. A checkpoint holds this state and the client states.

    Attributes:
        round_index: the last finished round; 0 is the initial model.
        params: parameters [P].
        buffers: floating-point buffers [Q].
        vectors: state of the server transform, such as momentum or a control variate, each [P].
        arrays: the model as a user's strategy returned it, in its types (Flower's FedAdam continues in float64); None
            for fedscape's own strategy.
    """

    round_index: int
    params: Tensor
    buffers: Tensor
    vectors: Vectors = field(default_factory=dict)
    arrays: Mapping[str, Any] | None = None
