"""A wrong value of any key of any section and kind is refused in our own words, which name the key."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.core.errors import UserError
from simulator.scenario.keys import keys_of
from simulator.scenario.kinds import classes_of, hints_of, is_named, table_in
from simulator.scenario.sections import Scenario, load_scenario, parse_scenario, to_toml
from simulator.scenario.values import words

LIBRARY_WORDS = (
    "pydantic",
    "Input should",
    "valid ",
    ", type=",
    "union_tag",
    "dataclass",
    "NoneType",
    "Traceback",
    " 0x",
)
NEEDED: Mapping[str, Any] = {
    "clients": 3,
    "concentration": 1.0,
    "similarity": 0.5,
    "path": "here",
    "features": ["x"],
    "label": "y",
    "rates": [0.5],
    "metric": "validation_loss",
    "below": 0.1,
}
"""Values of keys without a default."""
WRONG: tuple[Any, ...] = (
    "text", "", "12", 0, -1, 3, 2.5, 1e300, math.nan, math.inf, -math.inf, 10**25, -(10**400), True, None, [], [1],
    ["a"], [[1, 2], [3]], [True, "a", 1.5], {}, {"a": 1}, {"kind": "fedavg"}, {"kind": []}, "a" * 5000, [[[[[[1]]]]]],
)  # fmt: skip


def needed(cls: type, kind: str = "") -> dict[str, Any]:
    """Return a table with the keys that a class requires."""
    table = {"kind": kind} if kind else {}
    for field in dataclasses.fields(cls):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            table[field.name] = NEEDED[field.name]
    return table


def sections() -> Iterator[tuple[str, type, dict[str, Any]]]:
    """Yield each section with the class of each of its kinds and a table of that kind."""
    for name, hint in hints_of(Scenario).items():
        kinds = table_in(hint)
        for cls, kind in (
            [(row.options, row.kind) for row in kinds.values()] if kinds else [(c, "") for c in classes_of(hint)]
        ):
            table = needed(cls, kind)
            yield name, cls, {name: {"mine": table}} if is_named(hint) else {name: table}


CASES = [pytest.param(*case, id=f"{case[0]}-{next(iter(case[2][case[0]].values()), '')}") for case in sections()]


def places(table: dict[str, Any], section: str, cls: type) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Yield the tables, keys and paths where a value can be wrong, those of inner tables too."""
    named = is_named(hints_of(Scenario)[section])
    start, prefix = (table[section]["mine"], f"{section}.mine") if named else (table[section], section)
    for key, hint in hints_of(cls).items():
        yield start, key, f"{prefix}.{key}"
        for inner in classes_of(hint):
            for inner_key in hints_of(inner):
                start[key] = needed(inner)
                yield start[key], inner_key, f"{prefix}.{key}.{inner_key}"
                del start[key]


def refusal(call: Callable[[], object]) -> UserError | None:
    """Call what may refuse a scenario; return the refusal, which is short and in our own words."""
    try:
        call()
    except UserError as error:
        message = str(error)
        assert not [word for word in LIBRARY_WORDS if word in message], message  # the call may also succeed
        assert len(message) < 1500, message
        return error
    return None


def check(table: Mapping[str, Any], path: str) -> None:
    """Parse a table: it is refused with the name of the key's section, or can be written and read again."""
    error = refusal(lambda: parse_scenario(table, source="here"))
    if error is not None:
        assert error.field.startswith(path.split(".")[0]), str(error)
        return
    text = to_toml(parse_scenario(table, source="here"))
    assert to_toml(parse_scenario(tomllib.loads(text), source="here")) == text


@pytest.mark.parametrize(("section", "cls", "table"), CASES)
def test_every_key_takes_or_refuses_wrong_values(section: str, cls: type, table: dict[str, Any]) -> None:
    for inner, key, path in places(table, section, cls):
        before = inner.get(key)
        had = key in inner
        for value in WRONG:
            inner[key] = value
            check(table, path)
        if had:
            inner[key] = before
        else:
            del inner[key]


@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("section", hints_of(Scenario))
def test_every_section_takes_or_refuses_a_value(section: str, value: Any) -> None:
    check({section: value}, section)


HUGE = (
    10**9, 10**20, -(10**20), 2**63, 2**64, 10**400, -(10**5000), 1e300, -1e300, 1e-300, math.inf, -math.inf, math.nan,
    -0.0,
)  # fmt: skip
NO_LIMIT = ("bytes_per_second_down", "bytes_per_second_up")
"""Keys of which inf is a value: a link that takes no time."""


@pytest.mark.parametrize(("section", "cls", "table"), CASES)
def test_huge_number_of_every_key_is_refused_with_its_limit(section: str, cls: type, table: dict[str, Any]) -> None:
    for inner, key, path in places(table, section, cls):
        before = dict(inner)
        for value in HUGE:
            inner[key] = value
            error = refusal(lambda: parse_scenario(table, source="here"))
            if isinstance(value, float) and math.isinf(value) and key in NO_LIMIT:
                continue
            if (isinstance(value, float) and not math.isfinite(value)) or abs(value) > 2**1000:
                assert error is not None, f"{path} = {value!r:.9} is accepted"
            if value in (1e300, -1e300):
                assert error is not None, f"{path} = {value} is accepted"
        inner.clear()
        inner.update(before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("engine.threads=1000000000", "engine.threads: must be at most 1,024, got 1,000,000,000: each is a thread"),
        ("local.local_epochs=100000000000000000000", "local.local_epochs: must be at most 1,000,000, got 100,000,000"),
        ("batch_size=100000000000000000000", "local.batch_size: must be at most 1,000,000,000,000,000,000, got"),
        ("model.hidden=[100000000000000000000]", "model.hidden: must be at most 1,000,000, got 100,000,000"),
        ("partition.clients=100000000000000000000", "partition.clients: must be at most 1,000,000, got 100,000"),
        ("local.local_lr=1e300", "local.local_lr: must be at most 1e+18, got 1e+300: float32"),
        ("local.l2=1e-300", "local.l2: must be 0, or at least 1e-18 in size, got 1e-300: float32"),
        ("seconds_per_local_step=inf", "fleet.seconds_per_local_step: must be at most 1e+06, got inf: twelve days"),
        ("bytes_per_second_up=-inf", "fleet.bytes_per_second_up: must be at least 0.001, got -inf: simulated time"),
    ],
)
def test_huge_number_is_refused_with_field_value_limit_and_reason(change: str, words: str) -> None:
    error = refusal(lambda: load_scenario("digits-label-skew", sets=[change]))
    assert error is not None
    assert str(error).startswith(words)
    key, _, value = change.partition("=")
    from_python = refusal(lambda: load_scenario("digits-label-skew", sets={key: tomllib.loads(f"v = {value}")["v"]}))
    assert str(from_python) == str(error)


ENDLESS: Mapping[str, str] = {
    "run.checkpoint_seconds": "no checkpoint by the clock",
    "fleet.bytes_per_second_down": "a link without delay",
    "fleet.bytes_per_second_up": "a link without delay",
}
"""Keys that may be infinite, and what that means."""


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan], ids=str)
@pytest.mark.parametrize(("section", "cls", "table"), CASES)
def test_number_that_is_not_finite_is_refused(section: str, cls: type, table: dict[str, Any], value: float) -> None:
    taken = []
    for inner, key, path in places(table, section, cls):
        if path in ENDLESS and value == math.inf:
            continue
        before = dict(inner)
        inner[key] = value
        if refusal(lambda: parse_scenario(table, source="here")) is None:
            taken.append(path)
        inner.clear()
        inner.update(before)
    assert not taken


KEYS = sorted({path for section, cls, table in sections() for _, _, path in places(table, section, cls)})
TYPED = (
    st.text(max_size=12) | st.text("[]{}(),='\"1a. ", max_size=16) | st.sampled_from(["1e400", "[" * 400, "9" * 5000])
)


@given(key=st.sampled_from(KEYS), text=TYPED)
def test_set_of_any_text_is_taken_or_refused(key: str, text: str) -> None:
    refusal(lambda: load_scenario("digits-label-skew", sets=[f"{key}={text}"]))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.sampled_from(KEYS), inner),
    max_leaves=6,
)


@given(table=st.dictionaries(st.sampled_from(list(hints_of(Scenario))) | st.text(max_size=6), VALUES, max_size=4))
def test_any_table_from_python_is_taken_or_refused(table: dict[str, Any]) -> None:
    refusal(lambda: load_scenario(table))


def test_every_type_of_a_key_has_words() -> None:
    """The reader knows every type that an option has: a new one must be added to `simulator.scenario.values`."""
    for key in keys_of(Scenario):
        if not classes_of(key.hint):
            assert "<" not in words(key.hint), key.name
            assert "typing" not in words(key.hint), key.name
