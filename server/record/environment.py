"""The environment of a run: enough to explain why two runs differ, and nothing that identifies the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from clients.core.shown.secrets import child_environment

PACKAGES = ("fedscape", "torch", "flwr", "numpy", "scipy", "scikit-learn", "pyarrow", "safetensors")


def _version(package: str) -> str | None:
    """Return the version of an installed package, with its build (such as torch's CPU or CUDA); None where absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed_version() -> str:
    """Return fedscape's version, or "unknown" where it runs from a folder and is not installed."""
    return _version("fedscape") or "unknown"


def _processor() -> str:
    """Return the processor's model name; Linux has it only in /proc/cpuinfo."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    models = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _git(checkout: Path, *arguments: str) -> str | None:
    """Return the output of git in `checkout`; None where git fails."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
            stdin=subprocess.DEVNULL,
            env=child_environment(),
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def commit_of(checkout: Path) -> dict[str, Any] | None:
    """Return the commit of the source, and whether files differ from it.

    Args:
        checkout: the folder above the packages.

    Returns:
        `commit` (hexadecimal) and `modified`; None where `checkout` is not the root of a git checkout, or git is not
        installed.
    """
    if not (checkout / ".git").exists():  # an installed package may lie inside another checkout
        return None
    commit = _git(checkout, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "modified": bool(_git(checkout, "status", "--porcelain", "--untracked-files=no"))}


def environment() -> dict[str, Any]:
    """Return the facts on which the bits and the speed of a run depend.

    Returns:
        Versions of packages and of Python, platform, processor, usable cores, torch's threads, names of GPUs, and the
        commit where the source is a checkout. It has no path, and no name of a machine or a person.
    """
    import torch

    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return {
        "versions": {package: _version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "source": commit_of(Path(__file__).resolve().parents[2]),
    }
