"""deploy/gateway: of the SuperLink's paths it passes the fleet's and the health check, and refuses the rest."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from deploy_files import DEPLOY, without_comments
from needs import NGINX, program

CONFIG = (DEPLOY / "gateway" / "gateway.conf").read_text("utf-8")


def test_only_the_fleet_and_the_health_check_pass() -> None:
    blocks = dict(re.findall(r"location ([^{]+) \{([^}]*)\}", without_comments(CONFIG)))
    assert blocks.keys() == {"/v1/fleet/", "= /health", "/"}
    assert blocks["/"].split() == ["return", "403;"]
    for path in ("/v1/fleet/", "= /health"):
        assert "proxy_pass https://superlink:8000;" in blocks[path]
        assert "proxy_ssl_verify on;" in blocks[path]


def test_fleet_is_a_router_of_its_own_in_the_installed_flower() -> None:
    from flwr.superlink.routers.control.router import router as control
    from flwr.superlink.routers.fleet.router import router as fleet

    assert fleet.prefix == "/v1/fleet"
    assert control.prefix == "/v1/control"


def test_certificates_lie_beside_the_file_and_nothing_is_written_but_in_tmp() -> None:
    assert set(re.findall(r"(?:certificate|certificate_key) (\S+);", CONFIG)) == {
        "superlink.crt",
        "superlink.key",
        "ca.crt",
    }
    assert all(path.startswith("/tmp/") for path in re.findall(r"(?:temp_path|pid) (\S+);", CONFIG))


@NGINX.mark
def test_nginx_accepts_the_file(tmp_path: Path) -> None:
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -keyout superlink.key"
    subprocess.run([*make.split(), "-out", "ca.crt"], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "superlink.crt").write_bytes((tmp_path / "ca.crt").read_bytes())
    (tmp_path / "gateway.conf").write_text(
        CONFIG.replace("//superlink:", "//localhost:").replace("/tmp/", f"{tmp_path}/")
    )
    found = program("nginx")
    assert found
    command = [found, "-t", "-e", "stderr", "-c", tmp_path / "gateway.conf"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
