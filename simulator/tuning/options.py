"""The options of a tuning: how many trials, on which seeds, by which measure, and with which of Optuna's samplers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from clients.core.errors import UserError, require, unknown_name
from clients.core.shown.urls import bare_url
from simulator.scenario.values import shown
from simulator.tuning.measures import measure_of
from simulator.tuning.samplers import Pruner, Sampler

MOST_TRIALS, MOST_SEEDS, MOST_PROCESSES = 100_000, 1_000, 1_024


@dataclass(frozen=True, kw_only=True)
class TuningOptions:
    """How a scenario is tuned.

    Attributes:
        trials: trials in all, those of earlier calls and pruned ones included.
        seeds: the seeds of each trial, or how many: then they count up from the scenario's own seed.
        measure: the key of the measure whose median over the seeds is made small or large.
        sampler: which of Optuna's samplers proposes values.
        pruner: which of Optuna's pruners ends hopeless trials early; none does unless it is named.
        sampler_seed: the seed of the sampler's own random numbers.
        processes: trials that are played at once, each in a process of its own.
        storage: URL of a database for Optuna's study, such as sqlite:///tuning.db; None for a journal in the folder.
        study_name: the study's name in that storage; None for the folder's.
        within: share of the best value that still counts as flat: 0.05 is 5%.
    """

    trials: int = 30
    seeds: int | Sequence[int] = 3
    measure: str = "validation_loss"
    sampler: str = "tpe"
    pruner: str = "none"
    sampler_seed: int = 0
    processes: int = 1
    storage: str | None = None
    study_name: str | None = None
    within: float = 0.05

    def __post_init__(self) -> None:
        _require_whole("trials", self.trials, 1, MOST_TRIALS)
        _require_whole("processes", self.processes, 1, MOST_PROCESSES)
        _require_whole("sampler_seed", self.sampler_seed, 0, 2**32 - 1)
        _require_seeds(self.seeds)
        measure_of(self.measure)
        for field, value, kinds in (("sampler", self.sampler, Sampler), ("pruner", self.pruner, Pruner)):
            require(value in get_args(kinds), field, unknown_name(value, get_args(kinds), f"a {field} of Optuna's"))
        is_number = isinstance(self.within, int | float) and not isinstance(self.within, bool)
        good = is_number and 0 <= self.within <= 1
        require(good, "within", f"must be a share from 0 to 1, got {shown(self.within)}", fix="Such as 0.05 for 5%.")
        if self.storage is not None:
            _require_url(self.storage)
        named = self.study_name is None or (isinstance(self.study_name, str) and self.study_name.isprintable())
        require(named and self.study_name != "", "study_name", "must be a name", fix="Such as lr-of-fedavg.")

    def seeds_from(self, first: int) -> tuple[int, ...]:
        """Return the seeds of each trial; a mere number of seeds counts up from `first`."""
        return tuple(range(first, first + self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds)


def options_of(given: dict[str, Any], where: str = "tuning") -> TuningOptions:
    """Return the options in a table.

    Raises:
        UserError: the table has an unknown key, or a value is not valid.
    """
    allowed = list(TuningOptions.__dataclass_fields__)
    for key in given:
        require(key in allowed, f"{where}.{key}", unknown_name(key, allowed, f"a key of [{where}]"))
    return TuningOptions(**given)


def _require_whole(field: str, value: object, low: int, high: int) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    good = is_whole and isinstance(value, int) and low <= value <= high
    require(good, field, f"must be a whole number from {low:,} to {high:,}, got {shown(value)}")


def _require_seeds(seeds: object) -> None:
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        _require_whole("seeds", seeds, 1, MOST_SEEDS)
        return
    fix = "Such as 3, or [11, 12, 13]."
    require(isinstance(seeds, list | tuple | range) and len(seeds) > 0, "seeds",
            f"must be a number of seeds or a list of them, got {shown(seeds)}", fix=fix)  # fmt: skip
    assert isinstance(seeds, list | tuple | range)
    for seed in seeds:
        _require_whole("seeds", seed, 0, 2**63 - 1)
    require(len(set(seeds)) == len(seeds) <= MOST_SEEDS, "seeds", f"must differ, got {shown(list(seeds))}", fix=fix)


def _require_url(storage: object) -> None:
    """Refuse what is no URL of a database; the message never has a password."""
    if not isinstance(storage, str) or "://" not in storage:
        got = bare_url(storage) if isinstance(storage, str) else shown(storage)
        fix = "Such as sqlite:///tuning.db; leave it out for a journal in the folder."
        raise UserError("storage", f"must be the URL of a database, got {got!r}", fix=fix)
