"""Made probes, as probes.json has them, with known numbers: one that predicts, and one whose assumptions fail."""

from __future__ import annotations

from typing import Any

from server.record.checked.json_files import write_json
from server.record.records import RunFolder

FAILURE = "Negative curvature was seen (-0.25): the <b>objective</b> is not convex here."
REMARK = "Clients count as having one Hessian."


def estimate(value: float, error: float = 0.0) -> dict[str, Any]:
    return {"value": value, "error": error, "how": "made up"}


def made_probe(round_index: int, *, predicts: bool = True, scale: float = 1.0) -> dict[str, Any]:
    """Return a probe: parts 4, 3, 2, 1 and a residual of -2 times `scale` in squared norms of the ideal, which is 2."""
    causes = {"local_steps": 8.0, "heterogeneity": 6.0, "gradient_noise": 4.0, "client_sampling": 2.0}
    drift = {
        "causes": {name: value * scale for name, value in causes.items()},
        "residual": -4.0 * scale, "total": 16.0 * scale, "ideal_square": 2.0,
        "errors": {**dict.fromkeys(causes, 0.0), "residual": 0.1, "total": 0.2},
        "observed": 18.0 * scale, "observed_error": 2.0, "clients": 20, "cohorts_drawn": 0,
    }  # fmt: skip
    theory = {
        "local_lr": 0.05, "limit": 0.2, "steepest_limit": 0.1, "contraction": None, "floor": None,
        "failures": [FAILURE], "remarks": [],
    }  # fmt: skip
    if predicts:
        theory |= {"contraction": 0.9, "floor": {"low": 0.01, "high": 0.04}, "factors": {"low": 0.5, "high": 0.95},
                   "gap": {"low": 1.0, "high": 4.0}, "failures": [], "remarks": [REMARK]}  # fmt: skip
    return {
        "version": 1, "round_index": round_index, "source": "a checkpoint", "reasons": [], "measure": "objective",
        "before": 1.5, "own": 1.4, "trials": [], "drift_by_cause": drift,
        "curvature": {"largest": estimate(10.0, 0.5), "smallest": estimate(1.0), "steepest_client": 20.0,
                      "values": [1.0, 10.0], "residuals": [0.0, 0.0], "products": 2, "is_whole": True,
                      "rounding": 1e-9, "examples": 1.0},
        "gradients": {"noise": estimate(0.5), "averaged_noise": 0.1, "sampled": 0.2,
                      "between": {"between": estimate(1.0), "ratio": estimate(2.0), "gradient_square": 1.0}},
        "theory": theory, "not_measured": {}, "seconds": {"total": 1.0},
    }  # fmt: skip


def write_probes(folder: RunFolder, *probes: dict[str, Any]) -> None:
    """Write probes.json."""
    write_json(folder.probes, {"probes": list(probes)}, indent=True)
