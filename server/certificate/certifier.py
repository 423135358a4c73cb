"""The certificate of a run: after each round a hash of the state, with those of its tensors and clients' updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from clients.core.parameters import Layout
from clients.training.client_states import ClientStates
from clients.training.work import CohortUpdate
from server.algorithms.state import ServerState
from server.certificate.hashing import (
    bytes_hash,
    in_hex,
    joined_hash,
    rows_hash,
    tensor_hash,
    update_hashes,
    vector_hashes,
)
from server.record.jsonlines import Line

Certified = Literal["state", "clients", "off"]
"""What a certificate has: the state of each round, also each client's update, or nothing."""


class Certifier:
    """Makes the lines of a certificate.

    Args:
        parameters: names and places of the model's parameters in a state's [P].
        buffers: likewise of its floating-point buffers, in [Q].
        states: the states of in-process clients; None where clients run elsewhere.
        each_client: whether each client's update is hashed too.
        keep: receives the line of each round; None keeps none.
    """

    def __init__(
        self,
        parameters: Layout,
        buffers: Layout,
        states: ClientStates | None,
        *,
        each_client: bool = False,
        keep: Callable[[Line], object] | None = None,
    ) -> None:
        self._parameters, self._buffers, self._states = parameters, buffers, states
        self.each_client, self._keep = each_client, keep

    def updates(self, update: CohortUpdate | None) -> dict[str, str]:
        """Return a hash of each client's update, by client; empty where none is wanted, or none is known.

        Args:
            update: the round's updates, with their rows or with hashes made before the rows were added up.
        """
        if update is None or not self.each_client:
            return {}
        hashes = update.hashes
        if hashes is None and update.params.shape[1]:
            hashes = update_hashes(update)
        if hashes is None:
            return {}
        return dict(zip(map(str, update.clients.tolist()), in_hex(hashes), strict=True))

    def certify(self, state: ServerState, updates: Mapping[str, str] | None = None) -> str:
        """Return the hash of a state and of the client states that its round has staged; keep the round's line.

        Args:
            state: the state after the round.
            updates: the hash of each client's update.
        """
        tensors = state_hashes(state, self._parameters, self._buffers)
        if self._states is not None:
            tensors |= {f"clients/{n}": rows_hash(*found) for n, found in sorted(self._states.staged().items())}
        found = joined_hash(tensors)
        if self._keep is not None:
            line: Line = {"round": state.round_index, "state_hash": found, "tensors": tensors}
            self._keep(line | ({"updates": dict(updates)} if updates else {}))
        return found


def state_hashes(state: ServerState, parameters: Layout, buffers: Layout) -> dict[str, str]:
    """Return the hash of each tensor of the server's state.

    Returns:
        By name: `parameters/0.weight`, `buffers/1.running_mean`, `server/momentum`; `arrays/...` has what a user's
        strategy returned.
    """
    found = vector_hashes("parameters", parameters, state.params) | vector_hashes("buffers", buffers, state.buffers)
    found |= {f"server/{name}": tensor_hash(state.vectors[name]) for name in sorted(state.vectors)}
    return found | {f"arrays/{name}": _array_hash(array) for name, array in (state.arrays or {}).items()}


def _array_hash(array: object) -> str:
    """Return the hash of one of Flower's arrays: its type, its shape and its bytes."""
    dtype, shape, data = (getattr(array, name) for name in ("dtype", "shape", "data"))
    return joined_hash({"dtype": str(dtype), "shape": str(tuple(shape)), "data": bytes_hash(data)})
