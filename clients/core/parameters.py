"""Parameter algebra: a model's tensors as one flat vector, and back without copying."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layout:
    """Where each named tensor lies in a flat vector of `size` elements.

    Example:
        >>> layout = Layout.of({"w": torch.zeros(2, 3), "b": torch.zeros(2)})
        >>> layout.size, layout.starts
        (8, (0, 6))
        >>> layout.views(torch.arange(8.0))["b"]
        tensor([6., 7.])
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    size: int

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> Layout:
        """Lay out tensors in the given order."""
        named = dict(tensors)
        ends = list(accumulate((t.numel() for t in named.values()), initial=0))
        return cls(tuple(named), tuple(tuple(t.shape) for t in named.values()), tuple(ends[:-1]), ends[-1])

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Return views of `flat` [..., size] as named tensors [..., *shape]."""
        lead = flat.shape[:-1]
        return {
            name: flat[..., start : start + _count(shape)].view((*lead, *shape))
            for name, shape, start in zip(self.names, self.shapes, self.starts, strict=True)
        }

    def flatten(self, tensors: Mapping[str, Tensor], *, lead: int = 0, out: Tensor | None = None) -> Tensor:
        """Concatenate named tensors [..., *shape] with `lead` leading axes to [..., size] (a copy), maybe in `out`."""
        assert self.names, "an empty layout has no vector to make"
        parts = [
            tensors[name].flatten(lead) if shape else tensors[name].unsqueeze(-1)
            for name, shape in zip(self.names, self.shapes, strict=True)
        ]
        return torch.cat(parts, dim=-1, out=out)

    def layers(self) -> list[tuple[str, int, int]]:
        """Return (module name, start, end) for consecutive tensors of one module; drift is reported by layer."""
        spans: list[tuple[str, int, int]] = []
        for name, start, shape in zip(self.names, self.starts, self.shapes, strict=True):
            module = name.rpartition(".")[0] or name
            end = start + _count(shape)
            if spans and spans[-1][0] == module:
                spans[-1] = (module, spans[-1][1], end)
            else:
                spans.append((module, start, end))
        return spans


def _count(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def parameter_layout(module: nn.Module) -> Layout:
    """Lay out a module's trainable parameters."""
    return Layout.of((n, p) for n, p in module.named_parameters() if p.requires_grad)


def buffer_layout(module: nn.Module) -> Layout:
    """Lay out a module's persistent floating-point buffers (BatchNorm statistics).

    Integer buffers (BatchNorm's batch counter) have no mean and stay as the module was built.
    """
    persistent = module.state_dict().keys()
    return Layout.of((n, b) for n, b in module.named_buffers() if n in persistent and b.is_floating_point())


def read_vector(module: nn.Module, layout: Layout, out: Tensor | None = None) -> Tensor:
    """Copy the tensors of `layout` out of a module, as one vector [size]; `out` receives it, on any device."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    if not layout.names:
        return torch.zeros(0)
    found = {n: tensors[n].detach() for n in layout.names}
    if out is None or out.device == found[layout.names[0]].device:
        return layout.flatten(found, out=out)
    return out.copy_(layout.flatten(found))


def write_vector(module: nn.Module, layout: Layout, flat: Tensor) -> None:
    """Copy a vector [size] into the tensors of `layout` in a module."""
    write_tensors(tensors_of(module, layout), layout, flat)


def tensors_of(module: nn.Module, layout: Layout) -> list[Tensor]:
    """Return the tensors of `layout` in a module, in its order."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return [tensors[name] for name in layout.names]


def write_tensors(tensors: Sequence[Tensor], layout: Layout, flat: Tensor) -> None:
    """Copy a vector [size] into `tensors_of` a module, which a caller that writes again and again looks up once."""
    with torch.no_grad():
        for tensor, view in zip(tensors, layout.views(flat).values(), strict=True):
            tensor.copy_(view)
