"""Help: every command has an example, pages fit 80 columns, and output without a terminal is plain."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
import typer

from simulator.cli.main import COMMANDS, app, main
from simulator.cli.options import DEFAULT_SCENARIO
from simulator.scenario.sections import DEFAULT

ROOT = Path(__file__).parents[3]


def commands() -> dict[str, click.Command]:
    """Return every command by the words after `fedscape`."""

    def walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
        yield path, command
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                yield from walk(inner, f"{path} {name}".strip())

    return dict(walk(typer.main.get_command(app), ""))


def help_of(path: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([*path.split(), "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("path", commands())
def test_help_page_has_an_example_that_parses(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"^ +\$ fedscape (.+?) *$", help_of(path, capsys), re.MULTILINE)
    assert examples
    for example in examples:
        words = shlex.split(example.partition(" > ")[0])
        if words[0] != "COMMAND":
            name = " ".join(words[: 2 if words[0] == "dashboards" else 1])
            commands()[name].make_context(name, words[len(name.split()) :])


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("path", commands())
def test_help_page_fits_the_width(
    path: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    page = help_of(path, capsys)
    assert max(map(len, page.splitlines())) <= columns
    assert "…" not in page
    assert "\x1b" not in page


@pytest.mark.parametrize("path", commands())
def test_help_page_describes_every_parameter(path: str) -> None:
    for parameter in commands()[path].params:
        assert getattr(parameter, "help", ""), parameter.name


def test_help_groups_commands_in_panels(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = help_of("", capsys)
    panels = re.findall(r"^╭─ (.+?) ─+╮$", page, re.MULTILINE)
    assert panels == ["Options", "Run", "Look", "Explain", "Learn", "Compare", "Export and observe"]
    assert list(COMMANDS) == panels[1:]
    for name in commands():
        assert len(name.split()) != 1 or f"│ {name} " in page


def test_help_names_the_default_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert DEFAULT_SCENARIO == DEFAULT
    assert f"[default: ({DEFAULT})]" in help_of("run", capsys)


@pytest.mark.parametrize("path", ["", "dashboards"])
def test_group_without_a_command_prints_its_help(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(path.split()) == 0
    alone = capsys.readouterr()
    assert alone.err == ""
    assert alone.out.strip() == help_of(path, capsys).strip()


def test_version_equals_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fedscape {version('fedscape')}\n"


def documented() -> Iterator[tuple[str, str, list[str]]]:
    """Yield every command in the documentation: the page, the command, its options."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for words in re.findall(r"\bfedscape ((?:[a-z]+\b ?)[^`\n#|]*)", page.read_text("utf-8")):
            name, *rest = words.split()
            command = f"{name} {rest[0]}" if name == "dashboards" and rest else name
            if command in commands():
                yield page.name, command, re.findall(r"(?<!\S)\[?(--[a-z-]+)", words)


def test_every_option_in_the_documentation_exists() -> None:
    found = list(documented())
    assert len(found) > 15
    for page, command, options in found:
        known = {name for parameter in commands()[command].params for name in parameter.opts}
        assert set(options) <= known | {"--help"}, f"{page}: fedscape {command}"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo-terminals")
@pytest.mark.parametrize("no_color", ["", "1"])
def test_help_on_a_terminal_is_plain_only_with_no_color(no_color: str) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "NO_COLOR": no_color}
    command = [sys.executable, "-m", "simulator.cli", "--help"]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment, cwd=ROOT) as process:
        os.close(theirs)
        text = b""
        while chunk := read(ours):
            text += chunk
    os.close(ours)
    assert process.returncode == 0
    assert b"resume" in text
    assert (b"\x1b" in text) == (not no_color)


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux raises this when the other end is closed
        return b""
