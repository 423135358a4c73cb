"""Checks of the arguments passed from Python: each error names the argument, before anything runs."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import nn
from torch.nn.parameter import is_lazy

from clients.core.errors import DataError, RunFolderError, StrategyError, UserError
from clients.core.population import Population
from server.algorithms.algorithm import Algorithm
from server.rounds.observers import MOMENTS

OBSERVER_METHODS = ("attached", *MOMENTS)
"""The methods of an observer; an object needs at least one of them."""


def check_parts(
    *,
    model: object = None,
    data: object = None,
    algorithm: object = None,
    strategy: object = None,
    client_app: object = None,
    grid: object = None,
) -> None:
    """Refuse objects that cannot replace a part of the scenario; None means that nothing was passed.

    Raises:
        UserError: an object is of the wrong type; the message names the argument, its type and the allowed type.
    """
    if model is not None:
        _check_model(model)
    if data is not None and not isinstance(data, Population):
        fix = "Make one from your clients' data: fs.custom_population(lambda k: (x[k], y[k]), sizes, outputs=10)."
        raise DataError("data", f"must be a population, got {kind_of(data)}", fix=fix)
    if algorithm is not None and not isinstance(algorithm, Algorithm):
        fix = "Pass fs.Algorithm(name, local=..., aggregation=..., server=...)."
        raise StrategyError("algorithm", f"must be a fedscape.Algorithm, got {kind_of(algorithm)}", fix=fix)
    if algorithm is not None and isinstance(strategy, Strategy):
        raise StrategyError(
            "algorithm", "cannot be used with a strategy, which replaces it", fix="Pass one of the two."
        )
    if strategy is not None:
        _check_strategy(strategy)
    if client_app is not None and not isinstance(client_app, ClientApp):
        raise StrategyError("client_app", f"must be a flwr.clientapp.ClientApp, got {kind_of(client_app)}")
    if grid is not None and not isinstance(grid, Grid):
        raise StrategyError("grid", f"must be a flwr.serverapp.Grid, got {kind_of(grid)}")


def check_observers(observers: object, stop_asked: object) -> None:
    """Refuse observers without any observer method, and a `stop_asked` that cannot be called.

    Raises:
        UserError: an argument is not valid; the message names it.
    """
    fix = "Pass objects in a list: observers=[...]."
    if not isinstance(observers, Sequence) or isinstance(observers, str | bytes):
        raise UserError("observers", f"must be a list of observers, got {kind_of(observers)}", fix=fix)
    for index, observer in enumerate(observers):
        field = f"observers[{index}]"
        if isinstance(observer, type):
            raise UserError(field, f"must be an object, got {kind_of(observer)}", fix=f"Pass {observer.__name__}(...).")
        if not any(callable(getattr(observer, name, None)) for name in OBSERVER_METHODS):
            all_of = f"has none of an observer's methods: {', '.join(OBSERVER_METHODS)}; got {kind_of(observer)}"
            raise UserError(field, all_of)
    if not callable(stop_asked):
        raise UserError("stop_asked", f"must be a function that returns True to stop, got {kind_of(stop_asked)}")


def check_out(out: object) -> None:
    """Refuse an `out` that is not a path, or is the path of a file.

    Raises:
        UserError: `out` is neither text nor a path.
        RunFolderError: `out` is a file.
    """
    if out is None:
        return
    if not isinstance(out, str | PathLike):
        raise UserError("out", f"must be a folder's path, got {kind_of(out)}")
    path = Path(out)
    if path.exists() and not path.is_dir():
        problem = f"must be a folder, new or empty, got the file {str(path)!r}"
        raise RunFolderError("out", problem, fix="Name another folder with out= (--out).")


def whole_seed(seed: object) -> int | None:
    """Return a seed as an int; None stays None.

    Raises:
        UserError: the seed is not a whole number.

    Example:
        >>> whole_seed(7), whole_seed(None)
        (7, None)
    """
    if seed is None:
        return None
    try:
        if isinstance(seed, bool):
            raise TypeError
        return operator.index(seed)  # type: ignore[arg-type]  # anything that is an index, such as NumPy's integers
    except TypeError:
        raise UserError("seed", f"must be a whole number, got {seed!r:.60}") from None


def kind_of(value: object) -> str:
    """Describe a value in a few words, for messages.

    Example:
        >>> kind_of([1, 2]), kind_of(int), kind_of("digits"), kind_of(3)
        ('a list of 2', 'the class int', "the text 'digits'", '3')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, str | Path):
        return f"the text {str(value)!r:.60}"
    if isinstance(value, bool | int | float):
        return repr(value)
    if inspect.isroutine(value):
        return f"the function {getattr(value, '__name__', '')}".rstrip()
    name = type(value).__name__
    article = "an" if name[:1].lower() in "aeiou" else "a"
    return f"{article} {name}" + (f" of {len(value)}" if isinstance(value, list | tuple | dict | set) else "")


def _check_model(model: object) -> None:
    if isinstance(model, type) and issubclass(model, nn.Module):
        fix = f"Pass an object of it: {model.__name__}(...)."
        raise UserError("model", f"must be a torch.nn.Module, got {kind_of(model)}", fix=fix)
    if not isinstance(model, nn.Module):
        raise UserError("model", f"must be a torch.nn.Module, got {kind_of(model)}")
    values = [*model.named_parameters(), *model.named_buffers()]
    lazy = [name for name, value in values if is_lazy(value)]
    if lazy:
        raise UserError(
            "model",
            f"has parameters without a shape yet ({', '.join(lazy[:4])}{', ...' if len(lazy) > 4 else ''})",
            fix="Call it once on a batch of examples first, or name the sizes: Linear, not LazyLinear.",
        )


def _check_strategy(strategy: object) -> None:
    fix = "Pass an object such as FedAvg(), or a function that wraps ours: lambda ours: Wrapper(ours, ...)."
    if isinstance(strategy, type) and issubclass(strategy, Strategy):
        if not _wraps(strategy):
            name = strategy.__name__
            raise StrategyError("strategy", f"must be a strategy, got {kind_of(strategy)}", fix=f"Pass {name}(...).")
    elif not isinstance(strategy, Strategy) and not callable(strategy):
        raise StrategyError("strategy", f"must be a Flower strategy, got {kind_of(strategy)}", fix=fix)


def _wraps(strategy: type[Strategy]) -> bool:
    """Return whether the class takes exactly one required argument: the strategy that it wraps."""
    try:
        parameters = inspect.signature(strategy).parameters.values()
    except (TypeError, ValueError):
        return True
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(needed) == 1
