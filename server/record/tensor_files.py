"""Tensors in safetensors files, written in one pass with a checksum; pickle is never used."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from clients.core.errors import RunFolderError
from clients.training.kept.lazy_rows import LazyRows
from server.record.checked.regular_files import open_regular
from server.record.files import whole_file

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
ANY_SIZE = 1 << 62
"""The manifest bounds the size of these files."""


@dataclass(frozen=True)
class TensorFile:
    """A file as a manifest lists it, with size and checksum to detect damage.

    Attributes:
        name: its name in its folder.
        size: bytes.
        crc32: checksum of all bytes.
    """

    name: str
    size: int
    crc32: int


def _header(tensors: Mapping[str, Tensor | LazyRows], metadata: Mapping[str, str]) -> bytes:
    """Return the safetensors header: its length, then JSON padded to a multiple of 8 bytes."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, tensor in tensors.items():
        end = start + tensor.nbytes
        entries[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _blocks(tensors: Mapping[str, Tensor | LazyRows], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a file of `tensors`; contiguous CPU tensors are not copied, and lazy rows read in parts."""
    yield _header(tensors, metadata)
    for tensor in tensors.values():
        if isinstance(tensor, LazyRows):
            yield from (bytes_of(block) for block in tensor.blocks())
        else:
            yield bytes_of(tensor)


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor on any device, with any strides; a contiguous CPU tensor is not copied."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    flat = flat.as_strided(flat.shape, (1,))  # a single element may have any stride, and `view` needs 1
    return flat.view(torch.uint8).numpy().data


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor | LazyRows], metadata: Mapping[str, str] | None = None
) -> TensorFile:
    """Write tensors to a safetensors file that gets its name once complete.

    This replaces the writer of safetensors for three reasons: that writer refuses tensors that share memory, makes
    files that only their owner can read, and does not report why the system refused.

    Args:
        path: the file; an existing file is replaced.
        tensors: by name, on any device, with any strides.
        metadata: texts by name, which the file's header keeps.

    Returns:
        The name, size and checksum of the file.

    Raises:
        RunFolderError: the system refused.
    """
    size, crc = 0, 0
    with whole_file(path) as file:
        for block in _blocks(tensors, metadata or {}):
            file.write(block)
            size, crc = size + len(block), zlib.crc32(block, crc)
    return TensorFile(path.name, size, crc)


def read_tensors(folder: Path, expected: TensorFile, *, mapped: bool = False) -> dict[str, Tensor]:
    """Read a file that `write_tensors` wrote.

    Args:
        folder: its folder.
        expected: the result of `write_tensors`; the file must match it.
        mapped: leaves the tensors in the file, from where they are read when they are used.

    Returns:
        Tensors by name, on the CPU, in their own memory unless `mapped`.

    Raises:
        RunFolderError: the file is missing, cut short, changed, or cannot be read.
    """
    path = folder / expected.name
    crc = 0
    with open_regular(path, most=ANY_SIZE, inside=folder.parent) as file:
        size = os.fstat(file.fileno()).st_size
        if size != expected.size:
            raise RunFolderError(str(path), f"is damaged: {size:,} bytes, and {expected.size:,} were written")
        while block := file.read(_CHUNK):
            crc = zlib.crc32(block, crc)
    if crc != expected.crc32:
        raise RunFolderError(str(path), "is damaged: its checksum differs from the one written")
    try:
        found = load_file(path)  # which maps the file: it may be removed, but not changed
    except SafetensorError as error:
        raise RunFolderError(str(path), f"is damaged: {error}") from error
    return found if mapped else {name: tensor.clone() for name, tensor in found.items()}
