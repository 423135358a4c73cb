"""A worker's life: it joins the others, does jobs until the server says that the run is over, and ends."""

from __future__ import annotations

from clients.processes.wire import Message
from simulator.workers.links import Spoke
from simulator.workers.workplace import Workplace


def serve(spoke: Spoke, place: Workplace) -> Message:
    """Do the server's jobs until it says farewell; return that message.

    Raises:
        LinkError: the server is gone.
    """
    place.engine.progress = place.count
    while True:
        job = spoke.receive()
        if job.head["job"] == "end":
            spoke.close()
            return job
        try:
            answer = place.answer(place.whole(job))
        except Exception as error:  # the server repeats the job, and raises the error where it is handled
            answer = Message({"job": "failed", "error": repr(error)[:500]})
        spoke.send(Message({**answer.head, "id": job.head["id"]}, answer.tensors))
