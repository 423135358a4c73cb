"""What the server knows between two rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

Vectors = Mapping[str, Tensor]


@dataclass(frozen=True)
class ServerState:
    """The server after a round. With the clients' states it is all that a checkpoint holds.

    Attributes:
        round_index: the round it is the result of; 0 is the initial model.
        params: parameters [P].
        buffers: floating-point buffers [Q].
        vectors: what the server's transform remembers: momentum, control variate and so on, each [P].
        arrays: Flower's record of the model as a user's strategy returned it, whose types may differ from the model's
            (Flower's FedAdam goes on in float64); None for fedscape's own strategy.
    """

    round_index: int
    params: Tensor
    buffers: Tensor
    vectors: Vectors = field(default_factory=dict)
    arrays: Mapping[str, Any] | None = None
