"""Flags of Flower in deploy/ are those of the installed programs, TLS and keys are always on, and ports agree."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from deploy_files import COMPOSE, DEPLOY, KUBERNETES, SLURM, SYSTEMD, read_yaml, texts, without_comments
from needs import program

LINKS = {
    "compose": COMPOSE / "compose.yaml",
    "kubernetes": KUBERNETES / "base" / "superlink.yaml",
    "slurm": SLURM / "superlink.sbatch",
    "systemd": SYSTEMD / "fedscape-superlink.service",
}
NODES = {
    "compose": COMPOSE / "compose.yaml",
    "kubernetes": KUBERNETES / "base" / "supernode.sh",
    "slurm": SLURM / "supernode.sbatch",
    "systemd": SYSTEMD / "fedscape-supernode.service",
}
COMMANDS = """
import json, typer
from flwr.cli.app import app
def walk(command, name):
    yield name, [flag for option in command.params for flag in option.opts]
    for word, below in getattr(command, "commands", {}).items():
        yield from walk(below, f"{name} {word}".strip())
print(json.dumps(dict(walk(typer.main.get_command(app), ""))))
"""
"""Prints the flags of every command of `flwr`: four times --help would import it four times."""
TLS = {"--ssl-ca-certfile", "--ssl-certfile", "--ssl-keyfile"}


def quiet() -> dict[str, str]:
    """Return the environment in which Flower asks nobody for news, and prints without colours."""
    off = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    return {**os.environ, **off, "COLUMNS": "200", "NO_COLOR": "1"}


@cache
def flags_of(name: str) -> frozenset[str]:
    """Return the flags in a program's help."""
    found = program(name)
    assert found
    done = subprocess.run([found, "--help"], capture_output=True, text=True, env=quiet())
    assert done.returncode == 0, done.stderr
    return frozenset(re.findall(r"--[a-z][\w-]+", done.stdout))


def flags(path: Path, name: str) -> set[str]:
    """Return the flags that a file gives to a program: those from its name to the end of the command."""
    text = without_comments(path.read_text("utf-8"))
    if path.suffix == ".yaml":  # the items of a list, each a word
        text = re.sub(r"\n\s*- ", " ", text)
    found = [line[at.end() :] for line in text.splitlines() for at in re.finditer(rf"\b{name}\b", line)]
    return {flag for rest in found for flag in re.findall(r"(?<!\S)(--[a-z][\w-]+)", rest)}


@pytest.mark.parametrize("place", LINKS)
def test_superlink_has_tls_and_authentication_on(place: str) -> None:
    given = flags(LINKS[place], "flower-superlink")
    assert given <= flags_of("flower-superlink")
    wanted = {"--enable-supernode-auth", "--disable-runtime-dependency-installation", "--database", "--port", "--host"}
    assert given >= TLS | wanted


@pytest.mark.parametrize("place", NODES)
def test_supernode_has_tls_and_a_key(place: str) -> None:
    given = flags(NODES[place], "flower-supernode")
    assert given <= flags_of("flower-supernode")
    assert given >= TLS | {"--superlink", "--root-certificates", "--auth-supernode-private-key"}
    assert "--node-config" in given or '"--node-config"' in NODES[place].read_text("utf-8")


def test_submit_uses_commands_and_flags_of_flwr() -> None:
    source = (DEPLOY / "submit.py").read_text("utf-8")
    tree = json.loads(subprocess.check_output([sys.executable, "-W", "ignore", "-c", COMMANDS], env=quiet()))
    used = {
        "supernode register": {"--format"}, "run": {"--run-config", "--format"}, "log": {"--stream"},
        "ls": {"--run-id", "--format"},
    }  # fmt: skip
    for command, given in used.items():
        assert '"' + '", "'.join(command.split()) + '"' in source
        assert given <= set(tree[command])


def test_no_file_switches_tls_off_or_lets_apps_install_packages() -> None:
    for path, text in texts().items():
        for flag in ("--insecure", "--allow-runtime-dependency-installation", "insecure = true"):
            assert flag not in text, path


def test_no_image_is_latest_and_no_value_of_a_secret_is_written() -> None:
    for path, text in texts().items():
        assert ":latest" not in text, path
        assert "PRIVATE KEY" not in text, path
        for name, value in re.findall(r"\b([A-Z_]*(?:PASSWORD|TOKEN|SECRET)\w*)(?:\"?, value)?\s*[=:]\s*(\S+)", text):
            assert re.match(r"/run/secrets/|\$\{|\.\.\.", value), (path, name)


def test_telemetry_and_update_check_are_off_wherever_flower_starts() -> None:
    for path in (*LINKS.values(), *NODES.values()):
        if path.is_relative_to(SLURM) or path.is_relative_to(SYSTEMD):
            text = path.read_text("utf-8")  # the others have the image's environment
        else:
            text = (DEPLOY / "Dockerfile").read_text("utf-8")
        assert "FLWR_TELEMETRY_ENABLED=0" in text
        assert "FLWR_DISABLE_UPDATE_CHECK=1" in text


def test_ports_agree_between_the_files() -> None:
    gateway = (DEPLOY / "gateway" / "gateway.conf").read_text("utf-8")
    assert re.findall(r"listen (\d+)", gateway) == ["9092"]
    assert set(re.findall(r"superlink:(\d+)", gateway)) == {"8000"}
    for path, text in texts().items():
        assert set(re.findall(r"\bgateway:(\d+)", text)) <= {"9092"}, path
        assert set(re.findall(r"\bsuperlink:(\d+)", text)) <= {"8000", "9464"}, path
        assert set(re.findall(r"FEDSCAPE_METRICS_PORT\W+(?:value\W+)?(\d+)", text)) <= {"9464"}, path
        if not path.startswith("deploy/slurm"):
            assert set(re.findall(r"--port[= ](\d+)", text)) <= {"8000", "9094"}, path
            assert set(re.findall(r"localhost:(\d+)/health", text)) <= {"8000", "9094"}, path
    services = read_yaml(COMPOSE / "compose.yaml")["services"]
    assert services["register"]["environment"]["SUPERLINK"] == "superlink:8000"


def test_default_port_of_the_supernode_is_the_one_that_is_checked() -> None:
    from flwr.supercore.constant import SUPERNODE_UVICORN_DEFAULT_PORT

    assert SUPERNODE_UVICORN_DEFAULT_PORT == 9094
