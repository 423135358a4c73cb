"""Light commands and the import of the library do not import heavy libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fedscape

HEAVY = ("torch", "flwr", "sklearn", "polars", "pyarrow", "scipy", "matplotlib", "h5py", "prometheus_client")


def heavy_after(code: str) -> list[str]:
    """Return the heavy libraries that are imported after some code has run in a new interpreter."""
    script = f"import sys\n{code}\nprint()\nprint(' '.join(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()[-1].split()


@pytest.mark.parametrize("arguments", [["--help"], ["scenarios"], ["show"], ["show", "city-traffic-roadworks"]])
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


def test_every_public_name_exists_and_is_listed() -> None:
    assert list(fedscape.__all__) == sorted(fedscape._HOME)
    assert set(fedscape.__all__) <= set(dir(fedscape))
    for name in fedscape.__all__:
        value = getattr(fedscape, name)
        assert value.__module__ == fedscape._HOME[name]
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        fedscape.simulat  # noqa: B018
