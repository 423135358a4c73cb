"""deploy/observability agrees with the code in ports, flags and names, and listens only on the loopback.

These tests start no Docker and no Grafana: they parse the files, and promtool checks those of Prometheus.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from needs import MAKE, needs_prometheus
from prometheus_servers import free_port

from clients.core.errors import UserError
from dashboards.grafana.names import FOLDER_UID
from dashboards.grafana.push import COMMITTED, data_sources
from dashboards.prometheus import RULES, live, running, runs

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy" / "observability"


def read(path: str) -> Any:
    return yaml.safe_load((DEPLOY / path).read_text("utf-8"))


COMPOSE = read("compose.yaml")


def test_every_yaml_file_parses():
    found = [path for path in DEPLOY.rglob("*") if path.suffix in (".yaml", ".yml")]
    assert len(found) >= 6
    assert all(yaml.safe_load(path.read_text("utf-8")) for path in found)


def test_compose_has_the_two_roles_of_the_code():
    for role, name in ((live(), "live"), (runs(), "runs")):
        service, config = COMPOSE["services"][f"prometheus-{name}"], read(f"prometheus/{name}.yml")
        wanted = role.config | ({"rule_files": ["/etc/prometheus/rules/*.yml"]} if name == "live" else {})
        assert config == wanted
        own = [flag for flag in service["command"] if not re.match("--(config.file|storage.tsdb.path)=", flag)]
        assert own == [f"--web.listen-address=127.0.0.1:{role.port}", *role.flags]


def test_provisioned_data_sources_equal_those_of_a_push():
    assert read("grafana/provisioning/datasources/fedscape.yaml") == {"apiVersion": 1, "datasources": data_sources()}


def test_provisioned_dashboards_equal_the_committed_ones():
    (provider,) = read("grafana/provisioning/dashboards/fedscape.yaml")["providers"]
    assert provider["folderUid"] == FOLDER_UID
    mounts = dict(volume.split(":")[:2] for volume in COMPOSE["services"]["grafana"]["volumes"])
    there = next(host for host, inside in mounts.items() if inside == provider["options"]["path"])
    assert (DEPLOY / there).resolve() == COMMITTED.resolve()


def test_every_mounted_file_exists():
    for service in COMPOSE["services"].values():
        for volume in service["volumes"]:
            source, _, *mode = volume.split(":")
            if source in COMPOSE["volumes"]:
                continue
            assert (DEPLOY / source).exists(), source
            assert mode == ["ro"]


def test_compose_pins_versions_sets_no_password_and_listens_only_on_the_loopback():
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    for service in COMPOSE["services"].values():
        assert re.fullmatch(r"[\w/-]+:v?\d+\.\d+\.\d+", service["image"])
        assert service["network_mode"] == "host"
        assert "ports" not in service
    assert COMPOSE["services"]["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    password = COMPOSE["services"]["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"]
    assert password.startswith("${GRAFANA_ADMIN_PASSWORD:?")
    assert "0.0.0.0" not in text


@needs_prometheus
@pytest.mark.parametrize("name", ["live", "runs"])
def test_promtool_accepts_the_configuration(name, tmp_path):
    config = (
        (DEPLOY / "prometheus" / f"{name}.yml").read_text("utf-8").replace("/etc/prometheus/rules", str(RULES.parent))
    )
    (tmp_path / "prometheus.yml").write_text(config)
    done = subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("rules found" in done.stdout) == (name == "live")


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Terminate a process that a failed assertion leaves running: `Popen` would wait for it for ever."""
    try:
        yield
    finally:
        process.terminate()


@needs_prometheus
def test_observe_starts_both_and_leaves_nothing_behind(tmp_path):
    ports = (free_port(), free_port())
    command = [sys.executable, "-m", "simulator.cli", "observe", "--live-port", str(ports[0]), "--runs-port"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [*command, str(ports[1])], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT,
        # A background shell without job control ignores SIGINT, and the child would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process, ended(process):  # fmt: skip
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(3)]
        assert f"http://127.0.0.1:{ports[0]}" in lines[0]
        assert f"--remote-write http://127.0.0.1:{ports[1]}/api/v1/write" in lines[1]
        with urlopen(f"http://127.0.0.1:{ports[0]}/api/v1/rules") as answer:
            assert b"Fedscape" in answer.read()
        with urlopen(f"http://127.0.0.1:{ports[1]}/api/v1/status/flags") as answer:
            assert b'"query.lookback-delta":"999ms"' in answer.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert not list(tmp_path.iterdir())
    for port in ports:
        with pytest.raises(OSError, match="refused"), urlopen(f"http://127.0.0.1:{port}", timeout=60):
            pass


def test_observe_names_a_missing_prometheus(tmp_path):
    with (
        pytest.raises(UserError, match=r"is not installed.*apt install"),
        running([live()], tmp_path, program="promtheus"),
    ):
        pass


def made(tmp_path: Path, docker: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `make observe` with a script in place of `docker`."""
    (tmp_path / "docker").write_text(f"#!/bin/sh\n{docker}\n")
    (tmp_path / "docker").chmod(0o755)
    words = {key: value for key, value in os.environ.items() if not key.startswith(("GRAFANA", "MAKE"))} | environment
    command = ["make", "--no-print-directory", "observe"]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=words | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    )


@MAKE.mark
def test_make_observe_names_a_missing_docker_or_password(tmp_path):
    without = made(tmp_path, "exit 1", GRAFANA_ADMIN_PASSWORD="p")
    assert without.returncode != 0
    assert "fedscape observe" in without.stderr
    without_password = made(tmp_path, "exit 0")
    assert without_password.returncode != 0
    assert "GRAFANA_ADMIN_PASSWORD" in without_password.stderr
    done = made(tmp_path, f'echo "$@" >>{tmp_path}/done', GRAFANA_ADMIN_PASSWORD="p")
    assert done.returncode == 0
    assert "up --detach" in (tmp_path / "done").read_text()
    named = re.search(r"--project-name (\S+) down", done.stdout)
    assert named
    assert named[1] == COMPOSE["name"]
