"""No module reads a pickle: neither itself nor through NumPy, torch or Flower."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("clients", "server", "simulator", "dashboards", "fedscape")
MODULES = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


OWN_BYTES = {"server/record/checked/kept_lines.py": ["marshal"]}
"""Modules that read back only bytes which the same process wrote."""


def problems_of(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [name for name in names if name.partition(".")[0] in PICKLES]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            safe = [k for k in node.keywords if k.arg == "allow_pickle" and ast.unparse(k.value) == "False"]
            is_numpy = called in ("np.load", "numpy.load")
            loads = (is_numpy and not safe) or called in ("torch.load", "torch.save", "Connection.recv")
            allows = any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords)
            found += [called] if loads or allows else []
    return found


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_module_unpickles_nothing(file: Path) -> None:
    assert problems_of(file.read_text()) == OWN_BYTES.get(str(file.relative_to(ROOT)), [])


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from pickle import loads", "np.load(f)", "np.load(f, allow_pickle=True)", "torch.load(f)"],
)
def test_pickle_is_found(source: str) -> None:
    assert problems_of(source)
