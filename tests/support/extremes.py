"""The largest and the smallest accepted value of each number of a scenario, and a process that plays one round."""

from __future__ import annotations

import math
import os
import resource
import signal
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any

import fedscape as fs
from clients.core.errors import UserError
from clients.core.numbers.bounds import REAL, WHOLE, Within
from simulator.scenario.sections import load_scenario

MEMORY = 3 * 2**30
"""Bytes of address space that a process may take."""
QUICK: Mapping[int, tuple[float, ...]] = {1: (10**9, 10**6, 10**4, 1), -1: (0, 1, 1e-18)}
"""Values that are often the limit, tried before bisection: upwards and downwards."""
Table = dict[str, Any]
Keys = tuple[str, ...]


def with_value(table: Mapping[str, Any], path: Keys, value: Any) -> Table:
    """Return a scenario with another value of a key."""
    inner = with_value(table.get(path[0], {}), path[1:], value) if len(path) > 1 else value
    return {**table, path[0]: inner}


def is_accepted(table: Mapping[str, Any]) -> bool:
    try:
        load_scenario(table)
    except UserError:
        return False
    return True


def ranges_of(hint: Any, own: Within | None = None, *, listed: bool = False) -> Iterator[tuple[type, Within, bool]]:
    """Yield each type of number in a hint, its range, and whether the numbers are in a list."""
    if hint is int or hint is float:
        yield hint, own or (WHOLE if hint is int else REAL), listed
    elif typing.get_origin(hint) is Annotated:
        inner, *notes = typing.get_args(hint)
        yield from ranges_of(inner, next((note for note in notes if isinstance(note, Within)), own), listed=listed)
    else:
        for inner in typing.get_args(hint):
            yield from ranges_of(inner, own, listed=listed or typing.get_origin(hint) is tuple)


def extremes(table: Mapping[str, Any], path: Keys, hint: Any, now: Any) -> list[Any]:
    """Return the largest and the smallest value of a key that the scenario's reader accepts, and the least size.

    A list has the length of the present one.
    """
    found: list[Any] = []
    for number, within, listed in ranges_of(hint):
        several = listed and isinstance(now, tuple | list) and bool(now)
        made = partial(_repeated, len(now) if several else 1 if listed else None)
        fits = partial(_fits, table, path, made)
        start = now[0] if several else now
        tried: list[Any] = [start] if type(start) is number else []
        tried += [1, 2] if number is int else [1.0, 2.0, 0.5, 0.1]
        good = next(filter(fits, tried), None)
        if good is None:
            continue
        for end, sign in ((within.high, 1), (within.low, -1)):
            found.append(made(_last(good, number(end), sign, fits)))
        if number is float and within.smallest and fits(within.smallest):
            found.append(made(within.smallest))
    return [value for i, value in enumerate(found) if value not in found[:i] and value != now]


def _repeated(length: int | None, value: float) -> Any:
    """Return a list of a value; without a length the value."""
    return value if length is None else [value] * length


def _fits(table: Mapping[str, Any], path: Keys, made: Callable[[float], Any], value: float) -> bool:
    return is_accepted(with_value(table, path, made(value)))


def _last(good: float, end: float, sign: int, fits: Callable[[float], bool]) -> float:
    """Return the accepted value nearest to `end`, from an accepted one on."""
    if fits(end):
        return end
    number, bad = type(good), end
    for value in map(number, QUICK[sign]):
        if (value - good) * sign > 0 and (bad - value) * sign > 0:
            if fits(value):
                good = value
                break
            bad = value
    for _ in range(64):
        middle = (good + bad) // 2 if number is int else 0.5 * (good + bad)
        if number is float and min(good, bad) > 0 and max(good, bad) > 100 * min(good, bad):
            middle = math.sqrt(good * bad)
        if middle in (good, bad) or (number is float and abs(bad - good) <= 1e-12 * max(abs(bad), abs(good))):
            break
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


class _Tells:
    """Writes into a pipe that a run has begun, and whether its cost was announced."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def run_started(self, facts: Mapping[str, Any]) -> None:
        announced = any("one round is about" in notice for notice in facts.get("notices", ()))
        os.write(self._pipe, b"announced " if announced else b"started ")

    def round_finished(self, line: Mapping[str, Any]) -> None:
        if line["round"] == 1:
            os.write(self._pipe, b"played ")


def play(table: Mapping[str, Any], *, seconds: int = 20) -> str:
    """Play one round in a process with little memory and time; return what happened, in words.

    The words end in "ok", in a user's error or in an unexpected one; the last is missing of a process that was killed.
    They begin with the progress: started or announced, played.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _limit(seconds)
        try:
            fs.simulate(load_scenario(table), record=False, observers=[_Tells(writing)], stop_asked=lambda: True)
            words = "ok"
        except UserError as error:
            words = f"refused: {error}"
        except BaseException:
            words = f"crashed: {traceback.format_exc()}"
        os.write(writing, words.encode()[:60_000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = pipe.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return found if not code else f"{found}killed by signal {-code}"


def _limit(seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
