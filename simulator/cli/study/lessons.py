"""The commands of lessons: lessons, lesson."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clients.core.shown.text import printable
from simulator.cli.exit_codes import EXIT_FAILED

if TYPE_CHECKING:
    from simulator.lessons.play import PlayedLesson

WIDTH = 100


def lesson_names(incomplete: str) -> list[str]:
    """Return the lessons whose names begin as typed.

    Example:
        >>> lesson_names("noise")
        ['noise-floor']
    """
    from simulator.lessons.table import LESSONS

    return [name for name in LESSONS if name.startswith(incomplete)]


def lessons() -> None:
    """List the lessons: small runs that show one phenomenon each.

    Example:
    $ fedscape lessons
    """
    from simulator.lessons.table import LESSONS

    width, group = max(map(len, LESSONS)), ""
    for name, row in LESSONS.items():
        if row.group != group:
            print(f"{'' if not group else chr(10)}{row.group}")
            group = row.group
        print(f"  {name:<{width}}  {row.title}")


def lesson(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="The lesson, as fedscape lessons lists it.",
            show_default=False,
            autocompletion=lesson_names,
        ),
    ],
    sets: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change one key of every arm, or of one: ARM:KEY=VALUE. Repeatable."
        ),
    ] = [],  # noqa: B006 - typer copies it
    suggested: Annotated[
        bool,
        typer.Option("--try", help="Play it with the change that its text suggests, and check what it says of it."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The lesson's folder, new or empty.", show_default="lessons/NAME"),
    ] = None,
) -> None:
    """Play a lesson: run its arms, check what it claims, write its page.

    It takes seconds. The text has the runs' own numbers. With --set, claims
    that the change ends are named.

    Examples:
    $ fedscape lesson learning-rate
    $ fedscape lesson learning-rate --set "too high:local.local_lr=0.19"
    $ fedscape lesson learning-rate --try
    """
    from simulator.lessons.play import FAILED, lesson_named, play_lesson

    changes = [*(lesson_named(name).trial if suggested else ()), *sets]
    played = play_lesson(name, out=out, sets=changes)
    _print(played)
    if any(claim.state == FAILED for claim in played.claims):
        raise typer.Exit(EXIT_FAILED)


def _print(played: PlayedLesson) -> None:
    row = played.lesson
    print(f"\n{row.title}\n{row.question}")
    for heading, text in played.texts.items():
        print(f"\n{heading}")
        print(textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False))
    print("\nClaims")
    for claim in played.claims:
        print(f"  {'+' if claim.holds else '-'} {claim.words} {'' if claim.holds else f'({claim.state})'}".rstrip())
    print(f"\n  {'page':<6} {printable(str(played.page))}")
