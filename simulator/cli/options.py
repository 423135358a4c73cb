"""Options that several commands share: each group is a frozen dataclass, declared once and passed as one value."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from simulator.cli.builtin_files import scenario_names, set_keys

if TYPE_CHECKING:
    from simulator.scenario.sections import Scenario

DEFAULT_SCENARIO = "digits-label-skew"
"""The default scenario of `load_scenario`; repeated here because help must not import it."""


@dataclass(frozen=True)
class ScenarioOptions:
    """The scenario and its changes."""

    scenario: Annotated[
        str | None,
        typer.Argument(
            metavar="[SCENARIO]",
            help="A scenario file, or the name of a built-in scenario; blank has only defaults.",
            show_default=DEFAULT_SCENARIO,
            autocompletion=scenario_names,
        ),
    ] = None
    sets: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one key of the scenario, such as run.rounds=5; an empty value removes it. Repeatable.",
            autocompletion=set_keys,
        ),
    ] = field(default_factory=list)
    seed: Annotated[int | None, typer.Option(metavar="N", help="Replace the scenario's run.seed.")] = None

    def load(self) -> Scenario:
        """Return the scenario with its changes.

        Raises:
            ScenarioError: there is no such scenario, or it is not valid.
        """
        from simulator.scenario.sections import load_scenario

        return load_scenario(self.scenario, sets=self.sets, seed=self.seed)


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the fields of a command's dataclasses into typer's parameters, and call the command with the dataclasses.

    Args:
        command: a function. A parameter whose annotation is a dataclass is replaced by the fields of the dataclass,
            which have typer's annotations and defaults.

    Returns:
        A function whose signature has the fields in place of the dataclasses, keyword-only.
    """
    hints = get_type_hints(command, include_extras=True)
    hints.pop("return", None)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, given in inspect.signature(command).parameters.items():
        fields = _parameters(groups[name]) if name in groups else [given.replace(annotation=hints[name])]
        parameters += [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in fields]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{f.name: values.pop(f.name) for f in dataclasses.fields(group)})
        command(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameters(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=_default(f), annotation=hints[f.name])
        for f in dataclasses.fields(group)
    ]


def _default(f: dataclasses.Field[Any]) -> Any:
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
