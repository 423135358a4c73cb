"""Samples of the final model as the page draws them: one picture."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dashboards.report.formats import count, is_number
from dashboards.report.run_data import RunData

ACROSS, GAP, PAPER = 10, 1, 128
"""Images in a row, pixels between them, and the grey of what lies between."""
MOST = 40


def sample_view(run: RunData) -> dict[str, Any] | None:
    """Return the picture of a run's samples and the words above it; None where the run has none that fit."""
    found = run.samples or {}
    images, classes = drawable(found)
    if not images:
        return None
    channels, height, width = found["shape"]
    words = f"{count(len(images), 'sample')} that the final model draws, {height} x {width} pixels each."
    if classes:
        each = ", ".join(f"{name} ({times})" for name, times in sorted(Counter(classes).items()))
        words += f" They are in the order of the class of the nearest real example: {each}."
    wide, high = _size(len(images), height, width)
    return {
        "picture": "data:image/png;base64," + base64.b64encode(picture(images, channels, height, width)).decode(),
        "width": wide,
        "height": high,
        "words": words,
    }


def drawable(found: Mapping[str, Any]) -> tuple[list[list[int]], list[int]]:
    """Return the images and the classes of samples.json, bounded; none where they do not fit each other.

    Example:
        >>> drawable({"shape": [1, 1, 2], "images": [[0, 300], [5, 6]], "classes": [3, 3]})
        ([[0, 255], [5, 6]], [3, 3])
        >>> drawable({"shape": [1, 1, 2], "images": [[0]]})
        ([], [])
    """
    shape, images = found.get("shape") or [], found.get("images") or []
    if len(shape) != 3 or shape[0] not in (1, 3) or not all(1 <= side <= 64 for side in shape[1:]):
        return [], []
    numbers = math.prod(shape)
    if not all(len(image) == numbers and all(map(is_number, image)) for image in images):
        return [], []
    classes = found.get("classes") or []
    kept = [[min(255, max(0, int(value))) for value in image] for image in images[:MOST]]
    return kept, list(classes[:MOST]) if len(classes) == len(images) else []


def picture(images: Sequence[Sequence[int]], channels: int, height: int, width: int) -> bytes:
    """Return a PNG of images, `ACROSS` in a row.

    Args:
        images: of each the numbers from 0 to 255, channel after channel, row after row.
        channels: 1 for grey, 3 for red, green and blue.
        height: rows of an image.
        width: columns of an image.
    """
    wide, high = _size(len(images), height, width)
    page = [bytearray([PAPER] * (wide * channels)) for _ in range(high)]
    for place, image in enumerate(images):
        row, column = divmod(place, ACROSS)
        top, left = row * (height + GAP) + GAP, column * (width + GAP) + GAP
        for y in range(height):
            for channel in range(channels):
                start = (channel * height + y) * width
                first = left * channels + channel
                page[top + y][first : first + width * channels : channels] = bytes(image[start : start + width])
    header = struct.pack(">IIBBBBB", wide, high, 8, 0 if channels == 1 else 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(row) for row in page), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _size(images: int, height: int, width: int) -> tuple[int, int]:
    """Return the width and the height of the picture."""
    across, down = min(ACROSS, images), math.ceil(images / ACROSS)
    return across * (width + GAP) + GAP, down * (height + GAP) + GAP


def _chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
