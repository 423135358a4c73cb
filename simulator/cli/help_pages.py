"""typer's commands with three corrections: the help of arguments, the colours, and the command of an error."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from click import Argument, Context, HelpFormatter, Parameter, UsageError
from typer.core import TyperCommand, TyperGroup


class HelpCommand(TyperCommand):
    """A command with a help page.

    Typer 0.20, the newest that Flower allows, sets an argument's help too early: click 8.5 then sets it to None. This
    class sets it again from the annotation.
    """

    def __init__(
        self, name: str | None, *, callback: Callable[..., Any], params: list[Parameter], **settings: Any
    ) -> None:
        super().__init__(name, callback=callback, params=params, **settings)
        parameters = inspect.signature(callback).parameters
        for param in params:
            if isinstance(param, Argument) and param.name is not None:
                (info,) = parameters[param.name].annotation.__metadata__
                param.help = info.help

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Parse the command line. An error for a missing value gets its command, which click leaves out."""
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Print the help page."""
        _choose_colors()
        super().format_help(ctx, formatter)


class HelpGroup(TyperGroup):
    """A group of commands with a help page."""

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Print the help page."""
        _choose_colors()
        super().format_help(ctx, formatter)


def _choose_colors() -> None:
    """Draw help without escape sequences if output is not a terminal or NO_COLOR is set.

    By default, rich keeps bold and dim under NO_COLOR, and typer takes every output of GitHub's runners for a terminal.
    """
    from typer import rich_utils  # imports rich and its Markdown, 50 ms that only a help page needs

    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    rich_utils.COLOR_SYSTEM = "auto" if wanted else None
