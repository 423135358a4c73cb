"""Write requirements.lock, what `make` installs, and deploy/image.lock, what deploy/Dockerfile installs.

Each has the hashes of every file of each release on PyPI. They are resolved with the versions of constraints.txt for
all platforms, so only new pins move; the image's is without the extra `dev`. Torch and the packages of its CUDA builds
are left out: torch's builds differ by platform and index, and so do their hashes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = "3.11.5"
"""The lowest Python that all pins support."""
BUILD = "hatchling\neditables\n"
"""What building the editable package takes: installed by hash too, so that nothing is fetched for the build."""
OF_TORCH = ("cuda-", "nvidia-", "triton")
HEADER = f"""\
# Made by `make lock` from constraints.txt: what is installed, by hash, for Python {PYTHON} and later on all platforms.
# Torch and its CUDA packages are installed apart: their builds differ by platform.
"""


def resolved(*extras: str) -> str:
    """Return the pins with hashes, as `uv pip compile` prints them."""
    uv = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "-", *extras]
    options = ["--constraint", "constraints.txt", "--generate-hashes", "--universal", "--python-version", PYTHON]
    quiet = ["--no-header", "--no-annotate", "--quiet", "--no-emit-package", "torch"]
    found = subprocess.run([*uv, *options, *quiet], input=BUILD, cwd=ROOT, check=True, capture_output=True, text=True)
    return found.stdout


def without_torch(text: str) -> str:
    """Return the pins without those of torch's CUDA builds; a pin is a line and the indented ones after it."""
    kept, keeps = [], True
    for line in text.splitlines(keepends=True):
        if not line.startswith(" "):
            keeps = not line.startswith(OF_TORCH)
        if keeps:
            kept.append(line)
    return "".join(kept)


if __name__ == "__main__":
    (ROOT / "requirements.lock").write_text(HEADER + without_torch(resolved("--extra", "dev")))
    (ROOT / "deploy/image.lock").write_text(HEADER + without_torch(resolved()))
