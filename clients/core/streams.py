"""Random numbers addressed by (root seed, purpose, round, client), never by order of use.

A stream is an integer hash of its address and a counter, computed for a whole cohort at once, so
adding a client, a metric or a log line changes no other numbers. The hash is the finaliser of
SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from clients.core.arrays import F32, F64, I64, U64, Array

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 1 << 16  # hashes compared at once: half a megabyte
_CACHED = 1 << 14  # hashes made at once: they and the numbers made from them stay in a core's cache
_QUANTILES = 1 << 16
_MOST_COUNTERS = 1 << 12
_ADDRESS, _WORD = 0xD1B54A32D192ED03, (1 << 64) - 1


def _mix(z: U64) -> U64:
    """Finaliser of SplitMix64, elementwise; `z` is overwritten."""
    flat = z.reshape(-1)
    scratch = np.empty(min(len(flat), _CACHED), np.uint64)
    for start in range(0, len(flat), _CACHED):
        part = flat[start : start + _CACHED]
        shifted = scratch[: len(part)]
        part ^= np.right_shift(part, np.uint64(30), out=shifted)
        part *= np.uint64(0xBF58476D1CE4E5B9)
        part ^= np.right_shift(part, np.uint64(27), out=shifted)
        part *= np.uint64(0x94D049BB133111EB)
        part ^= np.right_shift(part, np.uint64(31), out=shifted)
    return z


def _mixed(z: int) -> int:
    """Return `_mix` of one number; calls of NumPy on an array of one would cost many times as much."""
    z ^= z >> 30
    z = z * 0xBF58476D1CE4E5B9 & _WORD
    z ^= z >> 27
    z = z * 0x94D049BB133111EB & _WORD
    return z ^ z >> 31


def keys(root: int, purpose: str, *address: int | npt.ArrayLike) -> U64:
    """Hash an address to a 64-bit key for each element.

    Args:
        root: the root seed of the run, any non-negative integer below 2**63.
        purpose: what the numbers are for, such as "batches"; different purposes never share numbers.
        *address: integers or integer arrays (round, client, epoch ...) that broadcast together.

    Returns:
        uint64 array of the broadcast shape (0-d for scalars).
    """
    first, golden, known = _root(root, purpose), int(_GOLDEN), 0
    for part in address:
        if not isinstance(part, int):
            break
        first = _mixed((first + golden & _WORD) ^ (part * _ADDRESS & _WORD))
        known += 1
    key = np.asarray(np.uint64(first))
    with np.errstate(over="ignore"):
        for part in address[known:]:
            part64 = np.asarray(part).astype(np.uint64)
            part64 *= np.uint64(_ADDRESS)
            key = _mix(np.asarray((key + _GOLDEN) ^ part64))
    return key


@lru_cache(maxsize=4096)
def _root(root: int, purpose: str) -> int:
    """Return the key of an address that has a purpose and no integers."""
    return _mixed(int(np.uint64(root)) * int(_GOLDEN) + zlib.crc32(purpose.encode()) & _WORD)


def hashes(key: U64, count: int, first: int = 0) -> U64:
    """Return `count` hashes of each key, starting at its hash number `first`: shape key.shape + (count,)."""
    counter = _kept_counter(first, count) if count <= _MOST_COUNTERS else _counter(first, count)
    return _mix(np.asarray(key)[..., None] + counter)


def _counter(first: int, count: int) -> U64:
    """Return what is added to a key for its hashes number `first`, first + 1, ...; it wraps around."""
    return np.arange(first + 1, first + count + 1, dtype=np.uint64) * _GOLDEN


@lru_cache(maxsize=64)
def _kept_counter(first: int, count: int) -> U64:
    """Return `_counter`, of few hashes: the same ones are made in each round."""
    counter = _counter(first, count)
    counter.flags.writeable = False
    return counter


def uniforms(key: U64, count: int) -> F64:
    """Return `count` uniform numbers in (0, 1) of each key: shape key.shape + (count,)."""
    drawn = hashes(key, count)
    drawn >>= np.uint64(11)
    result = drawn.astype(np.float64)
    result += 0.5
    result *= 2.0**-53
    return result


def normals(key: U64, count: int) -> F64:
    """Return `count` standard normal numbers of each key (Box and Muller): shape key.shape + (count,)."""
    half = (count + 1) // 2
    pairs = uniforms(key, 2 * half)
    radius = np.sqrt(-2.0 * np.log(pairs[..., :half]))
    angle = 2.0 * np.pi * pairs[..., half:]
    return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)), axis=-1)[..., :count]


def quick_uniforms(key: U64, count: int, first: int = 0) -> F32:
    """Return uniform numbers in (0, 1) of 23 bits, to fill data with: float32 key.shape + (count,).

    They cost a third of `uniforms`: one hash makes two. Number n of a key does not depend on `first`.
    """

    def convert(halves: npt.NDArray[np.uint32], out: F32) -> None:
        out[:] = (halves >> np.uint32(9)).view(np.int32)
        out += np.float32(0.5)
        out *= np.float32(2.0**-23)

    return _in_blocks(key, count, first, np.dtype("<u4"), convert)


def quick_normals(key: U64, count: int, first: int = 0) -> F32:
    """Return normal numbers of 16 bits, within 4.3 deviations, to fill data with: float32 key.shape + (count,).

    They cost a fiftieth of `normals`: each quarter of a hash looks up one of 65,536 equally likely quantiles. Numbers
    that decide something come from `normals`. Number n of a key does not depend on `first`.
    """
    table = _quantiles()

    def convert(quarters: npt.NDArray[np.uint16], out: F32) -> None:
        np.take(table, quarters, out=out, mode="clip")  # no index is out of range; other modes buffer `out`

    return _in_blocks(key, count, first, np.dtype("<u2"), convert)


def quick_white_rows(key: U64, count: int) -> F32:
    """Return uniform numbers of zero mean and unit variance, 16 bits each, of keys (K,): float32 (count, K).

    White noise at a third of the cost of `quick_normals`. Use it for noise that is filtered afterwards: sums of many
    such numbers are nearly normal.
    """
    scale = np.float32(np.sqrt(12.0 / (2.0**32 - 1.0)))  # 1 / deviation of 2**16 consecutive whole numbers
    result = np.empty((-(-count // 4), 4, len(key)), np.float32)
    rows = max(_CACHED // max(len(key), 1), 1)
    for start in range(0, len(result), rows):
        some = result[start : start + rows]
        with np.errstate(over="ignore"):
            counter = np.arange(start + 1, start + len(some) + 1, dtype=np.uint64) * _GOLDEN
            quarters = _mix(key + counter[:, None]).view(np.dtype("<i2"))
        for n in range(4):
            np.add(quarters[:, n::4], np.float32(0.5), out=some[:, n])
        some *= scale
    return result.reshape(-1, len(key))[:count]


def quick_normal_rows(key: U64, count: int) -> F32:
    """Return `quick_normals(key, count).T` for keys (K,), made row by row: float32 (count, K)."""
    table, result = _quantiles(), np.empty((count, len(key)), np.float32)
    for start in range(0, len(key), _CACHED):
        some = slice(start, start + _CACHED)
        for first in range(0, count, 4):
            quarters = hashes(key[some], 1, first // 4).view(np.dtype("<u2"))
            for n in range(first, min(first + 4, count)):
                np.take(table, quarters[:, n - first], out=result[n, some], mode="clip")
    return result


def _in_blocks(key: U64, count: int, first: int, part: np.dtype[Any], convert: Callable[[Array, F32], None]) -> F32:
    """Convert `count` parts of each key's hashes, starting at part number `first`, a few keys at a time."""
    each = 8 // part.itemsize
    begin = first // each
    width, skip = -(-(first + count) // each) - begin, first - begin * each
    flat = np.asarray(key).reshape(-1)
    result = np.empty((len(flat), count), np.float32)
    rows = max(_CACHED // max(width, 1), 1)
    for start in range(0, len(flat), rows):
        some = slice(start, start + rows)
        parts = hashes(flat[some], width, begin).view(part)
        convert(parts[:, skip : skip + count], result[some])
    return result.reshape(*np.shape(key), count)


@lru_cache(maxsize=1)
def _quantiles() -> F32:
    """Quantiles of the normal distribution in the middle of each of 2**16 equal shares, scaled to unit variance."""
    from scipy.special import ndtri  # the import takes a tenth of a second

    values = ndtri((np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    values /= np.sqrt(np.mean(values**2))
    result: F32 = values.astype(np.float32)
    return result


def permutations(key: U64, sizes: npt.ArrayLike) -> I64:
    """Return a random permutation of range(size) for each key.

    Args:
        key: one key a row, shape (K,).
        sizes: how many elements each row permutes, shape (K,), each at most 2**24.

    Returns:
        int64 array (K, max(sizes)); row k holds a permutation of range(sizes[k]), then the numbers
        sizes[k], sizes[k]+1, ... in order. Row k depends on key[k] and sizes[k] alone.
    """
    sizes = np.asarray(sizes, np.int64)
    width = int(sizes.max(initial=0))
    assert width <= 1 << 24, "permutations are made for at most 2**24 elements"
    # The low bits hold the position, so one sort of values (vectorised, unlike argsort) is a stable argsort.
    packed = hashes(key, width)
    packed >>= np.uint64(25)
    packed <<= np.uint64(24)
    packed |= np.arange(width, dtype=np.uint64)
    tail = None if (sizes == width).all() else np.arange(width)[None, :] >= sizes[:, None]
    if tail is not None:
        packed[tail] |= np.uint64(1 << 63)
    packed.sort(axis=-1)
    packed &= np.uint64(0xFFFFFF)
    order: I64 = packed.view(np.int64)
    if tail is not None:  # a row shorter than the widest has its tail in order, whatever its hashes
        order[tail] = np.broadcast_to(np.arange(width), order.shape)[tail]
    return order


def choose(key: U64, population: int, size: int) -> I64:
    """Choose `size` of range(population) without replacement, in increasing order.

    The elements with the smallest hashes are chosen, so a larger population changes few choices. The hashes are
    compared in blocks and only small ones are kept, so a million clients take almost no memory.
    """
    assert 0 <= size <= population
    if size == population:
        return np.arange(population, dtype=np.int64)
    expected = (size + 8.0 * size**0.5 + 16.0) / population  # share kept; it is too small once in 10**14 draws
    while True:
        bound = np.uint64(min(int(expected * 2.0**64), 2**64 - 1))
        scores, places = [], []
        for start in range(0, population, _BLOCK):
            block = hashes(key, min(_BLOCK, population - start), start)
            low = np.flatnonzero(block <= bound)
            scores.append(block[low])
            places.append(low + start)
        place = np.concatenate(places)
        if len(place) >= size:
            break
        expected = 1.0
    if len(place) > size:
        place = place[np.argpartition(np.concatenate(scores), size)[:size]]
    return np.sort(place).astype(np.int64)


def generator(root: int, purpose: str, *address: int) -> np.random.Generator:
    """Return a NumPy generator for one address. It takes about 20 us: use it in set-up, not in the round loop."""
    return np.random.Generator(np.random.Philox(key=int(keys(root, purpose, *address))))
