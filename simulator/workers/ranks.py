"""The processes of a run that torchrun has started, on one or several machines; read from the environment alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import count

_sessions = count()


@dataclass(frozen=True)
class Ranks:
    """This process among those of torchrun.

    Attributes:
        rank: this process; 0 has the server, the others are workers.
        size: number of processes.
        here: number of processes on this machine.
        host: where the store of torchrun listens.
        port: its port.
        is_served: whether torchrun itself serves the store; otherwise rank 0 does.
        local: this process among those of its machine, from 0.
    """

    rank: int
    size: int
    here: int
    host: str
    port: int
    is_served: bool
    local: int = 0

    @property
    def follows(self) -> bool:
        """Whether this process is a worker of another one."""
        return self.rank > 0


def ranks_of_torchrun() -> Ranks | None:
    """Return this process's place among the processes of torchrun; None where it runs alone."""
    e = os.environ
    if int(e.get("WORLD_SIZE", "1")) < 2 or "RANK" not in e or "MASTER_ADDR" not in e:
        return None
    size = int(e["WORLD_SIZE"])
    return Ranks(
        rank=int(e["RANK"]),
        size=size,
        here=int(e.get("LOCAL_WORLD_SIZE", size)),
        host=e["MASTER_ADDR"],
        port=int(e.get("MASTER_PORT", "29500")),
        is_served=e.get("TORCHELASTIC_USE_AGENT_STORE", "False") == "True",
        local=int(e.get("LOCAL_RANK", "0")),
    )


def next_session() -> str:
    """Return the name of the next run of this process: all processes of torchrun start the same runs in order."""
    return f"fedscape/{next(_sessions)}"
