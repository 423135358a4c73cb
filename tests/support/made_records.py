"""Synthetic records for tests, made in milliseconds, with the shape of real records and distinct numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clients.core.population import Population
from clients.heterogeneity.measures import partition_table
from server.dispersion.summary import quantiles
from server.record.checked.json_files import read_json, write_json
from server.record.checked.line_files import read_rounds
from server.record.jsonlines import RoundWriter
from server.record.recorder import Recorder
from server.record.records import RunFolder

TITLE = 'Made up </script><script>alert("title")</script> & <b>more</b>'


def line_of(round_index: int, clients: np.ndarray, *, shift: float = 0.0) -> dict[str, Any]:
    """Return a round's line: losses that fall, drift that depends on the client."""
    r, drift = round_index, (1.0 + clients % 7) / (10.0 + round_index)
    line: dict[str, Any] = {
        "round": r,
        "validation_loss": 0.2 + 2.0 * 0.97**r + shift,
        "validation_accuracy": 0.95 - 0.85 * 0.95**r - shift,
        "bytes_total": 38480 * r,
        "simulated_seconds_total": 0.5 * r,
        "criteria": {
            "target": _look(0.9 - 0.85 * (1 - 0.95**r), r >= 20, min(max(r - 17, 0), 3)),
            "plateau": _look(1.0 if r % 5 else 0.0, False, 1 if r % 5 == 0 else 0),
        },
    }
    if not r:
        return line
    cosine = np.cos(clients + r / 9.0)
    line |= {
        "cohort": len(clients),
        "respondents": len(clients) - r % 2,
        "failures": r % 2,
        "rejected": r % 3,
        "late_replies": r % 4,
        "repeats": r % 5,
        "train_loss": 1.9 * 0.95**r + 0.02 + shift,
        "client_drift": {"mean": float(drift.mean())} | quantiles(drift),
        "worst_client_drift": [{"client": int(c), "name": f"site {c}", "value": 1.0} for c in clients[:2]],
        "cosine": {"mean": float(cosine.mean())} | quantiles(cosine),
        "update_norm": {"mean": 1.0} | quantiles(drift * 3),
        "update_dispersion": float(drift.var()) + 1e-6,
        "gradient_diversity": 1.5,
        "step_norm": 0.3 * 0.97**r,
        "relative_change": 0.01 * 0.97**r,
        "by_layer": {
            "0.weight": {"update_dispersion": 0.5 / r, "aggregate_norm": 0.2 / r},
            "2.weight": {"update_dispersion": 0.25 / r, "aggregate_norm": 0.4 / r},
        },
        "wall_seconds": 0.01,
        "clients_per_second": 1000.0 + r,
        "workers": {"count": 2, "busy_seconds": [0.004, 0.006], "imbalance": 1.2},
    }
    if r % 5 == 0:
        line["rate"] = {"metric": "validation_loss", "factor": 0.97, "low": 0.96, "high": 0.98, "limit": 0.2}
        line |= {"federated_loss": line["validation_loss"] + 0.1, "federated_accuracy": 0.8}
        line["client_spread"] = {"score": quantiles(np.linspace(0.5, 0.9, 20))}
    return line


def city_of(round_index: int, *, districts: int = 4) -> dict[str, Any]:
    """Return the keys of a city in a round's line: two faults from rounds 5 and 12 on, a drift that grows."""
    r = round_index
    if not r:
        return {}
    stuck, level = (0.25 if 5 <= r < 20 else 0.0), min(max((r - 10) / 20, 0.0), 1.0)
    noise = 0.1 + 0.001 * r if r >= 12 else 0.0
    names = [f"district {d}" for d in range(districts) if (r + d) % 7]  # one of them has no respondent in some rounds
    return {
        "faults": {
            "stuck": {"changed": stuck, "clients": int(8 * stuck), "effect": 3.0 * stuck},
            "noise.db": {"changed": noise, "clients": 5 if noise else 0, "effect": 12.5 if noise else 0.0},
        },
        "concept_drift": {"seasons": {"level": level, "clients": int(20 * level)}},
        "districts": {
            name: {"clients": 3 + d, "train_loss": 1.0 / r + 0.1 * d, "client_drift": (1.0 + d) / (10.0 + r),
                   "changed": stuck * (d % 2)} | ({} if d or r % 3 else {"train_loss": math.nan})
            for d, name in enumerate(names)
        },
    }  # fmt: skip


CITY_EVENTS: tuple[dict[str, Any], ...] = (
    {"round": 5, "kind": "fault_started", "name": "stuck", "message": "fault stuck began: 8 clients"},
    {"round": 11, "kind": "drift_started", "name": "seasons", "message": "concept drift seasons began"},
    {"round": 12, "kind": "fault_started", "name": "noise.db", "message": "fault noise.db began: 5 clients"},
    {"round": 14, "kind": "power_cut", "name": "Old Town", "message": "power cut <i>in Old Town</i>", "from_hour": 140,
     "hours": 3},
    {"round": 20, "kind": "fault_ended", "name": "stuck", "message": "fault stuck ended"},
)  # fmt: skip


def _look(distance: float, holds: bool, held: int) -> dict[str, Any]:
    return {"value": 1.0, "threshold": 0.5, "held": held, "needed": 3, "holds": holds, "first_held": None,
            "distance": max(distance, 0.0), "words": "a criterion's words"}  # fmt: skip


def make_record(
    path: Path,
    *,
    rounds: int = 40,
    clients: int = 30,
    seed: int = 7,
    kind: str = "fedavg",
    shift: float = 0.0,
    outcome: Mapping[str, Any] | None = None,
    ended: bool = True,
    rows: bool = True,
    partition: Population | None = None,
    city: bool = False,
) -> RunFolder:
    """Write a synthetic record.

    Args:
        path: its folder.
        rounds: how many.
        clients: all of them answer each round.
        seed: in the scenario and the facts.
        kind: the algorithm's.
        shift: added to losses and taken from the score.
        outcome: keys that replace the usual outcome's.
        ended: False leaves the outcome out.
        rows: False leaves the client rows out.
        partition: writes partition.json of it.
        city: adds `city_of` each round, and `CITY_EVENTS`.
    """
    folder = RunFolder.create_at(path)
    folder.write_scenario(
        f'title = "made up"\nname = "made-up"\n[algorithm]\nkind = "{kind}"\n[run]\nseed = {seed}\n'
        '[convergence.target]\nmetric = "validation_accuracy"\nat_least = 0.9\n'
    )
    if partition is not None:
        folder.write_partition(partition_table(partition))
    recorder = Recorder(folder)
    recorder.run_started({"scenario": "made-up", "title": TITLE, "seed": seed, "rounds": 100, "clients": clients,
                          "examples": 900, "cohort": clients, "algorithm": kind, "model": "softmax", "parameters": 650,
                          "label_js": 0.5, "label_emd": 1.25, "version": "0.1.0"})  # fmt: skip
    everyone = np.arange(clients)
    for index in range(rounds + 1):
        recorder.round_finished(line_of(index, everyone, shift=shift) | (city_of(index) if city else {}))
        if index and rows:
            recorder.clients.add(index, columns_of(index, everyone))
    recorder.event({"round": 3, "kind": "clients_failed", "message": "1 of 30 clients failed: <i>out of memory</i>"})
    for event in CITY_EVENTS if city else ():
        recorder.event(event)
    if ended:
        words = f"stopped at round {rounds}: the budget of {rounds} rounds is spent"
        recorder.run_finished({"outcome": "stopped", "round": rounds, "words": words, "test_accuracy": 0.9 - shift,
                               "to_target": {"metric": "validation_accuracy", "value": 0.9, "rounds": 20 + seed},
                               "condition": {"kind": "improving", "round": rounds, "words": "validation loss falls",
                                             "numbers": {"fall": 0.25}},
                               "signs": [{"name": "outputs_agree", "says": "not_measured", "number": None,
                                          "words": "no agreement was measured"}],
                               "best_model": {"round": max(rounds - 1, 0), "metric": "validation_loss",
                                              "value": 0.25 + shift},
                               "record": str(path), **(outcome or {})})  # fmt: skip
    else:
        recorder.sync()
    recorder.close()
    return folder


def columns_of(round_index: int, clients: np.ndarray) -> dict[str, np.ndarray]:
    """Return a round's client rows."""
    drift = (1.0 + clients % 7) / (10.0 + round_index)
    return {"client": clients, "num_examples": clients + 10, "train_loss": drift + 0.1, "client_drift": drift,
            "cosine": np.cos(clients + round_index / 9.0), "update_norm": drift * 3}  # fmt: skip


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Replace the values of a file of a record by what `change` makes of them, with checksums that fit.

    Args:
        path: a file of JSON, or of lines.
        change: the file's value, or a line's, to the new one.
    """
    if path.suffix == ".json":
        value = read_json(path)
        assert value is not None
        write_json(path, change(value[0]))
        return
    lines = list(read_rounds(path)[0])
    path.unlink()
    writer = RoundWriter(path)
    for line in lines:
        writer.append(change(line))
    writer.close()
