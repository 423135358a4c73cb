"""Nodes of which one changes its replies, and arrays whose bytes attack whoever reads them."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from flwr.app import Array, Message
from strange_grid import StrangeGrid

from simulator.apps import apps
from simulator.scenario.sections import Scenario

HELD = [{"clients": "0-2"}, {"clients": "3,6,7"}, {"clients": "4-5"}]
"""Three nodes with eight clients; the last one is hostile."""


class HostileGrid(StrangeGrid):
    """A grid whose last node changes what it replies to messages of a kind, in some rounds."""

    def __init__(
        self,
        scenario: Scenario,
        change: Callable[[Message], None],
        *,
        kind: str = "train",
        rounds: Iterable[int] = (2,),
    ) -> None:
        super().__init__(apps(scenario, observers=[])[1], HELD)
        self.change, self.kind, self.rounds = change, kind, set(rounds)
        self.sent: list[Message] = []

    def _reply(self, message: Message) -> Message:
        reply = super()._reply(message)
        self.sent.append(message)
        config = message.content.config_records.get("config", {})
        held = self.contexts[message.metadata.dst_node_id].node_config["clients"]
        is_meant = message.metadata.message_type == self.kind and held == HELD[-1]["clients"]
        if is_meant and config.get("server-round") in self.rounds:
            self.change(reply)
        return reply


class Touches:
    """An object that writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.file,)


def pickled_array(file: Path) -> Array:
    """Return an array of objects as NumPy pickles it."""
    data = io.BytesIO()
    np.save(data, np.array([Touches(file)], object), allow_pickle=True)
    return Array("float32", (2, 10), "numpy.ndarray", data.getvalue())


def bare_pickle(file: Path) -> Array:
    """Return bytes that are a pickle alone, as `numpy.load` accepts where it may."""
    return Array("float32", (2, 10), "numpy.ndarray", pickle.dumps(Touches(file)))


def zipped_array(file: Path) -> Array:
    """Return a zip archive with a pickled array, which `numpy.load` opens by its first bytes."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("parameters.npy", pickled_array(file).data)
    return Array("float32", (2, 10), "numpy.ndarray", data.getvalue())


def stated(shape: tuple[int, ...], numbers: bytes = b"", descr: str = "<f4") -> bytes:
    """Return the bytes of NumPy's format with any shape, and few numbers."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + numbers
