"""Partitions that are solved for: clients differ by as much as a scenario gives.

There are three axes, in this order. Each has a path of partitions, from the most equal to the most unequal that these
examples allow, and bisection along it finds the given value. All randomness is drawn once, before (common random
numbers):

sizes   min_size, and shares of the rest proportional to exp(sigma z), with z the normal quantiles dealt to the clients
        at random: sigma = 0 is equal, sigma -> infinity gives one client everything. The Gini coefficient rises with
        sigma.
labels  with the sizes fixed, the share s of each client's examples comes from a block of its own among all examples
        sorted by label (the k-th block for the k-th client in a random order), the rest evenly from all of them. s = 0
        gives every client all labels in proportion, s = 1 as few labels as its size allows ("similarity", Karimireddy
        et al. 2020, section 7, for any sizes). A client's law is near (1 - s) p + s q_k, so any measure that is convex
        in it rises with s; EMD is proportional to s.
features  with each client's label counts fixed, blocks as above within each label, whose examples are sorted along the
        first principal axis of the standardised features within labels. Clients have one order for all labels.
        Regression has one label.

Without a given value, sizes are equal to within one, and labels and features are dealt at random.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from clients.core import streams
from clients.core.arrays import F64, I64, Array
from clients.core.errors import PartitionError
from clients.core.ragged import offsets_of, positions
from clients.heterogeneity.feature_shift import feature_shift, measured_examples
from clients.heterogeneity.measures import gini, label_distances
from clients.heterogeneity.table import sampled_clients
from clients.partition.label_skew import near_equal_sizes
from clients.partition.options import CalibratedOptions

T = TypeVar("T")

_STEPS = 48
_SAMPLE = 20_000  # examples that the principal axis is computed from


def calibrated_owners(options: CalibratedOptions, labels: I64, features: Array | None, seed: int) -> I64:
    """Return the client of every example.

    Args:
        options: the values to reach; their `min_size` must fit.
        labels: int64 (n,), at least 0; all 0 where there are none.
        features: (n, ...), needed where a feature shift is given.
        seed: root seed.

    Returns:
        int64 (n,).

    Raises:
        PartitionError: a value cannot be reached; the message has the range that can, for these examples and sizes.

    Example:
        >>> labels = np.repeat([0, 1], 200)
        >>> owners = calibrated_owners(CalibratedOptions(clients=2, label_emd=0.5), labels, None, seed=0)
        >>> np.bincount(owners * 2 + labels).reshape(2, 2).max(axis=1).tolist()  # 0.75 of one label: EMD 0.5
        [150, 150]
    """
    generator = streams.generator(seed, "partition/requested")
    sizes = _sizes(options, len(labels), generator)
    turn = generator.permutation(options.clients)
    owners = _by_label(options, labels, sizes, turn, generator)
    if options.feature_shift is None:
        return owners
    assert features is not None, "the pool has features"
    return _by_features(options, labels, features, owners, turn, seed)


def measured(options: CalibratedOptions, targets: Array, features: Array, rows: I64, offsets: I64, seed: int
) -> dict[str, float]:  # fmt: skip
    """Measure the given axes on a finished partition: `requested_...` and `reached_...` by name.

    Args:
        options: the values.
        targets: (n, ...) of the examples that were partitioned.
        features: (n, ...) of them.
        rows: int64, the examples clients hold, client after client.
        offsets: where each client's rows start, and where the last one's end, int64 (K + 1,).
        seed: root seed.
    """
    facts: dict[str, float] = {}
    for name, value in options.values.items():
        if name == "quantity_gini":
            reached = gini(np.diff(offsets))
        elif name == "feature_shift":
            reached = _shift(features, rows, offsets, seed)
        else:
            owner = np.repeat(np.arange(options.clients), np.diff(offsets))
            reached = _label_value(name, owner, targets[rows].astype(np.int64), options.clients)
        facts |= {f"requested_{name}": float(value), f"reached_{name}": reached}
    return facts


def _sizes(options: CalibratedOptions, examples: int, generator: np.random.Generator) -> I64:
    clients = options.clients
    if options.quantity_gini is None:
        return near_equal_sizes(examples, clients)
    from scipy.special import ndtri  # the import takes a tenth of a second

    z = np.sort(ndtri((np.arange(clients) + 0.5) / clients))[::-1]
    z = z[generator.permutation(clients)]
    free = examples - options.min_size * clients

    def at(part: float) -> I64:
        log_share = (z - z.max()) * (part / (1.0 - part)) if part < 1.0 else np.where(z == z.max(), 0.0, -np.inf)
        share = np.exp(log_share)
        exact = free * share / share.sum()
        sizes: I64 = np.floor(exact).astype(np.int64)
        sizes[np.argsort(sizes - exact, kind="stable")[: free - int(sizes.sum())]] += 1
        sizes += options.min_size
        return sizes

    return _solved(at, gini, options, "quantity_gini", "for so many clients, examples and this min_size")


def _by_label(options: CalibratedOptions, labels: I64, sizes: I64, turn: I64, generator: np.random.Generator) -> I64:
    order = generator.permutation(len(labels))
    measure = options.label_axis
    owners = np.empty(len(labels), np.int64)
    if measure is None:
        owners[order] = np.repeat(np.arange(options.clients), sizes)
        return owners
    rank = generator.permutation(int(labels.max()) + 1)  # the order of labels is random
    order = order[np.argsort(rank[labels[order]], kind="stable")]
    uniforms = generator.random((2, 1, options.clients))

    def at(part: float) -> I64:
        owners[order] = turn[_placed(sizes[turn][None], part, uniforms)]
        return owners.copy()

    def value(found: I64) -> float:
        return _label_value(measure, found, labels, options.clients)

    return _solved(at, value, options, measure, "for these sizes and labels")


def _by_features(options: CalibratedOptions, labels: I64, features: Array, owners: I64, turn: I64, seed: int) -> I64:
    """Exchange examples of clients within each label until their features differ by the given value."""
    generator = streams.generator(seed, "partition/requested/features")
    classes = int(labels.max()) + 1
    order = np.lexsort((_along_principal_axis(labels, features, generator), labels))
    cells = np.bincount(labels * options.clients + owners, minlength=classes * options.clients)
    cells = cells.reshape(classes, options.clients)[:, turn]
    uniforms = generator.random((2, *cells.shape))
    found = np.empty_like(owners)

    def at(part: float) -> I64:
        found[order] = turn[_placed(cells, part, uniforms)]
        return found.copy()

    def value(found: I64) -> float:
        rows = np.argsort(found, kind="stable")
        return _shift(features, rows, offsets_of(np.bincount(found, minlength=options.clients)), seed)

    return _solved(at, value, options, "feature_shift", "for these sizes and the labels each client holds")


def _placed(cells: I64, part: float, uniforms: F64) -> I64:
    """Assign sorted examples to clients: `part` of each cell as a block of its own, the rest evenly.

    Args:
        cells: int64 (G, K), how many examples of group g (sorted, one group after the other) client k gets.
        part: share of a cell that lies in its block.
        uniforms: (2, G, K), in [0, 1): the rounding of that share, and where the even places start.

    Returns:
        int64 (n,), the client of each example, groups one after the other.
    """
    groups, clients = cells.shape
    size, rounding, start = cells.ravel(), uniforms[0].ravel(), uniforms[1].ravel()
    near = np.minimum(np.floor(part * size + rounding).astype(np.int64), size)
    group = np.repeat(np.arange(groups), clients)
    before = (np.cumsum(cells, axis=1) - cells).ravel()
    total = np.maximum(cells.sum(axis=1), 1)[group]

    def places(count: I64, first: F64, low: F64, width: F64) -> tuple[F64, I64]:
        cell = np.repeat(np.arange(len(size)), count)
        index = positions(np.zeros_like(count), count)
        where = low[cell] + width[cell] * (index + first[cell]) / count[cell]
        order: F64 = group[cell].astype(np.float64) + np.minimum(where, 1.0 - 1e-12)
        return order, (cell % clients).astype(np.int64)

    block, in_block = places(near, np.full(len(size), 0.5), before / total, size / total)
    even, evenly = places(size - near, start, np.zeros(len(size)), np.ones(len(size)))
    who: I64 = np.concatenate((in_block, evenly))[np.argsort(np.concatenate((block, even)), kind="stable")]
    return who


def _label_value(measure: str, owners: I64, labels: I64, clients: int) -> float:
    classes = int(labels.max(initial=0)) + 1
    counts = np.bincount(owners * classes + labels, minlength=clients * classes).reshape(clients, classes)
    return label_distances(counts)[1][measure]


def _shift(features: Array, rows: I64, offsets: I64, seed: int) -> float:
    """Return the feature shift of the clients that would be sampled from a population of this size."""
    some, few = sampled_clients(len(offsets) - 1, seed)
    clients = some[few]
    sizes = offsets[clients + 1] - offsets[clients]
    chosen, starts = measured_examples(clients, sizes, int(np.prod(features.shape[1:], dtype=np.int64)), seed)
    x = features[rows[positions(offsets[clients], sizes)[chosen]]]
    return feature_shift(x.reshape(len(x), -1).astype(np.float64), starts, sizes).mean


def _along_principal_axis(labels: I64, features: Array, generator: np.random.Generator) -> F64:
    """Return each example's position along the first principal axis of standardised features within labels (n,)."""
    flat = features.reshape(len(features), -1)
    some = np.sort(generator.permutation(len(flat))[:_SAMPLE])
    x: F64 = flat[some].astype(np.float64)
    y = labels[some]
    deviation = x.std(axis=0)
    scale = np.where(deviation > 1e-9 * np.abs(x).max(axis=0), 1.0 / np.where(deviation > 0, deviation, 1.0), 0.0)
    order = np.argsort(y, kind="stable")
    x, y = x[order] * scale, y[order]
    starts = np.flatnonzero(np.diff(y, prepend=-1))
    count = np.diff(np.append(starts, len(y)))
    x -= np.repeat(np.add.reduceat(x, starts, axis=0) / count[:, None], count, axis=0)
    axis = generator.standard_normal(x.shape[1:])
    for _ in range(50):  # power iteration; it need not converge, since any axis gives a path
        further: F64 = x.T @ (x @ axis)
        axis = further / max(float(np.linalg.norm(further)), 1e-300)
    blocks = np.array_split(flat, max(1, flat.size >> 24))
    place: F64 = np.concatenate([block.astype(np.float64) @ (scale * axis) for block in blocks])
    return place


def _solved(at: Callable[[float], T], value: Callable[[T], float], options: CalibratedOptions, name: str, given: str
) -> T:  # fmt: skip
    """Find the point of a path from 0 to 1 where `value` is as given; if there is none, report the reachable range."""
    wanted, tolerance = options.values[name], options.tolerance
    ends = [at(0.0), at(1.0)]
    floor, ceiling = (value(end) for end in ends)
    if np.isnan(floor) or np.isnan(ceiling):
        raise PartitionError(name, "cannot be measured: fewer than two clients have two examples",
                             fix="Take fewer clients, or a larger min_size.")  # fmt: skip
    if not floor - tolerance <= wanted <= ceiling + tolerance:
        reach = f"from {floor:.4g} (the floor, by chance) to {ceiling:.4g} (the ceiling)"
        raise PartitionError(name, f"{wanted:g} cannot be reached {given}, only {reach}",
                             fix="Give a value in that range, or change the number of clients.")  # fmt: skip
    best, off = min(zip(ends, (abs(floor - wanted), abs(ceiling - wanted)), strict=True), key=lambda pair: pair[1])
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        if off <= tolerance / 20:
            break
        middle = (low + high) / 2
        found = at(middle)
        reached = value(found)
        if abs(reached - wanted) < off:
            best, off = found, abs(reached - wanted)
        low, high = (middle, high) if reached < wanted else (low, middle)
    if off > tolerance:
        away = (
            f"{wanted:g} is not met within the tolerance {tolerance:g}: the nearest partition found is {off:.3g} away"
        )
        raise PartitionError(name, away, fix="Take a larger tolerance, or fewer clients.")
    return best
