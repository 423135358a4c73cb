"""What a study's process tells a process that plays runs: the run, without anything that needs torch to be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Job:
    """A run to be played.

    Attributes:
        key: its identity.
        scenario: its scenario as TOML, with its seed.
        notices: what was dropped or replaced when the scenario was loaded.
        threads: of each process of the study.
        looks: whether the parts of the run are digested, to show what arms share.
        data: the digest of its data files, which is part of its identity; empty for data without files.
        study: the study's name, for the run's record.
        arm: the arm's name; empty for a run of no arm, such as a tuning's.
    """

    key: str
    scenario: str
    notices: tuple[str, ...] = ()
    threads: int = 1
    looks: bool = False
    data: str = ""
    study: str = ""
    arm: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Job:
        """Return the job that `to_dict` described."""
        return cls(**{**values, "notices": tuple(values["notices"])})
