"""Builds the dashboards' JSON: `python -m dashboards.grafana.build`, or `make dashboards`.

This module and its imports need grafana-foundation-sdk, a development tool; all other code reads the committed JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.grafana.city import city
from dashboards.grafana.client_drift import client_drift
from dashboards.grafana.compare_runs import compare_runs
from dashboards.grafana.convergence import convergence
from dashboards.grafana.data import data
from dashboards.grafana.federation_health import federation_health

DASHBOARDS: Mapping[str, Callable[[], board.Dashboard]] = {
    "convergence": convergence,
    "client_drift": client_drift,
    "compare_runs": compare_runs,
    "data": data,
    "federation_health": federation_health,
    "city": city,
}

NOT_SHOWN: Mapping[str, str] = {}
"""Metric -> why no panel shows it."""

FOLDER = Path(__file__).parents[1] / "json"


def built(name: str) -> dict[str, Any]:
    """Return one dashboard's JSON; its `id` is null, because the server numbers dashboards."""
    model: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True).encode(DASHBOARDS[name]().build()))
    for shown in (*model["links"], *model["annotations"].get("list", ())):
        del shown["placement"]  # the SDK's default hides links and switches in a menu
    return {"id": None, **model}


def text_of(model: Mapping[str, Any]) -> str:
    """Return the text of a dashboard's file."""
    return json.dumps(model, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    """Write every dashboard, and remove the files of dashboards that no longer exist."""
    FOLDER.mkdir(exist_ok=True)
    for stale in set(FOLDER.glob("*.json")) - {FOLDER / f"{name}.json" for name in DASHBOARDS}:
        stale.unlink()
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(text_of(built(name)), "utf-8")


if __name__ == "__main__":
    main()
