"""Answers for names of other tools lead to keys, sections, kinds and options that exist."""

from __future__ import annotations

import re

import click
import pytest
import typer

from simulator.cli.main import app
from simulator.scenario.answers import KEYS, SECTIONS, VALUES, answer
from simulator.scenario.keys import keys_of
from simulator.scenario.kinds import hints_of, table_in
from simulator.scenario.sections import Scenario, load_scenario
from simulator.scenario.values import words

NAMES = {key.name: key for key in keys_of(Scenario)}
ANSWERS = sorted({*KEYS.values(), *(text for texts in VALUES.values() for text in texts.values())})


@pytest.mark.parametrize("text", ANSWERS)
def test_answer_names_keys_and_options_that_exist(text: str) -> None:
    assert set(re.findall(r"--set ([\w.]+)=", text)) <= NAMES.keys()
    assert set(re.findall(r"\[(\w+)\]", text)) <= hints_of(Scenario).keys()
    command = typer.main.get_command(app)
    assert isinstance(command, click.Group)
    options = {name for option in command.commands["run"].params for name in option.opts}
    assert set(re.findall(r"--[\w-]+", text)) <= {*options, "--set"}


@pytest.mark.parametrize("key", VALUES)
def test_answer_about_a_value_belongs_to_a_key_that_does_not_have_it(key: str) -> None:
    section = key.partition(".")[0]
    table = table_in(hints_of(Scenario)[section])
    allowed = set(table) if table is not None else set(re.findall(r"'(\w+)'", words(NAMES[key].hint)))
    assert allowed
    assert not allowed & VALUES[key].keys()


def test_answers_about_sections_are_sections() -> None:
    assert set(SECTIONS.values()) <= hints_of(Scenario).keys()


def test_name_of_a_present_key_is_that_key_and_not_an_answer() -> None:
    """FedDyn has an alpha, which other tools call the skew of a Dirichlet partition."""
    scenario = load_scenario("digits-label-skew", sets=["algorithm.kind=feddyn", "alpha=0.5"])
    assert getattr(scenario.algorithm, "alpha") == 0.5  # noqa: B009  # the class of options is that of feddyn
    assert "concentration" in answer("--dirichlet-alpha")
