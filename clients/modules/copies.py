"""Copies of a user's module that do not depend on what its passes have left in it."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from functools import partial
from types import MethodType
from typing import Any

from torch import Tensor, nn

from clients.core.errors import UserError
from clients.core.user_code import described

_TENSORS = ("_parameters", "_buffers", "_modules")
"""The attributes of a module that hold its parameters, buffers and parts."""


def copy_module(module: nn.Module) -> nn.Module:
    """Return a deep copy of a module.

    Two things that `copy.deepcopy` refuses are handled. A tensor that a pass has left in an attribute, such as a kept
    output or the weight of `torch.nn.utils.weight_norm`, is copied without its graph. An attribute that cannot be
    copied, such as a lock, is shared by all copies; see `shared_attributes`.

    Raises:
        UserError: an attribute that cannot be copied refers to parameters or parts of the model.
    """
    graphless = _graphless(module)
    try:
        copied: nn.Module = copy.deepcopy(module, dict(graphless))
        return copied
    except Exception:  # an attribute may refuse in any way
        shared = {id(value): value for _, value in _uncopyable(module, graphless)}
    try:
        copied = copy.deepcopy(module, {**graphless, **shared})
    except Exception as error:
        problem = f"cannot be copied: {described(error)}"
        raise UserError("model", problem, fix="Let the class have a __deepcopy__ that returns a copy.") from error
    return copied


def shared_attributes(module: nn.Module) -> tuple[str, ...]:
    """Return the attributes that copies of a module share, as "name (type)"; most modules have none."""
    graphless = _graphless(module)
    try:
        copy.deepcopy(module, dict(graphless))
    except Exception:  # an attribute may refuse in any way
        return tuple(f"{name} ({type(value).__qualname__})" for name, value in _uncopyable(module, graphless))
    return ()


def _graphless(module: nn.Module) -> dict[int, Any]:
    """Return copies of the tensors in a module's attributes that belong to a graph, by the id of the original."""
    found = {id(v): v for part in module.modules() for _, value in _attributes(part) for v in _inside(value)}
    return {key: v.detach().clone() for key, v in found.items() if isinstance(v, Tensor) and not v.is_leaf}


def _uncopyable(module: nn.Module, graphless: dict[int, Any]) -> list[tuple[str, Any]]:
    """Return name and value of each attribute that cannot be copied, those of inner parts first.

    Raises:
        UserError: one of them refers to parameters or parts of the model, which copies cannot share.
    """
    found: list[tuple[str, Any]] = []
    for prefix, part in reversed(list(module.named_modules())):
        for name, value in _attributes(part):
            try:
                copy.deepcopy(value, {**graphless, **{id(v): v for _, v in found}})
            except Exception as error:
                path = f"{prefix}.{name}" if prefix else name
                if any(isinstance(v, nn.Module | nn.Parameter) for v in _inside(value)):
                    problem = f"has an attribute {path!r} that cannot be copied ({error}) and refers to its parameters"
                    fix = "Keep what cannot be copied, such as a lock, in an attribute of its own."
                    raise UserError("model", problem, fix=fix) from error
                found.append((path, value))
    return found


def _attributes(part: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in vars(part).items() if name not in _TENSORS)


def _inside(value: Any) -> Iterator[Any]:
    """Yield a value and what it holds: items of containers, attributes of objects, the object of a method."""
    seen: set[int] = set()
    left = deque([value])
    while left and len(seen) < 10_000:
        item = left.popleft()
        if id(item) in seen or isinstance(item, type | str | bytes | int | float):
            continue
        seen.add(id(item))
        yield item
        if isinstance(item, Tensor | nn.Module):
            continue
        if isinstance(item, dict):
            left.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset | deque):
            left.extend(item)
        elif isinstance(item, MethodType):
            left.append(item.__self__)
        elif isinstance(item, partial):
            left.extend((item.func, *item.args, *item.keywords.values()))
        else:
            left.extend(getattr(item, "__dict__", {}).values())
