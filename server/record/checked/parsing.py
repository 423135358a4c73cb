"""JSON text as values that every reader can use: without tokens, numbers and texts that break a reader."""

from __future__ import annotations

import json
import math
import re
from typing import Any

NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
"""JSON has no nan and no infinity; these texts stand for them."""
LARGEST_INTEGER = 1 << 63
_LONG_NUMBER, _SURROGATE = re.compile(rb"\d{19}"), re.compile(rb"\\u[dD][89a-fA-F]")


def _refuse(token: str) -> Any:
    raise ValueError(f"{token} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse).decode


def parse_json(raw: bytes, *, exact: bool = False) -> Any:
    """Return the value of a JSON text.

    "nan", "inf" and "-inf" become numbers. An integer outside 64 bits becomes a float, because arithmetic on it fails
    or takes for ever. Half a surrogate pair becomes a replacement character, because no file can hold it.

    Args:
        raw: the text.
        exact: keep integers of any size, for a text that comes from this program.

    Raises:
        ValueError: it is not UTF-8 or not JSON, or is nested too deeply to be read.

    Example:
        >>> parse_json(b'{"round": 1, "loss": "-inf", "huge": 1000000000000000000000}')
        {'round': 1, 'loss': -inf, 'huge': 1e+21}
    """
    try:
        value = _decode(raw.decode())
        unusual = b'"nan"' in raw or b'inf"' in raw or _LONG_NUMBER.search(raw) or _SURROGATE.search(raw)
        return _usual(value, exact) if unusual else value
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _usual(value: Any, exact: bool) -> Any:
    """Replace the values that `parse_json` names."""
    if isinstance(value, str):
        return NOT_FINITE[value] if value in NOT_FINITE else _whole(value)
    if isinstance(value, dict):
        return {_whole(key): _usual(item, exact) for key, item in value.items()}
    if isinstance(value, list):
        return [_usual(item, exact) for item in value]
    if isinstance(value, int) and not exact and not -LARGEST_INTEGER <= value < LARGEST_INTEGER:
        return _as_float(value)
    return value


def _whole(text: str) -> str:
    """Return a text with a replacement character for each half of a surrogate pair."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
