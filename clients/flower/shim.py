"""The only module that uses private parts of Flower.

Flower's `Message` needs a process-wide task identity, which Flower's runtimes set. Its ids and runs are private too.
"""

from __future__ import annotations

import logging

from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

RUN_ID = 1
"""The run id of in-process grids."""

SUPERLINK_NODE, FIRST_NODE = 1, 2
"""Node ids of the SuperLink, and of client 0 on in-process grids; Flower reserves 0 and 1."""

__all__ = ["FIRST_NODE", "RUN_ID", "SUPERLINK_NODE", "Run", "claim_identity", "content_of", "empty_run",
           "has_client_fn", "quiet", "serialized", "set_message_id"]  # fmt: skip


def claim_identity() -> None:
    """Set the identity that `Message(...)` needs, unless a Flower runtime has set it."""
    if vars(TaskIdentity).get("_task_id") is None:
        TaskIdentity.task_id = 1
        TaskIdentity.run_id = RUN_ID
        TaskIdentity.node_id = 1


def empty_run() -> Run:
    """Return Flower's description of an in-process run."""
    return Run.create_empty(RUN_ID)


def has_client_fn(app: ClientApp) -> bool:
    """Return whether an app was made with a `client_fn`: it answers only the messages of Flower's old strategies."""
    return vars(app).get("_call") is not None


def set_message_id(message: Message, identity: str) -> None:
    """Set the id of a message, as Flower's grids do when they accept one."""
    message.metadata.__dict__["_message_id"] = identity


def serialized(content: RecordDict) -> bytes:
    """Return a message's content in Flower's protobuf."""
    found: bytes = recorddict_to_proto(content).SerializeToString()
    return found


def content_of(data: bytes) -> RecordDict:
    """Return the content that `serialized` wrote.

    Raises:
        google.protobuf.message.DecodeError: it is none.
    """
    return recorddict_from_proto(ProtoRecordDict.FromString(data))


def quiet() -> None:
    """Limit Flower's log to warnings; the round loop has its own reports."""
    logging.getLogger("flwr").setLevel(logging.WARNING)
