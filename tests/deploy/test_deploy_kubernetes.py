"""deploy/kubernetes: manifests that fit their schemas, restricted pods, policies that hide the control API."""

from __future__ import annotations

import json
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy_files import (
    DEPLOY,
    KUBERNETES,
    PINNED,
    ROOT,
    VERSION,
    Yaml,
    containers,
    manifest,
    manifests,
    pods,
    read_yaml,
)
from needs import KUBECTL, KUBERNETES_SCHEMAS, OPERATOR_MODELS

from dashboards.grafana.push import COMMITTED

OWN = "monitoring.coreos.com/v1"
"""The API of the Prometheus Operator, which kubernetes-validate does not have."""
PODS = dict(pods())
CONTAINERS = dict(containers())
FEDSCAPE_SECRETS = {"superlink-tls", "supernode-keys"}


def rendered(name: str) -> list[Yaml]:
    """Return what `kubectl kustomize` makes of a folder; skip where kubectl is missing or old."""
    KUBECTL.require()
    return list(yaml.safe_load_all(_kustomize(name)))


@cache
def _kustomize(name: str) -> str:
    answer = json.loads(subprocess.check_output(["kubectl", "version", "--client", "--output=json"]))
    minor = re.match(r"\d+", answer["clientVersion"]["minor"])
    if minor is None or int(minor[0]) < 28:
        pytest.skip(KUBECTL.reason)
    done = subprocess.run(["kubectl", "kustomize", KUBERNETES / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def accepted(found: Yaml, version: str) -> None:
    import kubernetes_validate

    if found["apiVersion"] != OWN:
        kubernetes_validate.validate(found, version, strict=True)


@KUBERNETES_SCHEMAS.mark
@pytest.mark.parametrize("version", ["1.28", "1.32", "1.37"])
def test_every_manifest_fits_the_strict_schema(version: str) -> None:
    for _, found in manifests():
        accepted(found, version)


@KUBERNETES_SCHEMAS.mark
def test_a_misspelt_key_does_not_fit_the_schema() -> None:
    import kubernetes_validate

    found = manifest("StatefulSet", "supernode")
    found["spec"]["template"]["spec"]["containers"][0]["readOnlyRoot"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        accepted(found, "1.32")


@OPERATOR_MODELS.mark
def test_service_monitor_has_keys_of_the_operator_alone() -> None:
    """The models accept unknown keys, and drop them."""
    from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor

    found = manifest("ServiceMonitor", "superlink")
    assert ServiceMonitor.model_validate(found).model_dump(by_alias=True, exclude_none=True) == found
    found["spec"]["endpoints"][0]["intervall"] = "5s"
    assert ServiceMonitor.model_validate(found).model_dump(by_alias=True, exclude_none=True) != found


@KUBERNETES_SCHEMAS.mark
@pytest.mark.parametrize("name", ["base", "gpu", "monitoring"])
def test_every_kustomization_renders_into_one_namespace(name: str) -> None:
    for found in rendered(name):
        accepted(found, "1.32")
        if found["kind"] != "Namespace":
            assert found["metadata"]["namespace"] == "fedscape"
        for container in found["spec"]["template"]["spec"]["containers"] if "template" in found.get("spec", {}) else ():
            assert PINNED.fullmatch(container["image"])


@pytest.mark.parametrize("place", PODS)
def test_pod_meets_the_restricted_standard(place: str) -> None:
    pod = PODS[place]
    assert pod["automountServiceAccountToken"] is False
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == 10001
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    kinds = {kind for volume in pod["volumes"] for kind in volume.keys() - {"name"}}
    assert kinds <= {"configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"}
    enforced = manifest("Namespace", "fedscape")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert enforced == "restricted"


@pytest.mark.parametrize("place", CONTAINERS)
def test_container_is_read_only_without_capabilities_and_bounded(place: str) -> None:
    container = CONTAINERS[place]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for bound in ("requests", "limits"):
        assert container["resources"][bound].keys() == {"cpu", "memory"}
    assert any(mount["mountPath"] == "/tmp" for mount in container["volumeMounts"])


@pytest.mark.parametrize("place", [p for p in CONTAINERS if "Job" not in p])
def test_service_container_has_probes_on_ports_that_it_declares(place: str) -> None:
    container = CONTAINERS[place]
    known = {p[key] for p in container["ports"] for key in ("name", "containerPort")}
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        (how,) = container[kind].keys() & {"httpGet", "tcpSocket", "grpc"}
        assert container[kind][how]["port"] in known


@pytest.mark.parametrize("place", CONTAINERS)
def test_image_is_pinned_at_the_version_of_the_project(place: str) -> None:
    image = CONTAINERS[place]["image"]
    if image == "fedscape":  # kustomize names registry and tag
        (known,) = read_yaml(KUBERNETES / "base" / "kustomization.yaml")["images"]
        assert known["name"] == image
        image = f"{known['newName']}:{known['newTag']}"
    assert PINNED.fullmatch(image)
    if "fedscape:" in image:
        assert image.endswith(f"/fedscape:{VERSION}-cpu")


def test_no_secret_is_in_the_files_and_those_that_are_named_are_documented() -> None:
    assert not [found for _, found in manifests() if found["kind"] == "Secret"]
    text = "".join(path.read_text("utf-8") for path in KUBERNETES.rglob("*.yaml"))
    named = set(re.findall(r"secret: \{ (?:name|secretName): ([\w-]+)", text))
    assert named == FEDSCAPE_SECRETS
    page = (ROOT / "docs" / "deploy.md").read_text("utf-8")
    assert all(f"kubectl create secret generic {name} " in page for name in named)
    for config in ("federation-ca", "supernode-public-keys"):
        assert f"name: {config} }}" in text
        assert f"kubectl create configmap {config} " in page


def test_supernode_mounts_its_own_keys_alone() -> None:
    (container,) = manifest("StatefulSet", "supernode")["spec"]["template"]["spec"]["containers"]
    mounts = [m for m in container["volumeMounts"] if m["name"] == "keys"]
    assert [m.get("subPath", m.get("subPathExpr")) for m in mounts] == [
        "ca.crt", "node-$(POD_INDEX).key", "node-$(POD_INDEX)-tls.crt", "node-$(POD_INDEX)-tls.key",
    ]  # fmt: skip
    assert all(m["readOnly"] for m in mounts)
    script = (KUBERNETES / "base" / "supernode.sh").read_text("utf-8")
    assert set(re.findall(r"/run/secrets/[\w.-]+", script)) == {m["mountPath"] for m in mounts}


@pytest.mark.parametrize(("index", "clients"), [(0, "0-3"), (2, "8-11")])
def test_ordinal_of_a_pod_gives_its_clients(index: int, clients: str, tmp_path: Path) -> None:
    program = tmp_path / "flower-supernode"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "POD_INDEX": str(index), "CLIENTS_PER_NODE": "4"}
    script = KUBERNETES / "base" / "supernode.sh"
    words = subprocess.check_output(["sh", script], text=True, env=environment).splitlines()
    assert f'--node-config=clients="{clients}" name="node-{index}"' in words
    (container,) = manifest("StatefulSet", "supernode")["spec"]["template"]["spec"]["containers"]
    assert {"CLIENTS_PER_NODE", "POD_INDEX"} == {variable["name"] for variable in container["env"]}
    assert container["args"] == ["sh", "/opt/supernode/supernode.sh"]


def test_submitted_scenario_has_as_many_clients_as_the_pods_hold() -> None:
    (replicas,) = read_yaml(KUBERNETES / "base" / "kustomization.yaml")["replicas"]
    (container,) = manifest("StatefulSet", "supernode")["spec"]["template"]["spec"]["containers"]
    per_node = next(v["value"] for v in container["env"] if v["name"] == "CLIENTS_PER_NODE")
    submit = read_yaml(KUBERNETES / "jobs" / "submit.yaml")["spec"]["template"]["spec"]["containers"][0]
    assert f"partition.clients={replicas['count'] * int(per_node)};" in " ".join(submit["args"])


def policies() -> dict[str, Yaml]:
    return {m["metadata"]["name"]: m["spec"] for _, m in manifests() if m["kind"] == "NetworkPolicy"}


def may(rule: Yaml, way: str) -> dict[str, set[int]]:
    """Return which ports a rule opens to each pod or namespace."""
    return {
        label: {port["port"] for port in rule["ports"]}
        for peer in rule[way]
        for selector in peer.values()
        for label in selector["matchLabels"].values()
    }


def test_everything_is_denied_by_default() -> None:
    assert policies()["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_control_api_is_open_to_jobs_and_never_to_supernodes() -> None:
    opened = {label: ports for rule in policies()["superlink"]["ingress"] for label, ports in may(rule, "from").items()}
    assert opened == {"supernode": {9092}, "job": {8000}, "monitoring": {9464}}
    for name, port in (("supernode", 9092), ("job", 8000)):
        (rule,) = policies()[name]["egress"]
        assert may(rule, "to") == {"superlink": {port}}
        assert "ingress" not in policies()[name]


@pytest.mark.parametrize("kind", ["Service", "PodDisruptionBudget", "NetworkPolicy"])
def test_selectors_find_pods(kind: str) -> None:
    labels = [m["spec"]["template"]["metadata"]["labels"] for _, m in manifests() if "template" in m.get("spec", {})]
    for path, found in manifests():
        if found["kind"] == kind:
            spec: dict[str, Any] = found["spec"]
            wanted = spec["selector"] if kind == "Service" else spec.get("selector", spec.get("podSelector"))
            wanted = wanted.get("matchLabels", wanted if kind == "Service" else {})
            assert any(wanted.items() <= known.items() for known in labels), (path, wanted)


def test_ports_of_services_are_named_by_containers() -> None:
    named = {p["name"]: p["containerPort"] for c in CONTAINERS.values() for p in c.get("ports", ())}
    for _, found in manifests():
        for port in found["spec"].get("ports", ()) if found["kind"] == "Service" else ():
            assert named[port["targetPort"]] == port["port"]


def test_budgets_keep_the_superlink_and_all_supernodes_but_one() -> None:
    assert manifest("PodDisruptionBudget", "superlink")["spec"]["maxUnavailable"] == 0
    assert manifest("PodDisruptionBudget", "supernode")["spec"]["maxUnavailable"] == 1


def test_monitor_scrapes_the_port_of_metrics() -> None:
    monitor = manifest("ServiceMonitor", "superlink")["spec"]
    service = manifest("Service", "superlink")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= {p["name"] for p in service["spec"]["ports"]}


def test_config_map_has_every_committed_dashboard() -> None:
    (generator,) = read_yaml(COMMITTED.parent / "kustomization.yaml")["configMapGenerator"]
    assert generator["files"] == sorted(f"json/{path.name}" for path in COMMITTED.glob("*.json"))
    assert sum(path.stat().st_size for path in COMMITTED.glob("*.json")) < 1 << 20  # the limit of a ConfigMap


def test_rendered_dashboards_equal_the_committed_ones() -> None:
    found = next(m for m in rendered("monitoring") if m["metadata"]["name"] == "fedscape-dashboards")
    assert found["data"] == {path.name: path.read_text("utf-8") for path in COMMITTED.glob("*.json")}
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_rendered_gateway_is_that_of_compose() -> None:
    found = next(m for m in rendered("base") if m["metadata"]["name"].startswith("gateway-"))
    assert found["data"] == {"gateway.conf": (DEPLOY / "gateway" / "gateway.conf").read_text("utf-8")}


def test_card_overlay_requests_a_card_and_the_image_with_cuda() -> None:
    found = next(m for m in rendered("gpu") if m["kind"] == "StatefulSet")
    (container,) = found["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"].endswith(f":{VERSION}-cuda")
