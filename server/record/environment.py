"""Where and with what a run was made: enough to say why two runs differ, and nothing about whose machine it is."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("fedscape", "torch", "flwr", "numpy", "scipy", "scikit-learn", "pyarrow", "safetensors")


def _version(package: str) -> str | None:
    """Return an installed package's version, build included (torch's says CPU or CUDA); None where it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """Return the processor's model for people: Linux knows it only in a text."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    models = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _git(checkout: Path, *arguments: str) -> str | None:
    """Return what git says about `checkout`, None where it cannot say."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
            stdin=subprocess.DEVNULL,
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
        there to ask.
    """
    if not (checkout / ".git").exists():  # an installed package inside someone's checkout is not that checkout
        return None
    commit = _git(checkout, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "modified": bool(_git(checkout, "status", "--porcelain", "--untracked-files=no"))}


def environment() -> dict[str, Any]:
    """Return the facts on which a run's bits and speed depend.

    Returns:
        Versions by package, Python's, platform, processor, cores usable, torch's threads, the GPUs' names, and the
        commit where the source is a checkout. No path, no name of a machine or a person.
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
