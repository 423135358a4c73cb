"""Models as Flower `ArrayRecord`s: one array for our clients, a state dict for a user's ClientApp."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from io import BytesIO

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor, nn

from clients.core.parameters import Layout
from clients.flower.array_bytes import NUMPY, numbers_of

PARAMETERS, BUFFERS = "parameters", "buffers"


class Codec:
    """Encodes and decodes the arrays that a strategy and its clients exchange.

    Args:
        parameters: layout of the record's parameter arrays, in order, as one vector [P].
        buffers: layout of its other floating-point arrays, as one vector [Q].
        dtype: type of the vectors.
        layers: (name, start, end) within [P], for dispersion by layer; from the layout by default.
        fixed: other arrays of the record, such as integer counters; they are passed on unchanged.
        tied: arrays that are another name of one above, such as the output weights of a model that shares them with
            its embedding.
    """

    def __init__(
        self,
        parameters: Layout,
        buffers: Layout,
        dtype: torch.dtype,
        *,
        layers: list[tuple[str, int, int]] | None = None,
        fixed: Mapping[str, Array] | None = None,
        tied: Mapping[str, str] | None = None,
    ) -> None:
        self.parameters, self.buffers, self.dtype = parameters, buffers, dtype
        self.layers = layers if layers is not None else parameters.layers()
        self._fixed, self._tied = dict(fixed or {}), dict(tied or {})
        self._last: _Encoded | None = None

    @classmethod
    def flat(cls, parameters: Layout, buffers: Layout, dtype: torch.dtype) -> Codec:
        """Make a codec with one array for all parameters and one for all buffers: each array costs Flower time."""
        ours = Layout((PARAMETERS,), ((parameters.size,),), (0,), parameters.size)
        rest = Layout((BUFFERS,), ((buffers.size,),), (0,), buffers.size) if buffers.size else Layout((), (), (), 0)
        return cls(ours, rest, dtype, layers=parameters.layers())

    @classmethod
    def of_state_dict(cls, arrays: ArrayRecord, module: nn.Module | None) -> Codec:
        """Make a codec with the arrays of a state dict; without the module, all float arrays are parameters."""
        trainable = {n for n, p in module.named_parameters() if p.requires_grad} if module is not None else None
        tied = {n: first for n, first in tied_names(module).items() if n in arrays} if module is not None else {}
        params, rest, fixed = {}, {}, {}
        for name, array in arrays.items():
            tensor = torch.from_numpy(np.array(array.numpy(), copy=True))
            if not tensor.is_floating_point():
                fixed[name] = array
            elif name in tied:
                continue
            elif trainable is None or name in trainable:
                params[name] = tensor
            else:
                rest[name] = tensor
        dtype = next(iter(params.values())).dtype if params else torch.float32
        return cls(Layout.of(params), Layout.of(rest), dtype, fixed=fixed, tied=tied)

    def encode(self, params: Tensor, buffers: Tensor) -> ArrayRecord:
        """Return the record of vectors [P] and [Q] (copies); of the vectors encoded last, with the same bytes."""
        last = self._last
        if last is None or not last.is_of(params, buffers):
            arrays = {**_arrays(self.parameters, params), **_arrays(self.buffers, buffers), **self._fixed}
            arrays |= {name: arrays[first] for name, first in self._tied.items() if first in arrays}
        else:
            arrays = last.arrays
        self._last = _Encoded(ArrayRecord(dict(arrays)), arrays, params, buffers)
        return self._last.record

    def encode_rows(self, params: Tensor, buffers: Tensor) -> ArrayRecord:
        """Return the record of the rows [K, P] and [K, Q] of several clients."""
        arrays = {PARAMETERS: array_of(params)} | ({BUFFERS: array_of(buffers)} if buffers.shape[1] else {})
        return ArrayRecord(arrays)

    def decode_rows(self, record: ArrayRecord, clients: int) -> tuple[Tensor, Tensor]:
        """Return the rows [K, P] and [K, Q] of a record with those of K clients.

        Raises:
            ValueError: an array is missing or has another shape or type.
        """
        return _rows(PARAMETERS, record, (clients, self.parameters.size), self.dtype), _rows(
            BUFFERS, record, (clients, self.buffers.size), self.dtype
        )

    def most_bytes(self, clients: int, vectors: int = 0) -> int:
        """Return the most bytes of arrays in a reply for K clients: float64, with names and headers.

        Args:
            clients: K.
            vectors: how many further vectors [P] each client returns.
        """
        numbers = self.parameters.size * (1 + vectors) + self.buffers.size
        fixed = sum(len(array.data) for array in self._fixed.values())
        tied = self.parameters.size if self._tied else 0
        names = len(self.parameters.names) + len(self.buffers.names) + len(self._fixed) + len(self._tied)
        return 8 * clients * (numbers + tied) + fixed + 1024 * (names + 64)

    def decode(self, record: ArrayRecord) -> tuple[Tensor, Tensor]:
        """Return the vectors [P] and [Q] of a record; for the record encoded last, without copying.

        Raises:
            ValueError: an array is missing or has another shape, or two names of one tensor have different values.
        """
        if self._last is not None and self._last.record is record:
            return self._last.params, self._last.buffers
        for name, first in self._tied.items():
            if name in record and first in record and not _alike(record[name], record[first]):
                raise ValueError(f"arrays {first!r} and {name!r} differ, and are one tensor in the model")
        return _vector(self.parameters, record, self.dtype), _vector(self.buffers, record, self.dtype)


class _Encoded:
    """A record, its arrays, and the vectors that they were made of."""

    def __init__(self, record: ArrayRecord, arrays: dict[str, Array], params: Tensor, buffers: Tensor) -> None:
        self.record, self.arrays, self.params, self.buffers = record, arrays, params, buffers
        self._written = params._version, buffers._version

    def is_of(self, params: Tensor, buffers: Tensor) -> bool:
        """Return whether these are the vectors, and nothing was written to them since."""
        same = params is self.params and buffers is self.buffers
        return same and (params._version, buffers._version) == self._written


def tied_names(module: nn.Module) -> dict[str, str]:
    """Return the further names of tensors that a module has under several names, with the first name of each.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> tied_names(nn.Sequential(layer, layer))
        {'1.weight': '0.weight', '1.bias': '0.bias'}
    """
    every = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    first: dict[int, str] = {}
    for name, tensor in every:
        first.setdefault(id(tensor), name)
    return {name: first[id(tensor)] for name, tensor in every if first[id(tensor)] != name}


def _alike(one: Array, other: Array) -> bool:
    """Return whether two arrays are equal, but for the rounding of sums in another order."""
    return one == other or np.allclose(numbers_of(one, ""), numbers_of(other, ""), rtol=1e-5, atol=1e-7, equal_nan=True)


def _arrays(layout: Layout, flat: Tensor) -> dict[str, Array]:
    return {name: array_of(view) for name, view in layout.views(flat).items()}


def array_of(tensor: Tensor) -> Array:
    """Return Flower's `Array(tensor.numpy())` with one copy instead of four; NumPy's header is cached by shape.

    Example:
        >>> array_of(torch.ones(2)) == Array(np.ones(2, np.float32))
        True
    """
    values = tensor.detach().cpu().contiguous().numpy()
    data = b"".join((_header(values.dtype.str, values.shape), values.data.cast("B") if values.size else b""))
    return Array(str(values.dtype), values.shape, NUMPY, data)


@lru_cache(maxsize=4096)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Return the bytes that `numpy.save` writes before the numbers."""
    whole, empty = BytesIO(), np.empty(shape, dtype)
    np.save(whole, empty)
    return whole.getvalue()[: whole.tell() - empty.nbytes]


def _vector(layout: Layout, record: Mapping[str, Array], dtype: torch.dtype) -> Tensor:
    if not layout.names:
        return torch.zeros(0, dtype=dtype)
    parts = []
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        if name not in record:
            raise ValueError(f"array {name!r} is missing; {shape} was expected")
        parts.append(torch.from_numpy(numbers_of(record[name], name, shape)).to(dtype).flatten())
    return torch.cat(parts)


def _rows(name: str, record: Mapping[str, Array], shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    if not shape[1]:
        return torch.zeros(shape, dtype=dtype)
    if name not in record:
        raise ValueError(f"array {name!r} is missing; floating-point numbers of shape {shape} were expected")
    return torch.from_numpy(numbers_of(record[name], name, shape, "f")).to(dtype)


def encode_vectors(vectors: Mapping[str, Tensor]) -> ArrayRecord:
    """Return a record with one array for each named vector."""
    return ArrayRecord({name: array_of(v) for name, v in vectors.items()})


def decode_vectors(
    record: Mapping[str, Array], names: Iterable[str], dtype: torch.dtype, shape: tuple[int, ...] | None = None
) -> dict[str, Tensor]:
    """Return the named vectors of a record.

    Raises:
        ValueError: one is missing, is no array of floating-point numbers, or has another shape than `shape`.
    """
    found = {}
    for name in names:
        if name not in record:
            raise ValueError(f"array {name!r} is missing")
        found[name] = torch.from_numpy(numbers_of(record[name], name, shape, "f")).to(dtype)
    return found
