"""What Flower bundles of the repository: no code, so the installed fedscape runs, whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOWERS_LIMIT = 10 * 1024 * 1024


def test_bundle_holds_the_app_and_no_code(tmp_path: Path) -> None:
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("pyproject.toml is not installed beside the package")
    app = tmp_path / "fedscape"  # Flower allows few characters in the folder's name
    shutil.copytree(ROOT / "simulator" / "federate", app / "simulator" / "federate")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, app)
    env = {**os.environ, "FLWR_HOME": str(tmp_path), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    command = [str(Path(sys.executable).parent / "flwr"), "build", "--app", str(app)]
    subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True, timeout=120)
    (bundle,) = tmp_path.glob("*.fab")
    assert bundle.stat().st_size < FLOWERS_LIMIT
    with zipfile.ZipFile(bundle) as files:
        held = {name for name in files.namelist() if not name.startswith(".info")}
    assert held == {"pyproject.toml", "README.md", "LICENSE"}
