"""Parameters of earlier rounds in a run's folder: one safetensors file a round, which checks itself.

`parameters/round-00000010.safetensors` has the model's state dict after round 10, by name, as `model.safetensors` has
the final one. Its metadata have the round and a checksum over names, types, shapes and values.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from clients.core.errors import RunFolderError, UserError, listed
from server.record.checked.regular_files import open_regular
from server.record.files import sync_folder, writing
from server.record.kept.round_entries import RoundEntries
from server.record.tensor_files import bytes_of, write_tensors

SPARE_BYTES = 64 * 2**20
"""Bytes of the disk that kept parameters leave to the record, beside those of two checkpoints."""
LARGEST_MODEL = 2**40
"""The most bytes of a file that is read."""


class ParameterFolder(RoundEntries):
    """The kept parameters of one run.

    Args:
        path: the folder; made with its first file.

    Example:
        >>> import torch
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     kept = ParameterFolder(Path(folder) / "parameters")
        ...     kept.write(10, {"w": torch.tensor([1.0, 2.0])})
        ...     kept.rounds(), kept.read(10)["w"].tolist()
        ([10], [1.0, 2.0])
    """

    suffix = ".safetensors"

    def write(self, round_index: int, tensors: Mapping[str, Tensor]) -> None:
        """Write the parameters after a round, unless the disk would be too full for the record afterwards.

        Raises:
            RunFolderError: the system refused, or too little of the disk is free.
        """
        file, size = self.entry(round_index), sum(tensor.nbytes for tensor in tensors.values())
        with writing(self.path):
            self.path.mkdir(exist_ok=True)
            free = shutil.disk_usage(self.path).free
        if free < size + left_to_the_record(size):
            problem = f"is not written: {free:,} bytes of the disk are free, which are left to the record"
            raise RunFolderError(str(file), problem)
        write_tensors(file, tensors, metadata={"round": str(round_index), "crc32": str(checksum(tensors))})
        sync_folder(self.path)

    def read(self, round_index: int) -> dict[str, Tensor]:
        """Return the parameters after a round, by name.

        Raises:
            UserError: those of this round were not kept.
            RunFolderError: the file cannot be read, or is damaged.
        """
        file = self.entry(round_index)
        if not file.is_file():
            raise UserError("round", f"{round_index} has no kept parameters", fix=self._instead())
        with open_regular(file, most=LARGEST_MODEL, inside=self.path.parent) as opened:
            raw = opened.read()
        try:
            tensors = load(raw)
            metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")]).get("__metadata__", {})
        except (SafetensorError, ValueError) as error:
            raise RunFolderError(str(file), f"is damaged: {error}") from error
        if metadata.get("round") != str(round_index) or metadata.get("crc32") != str(checksum(tensors)):
            raise RunFolderError(str(file), "is damaged: its checksum differs from the one written")
        return tensors

    def _instead(self) -> str:
        rounds = self.rounds()
        if not rounds:
            return "The run kept none: set run.keep_parameters_every."
        return f"Rounds with kept parameters: {listed(map(str, rounds), 12)}."


def left_to_the_record(size: int) -> int:
    """Return the bytes of the disk that kept parameters do not take; `size` is that of the model's."""
    return 2 * size + SPARE_BYTES


def checksum(tensors: Mapping[str, Tensor]) -> int:
    """Return a checksum over names, types, shapes and values, whatever the order of the names.

    Example:
        >>> import torch
        >>> one, two = {"w": torch.ones(2), "b": torch.zeros(1)}, {"b": torch.zeros(1), "w": torch.ones(2)}
        >>> checksum(one) == checksum(two), checksum(one) == checksum({"w": torch.ones(2), "b": torch.ones(1)})
        (True, False)
    """
    crc = 0
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(bytes_of(tensor), crc)
    return crc
