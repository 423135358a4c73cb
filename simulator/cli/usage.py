"""A mistake on the command line as one line: what is wrong, the nearest valid name, and the command for help."""

from __future__ import annotations

from difflib import get_close_matches

import click
from click.exceptions import BadOptionUsage, BadParameter, MissingParameter, NoSuchCommand, NoSuchOption, UsageError

from clients.core.errors import unknown_name
from simulator.cli.builtin_files import set_keys
from simulator.scenario.answers import answer

COMMANDS = {
    **dict.fromkeys(("train", "simulate", "start", "execute", "fit"), "Use fedscape run."),
    **dict.fromkeys(("init", "new", "create"), "Use fedscape show NAME > my.toml, then fedscape run my.toml."),
    **dict.fromkeys(("list", "ls"), "Use fedscape scenarios; runs are shown by fedscape watch."),
    **dict.fromkeys(("plot", "compare", "results", "summary"), "Use fedscape report RUN..."),
    **dict.fromkeys(("sweep", "grid", "seeds", "experiment"), "Use fedscape study."),
    **dict.fromkeys(("serve", "ui", "dashboard", "server"), "Use fedscape watch."),
    **dict.fromkeys(("continue", "restart"), "Use fedscape resume RUN."),
    **dict.fromkeys(("config", "print"), "Use fedscape show."),
    "version": "Use fedscape --version.",
    "help": "Use fedscape --help.",
}
"""What to use instead of a command of another tool."""


def usage_line(error: UsageError) -> str:
    """Return the line for a mistake found by click.

    Example:
        >>> usage_line(BadParameter("'x' is not a valid integer.", param=click.Option(["--seed"])))
        "--seed: 'x' is not a valid integer. See fedscape --help"
    """
    path = error.ctx.command_path if error.ctx is not None else "fedscape"
    problem = _problem(error, path).rstrip(".")
    return f"{problem}{'' if problem.endswith('?') else '.'} See {path} --help"


def _problem(error: UsageError, path: str) -> str:
    if isinstance(error, NoSuchOption):
        return f"{error.option_name}: is not an option of {path}.{_instead(error)}"
    if isinstance(error, NoSuchCommand):
        group = error.ctx.command if error.ctx is not None else None
        commands = list(group.commands) if isinstance(group, click.Group) else []
        if path == "fedscape" and error.command_name in COMMANDS:
            return f"{error.command_name!r} is not a command of {path}. {COMMANDS[error.command_name]}"
        return unknown_name(error.command_name, commands, f"a command of {path}")
    if isinstance(error, MissingParameter):
        return f"{_name(error)}: is missing{_choices(error)}"
    if isinstance(error, BadParameter):
        return f"{_name(error)}: {error.message}"
    if isinstance(error, BadOptionUsage):
        problem = error.message.partition(f"'{error.option_name}' ")[2]
        return f"{error.option_name}: {problem.replace('requires an argument', 'needs a value')}"
    message = error.format_message()
    return message + _change_meant(error) if message.startswith("Got unexpected extra argument") else message


def _change_meant(error: UsageError) -> str:
    """Return the `--set` that was probably meant by a word too many, such as `rounds=5`."""
    words = error.message.partition("(")[2].rstrip(")").split(" ")
    word = next((word for word in words if word != "="), "").removeprefix("=")
    if error.ctx is None or "--set" not in _options(error.ctx):
        return ""
    without = [change for change in error.ctx.params.get("sets") or () if "=" not in change]
    change = f"{without[-1]}={word}" if without else word if "=" in word else ""
    return f". Did you mean --set {change}?" if change else ""


def _instead(error: NoSuchOption) -> str:
    """Return suggestions: the option with the nearest name, and a key of the scenario with that name."""
    options = _options(error.ctx)
    if "--set" in options and (instead := answer(error.option_name)):
        return f" {instead}"
    ending = f".{error.option_name.lstrip('-').replace('-', '_')}="
    keys = [key for key in set_keys("") if key.endswith(ending)] if "--set" in options else []
    near = get_close_matches(error.option_name, options, n=1, cutoff=0.8 if keys else 0.6)
    return "".join(
        [*(f" Nearest: {n}." for n in near), *(f" A key of the scenario: --set {k}VALUE." for k in keys[:1])]
    )


def _options(context: click.Context | None) -> list[str]:
    if context is None:
        return []
    options = (p for p in context.command.get_params(context) if isinstance(p, click.Option) and not p.hidden)
    return [name for option in options for name in option.opts if name.startswith("--")]


def _name(error: BadParameter) -> str:
    """Return the parameter as written on the command line."""
    if error.param is None:
        return "the command line"
    if isinstance(error.param, click.Option):
        return max(error.param.opts, key=len)
    return (error.param.metavar or error.param.name or "").strip("[].")


def _choices(error: BadParameter) -> str:
    kind = error.param.type if error.param is not None else None
    return f"; one of {', '.join(map(str, kind.choices))}" if isinstance(kind, click.Choice) else ""
