"""Tensors in files: safetensors, written in one pass with a checksum, never pickle."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from clients.core.errors import RunFolderError
from server.record.files import reading, whole_file

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_CHUNK = 1 << 24


@dataclass(frozen=True)
class TensorFile:
    """What a manifest says of one file, enough to know it whole.

    Attributes:
        name: its name in its folder.
        size: bytes.
        crc32: checksum of all bytes.
    """

    name: str
    size: int
    crc32: int


def _header(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the safetensors header: its length, then JSON padded to a multiple of 8 bytes."""
    entries: dict[str, object] = {}
    start = 0
    for name, tensor in tensors.items():
        end = start + tensor.nbytes
        entries[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _blocks(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a file of `tensors`, without copying those that lie in order in memory."""
    yield _header(tensors)
    for tensor in tensors.values():
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        flat = flat.as_strided(flat.shape, (1,))  # a single element may have any stride, and `view` wants 1
        yield flat.view(torch.uint8).numpy().data


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> TensorFile:
    """Write tensors to a safetensors file that takes its name once whole.

    safetensors' own writer would do, were it not for three things: it refuses tensors that share memory, leaves files
    that only their owner can read, and does not say why the system refused.

    Args:
        path: the file, replaced if it is there.
        tensors: by name, on any device, of any strides.

    Returns:
        Its name, size and checksum.

    Raises:
        RunFolderError: the system refused.
    """
    size, crc = 0, 0
    with whole_file(path) as file:
        for block in _blocks(tensors):
            file.write(block)
            size, crc = size + len(block), zlib.crc32(block, crc)
    return TensorFile(path.name, size, crc)


def read_tensors(folder: Path, expected: TensorFile) -> dict[str, Tensor]:
    """Read a file that `write_tensors` wrote.

    Args:
        folder: where it is.
        expected: what was written; the file must be it, to the bit.

    Returns:
        Tensors by name, on the CPU, in memory of their own.

    Raises:
        RunFolderError: the file is missing, cut short, changed, or cannot be read.
    """
    path = folder / expected.name
    size, crc = 0, 0
    with reading(path), path.open("rb") as file:
        while block := file.read(_CHUNK):
            size, crc = size + len(block), zlib.crc32(block, crc)
    if size != expected.size:
        raise RunFolderError(str(path), f"is damaged: {size:,} bytes, not the {expected.size:,} that were written")
    if crc != expected.crc32:
        raise RunFolderError(str(path), "is damaged: its checksum is not that of what was written")
    try:  # load_file maps the file, which the next checkpoint may remove: hence the copies
        return {name: tensor.clone() for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise RunFolderError(str(path), f"is damaged: {error}") from error
