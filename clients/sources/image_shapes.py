"""The shape of examples of an `images` file: channels go first, or the file is refused where they could be anywhere."""

from __future__ import annotations

import math

import numpy as np

from clients.core.arrays import Array
from clients.core.errors import DataError
from clients.sources.options import ImagesOptions

CHANNELS = (1, 3, 4)
"""Sizes of an axis that may be an image's channels."""

Shaped = tuple[Array, tuple[str, ...]]


def shaped_examples(features: Array, options: ImagesOptions, name: str) -> Shaped:
    """Return examples in the shape of the options, and sentences on what was guessed.

    Args:
        features: (n, ...) as in the file.
        options: `shape`, `layout` and `flat`.
        name: the file, for messages.

    Raises:
        DataError: the shape does not fit, or the place of the channels cannot be known.

    Example:
        >>> images = np.zeros((5, 32, 24, 3))
        >>> shaped_examples(images, ImagesOptions(path="x", flat=False, layout="HWC"), "x")[0].shape
        (5, 3, 32, 24)
    """
    n, own = len(features), features.shape[1:]
    if options.shape and math.prod(options.shape) != math.prod(own):
        raise DataError("shape", f"{list(options.shape)} does not fit the examples of {name}, shape {list(own)}")
    if options.layout:
        images = _laid_out(features, options, name)
        return (images.reshape(n, -1) if options.flat else images), ()
    if options.shape:
        return _reshaped(features, options.shape, name)
    if options.flat:
        return features.reshape(n, -1), ()
    if len(own) == 1:
        side = math.isqrt(own[0])
        if side * side != own[0]:
            problem = f"{name} has flat examples of {own[0]} numbers, no square"
            raise DataError("flat", problem, fix="Give shape = [...].")
        return features.reshape(n, 1, side, side), ()
    return _guessed(features, name) if len(own) == 3 else (features, ())


def _laid_out(features: Array, options: ImagesOptions, name: str) -> Array:
    """Return images (n, channels, height, width) of a known layout."""
    own, layout, shape = features.shape[1:], options.layout, options.shape
    if len(own) == 1 and len(layout) > 1:
        if len(shape) != 3:
            raise DataError(
                "layout", f"is {layout!r}, and {name} has flat examples of {own[0]} numbers",
                fix="Give shape = [channels, height, width] too.",
            )  # fmt: skip
        stored = {"HWC": (*shape[1:], shape[0]), "CHW": shape, "HW": shape[1:]}[layout]
        features = features.reshape(len(features), *stored)
    elif len(own) != len(layout):
        axes = f"has examples of shape {list(own)}, {len(own)} axes"
        raise DataError("layout", f"is {layout!r}, and {name} {axes}")
    images = np.moveaxis(features, -1, 1) if layout == "HWC" else features[:, None] if layout == "HW" else features
    if shape and _without_ones(shape) != _without_ones(images.shape[1:]):
        problem = (
            f"{list(shape)} is not the shape of the images of {name}, {list(images.shape[1:])} with channels first"
        )
        raise DataError("shape", problem, fix="Leave shape out.")
    return images.reshape(len(images), *shape) if shape else images


def _reshaped(features: Array, shape: tuple[int, ...], name: str) -> Shaped:
    """Reshape examples; where `shape` has the file's axes in another order, move the channels."""
    n, own = len(features), features.shape[1:]
    if len(own) == 1 or _without_ones(own) == _without_ones(shape):
        return features.reshape(n, *shape), ()
    if sorted(own) != sorted(shape):
        return features.reshape(n, *shape), (f"examples of shape {list(own)} were reshaped to {list(shape)}",)
    last_first, first_last = (own[-1], *own[:-1]) == shape, (*own[1:], own[0]) == shape
    if len(own) != 3 or last_first == first_last:
        problem = f"{list(shape)} has the axes of the examples of {name}, {list(own)}, in another order"
        raise DataError("shape", problem, fix='Leave shape out, and say what they are: layout = "HWC" or "CHW".')
    moved = np.moveaxis(features, -1, 1) if last_first else np.moveaxis(features, 1, -1)
    order = "last axis went first" if last_first else "first axis went last"
    return moved, (f"examples of shape {list(own)} became {list(shape)}: the {order}",)


def _guessed(features: Array, name: str) -> Shaped:
    """Put channels first where they are last."""
    own = features.shape[1:]
    first, last = own[0] in CHANNELS, own[-1] in CHANNELS
    either = first and last and own[0] > 1  # an image of height 1 is none, so a first axis of 1 is the channel
    square = not first and not last and own[0] == own[1] != own[2]
    if either or square:
        problem = f"is needed: the channels of {name}, shape {list(own)}, could be the first axis or the last"
        raise DataError("layout", problem, fix='Set layout = "CHW" or "HWC".')
    if last and not first:
        images = np.moveaxis(features, -1, 1)
        return images, (f"images of shape {list(own)} are taken as HWC: channels went first",)
    note = (
        f'examples of shape {list(own)} are taken as channels, height, width; if channels are last set layout = "HWC"'
    )
    return features, () if first else (note,)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(s for s in shape if s != 1)
