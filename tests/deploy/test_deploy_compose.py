"""deploy/compose: a valid file, hardened services, keys as files, and a control API that no SuperNode reaches."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml
from deploy_files import COMPOSE, DEPLOY, PINNED, VERSION, Yaml, read_yaml
from needs import COMPOSE_SPEC, PROMETHEUS, program

from dashboards.prometheus import live, runs
from simulator.scenario.sections import load_scenario

FILE = read_yaml(COMPOSE / "compose.yaml")
SERVICES: dict[str, Yaml] = FILE["services"]
NODES = sorted(name for name in SERVICES if name.startswith("supernode-"))


@COMPOSE_SPEC.mark
@pytest.mark.parametrize("path", ["compose.yaml", "gpu.yaml", "../observability/compose.yaml"])
def test_parser_of_the_compose_specification_accepts_the_file(path: str) -> None:
    from compose_spec import PyCompose

    held = read_yaml(COMPOSE / path)
    assert set(PyCompose.from_yaml(yaml.safe_dump(held)).service_names()) == set(held["services"])
    first = next(iter(held["services"].values()))
    first["read_onlyy"] = True
    with pytest.raises(ValueError, match="read_onlyy"):
        PyCompose.from_yaml(yaml.safe_dump(held))


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_hardened_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert not service.keys() & {"privileged", "cap_add", "devices", "pid", "ipc", "env_file"}
    assert service.get("network_mode", "service:prometheus") == "service:prometheus"


@pytest.mark.parametrize("name", SERVICES)
def test_image_is_pinned_and_fedscape_has_the_version_of_the_project(name: str) -> None:
    image = SERVICES[name]["image"]
    assert PINNED.fullmatch(image)
    if image.startswith("fedscape:"):
        assert image == f"fedscape:{VERSION}-cpu"


def test_services_are_in_three_profiles() -> None:
    found = {profile: set() for profile in ("federation", "job", "observability")}
    for name, service in SERVICES.items():
        (profile,) = service["profiles"]
        found[profile].add(name)
    assert found["federation"] == {"superlink", "gateway", *NODES}
    assert found["job"] == {"register", "submit"}
    assert found["observability"] == {"prometheus", "prometheus-runs", "grafana"}


@pytest.mark.parametrize("name", SERVICES)
def test_mounts_exist_and_are_read_only(name: str) -> None:
    for volume in SERVICES[name].get("volumes", ()):
        source, _, *mode = volume.split(":")
        if source not in FILE["volumes"]:
            assert (COMPOSE / source).exists(), source
            assert mode == ["ro"]


def test_secrets_are_files_of_the_certificate_folder_and_none_is_unused() -> None:
    used = {
        s if isinstance(s, str) else s["source"] for service in SERVICES.values() for s in service.get("secrets", ())
    }
    assert used == FILE["secrets"].keys()
    assert all(secret == {"file": f"certs/{name}"} for name, secret in FILE["secrets"].items())
    names = r"ca\.crt|superlink\.(crt|key)|node-\d\.(key|pub)|node-\d-tls\.(crt|key)|grafana-password"
    assert all(re.fullmatch(names, name) for name in FILE["secrets"])


def test_every_file_in_run_secrets_is_a_secret_or_a_mount_of_the_service() -> None:
    for name, service in SERVICES.items():
        words = " ".join(map(str, [*service.get("entrypoint", ()), *service.get("command", ())]))
        words += str(service.get("environment", ""))
        targets = {s if isinstance(s, str) else s["target"] for s in service.get("secrets", ())}
        targets |= {volume.split(":")[1].removeprefix("/run/secrets/") for volume in service.get("volumes", ())}
        for file in re.findall(r"/run/secrets/([\w.-]+)", words):
            assert file in targets, (name, file)


@pytest.mark.parametrize("name", NODES)
def test_supernode_has_its_own_keys_and_no_other(name: str) -> None:
    number = name.removeprefix("supernode-")
    secrets = [s if isinstance(s, str) else s["source"] for s in SERVICES[name]["secrets"]]
    assert secrets == ["ca.crt", f"node-{number}.key", f"node-{number}-tls.crt", f"node-{number}-tls.key"]
    assert f"/run/secrets/node-{number}.pub" in SERVICES["register"]["command"]


def test_supernodes_hold_every_client_of_the_submitted_scenario_once() -> None:
    held: list[int] = []
    for name in NODES:
        option, config = SERVICES[name]["command"]
        found = re.fullmatch(r'clients="(\d+)-(\d+)"', config)
        assert found
        assert option == "--node-config"
        held += range(int(found[1]), int(found[2]) + 1)
    (scenario,) = SERVICES["submit"]["command"]
    assert sorted(held) == list(range(load_scenario(scenario).partition.clients))


def test_supernodes_share_a_network_with_the_gateway_alone() -> None:
    on = {name: set(service.get("networks", ())) for name, service in SERVICES.items()}
    for node in NODES:
        assert {name for name in on if on[name] & on[node]} == {"gateway", *NODES}
    for network in ("fleet", "control", "metrics"):
        assert FILE["networks"][network] == {"internal": True}


def test_only_grafana_is_published_and_on_the_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"prometheus": ["127.0.0.1:3000:3000"]}
    assert SERVICES["grafana"]["environment"]["GF_SERVER_HTTP_PORT"] == "3000"


def test_prometheus_has_the_two_roles_of_the_code() -> None:
    config = read_yaml(COMPOSE / "prometheus.yml")
    (scraped,) = config["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": ["superlink:9464"]}]
    scraped["static_configs"] = live().config["scrape_configs"][0]["static_configs"]
    assert config == live().config | {"rule_files": ["/etc/prometheus/rules/*.yml"]}
    flags = SERVICES["prometheus-runs"]["command"]
    assert flags[2:] == [f"--web.listen-address=:{runs().port}", *runs().flags]
    assert f"--web.listen-address=127.0.0.1:{live().port}" in SERVICES["prometheus"]["command"]


def test_card_overlay_gives_each_supernode_a_card_of_its_own() -> None:
    overlay = read_yaml(COMPOSE / "gpu.yaml")["services"]
    assert sorted(overlay) == NODES
    cards = []
    for service in overlay.values():
        assert service["image"] == f"fedscape:{VERSION}-cuda"
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
        cards += device["device_ids"]
    assert len(set(cards)) == len(NODES)


@PROMETHEUS.mark
@pytest.mark.parametrize(
    "path", ["compose/prometheus.yml", "observability/prometheus/live.yml", "observability/prometheus/runs.yml"]
)
def test_promtool_accepts_the_configuration(path: str) -> None:
    """Its rule files and their folder are in the containers alone."""
    promtool = program("promtool")
    assert promtool
    done = subprocess.run([promtool, "check", "config", "--syntax-only", DEPLOY / path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
