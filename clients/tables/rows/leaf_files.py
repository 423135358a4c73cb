"""Reads LEAF's JSON (Caldas et al. 2018): users, and the examples x with labels y of each.

A file is `{"users": [...], "num_samples": [...], "user_data": {user: {"x": [...], "y": [...]}}}`. LEAF publishes a
folder with `train` and `test`, each of them with such files.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clients.core.arrays import I64, Array
from clients.core.checks import check_finite
from clients.core.errors import DataError
from clients.tables.finding import leaf_paths

PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".bmp")
"""Endings of texts that are names of pictures, which are not in the file."""


@dataclass(frozen=True)
class LeafExamples:
    """The examples of all users, one user after the other.

    Attributes:
        users: names, in the order in which the files have them.
        owner: each example's user, int64 (n,).
        x: numbers (n, ...), or texts.
        y: numbers (n,) or (n, k), or an array of texts (n,).
        files: how many were read.
    """

    users: tuple[str, ...]
    owner: I64
    x: Array | list[str]
    y: Array
    files: int

    def of(self, users: Collection[str]) -> LeafExamples:
        """Return the examples of some users."""
        kept = np.array([user in users for user in self.users])
        at = np.flatnonzero(kept[self.owner])
        x = [self.x[i] for i in at.tolist()] if isinstance(self.x, list) else self.x[at]
        names = tuple(user for user in self.users if user in users)
        return LeafExamples(names, (np.cumsum(kept) - 1)[self.owner[at]], x, self.y[at], self.files)


def leaf_parts(path: str) -> tuple[LeafExamples, LeafExamples | None]:
    """Read the examples of a file, a folder or a pattern; return those to train on, and the published test set.

    Raises:
        DataError: naming the file and the user at fault.
    """
    train, test = leaf_paths(path)
    return read_leaf(train), None if test is None else read_leaf(test)


def read_leaf(files: Sequence[Path]) -> LeafExamples:
    """Read files. A user may be in several of them.

    Raises:
        DataError: naming the file and the user at fault.
    """
    place: dict[str, int] = {}
    owners: list[I64] = []
    xs: list[Array | list[str]] = []
    ys: list[Array] = []
    for file in files:
        for user, data in _users(file):
            where = f"{file}, user {user!r}"
            x, y = _x(data["x"], where), _y(data["y"], where)
            if xs and len(x):
                _check_alike(x, next((p for p in xs if len(p)), x), where, "x")
                _check_alike(y, next((p for p in ys if len(p)), y), where, "y")
            owners.append(np.full(len(x), place.setdefault(user, len(place)), np.int64))
            xs.append(x)
            ys.append(y)
    kept = [i for i, x in enumerate(xs) if len(x)]
    if not kept:
        raise DataError("path", f"{files[0]} holds no example")
    texts = isinstance(xs[kept[0]], list)
    joined = [text for i in kept for text in xs[i]] if texts else np.concatenate([np.asarray(xs[i]) for i in kept])
    targets = np.concatenate([ys[i] for i in kept])
    owner = np.concatenate([owners[i] for i in kept])
    order = np.argsort(owner, kind="stable")
    if (order != np.arange(len(order))).any():
        joined = [joined[i] for i in order.tolist()] if isinstance(joined, list) else joined[order]
        owner, targets = owner[order], targets[order]
    return LeafExamples(tuple(place), owner, joined, targets, len(files))


def _users(file: Path) -> list[tuple[str, Any]]:
    """Return the users of a file with their data, after checks of the file's own counts."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError("path", f"{file} cannot be read as JSON ({error})", fix="Is the download complete?") from error
    wanted = ("users", "num_samples", "user_data")
    missing = [key for key in wanted if not isinstance(content, dict) or key not in content]
    if missing:
        held = f"; it has {', '.join(map(str, list(content)[:8]))}" if isinstance(content, dict) else ""
        raise DataError("path", f"{file} is not in LEAF's form: it has no {missing[0]!r}{held}")
    users, counts, data = (content[key] for key in wanted)
    kinds = isinstance(users, list) and isinstance(counts, list) and isinstance(data, dict)
    if not kinds or len(users) != len(counts):
        raise DataError("path", f"{file}: users and num_samples must be lists of one length, and user_data a table")
    found = []
    for user, count in zip(users, counts, strict=True):
        own = data.get(str(user))
        if not isinstance(own, dict) or not all(isinstance(own.get(key), list) for key in ("x", "y")):
            raise DataError("path", f"{file}, user {user!r}: user_data must have lists 'x' and 'y' of this user")
        if not len(own["x"]) == len(own["y"]) == count:
            got = f"num_samples is {count}, and there are {len(own['x'])} x and {len(own['y'])} y"
            raise DataError("path", f"{file}, user {user!r}: {got}", fix="Correct the file; is it complete?")
        found.append((str(user), own))
    stray = sorted(set(data) - {user for user, _ in found})
    if stray:
        raise DataError("path", f"{file}, user {stray[0]!r}: is in user_data and not in users")
    return found


def _x(values: list[Any], where: str) -> Array | list[str]:
    """Return a user's x as numbers or as texts."""
    if values and isinstance(values[0], str):
        bad = next((i for i, v in enumerate(values) if not isinstance(v, str)), None)
        if bad is not None:
            raise DataError("path", f"{where}, example {bad}: x is {type(values[bad]).__name__} among texts")
        if values[0].lower().endswith(PICTURES):
            fix = "Put the pictures' numbers into x, or read arrays with kind = 'images'."
            raise DataError("path", f"{where}: x is {values[0]!r}, the name of a picture and not its numbers", fix=fix)
        return values
    if values and isinstance(values[0], list) and any(isinstance(v, str) for v in values[0]):
        fix = "Write one text an example, as Shakespeare's files have it (of Sent140's x, the tweet alone)."
        raise DataError("path", f"{where}: x is a list of {len(values[0])} texts an example", fix=fix)
    return _numbers(values, where, "x")


def _y(values: list[Any], where: str) -> Array:
    """Return a user's y as numbers or an array of texts."""
    if values and isinstance(values[0], str):
        bad = next((i for i, v in enumerate(values) if not isinstance(v, str)), None)
        if bad is not None:
            raise DataError("path", f"{where}, example {bad}: y is {type(values[bad]).__name__} among texts")
        return np.asarray(values, dtype=object)
    numbers = _numbers(values, where, "y")
    return numbers[:, 0] if numbers.ndim == 2 and numbers.shape[1] == 1 else numbers


def _numbers(values: list[Any], where: str, what: str) -> Array:
    """Return numbers of one shape an example."""
    try:
        numbers = np.asarray(values)
    except ValueError:
        numbers = np.asarray(None)
    if not values:
        return np.zeros(0)
    if numbers.dtype.kind not in "iufb":
        shapes = "numbers of one shape an example (or one text each)"
        raise DataError("path", f"{where}: {what} must be {shapes}, without null, got {values[0]!r:.60}")
    check_finite(numbers, "path", f"{where}: {what}")
    return numbers.astype(np.float64)


def _check_alike(piece: Array | list[str], first: Array | list[str], where: str, what: str) -> None:
    """Refuse a user whose examples have another type or shape than those before."""
    got, wanted = (_described(values) for values in (piece, first))
    if got != wanted:
        raise DataError("path", f"{where}: {what} is {got} an example, and other users' is {wanted}")


def _described(values: Array | list[str]) -> str:
    if isinstance(values, list) or values.dtype.kind == "O":
        return "a text"
    return f"numbers of shape {list(values.shape[1:])}"
