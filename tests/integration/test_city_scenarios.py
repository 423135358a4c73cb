"""The built-in city scenarios: each differs from its clean scenario as its title says, and runs to a verdict."""

import math
import tomllib

import pytest
from scenario_pairs import CLEAN, OTHER_MODELS, TWIN_KEYS, differing, pairs, read

from clients.concept_drift.table import DRIFTS
from clients.faults.table import FAULTS
from clients.federation.data_kinds import GENERATED
from simulator.runs.run import Run, simulate
from simulator.scenario.sections import builtin_names, load_scenario, parse_scenario, to_toml

PAIRS = pairs()
SMALL = {
    "traffic": ["data.clients=6", "data.stride=16", "world.days=7"],
    "meters": ["data.clients=8", "world.days=35"],
    "air": ["data.clients=6", "data.stride=12", "world.days=14"],
    "bridge": ["data.clients=6", "data.windows=30"],
    "intrusion": ["data.clients=12", "data.windows=30"],
    "activity": ["data.clients=6", "data.windows=30"],
    "digits": ["partition.clients=12", "evaluation.baselines=false"],
}
"""Fewer clients and shorter worlds, by the kind of data."""
FAST = [
    "run.rounds=2",
    "algorithm.cohort=4",
    "engine.kind=stacked",
    "engine.tile=4",
    "engine.threads=1",
    "engine.workers=1",
]


def short_run(name: str) -> Run:
    """Run two rounds of a scenario with few clients; its faults affect all of them from the first round."""
    kind = read(name)["data"]["kind"]
    sets = [*SMALL[kind], *FAST, "engine.compile=never"]
    sets += [f"faults.{fault}.clients=1.0" for fault in read(name).get("faults", {})]
    sets += [f"drifts.{drift}.{what}" for drift in read(name).get("drifts", {}) for what in ("start=0", "duration=1")]
    return simulate(load_scenario(name, sets=sets), record=False)


def test_every_generated_source_has_a_clean_scenario() -> None:
    assert {read(name)["data"]["kind"] for name in CLEAN} == set(GENERATED)
    assert {name for name in builtin_names() if name.startswith("city-")} == {
        *CLEAN,
        *OTHER_MODELS,
        *(twin for twin in PAIRS if twin.startswith("city-")),
    }
    assert len(PAIRS) >= 10


@pytest.mark.parametrize("twin", PAIRS)
def test_twin_scenario_differs_only_in_faults_drifts_and_remedies(twin: str) -> None:
    changes = differing(PAIRS[twin], twin)
    assert set(changes) <= set(TWIN_KEYS)
    assert "title" in changes
    assert set(changes) & {"faults", "drifts", "features"}


@pytest.mark.parametrize("name", [*CLEAN, *PAIRS])
def test_scenario_describes_what_it_shows_and_has_a_target(name: str) -> None:
    scenario = load_scenario(name)
    assert 30 <= len(scenario.title) <= 120
    assert scenario.convergence.target is not None
    assert scenario.convergence.target.hold >= 2
    again = parse_scenario(tomllib.loads(to_toml(scenario)), source=name)
    assert again == scenario


def test_scenarios_show_many_kinds_of_faults() -> None:
    kinds = {fault["kind"] for twin in PAIRS for fault in read(twin).get("faults", {}).values()}
    drifts = {drift["kind"] for twin in PAIRS for drift in read(twin).get("drifts", {}).values()}
    assert kinds <= set(FAULTS)
    assert drifts <= set(DRIFTS)
    assert len(kinds) >= 8
    assert len(drifts) >= 2


@pytest.mark.parametrize("name", [*CLEAN, *PAIRS])
def test_short_run_ends_in_a_verdict_and_records_fault_counts(name: str) -> None:
    table, run = read(name), short_run(name)
    assert run.verdict.outcome in ("converged", "stopped", "diverged")
    assert run.verdict.round_index <= 2
    last = run.rounds.lines[-1]
    if run.verdict.outcome == "diverged":
        assert name == "city-meters-watts"
    else:
        assert math.isfinite(last["validation_loss"])
    assert set(last.get("faults", {})) == set(table.get("faults", {}))
    assert set(last.get("concept_drift", {})) == set(table.get("drifts", {}))
    assert ("districts" in last) == (table["data"]["kind"] in GENERATED)
    for fault in last.get("faults", {}).values():
        assert fault["changed"] > 0
        assert fault["effect"] > 0
    for drift, options in table.get("drifts", {}).items():
        assert (last["concept_drift"][drift]["clients"] > 0) == (
            options.get("districts") is None or _drift_reaches_cohort(run, options)
        )


def _drift_reaches_cohort(run: Run, options: dict[str, list[str]]) -> bool:
    """Return whether a client of the last cohort is in a district with the drift."""
    return bool(set(run.rounds.lines[-1]["districts"]) & set(options["districts"]))
