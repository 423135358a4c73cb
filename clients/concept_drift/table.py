"""The table of concept drifts, and the level of a drift for each client and example."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clients.concept_drift.options import DriftOptions
from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.options import names_of
from clients.core.rows import Row, Table


@dataclass(frozen=True, kw_only=True)
class DriftRow(Row):
    """A kind of concept drift: how it sets in.

    Attributes:
        level: (options, time since its start) -> its level, 0 to 1.
        takes_time: whether it is complete after `duration`.
        recurs: whether it turns off and on again.
        by_example: whether single examples switch; the level is then the share that has switched.
    """

    level: Callable[[DriftOptions, F64], F64]
    takes_time: bool = False
    recurs: bool = False
    by_example: bool = False


def _at_once(options: DriftOptions, since: F64) -> F64:
    return np.asarray(since >= 0, np.float64)


def _rising(options: DriftOptions, since: F64) -> F64:
    return np.asarray(np.clip(since / options.duration, 0.0, 1.0), np.float64)


def _on_and_off(options: DriftOptions, since: F64) -> F64:
    on = (since >= 0) & (np.floor(np.where(since >= 0, since, 0.0) / options.period) % 2 == 0)
    return np.asarray(on, np.float64)


DRIFTS: Table[DriftRow] = Table(
    "a kind of concept drift",
    DriftRow(kind="abrupt", options=DriftOptions, level=_at_once),
    DriftRow(kind="gradual", options=DriftOptions, level=_rising, takes_time=True, by_example=True),
    DriftRow(kind="incremental", options=DriftOptions, level=_rising, takes_time=True),
    DriftRow(kind="recurring", options=DriftOptions, level=_on_and_off, recurs=True),
)


def drifting(name: str, options: DriftOptions, clients: I64, district: I64, among: I64, seed: int) -> F64:
    """Return when the drift starts for each client, inf for those it leaves alone, float64 (K,).

    Args:
        name: name of the drift.
        options: options of the drift; clients that it names are indices (`clients.federation.named`).
        clients: (K,).
        district: of each client, (K,).
        among: districts it affects.
        seed: root seed.
    """
    draw = streams.uniforms(streams.keys(seed, f"concept drift/{name}", clients), 2)
    if names := names_of(options.clients):
        assert all(isinstance(k, int) for k in names), "names of clients are replaced by their indices before"
        chosen = np.isin(clients, np.array(names, np.int64))
    else:
        assert isinstance(options.clients, int | float)
        chosen = draw[:, 0] < options.clients
    chosen &= options.strength > 0
    if options.districts:
        chosen &= np.isin(district, among)
    return np.where(chosen, options.start + options.stagger * draw[:, 1], np.inf)


def level(options: DriftOptions, start: F64, now: F64 | float) -> F64:
    """Return the level of the drift, 0 to 1, for starts and times that broadcast together.

    Example:
        >>> rising = DriftOptions(kind="incremental", duration=10)
        >>> level(rising, np.array([0.0, 5.0, np.inf]), 10.0).tolist()
        [1.0, 0.5, 0.0]
    """
    return DRIFTS.row_of(options).level(options, np.asarray(now, np.float64) - start)


def turns(options: DriftOptions, round_index: int) -> list[tuple[str, str]]:
    """Return the events of a drift in rounds at the start of a round: kinds and verbs.

    Example:
        >>> [turns(DriftOptions(kind="recurring", start=2, period=3), r) for r in (1, 2, 5)]
        [[], [('drift_started', 'starts')], [('drift_level', 'is off')]]
    """
    row, first = DRIFTS.row_of(options), max(1, int(np.ceil(options.start)))
    events = [("drift_started", "starts")] if round_index == first else []
    if row.takes_time:
        last, verb = options.start + options.stagger + options.duration, "is complete"
    elif options.stagger:
        last, verb = options.start + options.stagger, "has reached every client it is for"
    else:
        last, verb = np.inf, ""
        if row.recurs and round_index > first:
            before, now = level(options, np.array(options.start), np.array([round_index - 1.0, round_index]))
            events += [("drift_level", "is on again" if now else "is off")] if now != before else []
    if round_index == max(first, np.ceil(last)):
        events.append(("drift_level", verb))
    return events


def amount(options: DriftOptions, levels: F64, chance: F64) -> F64:
    """Return a of each example: `strength` times its level, or all of it for the share that has switched.

    Args:
        options: of the drift.
        levels: (M,).
        chance: uniform, fixed for each example, (M,).
    """
    if DRIFTS.row_of(options).by_example:
        return np.asarray(options.strength * (chance < levels), np.float64)
    return np.asarray(options.strength * levels, np.float64)
