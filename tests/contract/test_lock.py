"""requirements.lock has a hash for every package that `make` installs, at the versions of constraints.txt."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
APART = ("torch", "cuda-", "nvidia-", "triton")
"""Torch's builds and what its CUDA builds need have other hashes on other platforms."""
FOR_THE_BUILD = {"hatchling", "editables", "tomlkit", "trove-classifiers"}


def pins(text: str) -> dict[str, str]:
    """Return the version of each package, by its normalised name."""
    found = re.findall(r"^([\w.\-]+)==([^\s;\\]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def test_every_locked_package_has_a_hash() -> None:
    blocks = re.split(r"^(?=\w)", LOCK, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pins(LOCK)) > 100
    assert not [block.splitlines()[0] for block in blocks if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", block)]


def test_locked_versions_are_those_of_the_constraints() -> None:
    locked, constrained = pins(LOCK), pins((ROOT / "constraints.txt").read_text())
    of_both = locked.keys() & constrained.keys()
    assert {name: locked[name] for name in of_both} == {name: constrained[name] for name in of_both}
    assert locked.keys() - constrained.keys() <= FOR_THE_BUILD | {"setuptools"}


def test_torch_is_installed_apart() -> None:
    assert not [name for name in pins(LOCK) if name.startswith(APART)]
    assert '"torch==2.13.*"' in (ROOT / "Makefile").read_text()


def test_dependencies_of_the_project_are_locked() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    required = re.search(r"^dependencies = \[(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    assert required is not None
    names = {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r'^  "([\w\-]+)', required[1], re.MULTILINE)}
    assert names - {"torch"} <= pins(LOCK).keys()
