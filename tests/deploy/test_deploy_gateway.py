"""deploy/gateway: of the SuperLink's paths it passes the fleet's and the health check, and refuses the rest."""

from __future__ import annotations

import re
import ssl
import subprocess
from contextlib import closing, suppress
from http.client import HTTPSConnection
from pathlib import Path

import numpy as np
from deploy_files import DEPLOY, without_comments
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from needs import NGINX, program
from prometheus_servers import free_port
from waiting import eventually

from server.nodes.bounds import CHARACTERS, NUMBERS_EACH, REQUEST_BYTES, REQUEST_CLIENTS

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


def test_requests_are_bounded_by_what_a_node_may_send() -> None:
    (bound,) = re.findall(r"client_max_body_size (\d+)m;", CONFIG)
    assert int(bound) << 20 == REQUEST_BYTES


def test_every_request_of_the_largest_reply_passes() -> None:
    """A reply at the bounds of all its clients, with a model of more than one piece."""
    from flwr.proto.message_pb2 import PushObjectRequest
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

    values = [0.1] * REQUEST_CLIENTS
    model, texts = Array(np.arange(3 << 20, dtype=np.float32)), ConfigRecord({"text": "x" * CHARACTERS})
    numbers = MetricRecord({f"metric-{k}": values for k in range(NUMBERS_EACH)})
    content = RecordDict({"arrays": ArrayRecord({"parameters": model}), "metrics": numbers, "config": texts})
    objects = get_all_nested_objects(content)
    sizes = [
        PushObjectRequest(run_id=2**64 - 1, object_id=i, object_content=o.deflate()).ByteSize()
        for i, o in objects.items()
    ]
    assert len(sizes) > 5
    assert 0.5 * REQUEST_BYTES < max(sizes) < REQUEST_BYTES


def nginx_with(folder: Path, config: str) -> list[str | Path]:
    """Write certificates and a configuration; return nginx's command."""
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -keyout superlink.key"
    subprocess.run([*make.split(), "-out", "ca.crt"], cwd=folder, check=True, capture_output=True)
    (folder / "superlink.crt").write_bytes((folder / "ca.crt").read_bytes())
    (folder / "gateway.conf").write_text(config.replace("/tmp/", f"{folder}/"))
    found = program("nginx")
    assert found
    return [found, "-e", "stderr", "-c", folder / "gateway.conf"]


@NGINX.mark
def test_nginx_accepts_the_file(tmp_path: Path) -> None:
    command = nginx_with(tmp_path, CONFIG.replace("//superlink:", "//localhost:"))
    done = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@NGINX.mark
def test_larger_requests_are_refused_before_the_superlink(tmp_path: Path) -> None:
    """No SuperLink is there: what would be passed on ends as 502."""
    listen, nothing = free_port(), free_port()
    config = CONFIG.replace("superlink:8000", f"localhost:{nothing}").replace("9092", str(listen))
    command = [*nginx_with(tmp_path, config), "-g", "daemon off;"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as nginx:
        try:
            eventually(lambda: status(listen, 0) == 502)
            assert status(listen, REQUEST_BYTES) == 502
            assert status(listen, REQUEST_BYTES + 1) == 413
        finally:
            nginx.terminate()


def status(port: int, size: int) -> int:
    """Return the status of a request that states a body of so many bytes; 0 where nothing listens."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    link = HTTPSConnection("localhost", port, timeout=60, context=context)
    with closing(link), suppress(ConnectionRefusedError):
        link.putrequest("POST", "/v1/fleet/push-object")
        link.putheader("Content-Length", str(size))
        link.endheaders()
        return link.getresponse().status
    return 0
