"""Hashes of tensors and of clients' updates: xxHash over their bytes, so equal bits have equal hashes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor
from xxhash import xxh3_64, xxh3_64_intdigest, xxh3_128, xxh3_128_hexdigest

from clients.core.arrays import I64
from clients.core.parameters import Layout
from clients.training.kept.lazy_rows import LazyRows
from clients.training.work import CohortUpdate
from server.record.tensor_files import bytes_of

HASH = "xxh3"
"""The hash: 128 bits of states and tensors, 64 bits of a client's update."""


def bytes_hash(data: bytes | memoryview) -> str:
    """Return the hash of bytes, 32 hexadecimal digits."""
    return xxh3_128_hexdigest(data)


def tensor_hash(tensor: Tensor) -> str:
    """Return the hash of a tensor's bytes, 32 hexadecimal digits.

    Example:
        >>> import torch
        >>> zeros = tensor_hash(torch.zeros(2))
        >>> zeros == tensor_hash(torch.zeros(2)), zeros == tensor_hash(torch.tensor([0.0, -0.0]))
        (True, False)
    """
    return xxh3_128_hexdigest(bytes_of(tensor))


def vector_hashes(prefix: str, layout: Layout, flat: Tensor) -> dict[str, str]:
    """Return the hash of each named tensor of a flat vector [P], by `prefix/name`."""
    raw, item, ends = bytes_of(flat), flat.element_size(), [*layout.starts, layout.size][1:]
    return {
        f"{prefix}/{name}": xxh3_128_hexdigest(raw[start * item : end * item])
        for name, start, end in zip(layout.names, layout.starts, ends, strict=True)
    }


def rows_hash(clients: I64, rows: LazyRows) -> str:
    """Return the hash of clients int64 [M] and their rows [M, ...], which are read a block at a time."""
    found = xxh3_128(np.ascontiguousarray(clients, "<i8").data)
    for block in rows.blocks():
        found.update(bytes_of(block))
    return found.hexdigest()


def joined_hash(hashes: Mapping[str, str]) -> str:
    """Return one hash of named hashes, 32 hexadecimal digits; it depends on names and order."""
    return xxh3_128_hexdigest("\n".join(f"{name} {found}" for name, found in hashes.items()).encode())


def update_hashes(update: CohortUpdate) -> I64:
    """Return a hash of what each client sent, (K,): parameters, buffers and extras, in order of their names.

    The 64 bits are kept in an int64.
    """
    extras = [update.extras[name] for name in sorted(update.extras)]
    parts = [(bytes_of(rows), rows.nbytes // len(rows)) for rows in (update.params, update.buffers, *extras)
             if rows.numel()]  # fmt: skip
    found = np.zeros(len(update.clients), np.uint64)
    for k in range(len(found)):
        rows = [raw[k * size : (k + 1) * size] for raw, size in parts]
        found[k] = xxh3_64_intdigest(rows[0]) if len(rows) == 1 else _hash_of(rows)
    return found.view(np.int64)


def _hash_of(parts: list[memoryview]) -> int:
    found = xxh3_64()
    for part in parts:
        found.update(part)
    return found.intdigest()


def in_hex(hashes: I64) -> list[str]:
    """Return 64-bit hashes as texts of 16 hexadecimal digits.

    Example:
        >>> in_hex(np.array([255, -1]))
        ['00000000000000ff', 'ffffffffffffffff']
    """
    return [f"{number:016x}" for number in hashes.view(np.uint64).tolist()]
