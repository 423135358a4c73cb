"""deploy/systemd: hardened units whose keys come as credentials; systemd itself reads them where it is installed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from deploy_files import PAGE, SYSTEMD
from needs import SYSTEMD as ANALYZE

UNITS = sorted(path.name for path in SYSTEMD.glob("*.service"))
HARDENED = {
    "DynamicUser": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "RestrictNamespaces": "yes",
    "SystemCallFilter": "@system-service",
    "UMask": "0077",
}


def settings(name: str) -> dict[str, list[str]]:
    """Return the values of each key of a unit."""
    text = re.sub(r"\\\n\s*", " ", (SYSTEMD / name).read_text("utf-8"))
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("name", UNITS)
def test_unit_is_hardened_and_bounded(name: str) -> None:
    found = settings(name)
    assert {key: found[key][-1] for key in HARDENED} == HARDENED
    assert found.keys() >= {"MemoryMax", "TasksMax", "Restart"}
    assert "User" not in found


@pytest.mark.parametrize("name", UNITS)
def test_every_file_of_the_command_is_a_credential_that_the_page_installs(name: str) -> None:
    found = settings(name)
    loaded = dict(value.split(":") for value in found["LoadCredential"])
    used = set(re.findall(r"%d/([\w.-]+)", " ".join(found["ExecStart"])))
    if "gateway" in name:  # its configuration names the certificates beside it
        used |= {"ca.crt", "superlink.crt", "superlink.key"}
    assert used == loaded.keys()
    page = PAGE.read_text("utf-8")
    for credential, path in loaded.items():
        assert path == f"/etc/fedscape/{credential}"
        assert re.search(rf"install -m 0600 .*\b{re.escape(credential)}\b.* /etc/fedscape", page)


def test_superlink_listens_on_the_loopback_alone() -> None:
    (command,) = settings("fedscape-superlink.service")["ExecStart"]
    assert "--host=127.0.0.1 --port=8000" in command


def test_supernode_reads_the_variables_of_its_example() -> None:
    found = settings("fedscape-supernode.service")
    used = set(re.findall(r"\$\{(\w+)\}", " ".join(found["ExecStart"])))
    example = (SYSTEMD / "supernode.env").read_text("utf-8")
    assert used == set(re.findall(r"^(\w+)=", example, re.MULTILINE))


@ANALYZE.mark
@pytest.mark.parametrize("name", UNITS)
def test_systemd_reads_the_unit_and_rates_it(name: str, tmp_path: Path) -> None:
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", (SYSTEMD / name).read_text("utf-8"), flags=re.MULTILINE)
    for other in UNITS:  # units name each other
        (tmp_path / other).write_text("[Service]\nExecStart=/bin/true\n")
    (tmp_path / name).write_text(text)
    known = {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    done = subprocess.run(["systemd-analyze", "verify", tmp_path / name], capture_output=True, text=True, env=known)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "fedscape" in line]
    rated = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(tmp_path / name)]
    done = subprocess.run(rated, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
