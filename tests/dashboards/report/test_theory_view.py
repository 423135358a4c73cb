"""Probes on the report: predicted curves, limits of the local rate, stacked causes, words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_probes import FAILURE, REMARK, made_probe, write_probes
from made_records import line_of, make_record

from dashboards.report.report import write_report
from dashboards.report.run_data import read_run
from dashboards.report.run_view import run_view, share_out
from dashboards.report.theory.view import MOST_BARS, MOST_WORDS, TOO_MANY
from server.record.jsonlines import RoundWriter
from server.record.records import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A record of 12 rounds with the optimality gap and the objective, and a local rate that halves after round 6."""
    return recorded(tmp_path / "run", 12)


def recorded(path: Path, rounds: int) -> RunFolder:
    found = make_record(path, rounds=0)
    text = '[local]\nlocal_lr = 0.05\n[local.schedule]\nkind = "step"\nfactor = 0.5\nat = [6]\n'
    found.write_scenario('name = "made-up"\n' + text)
    found.rounds.unlink()
    writer = RoundWriter(found.rounds)
    for r in range(rounds + 1):
        own = {"optimality_gap": 2.0 * 0.8**r, "objective": 1.5 + 2.0 * 0.8**r}
        writer.append(line_of(r, np.arange(5)) | own)
    writer.close()
    return found


def column(view: dict[str, Any], key: str) -> dict[int, float]:
    table = next(one for one in view["series"] if key in one["columns"])
    return dict(zip(table["axes"]["round"], table["columns"][key], strict=True))


def test_predicted_gap_has_its_factor_its_floor_and_its_band(folder: RunFolder) -> None:
    write_probes(folder, made_probe(3))
    view = run_view(read_run(folder.path))
    assert view["theory"]["predicted"] == ["theory.optimality_gap.3", "theory.objective.3"]
    start, key = 2.0 * 0.8**3, "theory.optimality_gap.3"
    line, low, high = (column(view, name) for name in (key, f"{key}.low", f"{key}.high"))
    assert list(line) == list(range(3, 13))
    for r in line:
        slow, least, most = (base ** (2 * (r - 3)) for base in (0.9, 0.5, 0.95))
        assert line[r] == pytest.approx(start * slow + 0.02 * (1 - slow), rel=1e-5)
        assert low[r] == pytest.approx(start * least + 0.01 * (1 - most), rel=1e-5)
        assert high[r] == pytest.approx(start * most + 0.04 * (1 - least), rel=1e-5)
        assert low[r] <= line[r] <= high[r]


def test_predicted_objective_begins_at_its_value_and_falls_by_the_gap(folder: RunFolder) -> None:
    write_probes(folder, made_probe(3))
    view = run_view(read_run(folder.path))
    start, key = 1.5 + 2.0 * 0.8**3, "theory.objective.3"
    line, low, high = (column(view, name) for name in (key, f"{key}.low", f"{key}.high"))
    assert line[3] == low[3] == high[3] == pytest.approx(start, rel=1e-5)
    for r in line:
        slow, least, most = (base ** (2 * (r - 3)) for base in (0.9, 0.5, 0.95))
        assert line[r] == pytest.approx(start - (2.0 - 0.02) * (1 - slow), rel=1e-5)
        assert low[r] == pytest.approx(start - 4.0 + 4.0 * least + 0.01 * (1 - most), rel=1e-5)
        assert high[r] == pytest.approx(start - 1.0 + 1.0 * most + 0.04 * (1 - least), rel=1e-5)


def test_gap_of_a_run_with_a_penalty_is_not_predicted(folder: RunFolder) -> None:
    folder.write_scenario('name = "made-up"\n[local]\nlocal_lr = 0.05\nl2 = 0.1\n')
    write_probes(folder, made_probe(3))
    assert run_view(read_run(folder.path))["theory"]["predicted"] == ["theory.objective.3"]


def test_local_rate_follows_its_schedule_beside_the_limits(folder: RunFolder) -> None:
    late = made_probe(9, predicts=False)
    late["theory"]["local_lr"] = 0.025
    write_probes(folder, made_probe(3), late)
    view = run_view(read_run(folder.path))
    assert column(view, "theory.local_lr") == {r: 0.05 if r + 1 <= 6 else 0.025 for r in range(13)}
    assert column(view, "theory.limit") == {3: 0.2, 9: 0.2}
    assert column(view, "theory.steepest_limit") == {3: 0.1, 9: 0.1}
    assert view["theory"]["limit"] == (0.2, "2 / L = 0.2 in round 9")
    assert view["theory"]["predicted"] == ["theory.optimality_gap.3", "theory.objective.3"]


def test_local_rate_that_is_not_the_scenarios_is_that_of_the_probes(folder: RunFolder) -> None:
    write_probes(folder, made_probe(3), made_probe(9, predicts=False))
    assert column(run_view(read_run(folder.path)), "theory.local_lr") == {3: 0.05, 9: 0.05}


def test_bars_have_the_parts_in_squared_norms_of_the_ideal(folder: RunFolder) -> None:
    write_probes(folder, made_probe(0), made_probe(8, scale=0.5))
    bars = run_view(read_run(folder.path))["theory"]["bars"]
    assert bars["rounds"] == [0, 8]
    assert bars["parts"] == [
        ("local steps", [4.0, 2.0]), ("heterogeneity", [3.0, 1.5]), ("gradient noise", [2.0, 1.0]),
        ("client sampling", [1.0, 0.5]), ("residual", [-2.0, -1.0]),
    ]  # fmt: skip
    assert bars["totals"] == [8.0, 4.0] == [sum(values[k] for _, values in bars["parts"]) for k in range(2)]
    assert bars["unit"].endswith("squared norms of the ideal")
    still = made_probe(0)
    still["drift_by_cause"]["ideal_square"] = 0.0
    write_probes(folder, still)
    bars = run_view(read_run(folder.path))["theory"]["bars"]
    assert (bars["totals"], bars["unit"]) == ([16.0], "squared error of parameters")


def test_words_have_totals_and_warn_where_assumptions_fail(folder: RunFolder) -> None:
    unmeasured = made_probe(9, predicts=False) | {"not_measured": {"trials": "the data are gone"}}
    write_probes(folder, made_probe(3), unmeasured)
    good, bad = run_view(read_run(folder.path))["theory"]["words"]
    assert good["drift"] == (
        "Drift by cause: expected squared error 8 ± 0.1 of the ideal's squared norm; the largest cause is local steps, "
        "40% of the causes; rounds that were played show 9 ± 1."
    )
    assert good["theory"] == (
        "Local rate 0.05, limit 2 / L = 0.2 (0.1 of the steepest client); predicted factor 0.9 a round for the "
        "distance to the limit, and a floor of 0.01 to 0.04 above the limit's loss."
    )
    assert (good["warnings"], good["remarks"]) == ([], [REMARK])
    assert bad["warnings"] == [f"No prediction: {FAILURE}", "No trials: the data are gone."]


def test_run_without_a_probe_file_draws_nothing(folder: RunFolder) -> None:
    view = run_view(read_run(folder.path))
    assert view["theory"] is None
    assert not any(key.startswith("theory.") for table in view["series"] for key in table["columns"])


def test_many_probed_rounds_are_drawn_evenly_and_the_rest_is_named(folder: RunFolder) -> None:
    write_probes(folder, *(made_probe(r) for r in range(100)))
    view = run_view(read_run(folder.path))
    assert len(view["theory"]["bars"]["rounds"]) == MOST_BARS
    assert len(view["theory"]["words"]) == MOST_WORDS
    assert view["theory"]["bars"]["rounds"][:: MOST_BARS - 1] == [0, 99]
    assert [note for note in view["notes"] if "probed rounds" in note] == view["theory"]["left_out"]


def test_probes_of_a_long_run_take_little_of_the_page(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "run", 3000)
    without = len(json.dumps(run_view(read_run(folder.path))))
    write_probes(folder, *(made_probe(r) for r in range(0, 2900, 10)))
    view = run_view(read_run(folder.path))
    assert len(view["theory"]["predicted"]) == 8
    assert column(view, "theory.optimality_gap.0")[0] == pytest.approx(2.0)
    assert len(json.dumps(view)) - without < 200_000


def test_page_of_many_runs_leaves_probes_out(folder: RunFolder) -> None:
    write_probes(folder, made_probe(3))
    view = run_view(read_run(folder.path), share_out(20))
    assert view["theory"]["bars"] is None
    assert TOO_MANY in view["notes"]


@pytest.mark.parametrize("change", [{"version": 2}, {"theory": 3}, {"round_index": -1}])
def test_damaged_probes_are_named_and_left_out(change: dict[str, Any], folder: RunFolder) -> None:
    folder.probes.write_text(json.dumps({"probes": [made_probe(3) | change]}))
    view = run_view(read_run(folder.path))
    assert view["theory"] is None
    assert any(note.startswith("probes.json: ") for note in view["notes"])
    write_report([folder.path])


def test_probe_of_an_earlier_version_has_no_predicted_curve(folder: RunFolder) -> None:
    old = made_probe(3)
    del old["theory"]["factors"]
    del old["theory"]["gap"]
    write_probes(folder, old)
    theory = run_view(read_run(folder.path))["theory"]
    assert theory["predicted"] == []
    assert theory["bars"] is not None
