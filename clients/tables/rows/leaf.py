"""Makes labelled rows of LEAF's examples: a user is a client; text becomes the ids of its characters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from clients.core.arrays import I64, Array, Bool
from clients.core.errors import DataError, require
from clients.tables.columns import keep_clients
from clients.tables.reading import counted
from clients.tables.rows.classes import class_notice, classes_of
from clients.tables.rows.encoding import Column
from clients.tables.rows.leaf_files import LeafExamples, leaf_parts
from clients.tables.rows.parts import I8, TEST, TRAINING, random_parts, split_notice
from clients.tables.rows.population import LabelledRows
from clients.tables.series import moments

if TYPE_CHECKING:
    from clients.tables.options import TableOptions

Facts = dict[str, str | int | float]

_CODE_POINTS = 0x110000


def leaf_rows(options: TableOptions, *, dealt: bool, seed: int) -> tuple[LabelledRows, Mapping[str, Array]]:
    """Read, split and encode LEAF's examples; return them, and the keys of a natural partition.

    Args:
        options: the files, and how they are split and scaled.
        dealt: whether a partition deals out the examples.
        seed: root seed.

    Raises:
        DataError: naming the file and the user at fault.
    """
    examples, tested = _of_users(options, *leaf_parts(options.path), dealt=dealt)
    default = next(f.default for f in fields(options) if f.name == "test_fraction")
    both = "has no effect where the folder test has the test examples"
    require(tested is None or options.test_fraction == default, "test_fraction", both, fix="Leave it out.")
    owner, strangers = _joined_owners(examples, tested)
    x, y = _joined(examples, tested)
    files = examples.files + (tested.files if tested else 0)
    facts: Facts = {"layout": "leaf", "files": files}
    users = counted(len(examples.users), "user") + ("" if dealt else ", a client each")
    notices = [f"read as: LEAF JSON, {counted(files, 'file')}, {users}"]
    labels, names = _classes(y, options)
    parts = _split(options, examples, tested, labels, dealt=dealt, seed=seed)
    notices += _split_notices(examples, tested, parts, strangers, dealt=dealt)
    features, tokens = _features(x, parts == TRAINING, options, facts, notices)
    targets: Array = labels
    if names:
        facts["classes"] = ", ".join(names)
        notices.append(class_notice("y", names, labels, parts == TRAINING))
    else:
        targets = _scaled_targets(y, parts == TRAINING, options, facts)
    rows = LabelledRows(
        name=options.path.rstrip("/").rsplit("/", 1)[-1],
        task="classification" if names else "regression",
        features=features,
        targets=targets,
        outputs=len(names) or targets.shape[1],
        parts=parts,
        tokens=tokens,
        owner=None if dealt else owner,
        clients=() if dealt else examples.users,
        facts=facts,
        notices=tuple(notices),
    )
    return rows, {"user": np.asarray([*examples.users, ""])[owner]}


def _classes(y: Array, options: TableOptions) -> tuple[I64, tuple[str, ...]]:
    """Return each example's class and the names of the classes; zeros and none for a regression."""
    if options.task == "classification":
        return classes_of(_labels(y, options), options.max_categories)
    require(y.dtype.kind == "f", "task", "is 'regression', and y is text", fix="Set task = 'classification'.")
    return np.zeros(len(y), np.int64), ()


def _split(
    options: TableOptions, examples: LeafExamples, tested: LeafExamples | None, labels: I64, *, dealt: bool, seed: int
) -> I8:
    """Return each example's part; those of the folder test follow the others."""
    count, test = len(examples.owner), 0.0 if tested is not None else options.test_fraction
    clients = 1 if dealt else len(examples.users)
    owner = 0 * examples.owner if dealt else examples.owner
    parts = np.full(len(labels), TEST)
    parts[:count] = random_parts(owner, clients, labels[:count], options.validation_fraction, test, seed)
    return parts


def _features(
    x: Array | list[str], training: Bool, options: TableOptions, facts: Facts, notices: list[str]
) -> tuple[Array, int]:
    """Return the features, and how many ids of tokens they may be (0 for numbers)."""
    if not isinstance(x, list):
        return _scaled(x, training, options, notices), 0
    require(options.scale in (None, "none"), "scale", f"is {options.scale!r}, and x is text", fix="Leave it out.")
    features, vocabulary, notice = character_ids(x, training)
    facts |= {"vocabulary": vocabulary, "tokens": len(vocabulary) + 1}
    notices.append(notice)
    return features, len(vocabulary) + 1


def _of_users(
    options: TableOptions, examples: LeafExamples, tested: LeafExamples | None, *, dealt: bool
) -> tuple[LeafExamples, LeafExamples | None]:
    """Leave out the users that the options `clients` and `exclude` leave out."""
    if not options.clients and not options.exclude:
        return examples, tested
    require(not dealt, "clients", "and exclude name users, and a partition deals their examples out")
    names = list(dict.fromkeys([*examples.users, *(tested.users if tested else ())]))
    kept = {names[i] for i in keep_clients(options, names)}
    known = kept & set(examples.users)
    require(bool(known), "clients", "names no user who has training examples")
    return examples.of(known), tested.of(kept) if tested and kept & set(tested.users) else None


def _joined_owners(examples: LeafExamples, tested: LeafExamples | None) -> tuple[I64, int]:
    """Return the client of every example (-1 for test users who train nowhere), and the number of such users."""
    if tested is None:
        return examples.owner, 0
    place = {user: k for k, user in enumerate(examples.users)}
    known = np.array([place.get(user, -1) for user in tested.users], np.int64)
    return np.concatenate([examples.owner, known[tested.owner]]), int((known < 0).sum())


def _joined(examples: LeafExamples, tested: LeafExamples | None) -> tuple[Array | list[str], Array]:
    """Return x and y of training and test examples, which must be alike."""
    if tested is None:
        return examples.x, examples.y
    for what, a, b in (("x", examples.x, tested.x), ("y", examples.y, tested.y)):
        alike = isinstance(a, list) == isinstance(b, list)
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            alike = a.dtype == b.dtype and a.shape[1:] == b.shape[1:]
        if not alike:
            raise DataError("path", f"{what} of the folders train and test has different types or shapes")
    y = np.concatenate([examples.y, tested.y])
    if isinstance(examples.x, list) or isinstance(tested.x, list):
        return [*examples.x, *tested.x], y
    return np.concatenate([examples.x, tested.x]), y


def _labels(y: Array, options: TableOptions) -> Column:
    if y.dtype.kind == "O":
        values, codes = np.unique(y.astype(str), return_inverse=True)
        return Column("y", None, codes.astype(np.int64), tuple(values.tolist()))
    one = y.ndim == 1
    require(one, "task", f"is {options.task!r}, and y has shape {list(y.shape[1:])} an example", fix="Use regression.")
    return Column("y", y)


def _split_notices(
    examples: LeafExamples, tested: LeafExamples | None, parts: I8, strangers: int, *, dealt: bool
) -> list[str]:
    """Describe the split."""
    count = len(examples.owner)
    has = np.bincount(examples.owner[parts[:count] == TRAINING], minlength=len(examples.users))
    empty = [] if dealt else [examples.users[k] for k in np.flatnonzero(has == 0)]
    how = "at random by the seed " + ("before the partition" if dealt else "for each user")
    how = f"by the folders train and test, validation {how}" if tested is not None else how
    notices = [split_notice(parts, how, empty)]
    if strangers:
        notices.append(f"users of the folder test who are not in train, whose examples are central only: {strangers:,}")
    return notices


def character_ids(texts: list[str], training: Bool) -> tuple[Array, str, str]:
    """Return texts as ids of characters, int32 (n, longest); the vocabulary; and a sentence on both.

    Id 0 fills short texts at the front and replaces characters that no training text has; characters of the
    vocabulary have ids from 1.

    Example:
        >>> ids, vocabulary, _ = character_ids(["ba", "a", "c"], np.array([True, True, False]))
        >>> ids.tolist(), vocabulary
        ([[2, 1], [0, 1], [0, 0]], 'ab')
    """
    lengths = np.array([len(text) for text in texts], np.int64)
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)
    row = np.repeat(np.arange(len(texts)), lengths)
    seen = np.zeros(_CODE_POINTS, np.bool_)
    seen[points[training[row]]] = True
    vocabulary = np.flatnonzero(seen)
    table = np.zeros(_CODE_POINTS, np.int32)
    table[vocabulary] = np.arange(1, len(vocabulary) + 1)
    longest = max(int(lengths.max()), 1)
    column = np.arange(len(points)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + longest - lengths[row]
    ids = np.zeros((len(texts), longest), np.int32)
    ids[row, column] = table[points]
    unseen = int((table[points] == 0).sum())
    notice = f"text as ids of {len(vocabulary)} characters, {longest} an example; id 0 is an unseen character"
    short = int((lengths < longest).sum())
    notice += f" or fills the front of the {short:,} shorter texts" if short else ""
    notice += f"; characters unseen in training: {unseen:,}" if unseen else ""
    notice += f"; a model starts with an embedding of {len(vocabulary) + 1} ids"
    return ids, "".join(map(chr, vocabulary.tolist())), notice


def _scaled(x: Array, training: Bool, options: TableOptions, notices: list[str]) -> Array:
    """Return numbers, scaled by the training examples at each place of x where `scale` is "global"."""
    scale = options.scale_of_task
    fix = "Use 'global' or 'none', or features.normalise = 'client'."
    require(scale != "client", "scale", "'client' is for columns, and layout is 'leaf'", fix=fix)
    flat = x.reshape(len(x), -1)
    shape = x.shape if x.ndim > 1 else (len(x), 1)
    if scale == "none":
        notices.append("x is used as in the file (scale = 'none')")
        return flat.astype(np.float32).reshape(shape)
    mean, deviation = moments(flat[training])
    constant = int((flat[training].min(0) == flat[training].max(0)).sum())
    notices.append("x is scaled by the mean and deviation of all training examples (scale = 'global')")
    if constant:
        notices.append(f"constant in the training examples: {constant:,} of {flat.shape[1]:,} numbers of x")
    return ((flat - mean) / deviation).astype(np.float32).reshape(shape)


def _scaled_targets(y: Array, training: Bool, options: TableOptions, facts: Facts) -> Array:
    targets = y.reshape(len(y), -1)
    if options.scale_of_task == "none":
        return targets
    mean, deviation = moments(targets[training])
    facts["target_mean"], facts["target_deviation"] = float(mean[0]), float(deviation[0])
    return (targets - mean) / deviation
