"""The list of survivors is read as it is printed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("survivor_list", Path(__file__).with_name("survivor_list.py"))
assert spec is not None
assert spec.loader is not None
survivor_list = importlib.util.module_from_spec(spec)
sys.modules["survivor_list"] = survivor_list  # dataclasses look their module up
spec.loader.exec_module(survivor_list)
Mutant, read_list = survivor_list.Mutant, survivor_list.read_list

ONE = Mutant("server.rounds.sampling.CohortSampler.draw", ("- a = b + 1", "+ a = b - 1"))
TWO = Mutant("clients.training.rules.proximal", ("- # no comment: a line of a diff has its sign", "+ b"))


def test_printed_blocks_are_read_back() -> None:
    text = "# comment\n\n" + "\n".join(one.block("the same number") for one in (ONE, TWO, ONE))
    assert read_list(text) == [ONE, TWO, ONE]
    assert read_list("# comment\n") == []


@pytest.mark.parametrize("reason", ["...", "", " "])
def test_entry_without_a_reason_is_refused(reason: str) -> None:
    with pytest.raises(ValueError, match=r"the entry of clients\.training\.rules\.proximal ends in"):
        read_list(TWO.block(reason))
    with pytest.raises(ValueError, match="last line must be 'why: REASON'"):
        read_list("place\n- a\n+ b\n")


def test_list_in_the_repository_has_reasons() -> None:
    read_list(survivor_list.LIST.read_text(encoding="utf-8"))
