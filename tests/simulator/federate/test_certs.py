"""Certificates and keys: their files and modes, and what a check refuses, by the file's name."""

from __future__ import annotations

import shutil
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from clients.core.errors import UserError
from simulator.cli.exit_codes import EXIT_MISTAKE, EXIT_OK
from simulator.cli.main import main
from simulator.federate.cert_checks import check_certs
from simulator.federate.cert_files import CertFolder
from simulator.federate.certs import make_certs

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> CertFolder:
    return make_certs(tmp_path / "certs", nodes=2, days=30, hosts=["fl.example.org", "10.0.0.7"], now=NOW)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folder_holds_every_key_for_its_owner_alone(folder: CertFolder) -> None:
    names = {path.name for path in folder.path.iterdir()}
    nodes = {f"node-{k}{end}" for k in (0, 1) for end in (".key", ".pub", "-tls.crt", "-tls.key")}
    assert names == {"ca.crt", "superlink.crt", "superlink.key"} | nodes
    assert mode(folder.path) == 0o700
    assert {mode(path) for path in folder.path.iterdir()} == {0o600}


def test_key_of_the_authority_is_not_kept(folder: CertFolder) -> None:
    ca = x509.load_pem_x509_certificate(folder.ca.read_bytes())
    keys = [folder.superlink_key, *(folder.node_cert_key(k) for k in (0, 1))]
    publics = [x509.load_pem_x509_certificate(key.with_suffix(".crt").read_bytes()).public_key() for key in keys]
    assert ca.public_key() not in publics


def test_node_keys_are_on_the_curve_that_flower_wants(folder: CertFolder) -> None:
    keys = [load_ssh_private_key(folder.node_key(k).read_bytes(), None) for k in (0, 1)]
    assert all(isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp384r1" for key in keys)
    assert folder.node_public(0).read_text() != folder.node_public(1).read_text()


def test_check_finds_nodes_and_the_first_expiry(folder: CertFolder) -> None:
    checked = check_certs(folder.path, now=NOW)
    assert (checked.nodes, checked.expires) == (2, NOW + timedelta(days=30))
    assert checked.days_left(NOW) == 30


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "fl.example.org", "10.0.0.7"])
def test_superlink_is_named_by_every_host(folder: CertFolder, host: str) -> None:
    assert check_certs(folder.path, host=host, now=NOW).nodes == 2


def test_other_host_is_refused(folder: CertFolder) -> None:
    with pytest.raises(
        UserError, match=r"superlink\.crt: must name 10\.0\.0\.8, and names localhost, fl\.example\.org"
    ):
        check_certs(folder.path, host="10.0.0.8", now=NOW)


def test_nothing_is_overwritten(folder: CertFolder) -> None:
    before = folder.superlink_key.read_bytes()
    with pytest.raises(UserError, match=r"already holds files \(ca\.crt\), and keys are never overwritten"):
        make_certs(folder.path)
    assert folder.superlink_key.read_bytes() == before


def test_clock_that_is_an_hour_slow_is_accepted(folder: CertFolder) -> None:
    assert check_certs(folder.path, now=NOW - timedelta(hours=1)).nodes == 2


@pytest.mark.parametrize(
    ("days", "message"),
    [
        (31, r"ca\.crt: expired on 2026-12-29 12:00 UTC, and it is 2026-12-30 12:00 UTC\. Make new ones"),
        (-2, r"ca\.crt: is not valid before 2026-11-28 12:00 UTC, and it is 2026-11-27 12:00 UTC\. Set this machine's"),
    ],
)
def test_certificate_out_of_date_is_named_with_its_date(folder: CertFolder, days: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_certs(folder.path, now=NOW + timedelta(days=days))


@pytest.mark.parametrize("name", ["superlink.key", "node-1.key", "node-0-tls.key"])
def test_key_that_others_may_read_is_refused(folder: CertFolder, name: str) -> None:
    (folder.path / name).chmod(0o640)
    with pytest.raises(UserError, match=rf"{name}: may be used by others than its owner \(mode 0640\)\. chmod 600"):
        check_certs(folder.path, now=NOW)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ca.crt", r"superlink\.crt: was not issued by the authority in ca\.crt"),
        ("superlink.crt", r"superlink\.crt: was not issued by the authority"),
        ("superlink.key", r"superlink\.key: is not the key of superlink\.crt"),
        ("node-1.pub", r"node-1\.pub: is not the public half of node-1\.key"),
        ("node-0.key", r"node-0\.pub: is not the public half of node-0\.key"),
        ("node-0-tls.key", r"node-0-tls\.key: is not the key of node-0-tls\.crt"),
    ],
)
def test_file_of_another_folder_is_named(folder: CertFolder, tmp_path: Path, name: str, message: str) -> None:
    other = make_certs(tmp_path / "other", nodes=2, now=NOW)
    shutil.copy2(other.path / name, folder.path / name)
    with pytest.raises(UserError, match=message):
        check_certs(folder.path, now=NOW)


@pytest.mark.parametrize("name", ["ca.crt", "superlink.key", "node-0.key", "node-0.pub"])
def test_damaged_file_is_named(folder: CertFolder, name: str) -> None:
    (folder.path / name).write_text("no key")
    with pytest.raises(UserError, match=rf"{name}: must be a "):
        check_certs(folder.path, now=NOW)


def test_missing_node_is_named(folder: CertFolder) -> None:
    with pytest.raises(UserError, match=r"node-2\.key: is missing, and 3 SuperNodes need keys\. .*--nodes 3"):
        check_certs(folder.path, nodes=3, now=NOW)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nodes": 0}, "--nodes: must be 1 to 10000, got 0"),
        ({"days": 826}, "--days: must be 1 to 825, got 826"),
        ({"hosts": ["https://fl.example.org"]}, "--host: must be a name such as fl.example.org"),
        ({"hosts": ["10.0.0.7:8000"]}, "--host: .* Leave out scheme and port"),
    ],
)
def test_argument_out_of_range_is_named(tmp_path: Path, given: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_certs(tmp_path / "certs", **given)  # type: ignore[arg-type]
    assert not (tmp_path / "certs").exists()


def test_command_makes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certs", str(tmp_path / "c"), "--nodes", "2", "--host", "fl.example.org"]) == EXIT_OK
    printed = capsys.readouterr()
    assert "in production use certificates of your own authority" in printed.err
    assert f"{tmp_path / 'c'}: keys of 2 SuperNodes, valid until " in printed.out
    assert main(["certs", str(tmp_path / "c"), "--check"]) == EXIT_OK
    assert "keys of 2 SuperNodes" in capsys.readouterr().out
    assert main(["certs", str(tmp_path / "c")]) == EXIT_MISTAKE
    assert "never overwritten" in capsys.readouterr().err
    (tmp_path / "c" / "node-1.key").chmod(0o644)
    assert main(["certs", str(tmp_path / "c"), "--check"]) == EXIT_MISTAKE
    assert "node-1.key: may be used by others" in capsys.readouterr().err
