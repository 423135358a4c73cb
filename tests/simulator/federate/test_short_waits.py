"""Flower's waits in a federation on one machine: those that are shortened are where the installed Flower has them."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from flwr.supernode import start_client_internal

from simulator.federate.short_waits import PROGRAM, look_seconds, write_program

SHORTENED = """
import inspect
from flwr.supercore.inflatable import inflatable_utils
from flwr.supernode import start_client_internal as loop
from simulator.federate.short_waits import shorten_looks, shorten_retries
import time

waits = []
time.sleep = waits.append
print(shorten_looks(0.2), shorten_retries())
for seconds in (3, 0.5, 7):
    loop.time.sleep(seconds)
print(waits, loop.time.monotonic is time.monotonic)
functions = inflatable_utils.pull_objects, inflatable_utils.pull_and_inflate_object_from_tree
print([inspect.signature(function).parameters["initial_backoff"].default for function in functions])
"""


def test_supernode_waits_where_it_is_shortened() -> None:
    source = inspect.getsource(start_client_internal)
    assert source.count("time.sleep(3)") == 1
    assert "time.sleep(0.5)" in source


def test_waits_of_flower_are_shortened_and_others_stay() -> None:
    """In a process of its own: it changes Flower's modules."""
    done = subprocess.run([sys.executable, "-c", SHORTENED], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["True True", "[0.2, 0.1, 7] True", "[0.05, 0.05]"]


@pytest.mark.parametrize(("nodes", "seconds"), [(1, 0.25), (3, 0.25), (50, 2.0), (1000, 3.0)])
def test_many_supernodes_look_less_often_and_never_less_than_flowers(nodes: int, seconds: float) -> None:
    assert look_seconds(nodes) == seconds


def test_program_of_a_supernode_is_flowers_with_its_name(tmp_path: Path) -> None:
    """Its name in the list of processes is Flower's, by which the local service finds it."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    write_program(folder, 3)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([folder / PROGRAM, "--help"], capture_output=True, text=True, env=env, timeout=60, check=True)
    assert "--auth-supernode-private-key" in done.stdout
