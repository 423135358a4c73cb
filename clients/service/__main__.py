"""Starts the service: `python -m clients.service FOLDER NAME OWNER MODULE:FUNCTION IDLE_SECONDS`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from clients.core.errors import ServiceError
from clients.service.owner import Owner
from clients.service.place import Place
from clients.service.serving import Server, listen

_LIFE_SECONDS = 10.0
"""A service that is about to end has so many seconds to do so."""


def main(arguments: list[str]) -> int:
    """Listen, then leave the service to a child: the process that started this one may then connect."""
    folder, name, owner, answer, idle = arguments
    place = Place(Path(folder), name)
    os.umask(0o077)
    try:
        with place.locked("life", _LIFE_SECONDS):
            listener = listen(place)
            place.remove_others()
            if os.fork():
                os._exit(0)  # the lock stays with the child
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the SuperNode's
            Server(place, listener, answer).serve(Owner.parse(owner), float(idle))
    except ServiceError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
