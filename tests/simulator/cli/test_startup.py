"""What a command imports before it does anything: nothing that it may not need."""

from __future__ import annotations

import subprocess
import sys


def test_reading_scenarios_imports_no_heavy_library() -> None:
    heavy = ("scipy", "sklearn", "matplotlib", "pyarrow", "flwr", "h5py", "prometheus_client")
    code = (
        "import sys; from simulator.cli.main import main; main(['show']);"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
