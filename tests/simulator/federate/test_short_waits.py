"""Flower's waits in a federation on one machine: those that are shortened are where the installed Flower has them."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from flwr.supernode import start_client_internal

from simulator.federate.short_waits import look_seconds

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
