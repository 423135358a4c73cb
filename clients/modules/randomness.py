"""Random numbers that a module's passes draw from generators of torch, NumPy and Python: found, seeded, restored."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from clients.core.errors import listed

_SEEDS = 2**63
_DRAWING = (nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)


def may_draw(module: nn.Module) -> bool:
    """Return whether a module may draw numbers: a user's module, or a part of torch's that draws or has dropout."""
    return any(
        type(part).__module__.partition(".")[0] not in ("torch", "clients")
        or isinstance(part, _DRAWING)
        or bool(getattr(part, "dropout", 0.0))
        for part in module.modules()
        if not type(part).__module__.startswith("clients.")
    )


@contextmanager
def generators_restored(device: torch.device | None = None) -> Iterator[None]:
    """Restore the generators of torch, NumPy and Python at the end."""
    numbers, state = np.random.get_state(), random.getstate()  # noqa: NPY002 (what a user's model draws from)
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            np.random.set_state(numbers)  # noqa: NPY002
            random.setstate(state)


class Seeding:
    """Seeds the generators that a module's passes may draw from: the global ones, and those kept as attributes.

    Use it inside `generators_restored`.
    """

    def __init__(self, module: nn.Module, device: torch.device | None = None) -> None:
        self._own = [generator for _, generator in own_generators(module)]
        self._cuda = device if device is not None and device.type == "cuda" else None

    def seed(self, key: int) -> None:
        """Seed every generator from a 64-bit key."""
        torch.default_generator.manual_seed(key % _SEEDS)  # `torch.manual_seed` also visits every kind of device
        if self._cuda is not None:
            with torch.cuda.device(self._cuda):
                torch.cuda.manual_seed(key % _SEEDS)
        np.random.seed(key % 2**32)  # noqa: NPY002
        random.seed(key)
        for place, generator in enumerate(self._own):
            _seed_one(generator, (key + place + 1) % _SEEDS)


def own_generators(module: nn.Module) -> list[tuple[str, Any]]:
    """Return the generators that a module keeps as attributes, by name."""
    kinds = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
    found: dict[int, tuple[str, Any]] = {}
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, kinds):
                found.setdefault(id(value), (f"{prefix}.{name}" if prefix else name, value))
    return list(found.values())


def _seed_one(generator: Any, seed: int) -> None:
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(seed).state
    else:
        generator.seed(seed % 2**32)


def sources_drawn(module: nn.Module, run: Callable[[nn.Module], object]) -> tuple[str, ...]:
    """Run a pass of a module, and return the generators that it drew from, in words; most modules draw from none.

    Args:
        module: the module; hooks are added to it, so pass a copy.
        run: runs the pass.
    """
    watched = _states(module)
    drew: dict[str, list[str]] = {}
    open_parts: list[tuple[str, dict[str, Any], set[str]]] = []

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: open_parts.append((name, {n: read() for n, read in watched.items()}, set()))

    def leave(part: nn.Module, *_: object) -> None:
        name, before, inner = open_parts.pop()
        changed = {n for n, read in watched.items() if not _same(read(), before[n])}
        place = f"{name!r} ({type(part).__name__})" if name else f"{type(part).__name__}.forward"
        for source in sorted(changed - inner):
            places = drew.setdefault(source, [])
            places += [place] if place not in places else []
        if open_parts:
            open_parts[-1][2].update(changed)

    for name, part in module.named_modules():
        part.register_forward_pre_hook(enter(name), prepend=True)
        part.register_forward_hook(leave)
    before = {n: read() for n, read in watched.items()}
    run(module)
    for source in (n for n, read in watched.items() if n not in drew and not _same(read(), before[n])):
        drew[source] = []
    return tuple(f"{source}, in {listed(places)}" if places else source for source, places in drew.items())


def _states(module: nn.Module) -> dict[str, Callable[[], Any]]:
    """Return functions that read the state of each generator, by its name in messages."""
    reads: dict[str, Callable[[], Any]] = {
        "torch's generator": torch.get_rng_state,
        "NumPy's global generator": np.random.get_state,
        "Python's global generator": random.getstate,
    }
    if torch.cuda.is_available():
        reads["torch's generator on the GPU"] = torch.cuda.get_rng_state
    for name, generator in own_generators(module):
        reads[f"its generator {name!r}"] = _reader(generator)
    return reads


def _reader(generator: Any) -> Callable[[], Any]:
    if isinstance(generator, np.random.Generator):
        return lambda: generator.bit_generator.state
    return generator.getstate if isinstance(generator, random.Random) else generator.get_state


def _same(one: Any, other: Any) -> bool:
    """Return whether two states of a generator are equal."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return bool(repr(one) == repr(other)) if isinstance(one, dict) else _same_parts(one, other)


def _same_parts(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
