"""Finds the calls of dropout modules in training passes, and hands out their masks one client at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from clients.core import streams
from clients.core.arrays import U64
from clients.core.cards.streams import as_signed
from clients.core.cards.transfer import sent
from clients.core.errors import EngineError
from clients.modules.dropout import Dropout, DropoutSite, dropout_keys, dropout_mask


@dataclass(frozen=True)
class DropoutCall:
    """A call in one pass: the module's name, its probability, the shape of its mask, its number among its calls."""

    name: str
    p: float
    shape: tuple[int, ...]
    call: int


def dropouts_of(module: nn.Module) -> dict[str, Dropout]:
    """Return the addressed dropout modules by name."""
    return {name: part for name, part in module.named_modules() if isinstance(part, Dropout)}


class CallRecorder:
    """Records the calls of a module's dropout parts, which act as the identity meanwhile.

    Attributes:
        calls: the calls since `start`.
    """

    def __init__(self, module: nn.Module) -> None:
        self._names = {id(part): name for name, part in dropouts_of(module).items()}
        self.calls: list[DropoutCall] = []
        for part in dropouts_of(module).values():
            part.draw = self._record

    def start(self) -> None:
        """Forget the calls so far."""
        self.calls = []

    def _record(self, part: Dropout, x: Tensor) -> Tensor:
        name = self._names[id(part)]
        number = sum(call.name == name for call in self.calls)
        self.calls.append(DropoutCall(name, part.p, part.mask_shape(x), number))
        return torch.ones(())


def sites_of(
    one: Sequence[DropoutCall], batch: int, other: Sequence[DropoutCall], other_batch: int
) -> tuple[DropoutSite, ...] | None:
    """Return the sites of passes over two batches of different lengths; None if the calls depend on the batch."""
    if [(c.name, c.p) for c in one] != [(c.name, c.p) for c in other]:
        return None
    found = [_site(a, batch, b, other_batch) for a, b in zip(one, other, strict=True)]
    known = tuple(site for site in found if site is not None)
    return known if len(known) == len(found) else None


def _site(one: DropoutCall, batch: int, other: DropoutCall, other_batch: int) -> DropoutSite | None:
    """Return the site of one call in two passes; None unless at most one axis grows in step with the batch."""
    if len(one.shape) != len(other.shape):
        return None
    changed = [i for i, (a, b) in enumerate(zip(one.shape, other.shape, strict=True)) if a != b]
    if not changed:
        return DropoutSite(one.name, one.p, one.shape, one.call, None)
    axis = changed[0]
    rows, rest = divmod(one.shape[axis], batch)
    if len(changed) > 1 or rest or not rows or other.shape[axis] != rows * other_batch:
        return None
    return DropoutSite(one.name, one.p, one.shape[:axis] + one.shape[axis + 1 :], one.call, axis, rows)


class AddressedMasks:
    """Draws the masks of one client as its pass calls for them.

    A call that is not among the sites, or has another shape or probability than its site, has a mask of its own
    address. So a model whose calls depend on the batch is addressed too.

    Passes over parts of a batch (`share`) take their parts of the batch's masks.
    """

    def __init__(
        self,
        module: nn.Module,
        sites: Sequence[DropoutSite],
        seed: int,
        dtype: torch.dtype,
        device: torch.device = torch.device("cpu"),  # noqa: B008 (immutable)
    ) -> None:
        self._parts = dropouts_of(module)
        self._names = {id(part): name for name, part in self._parts.items()}
        self._sites = {(site.name, site.call): (index, site) for index, site in enumerate(sites)}
        self._seed, self._dtype, self._device = seed, dtype, device
        self._address, self._batch = (0, 0, 0), 0
        self._part: tuple[int, int] | None = None
        self._keys: U64 | Tensor = np.zeros((len(sites), 0, 1), np.uint64)
        self._counts: dict[str, int] = {}
        self._others = 0

    def client(self, round_index: int, client: int, steps: int) -> None:
        """Go to a client in a round with its number of local steps."""
        self._address = (round_index, client, 0)
        self._keys = self._there(dropout_keys(self._seed, round_index, np.array([client]), steps, len(self._sites)))

    def step(self, step: int, batch: int) -> None:
        """Begin the pass of a local step, counted from 0, on a batch of this length."""
        self._address = (*self._address[:2], step)
        self._batch, self._counts, self._others, self._part = batch, {}, 0, None
        for part in self._parts.values():
            part.draw = self._mask

    def share(self, start: int, stop: int) -> None:
        """Begin the pass of the batch's examples from `start` to below `stop`."""
        self._part, self._counts, self._others = (start, stop), {}, 0

    def stop(self) -> None:
        """Turn dropout off for the passes that follow."""
        for part in self._parts.values():
            part.draw = None

    def _mask(self, part: Dropout, x: Tensor) -> Tensor:
        name, shape = self._names[id(part)], part.mask_shape(x)
        call = self._counts.get(name, 0)
        self._counts[name] = call + 1
        index, site = self._sites.get((name, call), (None, None))
        round_index, client, step = self._address
        start, stop = self._part or (0, self._batch)
        is_known = site is not None and site.p == part.p and site.mask_shape(stop - start) == shape
        if self._part is not None and not (is_known and site is not None and site.by_example):
            problem = f"{name!r} drops in a shape {list(shape)} that has no part for each example"
            fix = "Set local.devices = 1, and leave out local.micro_batch_size."
            raise EngineError("local.devices", f"cannot split a batch: {problem}", fix=fix)
        if index is not None and site is not None and is_known:
            key: U64 | Tensor = self._keys[index, step]
        else:
            place = index if index is not None else len(self._sites) + self._others
            self._others += index is None
            site = DropoutSite(name, part.p, shape, call, None)
            key = self._there(streams.keys(self._seed, "dropout", round_index, np.array([client]), step, place))
        mask = dropout_mask(site, key, self._batch, self._dtype)[0]
        return mask if self._part is None or site.axis is None else mask.narrow(site.axis, start, stop - start)

    def _there(self, keys: U64) -> U64 | Tensor:
        """Return keys in the form in which the device draws masks from them."""
        return keys if self._device.type == "cpu" else sent(as_signed(keys), self._device)
