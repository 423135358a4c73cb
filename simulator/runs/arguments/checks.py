"""Checks of the arguments passed from Python: each error names the argument, before anything runs."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy
from torch import nn
from torch.nn.parameter import is_lazy

from clients.core.errors import DataError, RunFolderError, ScenarioError, StrategyError, UserError
from clients.core.population import Population
from clients.flower.shim import has_client_fn
from clients.sources.pooled_arrays import PooledArrays
from server.algorithms.algorithm import Algorithm
from server.rounds.observers import MOMENTS
from simulator.runs.arguments.wrong_objects import (
    instead_of_algorithm,
    instead_of_client_app,
    instead_of_data,
    instead_of_grid,
    instead_of_model,
    instead_of_observer,
    instead_of_scenario,
    instead_of_strategy,
    is_old_flower,
    kind_of,
)

OBSERVER_METHODS = {"attached": "announce", **MOMENTS}
"""The methods of an observer and their argument; an object needs at least one of them."""


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
    if data is not None and not isinstance(data, Population | PooledArrays):
        problem = f"must be clients with their data or pooled arrays, got {kind_of(data)}"
        raise DataError("data", problem, fix=instead_of_data(data))
    if algorithm is not None and not isinstance(algorithm, Algorithm):
        problem = f"must be a fedscape.Algorithm, got {kind_of(algorithm)}"
        raise StrategyError("algorithm", problem, fix=instead_of_algorithm(algorithm))
    if algorithm is not None and isinstance(strategy, Strategy):
        raise StrategyError(
            "algorithm", "cannot be used with a strategy, which replaces it", fix="Pass one of the two."
        )
    if strategy is not None:
        _check_strategy(strategy)
    if client_app is not None:
        _check_client_app(client_app)
    if grid is not None and not isinstance(grid, Grid):
        problem = f"must be a flwr.serverapp.Grid, got {kind_of(grid)}"
        raise StrategyError("grid", problem, fix=instead_of_grid(grid))


def check_scenario(scenario: object) -> None:
    """Refuse objects and folders that people pass as a scenario by mistake; other mistakes are the loader's.

    Raises:
        ScenarioError: it is a part of a scenario, or a run.
    """
    fix = instead_of_scenario(scenario)
    if fix:
        problem = f"must be a scenario, a file's path or a built-in's name, got {kind_of(scenario)}"
        raise ScenarioError("scenario", problem, fix=fix)


def check_run_path(path: object) -> None:
    """Refuse what is no path of a run's folder.

    Raises:
        RunFolderError: it is something else.
    """
    if not isinstance(path, str | PathLike):
        fix = "Pass run.path." if hasattr(path, "path") else "Pass the path that run.path has."
        raise RunFolderError("path", f"must be the path of a run's folder, got {kind_of(path)}", fix=fix)


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
            raise UserError(field, all_of, fix=instead_of_observer(observer, OBSERVER_METHODS))
        for name in OBSERVER_METHODS:
            _check_method(getattr(observer, name, None), f"{field}.{name}")
    if not callable(stop_asked):
        raise UserError("stop_asked", f"must be a function that returns True to stop, got {kind_of(stop_asked)}")


def _check_method(method: object, field: str) -> None:
    """Refuse a method of an observer that cannot be called with one argument; None means that there is none."""
    if not callable(method):
        return
    if inspect.iscoroutinefunction(method):
        raise UserError(field, "is asynchronous, and nothing would wait for it", fix="Write def, not async def.")
    try:
        inspect.signature(method).bind(None)
    except TypeError:
        name = field.rpartition(".")[2]
        fix = f"Write def {name}(self, {OBSERVER_METHODS[name]})."
        takes = ", ".join(inspect.signature(method).parameters) or "none"
        raise UserError(field, f"must take one argument, and takes {takes}", fix=fix) from None
    except ValueError:  # a built-in without a signature
        return


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


def check_record(record: object) -> None:
    """Refuse a `record` that is neither True nor False.

    Raises:
        UserError: it is something else, such as a path.
    """
    if not isinstance(record, bool):
        fix = "The folder is out=: simulate(scenario, out=path)."
        raise UserError("record", f"must be True or False, got {kind_of(record)}", fix=fix)


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


def check_made_model(model: object) -> None:
    """Refuse what a function for the model returned unless it is a module whose parameters have shapes.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(model, nn.Module):
        fix = "Return the module: def make(): return MyNet()."
        raise UserError("model", f"is a function that returned {kind_of(model)}, not a torch.nn.Module", fix=fix)
    values = [*model.named_parameters(), *model.named_buffers()]
    lazy = [name for name, value in values if is_lazy(value)]
    if lazy:
        raise UserError(
            "model",
            f"has parameters without a shape yet ({', '.join(lazy[:4])}{', ...' if len(lazy) > 4 else ''})",
            fix="Call it once on a batch of examples first, or name the sizes: Linear, not LazyLinear.",
        )


def _check_model(model: object) -> None:
    if isinstance(model, nn.Module):
        check_made_model(model)
        return
    problem = f"must be a torch.nn.Module or a function that makes one, got {kind_of(model)}"
    if not callable(model) or (isinstance(model, type) and not issubclass(model, nn.Module)):
        raise UserError("model", problem, fix=instead_of_model(model))
    needed = _needed(model)
    if needed is None:
        raise UserError("model", problem, fix=instead_of_model(model))
    if needed:
        name = getattr(model, "__name__", type(model).__name__)
        fix = f"Pass model=lambda: {name}(...), whose initial values the seed covers, or an object {name}(...)."
        raise UserError("model", f"{problem}, which needs arguments ({', '.join(needed)})", fix=fix)


def _check_strategy(strategy: object) -> None:
    problem = f"must be a Flower strategy, got {kind_of(strategy)}"
    if isinstance(strategy, nn.Module | ServerApp | ClientApp):
        raise StrategyError("strategy", problem, fix=instead_of_strategy(strategy))
    if is_old_flower(strategy):
        raise StrategyError("strategy", f"{problem} of Flower's old API", fix=instead_of_strategy(strategy))
    if isinstance(strategy, type) and issubclass(strategy, Strategy):
        needed, name = _needed(strategy), strategy.__name__
        if needed is not None and len(needed) != 1:  # a class with one argument wraps ours
            raise StrategyError("strategy", problem, fix=f"Pass {name}(...).")
    elif not isinstance(strategy, Strategy) and (not callable(strategy) or isinstance(strategy, type)):
        raise StrategyError("strategy", problem, fix=instead_of_strategy(strategy))


def _check_client_app(app: object) -> None:
    problem = f"must be a flwr.clientapp.ClientApp, got {kind_of(app)}"
    if not isinstance(app, ClientApp):
        old = " of Flower's old API" if is_old_flower(app) else ""
        raise StrategyError("client_app", problem + old, fix=instead_of_client_app(app))
    if has_client_fn(app):
        problem = "is a ClientApp with a client_fn, Flower's old API: it takes other messages than those sent here"
        raise StrategyError("client_app", problem, fix=instead_of_client_app(app))


def _needed(function: object) -> list[str] | None:
    """Return the names of the arguments that a call must give; None where they cannot be known."""
    try:
        parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in variable]
