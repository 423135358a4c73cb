"""The Flower ServerApp of fedscape."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

OUTCOME = "fedscape"
"""The record of `context.state` that says what the run came to."""


def make_server_app(play: Callable[[Grid, Context], dict[str, str]]) -> ServerApp:
    """Return the ServerApp.

    Args:
        play: (grid, context) -> plays the whole run on the grid, whichever it is, and returns what it came to in a
            few words; they are left in `context.state["fedscape"]`.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        context.state[OUTCOME] = ConfigRecord(dict(play(grid, context)))

    return app
