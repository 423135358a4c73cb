"""Completion offers commands, options, scenarios and keys without a heavy import."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.cli.builtin_files import scenario_names, set_keys
from simulator.cli.main import main
from simulator.scenario.sections import builtin_names, load_scenario

ROOT = Path(__file__).parents[3]


def offered(words: str) -> list[str]:
    """Return the completions of the last word of a command line in bash."""
    environment = {
        **os.environ,
        "_FEDSCAPE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    command = [sys.executable, "-m", "simulator.cli"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("fedscape re", ["resume", "report"]),
        ("fedscape dashboards ", ["list", "write", "push"]),
        ("fedscape run --metrics-p", ["--metrics-port"]),
        ("fedscape run quad", ["quadratic-newton", "quadratic-scaffold", "quadratic-two-clients"]),
        ("fedscape data --set algorithm.ki", ["algorithm.kind="]),
        ("fedscape export run --to o", ["openmetrics"]),
        ("fedscape run --remote-write-clock s", ["simulated"]),
        ("fedscape report ", []),  # the shell itself offers files
    ],
)
def test_completion_offers_matching_words(words: str, expected: list[str]) -> None:
    assert offered(words) == expected


def test_completion_offers_every_scenario() -> None:
    assert scenario_names("") == sorted(builtin_names())


def test_offered_keys_are_keys_of_a_scenario() -> None:
    keys = set_keys("")
    assert {"run.rounds=", "local.local_lr=", "convergence.plateau.metric="} <= set(keys)
    assert not [key for key in keys if key.startswith(("faults", "drifts"))]


def test_scenarios_are_listed_with_their_titles(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenarios"]) == 0
    listed = [line.split("  ", 1) for line in capsys.readouterr().out.splitlines()]
    assert [(name, title.strip()) for name, title in listed] == [(n, load_scenario(n).title) for n in builtin_names()]


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_installed_script_completes_in_bash(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    cli = f"{sys.executable} -m simulator.cli"
    (tmp_path / "fedscape").write_text(f'#!/bin/sh\nexec {cli} "$@"\n')
    (tmp_path / "fedscape").chmod(0o755)
    script = f"""
        "{tmp_path}/fedscape" --install-completion || exit
        source "{tmp_path}/.bash_completions/fedscape.sh"
        COMP_WORDS=(fedscape show digits-ii) COMP_CWORD=2
        _fedscape_completion "{tmp_path}/fedscape"
        echo "offers ${{COMPREPLY[*]}}"
        :
    """
    done = subprocess.run(
        ["bash", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1:] == ["offers digits-iid"], done
    assert "fedscape.sh" in (tmp_path / ".bashrc").read_text()
