"""Mistakes in [world], [faults], [drifts], [features], remedies and requested partitions: one line names the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_folders import Capture, mistake

SMALL = ["algorithm.cohort=3", "run.rounds=1", "evaluation.baselines=false", "convergence.target="]
OWN = ["partition=", "model.hidden=", "model.norm=", "model.dropout=", "world.days=20", "world.districts=3"]
DATA = {
    "digits": ["partition.clients=6"],
    "requested": ["partition.clients=6", "partition.kind=requested", "partition.concentration="],
    "traffic": [*OWN, "data.kind=traffic", "data.clients=6", "data.step_minutes=60", "model.kind=linear"],
    "intrusion": [*OWN, "data.kind=intrusion", "data.clients=6", "model.kind=softmax"],
    "bridge": [*OWN, "data.kind=bridge", "data.task=reconstruct", "data.clients=6", "model.kind=linear"],
    "quadratic": ["data.kind=quadratic", "partition=", "model.kind=quadratic", "model.hidden=", "model.norm=",
                  "model.dropout="],
}  # fmt: skip
NOISE = "faults.n.kind=noise"
ABRUPT = "drifts.d.kind=abrupt"
CASES: list[tuple[str, str, str]] = [
    # [faults.NAME]
    ("digits", "faults.n.kind=noize", "faults.n.kind: 'noize' is not a fault. Nearest: 'noise'."),
    ("digits", "faults.n.severity=1", "faults.n.kind: is missing"),
    ("digits", "faults=5", "faults: must hold named tables"),
    ("digits", "faults.kind=noise", "faults: must hold named tables"),
    ("digits", f"{NOISE} faults.n.severity=1.5", "faults.n.severity: must be from 0 to 1, got 1.5."),
    ("digits", f"{NOISE} faults.n.severity=nan", "faults.n.severity: must be from 0 to 1, got nan."),
    ("digits", f"{NOISE} faults.n.severity=high", "faults.n.severity: must be a number, got 'high'."),
    ("digits", f"{NOISE} faults.n.sverity=1", "faults.n.sverity: 'sverity' is not a key of [faults.n]. Nearest: 'se"),
    ("digits", f"{NOISE} faults.n.clients=-0.1", "faults.n.clients: must be from 0 to 1, got -0.1."),
    ("digits", f"{NOISE} faults.n.snr_db=inf", "faults.n.snr_db: must be at most 1e+18, got inf: float32"),
    ("traffic", f"{NOISE} faults.n.districts=['Nowhere']", "faults.n.districts: 'Nowhere' is not a district."),
    ("traffic", f"{NOISE} faults.n.districts=Nowhere", "faults.n.districts: 'Nowhere' is not a district."),
    ("digits", f"{NOISE} faults.n.districts=['Centre']", "faults.n.districts: names 'Centre',"),
    ("traffic", f"{NOISE} faults.n.channels=['sped']", "faults.n.channels: 'sped' is not a measured channel. Nearest:"),
    ("traffic", f"{NOISE} faults.n.schedule.unit=days", "faults.n.schedule.unit: must be 'rounds' or 'hours', got"),
    ("traffic", f"{NOISE} faults.n.schedule=5", "faults.n.schedule: must be a section (a table of keys), got 5."),
    ("traffic", f"{NOISE} faults.n.schedule.start=5 faults.n.schedule.stop=3", "faults.n.schedule.stop: must be later"),
    ("traffic", f"{NOISE} faults.n.schedule.stop=soon", "faults.n.schedule.stop: must be a number, got 'soon'."),
    ("digits", f"{NOISE} faults.n.schedule.unit=hours", "faults.n.schedule.unit: is 'hours',"),
    ("intrusion", f"{NOISE} faults.n.schedule.unit=hours faults.n.schedule.start=450", "faults.n.schedule.start: must"),
    ("traffic", f"{NOISE} faults.n.schedule.unit=hours faults.n.schedule.start=336", "faults.n.schedule.start: must"),
    ("digits", "faults.m.kind=missing faults.m.fill=next", "faults.m.fill: must be 'last', 'zero', 'mean' or"),
    ("digits", "faults.u.kind=unit_mixup", "faults.u.kind: is 'unit_mixup', and no channel of these data has another"),
    ("traffic", "faults.f.kind=label_symmetric", "faults.f.kind: is 'label_symmetric', and these data have no labels"),
    ("digits", "faults.f.kind=label_class_dependent", "faults.f.rates: is missing in digits-"),
    ("digits", "faults.f.kind=label_class_dependent faults.f.rates=[0.1,0.2]", "faults.f.rates: must have one rate"),
    ("quadratic", NOISE, "faults: need examples, and these data are an objective."),
    # [drifts.NAME]
    ("digits", "drifts.d.kind=sudden", "drifts.d.kind: 'sudden' is not a kind of concept drift."),
    ("digits", "drifts.d.changes=p(x)", "drifts.d.kind: is missing"),
    ("digits", "drifts.d=3", "drifts: must hold named tables"),
    ("digits", f"{ABRUPT} drifts.d.changes=p(z)", "drifts.d.changes: must be 'p(x)', 'p(y)' or 'p(y|x)', got 'p(z)'."),
    ("digits", f"{ABRUPT} drifts.d.strength=2", "drifts.d.strength: must be from 0 to 1, got 2.0."),
    ("digits", f"{ABRUPT} drifts.d.duration=0", "drifts.d.duration: must be a finite number > 0, got 0.0."),
    ("digits", f"{ABRUPT} drifts.d.start=nan", "drifts.d.start: must be a finite number >= 0, got nan."),
    ("digits", f"{ABRUPT} drifts.d.strt=1", "drifts.d.strt: 'strt' is not a key of [drifts.d]. Nearest: 'start'."),
    ("digits", f"{ABRUPT} drifts.d.unit=hours", "drifts.d.unit: is 'hours', and these data have no clock."),
    ("digits", f"{ABRUPT} drifts.d.districts=['A']", "drifts.d.districts: names 'A', and these data have no"),
    ("quadratic", ABRUPT, "drifts.d: needs examples with targets, and these data are an objective."),
    ("bridge", ABRUPT, "drifts.d.changes: is 'p(y|x)', and the targets of these data are their features."),
    # [features]
    ("digits", "features.normalise=all", "features.normalise: must be 'none', 'client' or 'federated', got 'all'."),
    ("digits", "features.normalize=client", "features.normalize: 'normalize' is not a key of [features]. Nearest:"),
    ("digits", "features=client", "features: must be a section (a table of keys), got 'client'."),
    ("digits", "features.keep=3", "features.keep: needs `select`."),
    ("traffic", "features.select=variance features.keep=50", "features.keep: must be at most the "),
    ("traffic", "features.select=mutual_information features.keep=2", "features.select: mutual_information needs"),
    ("quadratic", "features.normalise=client", "features.normalise: needs features, and these data are an objective."),
    # [world] and generated data
    ("traffic", "world.days=0", "world.days: must be from 1 to 3660, got 0."),
    ("traffic", "world.start=yesterday", "world.start: must be a date such as 2026-01-05, got 'yesterday'."),
    ("traffic", "world.distrcts=3", "world.distrcts: 'distrcts' is not a key of [world]. Nearest: 'districts'."),
    ("traffic", "world.districts=2.5", "world.districts: must be a whole number, got 2.5."),
    ("traffic", "world=4", "world: must be a section (a table of keys), got 4."),
    ("traffic", "data.clients=0", "data.clients: must be >= 1, got 0."),
    ("traffic", "data.task=forcast", "data.task: must be 'forecast' or 'congestion', got 'forcast'."),
    ("traffic", "data.window=5000", "data.window: must leave a window of the "),
    ("traffic", "partition.kind=iid partition.clients=3", "partition.kind: 'iid' deals out pooled examples, and data "),
    # a requested partition
    ("requested", "", "partition.kind: 'requested' needs a value to reach."),
    ("requested", "partition.label_js=0.3 partition.label_emd=0.5", "partition.label_emd: cannot be given together"),
    ("requested", "partition.label_js=1.5", "partition.label_js: must be from 0 to 1, got 1.5."),
    ("requested", "partition.label_js=0.999", "partition.label_js: 0.999 cannot be reached for these sizes and labels"),
    ("requested", "partition.label_js=0.3 partition.tolerance=0", "partition.tolerance: must be a finite number > 0"),
    # remedies
    ("traffic", "local.sampling=class_balanced", "local.sampling: is 'class_balanced', which needs class labels"),
    ("traffic", "local.focal_gamma=2", "local.focal_gamma: is 2.0, which needs class labels"),
    ("intrusion", "local.augment.time_shift=3", "local.augment.time_shift: moves windows [time, channels], and exampl"),
    ("intrusion", "local.augment.jiter=1", "local.augment.jiter: 'jiter' is not a key of [local.augment]. Nearest:"),
    ("intrusion", "local.class_weights=equal", "local.class_weights: must be 'none', 'inverse' or 'effective', got"),
    ("intrusion", "local.effective_beta=1.5", "local.effective_beta: must be in [0, 1), got 1.5."),
]  # fmt: skip


@pytest.mark.parametrize(("data", "sets", "message"), CASES, ids=[f"{data} {sets}" for data, sets, _ in CASES])
def test_error_names_the_key_in_one_line(data: str, sets: str, message: str, capsys: Capture, tmp_path: Path) -> None:
    changes = [*SMALL, *DATA[data], *sets.split()]
    arguments = [a for change in changes for a in ("--set", change)]
    assert mistake(capsys, "run", *arguments, "--out", str(tmp_path / "run")).startswith(message)
    assert not (tmp_path / "run").exists(), "the mistake created a folder"
