"""The example of docs/tuning.md that Ray Tune drives runs (needs the extra `ray`)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tuning.md"
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
END = """
rounds = [len(result.metrics_dataframe) for result in results]
losses = [result.metrics["loss"] for result in results]
assert len(rounds) == 4 and max(rounds) == 4, rounds
assert results.get_best_result().metrics["loss"] == min(losses)
print("best", results.get_best_result().config["local_lr"])
"""


@pytest.mark.ray
def test_ray_tune_drives_runs_as_documented(tmp_path: Path) -> None:
    pytest.importorskip("ray.tune", reason="the extra `ray` is not installed")
    text = PAGE.read_text("utf-8").partition("## Other drivers")[2]
    plain = next(re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))[1]
    driven = next(re.finditer(r"^```py\n(.*?)^```", text, re.MULTILINE | re.DOTALL))[1]
    script = f"import fedscape as fs\n{plain}\n{driven}\n{END}"
    environment = {**os.environ, **QUIET, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    assert 0.01 <= float(done.stdout.rpartition("best ")[2]) <= 0.5
