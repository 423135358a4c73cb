"""The Flower ServerApp of fedscape."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

OUTCOME = "fedscape"
"""The record of `context.state` that holds the outcome of the run."""


def make_server_app(play: Callable[[Grid, Context], dict[str, str]]) -> ServerApp:
    """Return the ServerApp.

    Args:
        play: (grid, context) -> outcome. It plays the whole run on any grid and returns the outcome in a few words,
            which are stored in `context.state["fedscape"]`.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        context.state[OUTCOME] = ConfigRecord(dict(play(grid, context)))

    return app
