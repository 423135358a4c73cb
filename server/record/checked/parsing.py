"""JSON text as values that every reader can use: no tokens outside JSON, no numbers and no texts that break arithmetic."""

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


def parse_json(raw: bytes) -> Any:
    """Return the value of a JSON text.

    "nan", "inf" and "-inf" become numbers. An integer outside 64 bits becomes a float, because arithmetic on it fails
    or takes for ever. Half a surrogate pair becomes a replacement character, because no file can hold it.

    Raises:
        ValueError: it is not UTF-8 or not JSON, or is nested too deeply to be read.

    Example:
        >>> parse_json(b'{"round": 1, "loss": "-inf", "huge": 1000000000000000000000}')
        {'round': 1, 'loss': -inf, 'huge': 1e+21}
    """
    try:
        value = _decode(raw.decode())
        unusual = b'"nan"' in raw or b'inf"' in raw or _LONG_NUMBER.search(raw) or _SURROGATE.search(raw)
        return _usual(value) if unusual else value
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _usual(value: Any) -> Any:
    """Replace the values that `parse_json` names."""
    if isinstance(value, str):
        return NOT_FINITE.get(value) if value in NOT_FINITE else value.encode("utf-16", "surrogatepass").decode(
            "utf-16", "replace"
        )  # fmt: skip
    if isinstance(value, dict):
        return {_usual_key(key): _usual(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_usual(item) for item in value]
    if isinstance(value, int) and not -LARGEST_INTEGER <= value < LARGEST_INTEGER:
        return _as_float(value)
    return value


def _usual_key(key: str) -> str:
    return key.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
