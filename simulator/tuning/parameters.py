"""What is tuned: keys of a scenario, each with a range or a list of choices.

A parameter is written `KEY=LOW:HIGH`, `KEY=log:LOW:HIGH`, with a step `KEY=LOW:HIGH:STEP`, or `KEY=A,B,C`. From Python
and in a file it may also be a list, or a table `{ from = 0.001, to = 1, scale = "log" }`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clients.core.errors import ScenarioError, UserError, require
from simulator.scenario.keys import hint_of, resolve
from simulator.scenario.kinds import hints_of
from simulator.scenario.plain import plain
from simulator.scenario.sections import Scenario, load_scenario
from simulator.scenario.shell import split
from simulator.scenario.values import fits, shown

FORMS = "Such as local.local_lr=log:0.001:1, local.local_epochs=1:8 or algorithm.kind=fedavg,fedprox."
MOST_COMBINATIONS = 256
"""Combinations of choices among which one is sought that has a parameter's key."""
Value = str | int | float


@dataclass(frozen=True)
class Parameter:
    """A key and the values that it may take.

    Attributes:
        key: the whole key, such as `local.local_lr`.
        low: the least number; None for choices.
        high: the largest number; None for choices.
        is_log: whether numbers are drawn evenly on a logarithmic scale.
        is_whole: whether numbers are whole.
        step: the distance between numbers; None for any number (or any whole number).
        choices: the values to choose from, as texts after `--set`; empty for a range.
    """

    key: str
    low: float | None = None
    high: float | None = None
    is_log: bool = False
    is_whole: bool = False
    step: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def path(self) -> tuple[str, ...]:
        """The key's sections and its name."""
        return tuple(self.key.split("."))

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values that are checked before anything runs: both ends of a range, or every choice."""
        return self.choices or tuple(self.number(end) for end in (self.low, self.high) if end is not None)

    @property
    def keeps_shape(self) -> bool:
        """Whether its values decide no shape and no kind of step: numbers above 0 that are not whole."""
        return self.low is not None and self.low > 0 and not self.is_whole

    def number(self, value: float) -> int | float:
        """Return a number of the range, whole where the key's are."""
        return round(value) if self.is_whole else float(value)

    def has(self, value: Any) -> bool:
        """Return whether a value is in the range, or among the choices."""
        if self.choices:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, int | float) or self.low is None or self.high is None:
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return self.low <= value <= self.high and math.isclose(steps, round(steps), abs_tol=1e-9)

    def within(self, value: float) -> float:
        """Return where a number lies in the range, from 0 (low) to 1 (high), on the parameter's scale."""
        assert self.low is not None
        assert self.high is not None
        scale = math.log if self.is_log else float
        return (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))

    def __str__(self) -> str:
        """Return the parameter as it is written after `--param`."""
        if self.choices:
            return f"{self.key}={','.join(self.choices)}"
        step = "" if self.step is None else f":{self.step:g}"
        return f"{self.key}={'log:' if self.is_log else ''}{self.low:g}:{self.high:g}{step}"


def parameters_of(given: object, scenario: Scenario) -> tuple[Parameter, ...]:
    """Return the parameters in an argument, checked against a scenario.

    Args:
        given: texts such as "local.local_lr=log:0.001:1", or a mapping of keys to ranges and lists.
        scenario: the scenario that is tuned.

    Raises:
        UserError: a parameter does not have one of the forms, or there is none.
        ScenarioError: the scenario has no such key, or does not take one of its values.

    Example:
        >>> parameters_of(["local_lr=log:0.001:1"], load_scenario("digits-iid"))[0].key
        'local.local_lr'
    """
    pairs: list[tuple[str, Any]]
    if isinstance(given, Mapping):
        pairs = [(str(key), value) for key, value in given.items()]
    else:
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise UserError("params", f"must be a list of texts or a table of ranges, got {shown(given)}", fix=FORMS)
        pairs = [_pair(text) for text in given]
    require(bool(pairs), "params", "names nothing to tune", fix=FORMS)
    found: list[Parameter] = []
    for key, value in pairs:
        table = table_of(scenario)
        path = resolve(tuple(key.split(".")), Scenario, table)
        made = _parameter(".".join(path), value)
        require(all(made.key != other.key for other in found), made.key, "is a parameter twice", fix="Name it once.")
        found.append(_checked(made, found, scenario))
    return tuple(found)


def applies(parameter: Parameter, scenario: Scenario) -> bool:
    """Return whether a scenario has the parameter's key: one of another kind, such as FedProx's mu, may be absent."""
    return hint_of(parameter.path, Scenario, table_of(scenario)) is not None


def own_values(parameters: Sequence[Parameter], scenario: Scenario) -> dict[str, Value]:
    """Return the scenario's own values of the parameters; empty where one of them is outside its range."""
    found: dict[str, Value] = {}
    for parameter in parameters:
        if not applies(parameter, scenario):
            continue
        value: Any = scenario
        for step in parameter.path:
            value = value.get(step) if isinstance(value, Mapping) else getattr(value, step, None)
        if parameter.choices:
            value = next((text for text in parameter.choices if _reads_as(parameter, text, scenario, value)), None)
        if not parameter.has(value):
            return {}
        found[parameter.key] = value
    return found


def _reads_as(parameter: Parameter, text: str, scenario: Scenario, value: Any) -> bool:
    """Return whether a choice gives the scenario the value that it has."""
    made: Any = load_scenario(scenario, sets=[f"{parameter.key}={text}"])
    for step in parameter.path:
        made = made.get(step) if isinstance(made, Mapping) else getattr(made, step, None)
    return bool(made == value)


def table_of(scenario: Scenario) -> dict[str, Any]:
    """Return a scenario's sections as plain tables."""
    table: dict[str, Any] = plain({key: getattr(scenario, key) for key in hints_of(Scenario)})
    return table


def _pair(text: object) -> tuple[str, str]:
    key, equals, value = text.partition("=") if isinstance(text, str) else ("", "", "")
    if not (equals and key.strip() and value.strip()):
        raise UserError("params", f"must be KEY=RANGE or KEY=CHOICES, got {shown(text)}", fix=FORMS)
    return key.strip().removeprefix("--"), value.strip()


def _parameter(key: str, value: Any) -> Parameter:
    """Return a parameter, not yet checked against a scenario."""
    value = plain(value, key)
    if isinstance(value, Mapping):
        return _of_table(key, value)
    if isinstance(value, list):
        return _of_choices(key, [item if isinstance(item, str) else _written(item) for item in value])
    if not isinstance(value, str):
        raise UserError(key, f"must be a range or a list of choices, got {shown(value)}", fix=FORMS)
    parts = value.split(":")
    is_log = parts[0].strip().lower() == "log"
    numbers = [_number(part) for part in parts[is_log:]]
    if len(parts) == 1 or (None in numbers and not is_log):
        return _of_choices(key, split(value))
    if None in numbers or len(numbers) not in (2, 3):
        problem = f"must be LOW:HIGH, log:LOW:HIGH or LOW:HIGH:STEP, got {shown(value)}"
        raise UserError(key, problem, fix=FORMS)
    whole = all(_is_whole(part) for part in parts[is_log:])
    low, high, step = (*numbers, None)[:3]
    assert low is not None
    assert high is not None
    return _of_range(key, low, high, is_log=is_log, step=step, is_whole=whole)


def _of_table(key: str, table: Mapping[str, Any]) -> Parameter:
    allowed = {"from", "to", "scale", "step"}
    unknown = [name for name in table if name not in allowed]
    fix = f'Such as "{key}" = {{ from = 0.001, to = 1, scale = "log" }}.'
    require(not unknown, key, f"has the unknown key {unknown[:1]}; allowed: from, to, scale, step", fix=fix)
    scale = table.get("scale", "linear")
    require(scale in ("linear", "log"), f"{key}.scale", f"must be linear or log, got {shown(scale)}", fix=fix)
    for name in ("from", "to", *(["step"] if "step" in table else [])):
        value = table.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        require(is_number, f"{key}.{name}", f"must be a number, got {shown(value)}", fix=fix)
    low, high, step = table["from"], table["to"], table.get("step")
    whole = all(isinstance(value, int) for value in (low, high, step) if value is not None)
    return _of_range(key, low, high, is_log=scale == "log", step=step, is_whole=whole)


def _of_range(key: str, low: float, high: float, *, is_log: bool, step: float | None, is_whole: bool) -> Parameter:
    fix = f"Such as {key}={'log:' if is_log else ''}0.001:1."
    finite = math.isfinite(low) and math.isfinite(high)
    require(finite and low < high, key, f"must have a low end below its high end, got {low:g}:{high:g}", fix=fix)
    require(not is_log or low > 0, key, f"must have a low end above 0 on a logarithmic scale, got {low:g}", fix=fix)
    require(step is None or not is_log, key, "has a step on a logarithmic scale", fix="Leave one of them out.")
    good = step is None or 0 < step <= high - low
    require(good, key, f"must have a step above 0 and at most the range, got {step}", fix=f"Such as {key}=0:1:0.25.")
    return Parameter(key, low, high, is_log=is_log, is_whole=is_whole, step=step)


def _of_choices(key: str, texts: Sequence[str]) -> Parameter:
    choices = tuple(dict.fromkeys(text.strip() for text in texts))
    fix = f"Such as {key}=A,B; a range is {key}=LOW:HIGH."
    require(len(choices) > 1, key, f"must have two choices or more, got {shown(list(choices))}", fix=fix)
    return Parameter(key, choices=choices)


def _checked(made: Parameter, before: Sequence[Parameter], scenario: Scenario) -> Parameter:
    """Return the parameter with whole numbers where its key takes no others; check both ends in a fitting scenario."""
    base = _having(made, before, scenario)
    if not made.choices:
        takes_any = fits(0.5, hint_of(made.path, Scenario, table_of(base)), 0)
        given_whole = made.is_whole
        whole = not takes_any and fits(1, hint_of(made.path, Scenario, table_of(base)), 0)
        require(not whole or given_whole, made.key, f"takes whole numbers alone, got {str(made).partition('=')[2]}",
                fix=f"Such as {made.key}=1:8.")  # fmt: skip
        made = Parameter(made.key, made.low, made.high, made.is_log, whole, made.step)
    for value in made.ends:
        load_scenario(base, sets=[f"{made.key}={value}"])
    return made


def _having(made: Parameter, before: Sequence[Parameter], scenario: Scenario) -> Scenario:
    """Return the scenario under the first combination of earlier choices that has the key."""
    choices = [[f"{other.key}={text}" for text in other.choices] for other in before if other.choices]
    if not applies(made, scenario):
        for combination in itertools.islice(itertools.product(*choices), MOST_COMBINATIONS):
            try:
                changed = load_scenario(scenario, sets=combination)
            except ScenarioError:
                continue
            if applies(made, changed):
                return changed
    return scenario


def _number(text: str) -> float | None:
    try:
        return int(text) if _is_whole(text) else float(text)
    except ValueError:
        return None


def _is_whole(text: str) -> bool:
    return text.strip().lstrip("+-").isdecimal()


def _written(value: Any) -> str:
    """Return a value from Python or TOML as it is written after `--set`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}={_written(item)}' for key, item in value.items())}}}"
    return str(value)
