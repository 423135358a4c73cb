"""What to write instead of an object that cannot be used: one sentence for each kind that people try."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp, strategy
from flwr.serverapp.strategy import Strategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from clients.core.options import KindOptions
from clients.core.population import Population
from clients.federation.data_kinds import DATA
from clients.models.table import MODELS
from clients.sources.pooled_arrays import PooledArrays
from clients.sources.user_arrays import FROM_DATASET
from clients.training.rules import LocalRule
from server.algorithms.aggregation import Aggregation
from server.algorithms.algorithm import Algorithm
from server.algorithms.table import ALGORITHMS
from server.algorithms.transforms import ServerTransform
from simulator.scenario.sections import Scenario

POOLED = "data=fs.arrays(x, y), which [partition] deals out"
OWN = "data=fs.custom_population(lambda k: (x[k], y[k]), sizes, outputs=10) for clients of your own"
APP = (
    "from flwr.clientapp import ClientApp; app = ClientApp(); write @app.train() over a function (message, context) -> "
    "Message, and pass client_app=app (docs/from-python.md has one)."
)


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
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if inspect.isroutine(value):
        return f"the function {getattr(value, '__name__', '')}".rstrip()
    name = type(value).__name__
    article = "an" if name[:1].lower() in "aeiou" else "a"
    return f"{article} {name}" + (f" of {len(value)}" if isinstance(value, list | tuple | dict | set) else "")


def is_old_flower(value: object) -> bool:
    """Return whether an object or a class belongs to Flower's old API (`flwr.server`, `flwr.client`)."""
    classes = value.__mro__ if isinstance(value, type) else type(value).__mro__
    old = ("flwr.server.", "flwr.client.", "flwr.compat.", "flwr.simulation.")
    return any(f"{c.__module__}.".startswith(old) for c in classes)


def instead_of_data(value: object) -> str:
    """Return what to pass as `data`."""
    if isinstance(value, Dataset | DataLoader):
        return f"Take its arrays, {FROM_DATASET}, and pass {POOLED}."
    if isinstance(value, str | Path):
        kind = f"kind={value}" if str(value) in DATA else 'kind="images", "table", ...'
        return f"Files and built-in sets are named in the scenario: [data] {kind}; arrays from Python: {POOLED}."
    if hasattr(value, "columns") and hasattr(value, "to_numpy"):
        return 'Pass data=fs.arrays(table[features], table["label"]), which [partition] deals out; '\
            'keys={"user": table["user"]} and partition.kind = "natural" make each user a client.'  # fmt: skip
    if isinstance(value, np.ndarray | Tensor):
        return f"Pass its targets too: {POOLED}."
    if isinstance(value, tuple) and len(value) == 2:
        return f"Pass {POOLED}: data=fs.arrays(*data)."
    clients = list(value.values()) if isinstance(value, dict) else value
    if isinstance(clients, list | tuple) and clients and all(isinstance(c, tuple) and len(c) == 2 for c in clients):
        named = "list(data.values())" if isinstance(value, dict) else "data"
        sizes = f"[len(y) for x, y in {named}]"
        return f"Pass data=fs.custom_population({named}.__getitem__, {sizes}, outputs=10)."
    if isinstance(value, Scenario | KindOptions):
        return "A scenario is the first argument: fs.simulate(scenario)."
    if callable(value):
        return "Pass data=fs.custom_population(function, sizes, outputs=10)."
    return f"Pass {POOLED}; or {OWN}."


def instead_of_model(value: object) -> str:
    """Return what to pass as `model`."""
    if isinstance(value, str | Path):
        if str(value) in MODELS:
            return f'A built-in model is named in the scenario: sets=["model.kind={value}"].'
        return "Load it first: net = MyNet(); net.load_state_dict(torch.load(path)), and pass model=net."
    if isinstance(value, Mapping) and "kind" in value:
        return 'Options belong to the scenario: sets={"model": {...}}.'
    if isinstance(value, Mapping):
        return "A state dict has only values: net.load_state_dict(values), and pass model=net."
    if isinstance(value, KindOptions):
        return "Options belong to the scenario: dataclasses.replace(scenario, model=options)."
    if isinstance(value, list | tuple) and value and all(isinstance(layer, nn.Module) for layer in value):
        return "Pass model=torch.nn.Sequential(*layers)."
    return "Pass a torch.nn.Module, or a function that makes one: model=lambda: MyNet()."


def instead_of_algorithm(value: object) -> str:
    """Return what to pass as `algorithm`."""
    if isinstance(value, LocalRule):
        return f'Pass algorithm=fs.Algorithm("{value.name}", local={value.name}).'
    if isinstance(value, ServerTransform):
        return 'Pass algorithm=fs.Algorithm("mine", server=...).'
    if isinstance(value, Aggregation):
        return 'Pass algorithm=fs.Algorithm("mine", aggregation=...).'
    if isinstance(value, str):
        known = value if value in ALGORITHMS else "scaffold"
        return f'A built-in algorithm is named in the scenario: sets=["algorithm.kind={known}"].'
    if isinstance(value, Strategy) or is_old_flower(value) or _is(value, Strategy):
        return "A Flower strategy is passed as strategy=: from flwr.serverapp.strategy import FedAvg."
    if _is(value, torch.optim.Optimizer):
        return ('Clients take it from the scenario, sets=["local.optimizer=adam"]; the server from '
                'algorithm=fs.Algorithm("mine", server=fs.adam(0.01)).')  # fmt: skip
    if isinstance(value, KindOptions):
        return "Options belong to the scenario: dataclasses.replace(scenario, algorithm=options)."
    if inspect.isroutine(value):
        return 'Make a local rule of it with @fs.local_rule(), and pass algorithm=fs.Algorithm("mine", local=rule).'
    return 'Pass algorithm=fs.Algorithm("mine", local=..., aggregation=..., server=...).'


def instead_of_strategy(value: object) -> str:
    """Return what to pass as `strategy`."""
    if is_old_flower(value):
        cls = value if isinstance(value, type) else type(value)
        name = next((c.__name__ for c in cls.__mro__ if hasattr(strategy, c.__name__)), "FedAvg")
        return f"Use Flower's present strategies: from flwr.serverapp.strategy import {name}; strategy={name}(...)."
    if isinstance(value, Algorithm):
        return "Pass it as algorithm=."
    if isinstance(value, ServerApp):
        return "fedscape has its own server: pass the strategy that the ServerApp starts."
    if isinstance(value, str) and value in ALGORITHMS:
        return f'A built-in algorithm is named in the scenario: sets=["algorithm.kind={value}"]; a strategy is an ' \
               "object: from flwr.serverapp.strategy import FedAvg; strategy=FedAvg()."  # fmt: skip
    return "Pass an object such as FedAvg(), or a function that wraps ours: lambda ours: Wrapper(ours, ...)."


def instead_of_client_app(value: object) -> str:
    """Return what to pass as `client_app`."""
    if isinstance(value, ServerApp):
        return "fedscape has its own server: pass the strategy of it as strategy=, and the ClientApp as client_app=."
    if isinstance(value, Strategy):
        return "A strategy is passed as strategy=."
    return f"Write it as {APP}"


def instead_of_grid(value: object) -> str:
    """Return what to pass as `grid`."""
    if isinstance(value, ServerApp | ClientApp):
        return "Leave it out: clients then run in this process."
    if _is(value, Grid):
        return "Pass the object that Flower gives to the ServerApp."
    return "Leave it out, or pass the grid that Flower gives to a ServerApp's main(grid, context)."


def instead_of_scenario(value: object) -> str:
    """Return what to pass as the scenario; empty where the value may be one."""
    if isinstance(value, nn.Module):
        return "Pass it as model=: fs.simulate(scenario, model=model)."
    if isinstance(value, Population | PooledArrays):
        return "Pass it as data=: fs.simulate(scenario, data=data)."
    if isinstance(value, Algorithm):
        return "Pass it as algorithm=."
    if isinstance(value, Strategy):
        return "Pass it as strategy=."
    if isinstance(value, KindOptions):
        return 'Options are a part of a scenario, such as fs.load_scenario({"data": options}).'
    if hasattr(value, "verdict") and hasattr(value, "rounds"):
        own = "record.scenario" if hasattr(value, "scenario") else "run.session.scenario"
        return f"Run its scenario again: fs.simulate({own}); continue it: fs.resume(run.path)."
    if isinstance(value, str | Path) and Path(value).is_dir():
        path, file = Path(value), Path(value) / "scenario.toml"
        if file.is_file():
            ways = f"Read it: fs.open_run({str(path)!r}); continue it: fs.resume({str(path)!r})"
            return f"It is a run's folder. {ways}; run its scenario again: fs.simulate({str(file)!r})."
    return ""


def _is(value: object, parent: type) -> bool:
    """Return whether a value is an object or a class of `parent`."""
    return isinstance(value, parent) or (isinstance(value, type) and issubclass(value, parent))


def instead_of_observer(value: object, methods: Collection[str]) -> str:
    """Return what to pass as an observer.

    Args:
        value: an object without any of an observer's methods.
        methods: their names.

    Example:
        >>> class Losses:
        ...     def on_round_finish(self, line): ...
        >>> instead_of_observer(Losses(), ["round_finished", "event"])
        "Rename 'on_round_finish' to 'round_finished'."
    """
    if inspect.isroutine(value):
        name = getattr(value, "__name__", "function")
        return f"Pass an object whose method calls it: class Mine: round_finished = staticmethod({name})."
    own = [name for name in dir(value) if not name.startswith("_") and callable(getattr(value, name, None))]
    for name in own:
        near = get_close_matches(name.removeprefix("on_"), methods, n=1, cutoff=0.75)
        if near:
            return f"Rename {name!r} to {near[0]!r}."
    return "Write a class with one of them, such as def round_finished(self, line), and pass an object of it."
