"""Numbers of arrays that come from other machines: the header is checked before any number is read.

Flower sends an array as the bytes of `numpy.save`. `numpy.load` believes their header: it reserves memory for a shape
that the message does not fill, and opens zip archives. Here the header must be the one that NumPy writes for plain
numbers, and the bytes must be as many as it states. Nothing is evaluated and nothing is unpickled.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array

NUMPY = "numpy.ndarray"
"""Flower's name for the serialisation of its arrays."""
KINDS = "fiub"
"""Kinds of NumPy types that a model has: floating point, signed, unsigned, boolean."""
_MAGIC = b"\x93NUMPY\x01\x00"
_LONGEST_HEADER = 4096
_SHAPE = rb"((?:\d{1,15}, ?)*(?:\d{1,15})?)"
_HEADER = re.compile(
    rb"\{'descr': '([<|][fiub][1248])', 'fortran_order': (False|True), 'shape': \(" + _SHAPE + rb"\), \} *\n"
)

Numbers = npt.NDArray[Any]


def numbers_of(array: Array, name: str, shape: tuple[int, ...] | None = None, kinds: str = KINDS) -> Numbers:
    """Return the numbers of an array, as a copy.

    Args:
        array: from a message.
        name: its name, for messages.
        shape: the shape that it must have; None for any.
        kinds: the kinds of NumPy types that it may have.

    Raises:
        ValueError: its bytes are not such numbers of that shape.
    """
    dtype, found, is_fortran, start = _layout(array, name)
    if dtype.kind not in kinds or (shape is not None and found != shape):
        wanted = "floating-point numbers" if kinds == "f" else "numbers"
        wanted += f" of shape {shape}" if shape is not None else ""
        raise ValueError(f"array {name!r} is {dtype} of shape {found}; {wanted} were expected")
    count = math.prod(found)
    if len(array.data) - start != count * dtype.itemsize:
        problem = f"has {len(array.data) - start} bytes, and its header states {dtype} of shape {found}"
        raise ValueError(f"array {name!r} {problem}")
    flat = np.frombuffer(array.data, dtype, count, start)
    return flat.reshape(found, order="F" if is_fortran else "C").copy(order="C")


def number_bytes(array: Array) -> int:
    """Return how many bytes of an array are numbers, without those of NumPy's header; of other bytes, all."""
    data = array.data
    return len(data) - _start(data) if data[: len(_MAGIC)] == _MAGIC else len(data)


def _start(data: bytes) -> int:
    """Return where the numbers begin."""
    return min(len(_MAGIC) + 2 + int.from_bytes(data[len(_MAGIC) : len(_MAGIC) + 2], "little"), len(data))


def _layout(array: Array, name: str) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """Return type, shape, order of columns first, and where the numbers begin.

    Raises:
        ValueError: the bytes are no array of numbers.
    """
    data = array.data
    if array.stype != NUMPY or data[: len(_MAGIC)] != _MAGIC:
        raise ValueError(f"array {name!r} is not in NumPy's format")
    start = _start(data)
    header = data[len(_MAGIC) + 2 : start] if start <= _LONGEST_HEADER else b""
    known = _parsed(header)
    if known is None:
        raise ValueError(f"array {name!r} has no header of plain numbers in little-endian order; objects are refused")
    return (*known, start)


@lru_cache(maxsize=4096)
def _parsed(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], bool] | None:
    """Return type, shape, and whether columns come first, of a header; None for any other."""
    match = _HEADER.fullmatch(header)
    if match is None:
        return None
    try:
        dtype = np.dtype(match[1].decode())
    except TypeError:  # such as f1
        return None
    shape = tuple(int(n) for n in match[3].decode().split(",") if n.strip())
    return dtype, shape, match[2] == b"True"
