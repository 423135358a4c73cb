"""SecAgg+ of the installed Flower belongs to its old API, as docs/trust.md states; this fails when that changes."""

from __future__ import annotations

import flwr.clientapp.mod
import flwr.serverapp.strategy
import pytest
from flwr.app import Context, RecordDict
from flwr.server.workflow import SecAggPlusWorkflow
from run_folders import digits
from strange_grid import StrangeGrid

from simulator.apps import apps


def test_workflow_of_secagg_refuses_the_context_of_a_server_app() -> None:
    grid = StrangeGrid(apps(digits(), observers=[])[1], [0])
    with pytest.raises(TypeError, match="Expect a LegacyContext"):
        SecAggPlusWorkflow(num_shares=3, reconstruction_threshold=2)(grid, Context(1, 1, {}, RecordDict(), {}))


@pytest.mark.parametrize("module", [flwr.serverapp.strategy, flwr.clientapp.mod])
def test_message_api_has_no_secure_aggregation(module: object) -> None:
    assert not [name for name in dir(module) if "secagg" in name.lower()]
