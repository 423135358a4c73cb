"""The files of deploy/, read for tests: compose, Kubernetes manifests, units and scripts."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose"
KUBERNETES = DEPLOY / "kubernetes"
SLURM = DEPLOY / "slurm"
SYSTEMD = DEPLOY / "systemd"
PAGE = ROOT / "docs" / "deploy.md"
VERSION = str(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"])
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+(-[\w.-]+)?(@sha256:[0-9a-f]{64})?")
"""An image with an exact version."""

Yaml = dict[str, Any]


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def manifests() -> Iterator[tuple[Path, Yaml]]:
    """Yield every Kubernetes object as it is in its file; kustomizations are none."""
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        if path.name != "kustomization.yaml":
            for found in yaml.safe_load_all(path.read_text("utf-8")):
                yield path, found


def manifest(kind: str, name: str) -> Yaml:
    """Return the object of a kind and name."""
    (found,) = (m for _, m in manifests() if (m["kind"], m["metadata"].get("name")) == (kind, name))
    return found


def pods() -> Iterator[tuple[str, Yaml]]:
    """Yield name and specification of every pod of the manifests."""
    for path, found in manifests():
        if found["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield f"{path.name}: {found['kind']}", found["spec"]["template"]["spec"]


def containers() -> Iterator[tuple[str, Yaml]]:
    """Yield place and specification of every container of the manifests."""
    for place, pod in pods():
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            yield f"{place} {container['name']}", container


def texts() -> dict[str, str]:
    """Return every file that holds commands or settings, by its path from the root; the locks are not among them."""
    found = [path for path in sorted(DEPLOY.rglob("*")) if path.is_file() and path.suffix not in (".lock", ".pyc")]
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in [*found, PAGE]}


def scripts() -> list[Path]:
    """Return the shell scripts."""
    return [path for path in sorted(DEPLOY.rglob("*")) if path.suffix in (".sh", ".sbatch")]


def without_comments(text: str) -> str:
    """Return a text without comments, and with continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return re.sub(r"\\\n\s*", " ", "\n".join(lines))
