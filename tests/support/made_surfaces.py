"""A made error surface, as surface.json has it: a bowl with known numbers, a path, two clients' ends and a line."""

from __future__ import annotations

from typing import Any

FOREIGN = "Site <b>7</b>"


def made_surface(size: int = 9) -> dict[str, Any]:
    """Return the surface 0.1 + x^2 + 4 y^2 over [-2, 2] x [-1, 1], with one place that is not finite."""
    x = [4 * k / (size - 1) - 2 for k in range(size)]
    y = [2 * k / (size - 1) - 1 for k in range(size)]
    loss: list[list[float | None]] = [[0.1 + a * a + 4 * b * b for a in x] for b in y]
    loss[-1][-1] = None
    return {
        "layout": 1, "plane": "path", "of": "objective", "round": 3, "x": x, "y": y, "loss": loss,
        "server": {
            "names": [f"round {r}" for r in range(4)], "numbers": [0, 1, 2, 3], "x": [-1.5, -1.0, -0.5, 0.0],
            "y": [0.5, 0.5, 0.25, 0.0], "away": [0.0, 0.2, 0.1, 0.0], "loss": [3.35, 2.1, 0.6, 0.1],
        },
        "share": 0.9876,
        "ends": {
            "names": [FOREIGN, "1"], "numbers": [0, 1], "x": [0.5, -0.75], "y": [0.1, -0.75], "away": [0.3, 0.4],
            "loss": [0.4, None],
        },
        "start": [-0.5, 0.25], "states": None,
        "line": {"ends": ["round 0", "the best model"], "t": [0.0, 0.5, 1.0], "loss": [3.0, 4.5, 1.0], "barrier": 2.5,
                 "distance": 1.6},
        "curvature": [{"round": 0, "values": [9.0, 2.0], "errors": [1e-6, 1e-6], "smallest": -0.5},
                      {"round": 3, "values": [8.0, 2.0], "errors": [1e-6, 1e-6], "smallest": 0.1}],
        "examples": [1000, 50_000], "program": "up to 81 models at once", "seconds": 1.5,
        "notes": ["The loss is over 1,000 examples, drawn from 50,000; all models are measured on these."],
    }  # fmt: skip
