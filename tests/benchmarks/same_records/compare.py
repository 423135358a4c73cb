"""Compares two records of a case and describes the first difference in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

Found = dict[str, Any]
"""The result of a case: {"record": ...} or {"error": ...}."""
PASSES = ("same", "only here", "allowed")
_MISSING = object()


@dataclass(frozen=True)
class Allowance:
    """A difference made on purpose.

    Attributes:
        name: the name of the case; * matches any.
        key: the key of the value, as in the printed difference ("rounds: train_loss"); * matches any.
        reason: the reason for the difference.
    """

    name: str
    key: str
    reason: str

    @classmethod
    def parse(cls, text: str) -> Allowance:
        """Read NAME=reason or NAME@KEY=reason; raises ValueError where there is no reason."""
        what, equals, reason = text.partition("=")
        if not equals or not reason.strip():
            raise ValueError(f"--allow must be NAME=reason or NAME@KEY=reason, got {text!r}")
        name, _, key = what.partition("@")
        return cls(name, key or "*", reason.strip())


@dataclass(frozen=True)
class Answer:
    """The comparison of a case: `same`, `differs`, `error`, `only here` or `allowed`, with details in words."""

    name: str
    kind: str
    words: str = ""

    def __str__(self) -> str:
        return f"{self.name:32} {self.kind}{f': {self.words}' if self.words else ''}"

    @property
    def passes(self) -> bool:
        """Whether nothing differs, or only allowed values do."""
        return self.kind in PASSES


def compare(
    name: str,
    base: Found | None,
    here: Found | None,
    allowances: Sequence[Allowance] = (),
    *,
    numbers_only: bool = False,
) -> Answer:
    """Compare the results of a case on the two trees.

    Args:
        name: the name of the case.
        base: the result on BASE; None if its process ended early, or if the saved results lack the case.
        here: likewise, on the working tree.
        allowances: allowed differences with their reasons.
        numbers_only: ignore differences of text: messages may change, numbers may not.
    """
    if base is None or here is None:
        return Answer(name, "error", f"{'BASE' if base is None else 'the working tree'} has no result of it")
    if "error" in here:
        there = f"; on BASE: {base['error']}" if "error" in base else ""
        return Answer(name, "error", here["error"] + there)
    if "error" in base:
        return Answer(name, "only here", f"on BASE: {base['error']}")
    found = list(_differences(base["record"], here["record"]))
    if numbers_only:
        found = [d for d in found if not d.is_text]
    if not found:
        return Answer(name, "same")
    mine = [a for a in allowances if fnmatchcase(name, a.name)]
    left = [d for d in found if not any(fnmatchcase(d.key, a.key) for a in mine)]
    if left:
        return Answer(name, "differs", _words(left))
    reasons = "; ".join(a.reason for a in mine if any(fnmatchcase(d.key, a.key) for d in found))
    return Answer(name, "allowed", f"{reasons} ({_words(found)})")


@dataclass(frozen=True)
class _Difference:
    round_index: int | None
    key: str
    base: Any
    here: Any

    @property
    def is_text(self) -> bool:
        """Whether both values are text, and not the digest of an array or a model."""
        return _is_text(self.base) and _is_text(self.here) and not self.key.endswith("bytes")

    @property
    def words(self) -> str:
        at = "" if self.round_index is None else f"round {self.round_index}, "
        return f"{at}{self.key}, {_text(self.base)} -> {_text(self.here)}{_relative(self.base, self.here)}"


def _words(found: list[_Difference]) -> str:
    """Describe the first difference: that of the earliest round and, in it, of the first file."""
    rounds = [d for d in found if d.round_index is not None]
    first = min(rounds, key=lambda d: d.round_index or 0) if rounds else found[0]
    files = sorted({d.key.split(":")[0] for d in found})
    return f"{first.words}; {len(found)} values in {', '.join(files)}"


def _differences(base: dict[str, Any], here: dict[str, Any]) -> Iterator[_Difference]:
    for file in [*base, *(k for k in here if k not in base)]:
        one, other = base.get(file), here.get(file)
        if isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                yield _Difference(None, f"{file}: rows", len(one), len(other))
            for a, b in zip(one, other, strict=False):
                client = f" of client {a['client']}" if "client" in a else ""
                for key, x, y in _leaves(a, b, ""):
                    yield _Difference(a.get("round"), f"{file}: {key}{client}", x, y)
        else:
            for key, x, y in _leaves(one, other, ""):
                yield _Difference(None, f"{file}: {key}", x, y)


def _leaves(base: Any, here: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the keys at which two values differ, with both values."""
    if isinstance(base, dict) and isinstance(here, dict):
        for k in [*base, *(k for k in here if k not in base)]:
            yield from _leaves(base.get(k, _MISSING), here.get(k, _MISSING), f"{key}.{k}" if key else str(k))
    elif isinstance(base, list) and isinstance(here, list) and len(base) == len(here):
        for i, (a, b) in enumerate(zip(base, here, strict=True)):
            yield from _leaves(a, b, f"{key}[{i}]")
    elif not _equal(base, here):
        yield key, base, here


def _is_text(value: Any) -> bool:
    """Return whether a value is text, a list of texts, null or nothing at all."""
    if isinstance(value, list):
        return all(isinstance(v, str) for v in value)
    return value is _MISSING or value is None or isinstance(value, str)


def _equal(a: Any, b: Any) -> bool:
    """Return whether two JSON values are identical: NaN equals NaN; 0.0 differs from -0.0, and 1 from True and 1.0."""
    if a is _MISSING or b is _MISSING:
        return a is b
    return json.dumps(a) == json.dumps(b)


def _text(value: Any) -> str:
    text = "nothing" if value is _MISSING else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _relative(base: Any, here: Any) -> str:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (base, here))
    if not numbers or not base or base != base or here != here:
        return ""
    return f", relative {abs(here - base) / abs(base):.1e}"
