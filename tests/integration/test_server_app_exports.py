"""A ServerApp exports where the environment says so: nothing in Flower hands it options."""

from __future__ import annotations

from pathlib import Path

import pytest
from receivers import receiving
from strange_grid import StrangeGrid, context

from simulator.apps import apps
from simulator.runs.record import open_run


def test_server_app_sends_its_rounds_to_the_receiver_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = apps("quadratic-two-clients", out=tmp_path / "run", observers=[])
    with receiving() as receiver:
        monkeypatch.setenv("FEDSCAPE_REMOTE_WRITE", receiver.url)
        server(StrangeGrid(client, [1, 0]), context())
        sent = receiver.values("fedscape_loss", split="validation")
    assert list(sent.values()) == open_run(tmp_path / "run").rounds["validation_loss"].tolist()
