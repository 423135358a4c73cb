"""Looks for every cause and ranks what is found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from server.diagnosis.evidence import Evidence
from server.diagnosis.finding import Cause, Diagnosis, Finding, Sign
from server.diagnosis.table import CAUSES

MOST = 4.0
"""Strength beyond which a cause is not more certain."""


def diagnose(e: Evidence) -> Diagnosis:
    """Return the causes of a run's course, the most likely first; none for a healthy run.

    A finding that another one explains ranks after it, whatever its strength.
    """
    with np.errstate(all="ignore"):  # records of diverged runs hold numbers at the end of their range
        signs = {cause.kind: _finite(cause.look(e)) for cause in CAUSES}
    named = [cause for cause in CAUSES if signs[cause.kind].strength >= 1.0]
    explained = _explained(named, signs)
    weights = {cause.kind: cause.weight for cause in CAUSES}
    findings = [
        Finding(
            cause.kind,
            cause.title,
            signs[cause.kind].strength,
            signs[cause.kind].evidence,
            cause.change(e),
            signs[cause.kind].clients,
            explained.get(cause.kind, ""),
            signs[cause.kind].round_index,
        )
        for cause in named
    ]
    findings.sort(key=lambda f: (bool(f.because_of), -min(f.strength, MOST) * weights[f.kind], -f.strength))
    blind = () if e.looks else ("only the record was read: `fedscape explain` also looks at data and gradients",)
    return Diagnosis(tuple(findings), {kind: sign.strength for kind, sign in signs.items()}, blind)


def _explained(named: Sequence[Cause], signs: Mapping[str, Sign]) -> dict[str, str]:
    """Return the kind that explains each explained one. What a run's evidence shows goes before what is usual."""
    usual = {kind: cause.kind for cause in named for kind in cause.explains if cause.kind not in signs[kind].explains}
    return usual | {kind: cause.kind for cause in named for kind in signs[cause.kind].explains}


def _finite(sign: Sign) -> Sign:
    """Return a sign with a strength of 0 where it is not a number, and at most 10."""
    strength = sign.strength
    return replace(sign, strength=0.0 if math.isnan(strength) else min(max(strength, 0.0), 10.0))
