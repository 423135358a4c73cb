"""Each number of a scenario at its largest and smallest accepted value: a run plays, or a sentence refuses it.

A process with 3 GB of memory and 20 seconds of a processor plays one round. No value ends in a traceback, in a process
without memory, or in silence.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clients.core.errors import UserError
from simulator.scenario.sections import load_scenario

SAMPLE = ["quadratic", "mlp", "fault gateway_outage"]
SUPPORT = Path(__file__).parents[1] / "support"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes have resource limits on POSIX systems only")


def problems_of(names: list[str], folder: Path, part: str = "") -> str:
    """Return what went wrong in another process, which has one thread and no memory of earlier tests."""
    command = [sys.executable, __file__, str(folder), part, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_sample_of_extreme_numbers_plays_or_is_refused(tmp_path: Path) -> None:
    assert problems_of(SAMPLE, tmp_path, "few") == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data.condition": 1e16}, "data.condition: must be at most 1e+15, got 1e+16: float64 must tell"),
        (
            {"faults": {"it": {"kind": "gateway_outage", "hours": 1e-18}}},
            "hours: must be at least 0.0833333, got 1e-18",
        ),
        ({"engine.threads": 1025}, "engine.threads: must be at most 1,024, got 1,025"),
    ],
)
def test_number_outside_its_range_is_refused_with_the_reason(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        load_scenario("quadratic-two-clients", sets=change)


@pytest.mark.slow
def test_all_extreme_numbers_play_or_are_refused(tmp_path: Path) -> None:
    assert problems_of([], tmp_path) == ""


def main() -> None:
    """Play the extremes of the keys of some cases, and print what went wrong; "few" leaves the least sizes out."""
    import sklearn.datasets  # noqa: F401
    import torch
    from extremes import extremes, play, with_value
    from option_cases import cases, write_files

    import fedscape as fs
    from simulator.scenario.kinds import classes_of, hints_of
    from simulator.scenario.unread import given_value, option_tables

    torch.set_num_threads(1)
    folder, few, names = Path(sys.argv[1]), sys.argv[2] == "few", sys.argv[3:]
    write_files(folder)
    every = {name: (table, place) for name, table, place in cases(folder)}
    assert set(names) <= every.keys()
    fs.simulate(load_scenario(every["quadratic"][0]), record=False)  # imported once, before the processes
    seen = set()
    for name in names or every:
        table, place = every[name]
        tables = dict(option_tables(load_scenario(table)))
        here = place if place in tables else place[:-1]
        options = tables[here]
        for key, hint in hints_of(type(options)).items():
            known = (here, type(options), getattr(options, "kind", ""), key)
            if key == "kind" or classes_of(hint) or known in seen or place not in (here, (*here, key)):
                continue
            seen.add(known)
            values = extremes(table, (*here, key), hint, given_value(options, key))
            for value in values[:2] if few else values:
                words = play(with_value(table, (*here, key), value))
                if "crashed" in words or not any(word in words for word in ("announced", "played", "refused")):
                    print(f"{name}: {'.'.join((*here, key))} = {value!r}: {words}")


if __name__ == "__main__":
    sys.path.insert(0, str(SUPPORT))
    main()
