"""docs/deploy.md: each command is run by a test, or its block says that it was not run here."""

from __future__ import annotations

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from deploy_files import COMPOSE, DEPLOY, KUBERNETES, PAGE, ROOT, read_yaml
from needs import KUBECTL

from simulator.cli.main import main

TEXT = PAGE.read_text("utf-8")
BLOCKS = [
    re.sub(r"^ {4}", "", found, flags=re.MULTILINE).strip().splitlines()
    for found in re.findall(r"^ *```\n(.*?)^ *```$", TEXT, re.MULTILINE | re.DOTALL)
]
RUN = "fedscape run quadratic-two-clients --set run.rounds=3"
CERTS = "fedscape certs deploy/{}/certs --nodes 3 --host superlink --host gateway"
OTHERS = {
    RUN,
    CERTS.format("compose"),
    CERTS.format("kubernetes"),
    "fedscape federate quadratic-two-clients --nodes 2",  # the tests marked `federation`
    "cd deploy/kubernetes/certs",
}
HERE = [line for block in BLOCKS if block[0] != "# not run here" for line in block if line not in OTHERS]


def test_commands_are_run_here_or_elsewhere_or_marked() -> None:
    assert len(BLOCKS) > 10
    assert len(HERE) == 7
    assert all(command in TEXT for command in OTHERS)
    assert all(line.startswith(("kubectl kustomize ", "kubectl create ")) for line in HERE)
    assert all("--dry-run=client" in line for line in HERE if line.startswith("kubectl create"))
    assert sum(block[0] == "# not run here" for block in BLOCKS) >= 7


def test_first_step_runs(tmp_path: Path) -> None:
    assert main([*RUN.split()[1:], "--out", str(tmp_path / "run")]) == 0


@pytest.mark.skipif(find_spec("simulator.federate") is None, reason="fedscape certs is not there")
def test_certificates_have_the_names_of_the_files(tmp_path: Path) -> None:
    words = CERTS.format("compose").split()[1:]
    assert main(["certs", str(tmp_path / "certs"), *words[2:]]) == 0
    made = {path.name for path in (tmp_path / "certs").iterdir()}
    assert read_yaml(COMPOSE / "compose.yaml")["secrets"].keys() - {"grafana-password"} == made


@KUBECTL.mark
@pytest.mark.parametrize("line", HERE)
def test_command_of_the_page_runs(line: str, tmp_path: Path) -> None:
    for name in ("ca.crt", "superlink.crt", "superlink.key"):
        (tmp_path / name).write_text("x")
    for name in ("node-{}.key", "node-{}.pub", "node-{}-tls.crt", "node-{}-tls.key"):
        for node in range(3):
            (tmp_path / name.format(node)).write_text("x")
    place = ROOT if line.startswith("kubectl kustomize") else tmp_path
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", line], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "kind: " in done.stdout
    if "supernode-keys" in line:
        made = set(re.findall(r"^  (\S+): ", done.stdout, re.MULTILINE))
        assert made >= {"ca.crt"} | {f"node-{k}{s}" for k in range(3) for s in (".key", "-tls.crt", "-tls.key")}


def test_files_that_the_page_names_exist() -> None:
    for path in re.findall(r"\b(deploy/[\w./-]+)", TEXT):
        assert path.startswith(("deploy/compose/certs", "deploy/kubernetes/certs")) or (ROOT / path).exists(), path
    for path in re.findall(r"^\| `([\w./-]+)` \|", TEXT.split("## 6.")[1].split("## 7.")[0], re.MULTILINE):
        assert (KUBERNETES / path).exists(), path


def test_certificates_are_ignored_by_git() -> None:
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    assert {"/deploy/compose/certs/", "/deploy/kubernetes/certs/"} <= set(ignored)
    assert not [path for path in DEPLOY.rglob("*") if path.suffix in (".crt", ".key", ".pub")]


def test_table_of_ports_has_every_port_of_the_files() -> None:
    table = set(re.findall(r"^\| (\d{4}) \|", TEXT.split("## Ports")[1], re.MULTILINE))
    assert table == {"9092", "8000", "9464", "9094", "8082"}
    services = (KUBERNETES / "base" / "superlink.yaml").read_text("utf-8")
    services += (KUBERNETES / "base" / "supernode.yaml").read_text("utf-8")
    assert set(re.findall(r"containerPort: (\d+)", services)) <= table
