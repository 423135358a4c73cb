"""Light commands and the import of the library do not import heavy libraries."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

import fedscape

LIGHT = {"click", "numpy", "rich", "tomli_w", "typer"}
"""The dependencies that light commands may import."""
HEAVY = (
    "cramjam", "crc32c", "flwr", "google.protobuf", "grafana_api", "httpcore", "httpx", "matplotlib", "optuna",
    "polars", "prometheus_client", "pyarrow", "requests", "safetensors", "scipy", "sklearn", "starlette", "statsmodels",
    "tensorboardX", "torch", "urllib3", "uvicorn", "xxhash",
    "cryptography", "grpc", "h5py", "multiprocessing.pool", "pandas", "ray", "sympy",
)  # fmt: skip
"""The other dependencies, and what they or the extras would import."""
NOT_BEFORE_A_ROUND = (
    "httpcore", "matplotlib", "optuna", "pandas", "polars", "prometheus_client", "scipy", "sklearn", "starlette",
    "statsmodels", "sympy", "tensorboardX", "torch._dynamo", "torch._inductor", "uvicorn",
)  # fmt: skip
"""What a run without tables and exporters does not need for its first rounds."""


def run_python(code: str) -> str:
    """Run code in a new interpreter and return the last line that it printed."""
    command = [sys.executable, "-c", f"import sys\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.splitlines()[-1]


def heavy_after(code: str) -> list[str]:
    """Return the heavy libraries that are imported after some code has run in a new interpreter."""
    return run_python(f"{code}\nprint()\nprint(' '.join(m for m in {HEAVY} if m in sys.modules))").split()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["scenarios"], ["show"], ["show", "city-traffic-roadworks"], ["lessons"]]
)
def test_light_command_imports_no_heavy_library(arguments: list[str]) -> None:
    run = f"sys.argv = ['fedscape', *{arguments!r}]\nfrom simulator.cli.entry import main\n"
    assert heavy_after(f"{run}try:\n    main()\nexcept SystemExit as end:\n    assert not end.code") == []


def test_import_of_fedscape_imports_no_heavy_library() -> None:
    assert heavy_after("import fedscape") == []


def test_reading_a_scenario_in_python_imports_no_heavy_library() -> None:
    code = "import fedscape\nfedscape.to_toml(fedscape.load_scenario('digits-label-skew'))\nfedscape.UserError"
    assert heavy_after(code) == []


def test_import_of_fedscape_disables_the_telemetry_of_flower() -> None:
    code = "import os\nos.environ.pop('FLWR_TELEMETRY_ENABLED', None)\nimport fedscape\n"
    assert heavy_after(f"{code}assert os.environ['FLWR_TELEMETRY_ENABLED'] == '0'") == []


def test_first_round_of_the_default_scenario_imports_only_what_it_needs(tmp_path: Path) -> None:
    """torch's compiler alone takes a second; torch.optim and draws on the device `meta` import it."""
    seen = (
        "class Seen:\n    def round_finished(self, line):\n        if line['round'] == 1:\n"
        f"            print(' '.join(m for m in {NOT_BEFORE_A_ROUND} if m in sys.modules), 'round 1')\n"
        "            raise SystemExit\n"
    )
    code = f"{seen}import fedscape\ntry:\n    fedscape.simulate('digits-label-skew', out={str(tmp_path / 'run')!r}, "
    done = run_python(f"{code}observers=[Seen()])\nexcept SystemExit:\n    pass")
    assert done == " round 1"


def test_every_dependency_is_called_light_or_heavy() -> None:
    normal = {re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[; ]", r)[0]).lower() for r in requires("fedscape") or ()
              if "extra ==" not in r}  # fmt: skip
    homes = {m: {re.sub(r"[-_.]+", "-", d).lower() for d in found} for m, found in packages_distributions().items()}
    known = LIGHT | {m.partition(".")[0] for m in HEAVY}
    unknown = {name for name in normal if not any(name in homes.get(module, ()) for module in known)}
    assert unknown == set()


def test_every_public_name_exists_and_is_listed() -> None:
    assert list(fedscape.__all__) == sorted(fedscape._HOME)
    assert set(fedscape.__all__) <= set(dir(fedscape))
    for name in fedscape.__all__:
        value = getattr(fedscape, name)
        assert value.__module__ == fedscape._HOME[name]
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        fedscape.simulat  # noqa: B018
