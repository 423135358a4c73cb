"""Causes in the federation: local work, unequal clients, the cohort, participation, batch statistics, bad clients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from clients.core.arrays import F64, I64
from server.convergence.facts import shown
from server.diagnosis.evidence import Evidence
from server.diagnosis.finding import NOTHING, Change, Sign

FITTED = 3.0
"""Times that the global model's training loss exceeds the loss during local steps."""
MANY_STEPS = 25.0
"""Local steps in a round that are many."""
GAP = 0.03
"""Share of the fall of the loss that lies between the global model and the local ones."""
SKEW = 0.5
"""Distance of clients' labels from all labels, beyond chance; at most 2."""
LARGER_GAIN, COHORT_GAIN = 0.008, 0.004
"""Share of what was gained that four times the cohort gains in one round: of unequal clients, and of few ones."""
FEW = 5.0
"""Clients of a cohort that are few."""
PARTED, APART, LONE = 2.3, 2.0, 2.0
"""Ratio of the losses on both sides of the gap, of the medians, and the factor by which a single client must exceed."""
PARTED_LOCALLY = 1.85
"""The same ratio of losses during local steps, which bring clients closer together."""
WRONG, CHANCE = 0.1, 2.0
"""By how much the accuracy on validation examples exceeds that on the clients' own, and in standard errors."""
BEHIND, BEHIND_MOST = 0.15, 1.5
"""Share of the way to the reference that a run with batch statistics leaves, and the largest strength of that."""
UNEVEN, RELATED = 3.0, 0.35
"""Dispersion of the clients' numbers of rounds beyond chance, and their correlation with the loss."""


def gap(e: Evidence) -> float:
    """Return how far the global model's training loss lies above the loss during local steps, as a share of `scale`."""
    here = e.objective("end") - e.local_loss
    return float(here / e.scale) if math.isfinite(here) else 0.0


def steps_of(e: Evidence) -> float:
    """Return the mean local steps of a client in a round."""
    found = [
        line["local_steps"] / line["respondents"]
        for line in e.lines
        if line.get("local_steps") and line.get("respondents")
    ]
    return float(np.median(found)) if found else 0.0


def too_many_local_steps(e: Evidence) -> Sign:
    """Clients fit their own data closely in many steps, and the mean of their models fits none."""
    globally, locally = e.objective("end"), e.local_loss
    if not (math.isfinite(globally) and math.isfinite(locally)) or locally <= 0:
        return NOTHING
    steps = steps_of(e)
    strength = min(globally / locally / FITTED, steps / MANY_STEPS, gap(e) / GAP)
    words = (
        f"clients take {steps:.0f} local steps a round",
        f"their training loss falls to {shown(locally)} on the way, that of the averaged model is {shown(globally)}",
    )
    return Sign(strength, words)


def fewer_steps(e: Evidence) -> Change:
    """Return a quarter of the local work."""
    if e.get("local.local_steps") is not None:
        return Change({"local.local_steps": max(1, int(steps_of(e) // 4))}, "take a quarter of the local steps")
    epochs = int(e.get("local.local_epochs") or 1)
    if epochs >= 4:
        return Change({"local.local_epochs": epochs // 4}, "take a quarter of the local epochs")
    return Change({"local.local_steps": max(1, int(steps_of(e) // 4))}, "take a quarter of the local steps")


def heterogeneity(e: Evidence) -> Sign:
    """Clients hold different classes, and their models fit their own data better than the mean of them does."""
    strength = min(e.emd / SKEW, max(gap(e) / GAP, e.gain("end", "larger_cohort") / LARGER_GAIN))
    words = (
        f"clients' labels are {e.emd:.2f} further from all labels (L1) than a random deal would put them",
        f"the averaged model's training loss is {shown(gap(e) * e.scale)} above the loss in local training",
    )
    return Sign(strength, words)


def correct_drift(e: Evidence) -> Change:
    """Return SCAFFOLD."""
    if e.get("algorithm.kind") == "scaffold":
        return fewer_steps(e)
    return Change({"algorithm.kind": "scaffold"}, "correct client drift by SCAFFOLD")


def cohort_matters(e: Evidence) -> bool:
    """Return whether a larger cohort could be a cause: clients are few in a round, or hold different classes.

    The trial of a larger cohort costs as much as all others; elsewhere no cause can come of it.
    """
    return e.emd >= SKEW or respondents_of(e) <= FEW


def respondents_of(e: Evidence) -> float:
    """Return the median number of clients that took part in a round; 0 without rounds."""
    return float(np.median([line.get("respondents") or 0 for line in e.lines[1:]])) if len(e.lines) > 1 else 0.0


def cohort_too_small(e: Evidence) -> Sign:
    """Few clients a round, and more of them would gain."""
    cohort = respondents_of(e)
    if cohort <= 0 or cohort >= int(e.started.get("clients") or 0):
        return NOTHING
    gain = e.gain("end", "larger_cohort")
    strength = min(gain / COHORT_GAIN, math.sqrt(FEW / cohort))
    words = (
        f"{cohort:.0f} clients take part in a round",
        f"a round with four times as many ends {shown(gain * e.scale)} lower",
    )
    # the mean of more clients varies less, as smaller steps do
    explains = ("rate_too_high", "noise_floor") if gain >= max(e.gain("end", "half_rate"), 0.0) else ()
    return Sign(strength, words, explains=explains)


def larger_cohort(e: Evidence) -> Change:
    """Return four times the cohort."""
    cohort = max(1, int(respondents_of(e)))
    most = int(e.started.get("clients") or 4 * cohort)
    return Change({"algorithm.cohort": min(4 * cohort, most)}, "take four times as many clients in a round")


def batch_statistics(e: Evidence) -> Sign:
    """Batch normalisation where clients hold different classes: the averaged statistics fit no client."""
    if e.get("model.norm") != "batch":
        return NOTHING
    strength = min(2 * e.emd / SKEW, max(1.5 * gap(e) / GAP, min(e.shortfall / BEHIND, BEHIND_MOST)))
    words = (
        "the model has batch normalisation, and its statistics are averaged over clients",
        f"clients' labels are {e.emd:.2f} further from all labels (L1) than a random deal would put them",
        f"with averaged statistics the training loss is {shown(e.objective('end'))}, "
        f"in local training {shown(e.local_loss)}",
        *e.short_words,
    )
    return Sign(strength, words)


def group_norm(e: Evidence) -> Change:
    """Return group normalisation."""
    return Change({"model.norm": "group"}, "normalise by groups instead of batches")


def bad_clients(e: Evidence) -> Sign:
    """A minority of the clients has a much larger training loss than all others, with a gap between.

    The last model's losses are taken where they were looked at, and losses during local steps otherwise. Losses of
    clients with unusual but clean data go over into those of the others; clients with wrong labels or readings stay
    apart. Where most labels are wrong no client stands apart, and the model agrees with validation labels more often
    than with those that it learnt from.
    """
    if e.ruined:
        return NOTHING
    clients, losses = _local_losses(e)
    locally = _parted(e, clients, losses, PARTED_LOCALLY, "keep a training loss in local steps of")
    end = e.looks.get("end")
    if end is None:
        return locally
    sample, seen = np.asarray(e.looks["clients"], np.int64), np.asarray(end["losses"], np.float64)
    found = _parted(e, sample, seen, PARTED, "have a training loss at the last model of")
    # the record has all clients that took part, the looks a sample of them
    everyone = locally.clients if locally.strength >= 1 and len(locally.clients) > len(found.clients) else found.clients
    found, mislabelled = replace(found, clients=everyone), _mislabelled(end.get("accuracy"))
    if mislabelled.strength <= found.strength:
        return found
    if found.strength < 1:
        return mislabelled
    return replace(mislabelled, evidence=mislabelled.evidence + found.evidence, clients=found.clients)


def _mislabelled(accuracy: Mapping[str, float] | None) -> Sign:
    """Return how far the accuracy on validation examples exceeds that on clients' own, in units of the threshold.

    Of few validation examples it must be beyond chance.
    """
    if accuracy is None:
        return NOTHING
    own, other = accuracy["training"], accuracy["validation"]
    error = math.sqrt(own * (1.0 - own) / accuracy["examples"])
    words = (
        f"the last model agrees with {other:.0%} of the validation labels, and with {own:.0%} of the clients' labels, "
        "which it learnt from",
    )
    return Sign((other - own) / max(WRONG, CHANCE * error), words)


def _parted(e: Evidence, clients: I64, losses: F64, apart: float, words: str) -> Sign:
    """Return how clearly the clients with the largest losses stand apart from the others, in units of `apart`."""
    if len(losses) < 6 or not np.isfinite(losses).all() or losses.min() <= 0:
        return NOTHING
    order = np.argsort(-losses, kind="stable")
    falling = losses[order]
    most = max(1, int(0.4 * len(falling)))
    ratios = falling[:most] / falling[1 : most + 1]
    ratios[0] /= LONE  # one large value alone is often chance
    last = int(np.argmax(ratios))
    bad, rest = falling[: last + 1], falling[last + 1 :]
    away = float(np.median(bad) / np.median(rest))
    clause = (
        f"{len(bad)} of {len(losses)} clients {words} {shown(float(np.median(bad)))} (median), "
        f"the others {shown(float(np.median(rest)))}, and none lies between {shown(float(rest[0]))} and "
        f"{shown(float(bad[-1]))}"
    )
    names = tuple(e.name(int(k)) for k in clients[order[: last + 1]])
    return Sign(min(float(ratios[last]) / apart, away / APART), (clause,), names)


def _local_losses(e: Evidence) -> tuple[I64, F64]:
    """Return the clients that took part in the newer half of the record, and the median local training loss of each."""
    who = np.asarray(e.columns.get("client", ()), np.int64)
    losses = np.asarray(e.columns.get("train_loss", ()), np.float64)
    newer = slice(len(who) // 2, None)
    who, losses = who[newer], losses[newer]
    order = np.argsort(who, kind="stable")
    clients, starts = np.unique(who[order], return_index=True)
    medians = [float(np.median(part)) for part in np.split(losses[order], starts[1:])] if len(who) else []
    return clients.astype(np.int64), np.array(medians, np.float64)


def robust_mean(e: Evidence) -> Change | None:
    """Return what to do with bad clients: look at them; no scenario key leaves clients out."""
    if bad_clients(e).clients:
        return Change({}, "look at the data of these clients, or leave them out")
    return Change({}, "find out where the clients' labels come from: they differ from those of the validation examples")


def biased_participation(e: Evidence) -> Sign:
    """Some clients take part much less often than others, and the model is worse for them."""
    end, clients = e.looks.get("end"), np.asarray(e.columns.get("client", ()), np.int64)
    total = int(e.started.get("clients") or 0)
    if end is None or not len(clients) or total < 8:
        return NOTHING
    counts = np.bincount(clients, minlength=total).astype(np.float64)
    expected = counts.mean()
    chance = max(expected * (1 - min(1.0, expected / max(1, e.rounds))), 0.1)
    uneven = float(counts.var() / chance)
    sample: I64 = np.asarray(e.looks["clients"], np.int64)
    related = -_rank_correlation(counts[sample], np.asarray(end["losses"], np.float64))
    never = float(np.mean(counts == 0))
    words = (
        f"the numbers of rounds that clients took part in vary {uneven:.1f} times as much as by chance, "
        f"and {never:.0%} never did",
        f"the rarer a client took part, the larger its loss (rank correlation {related:.2f})",
    )
    # where some clients rarely take part, the loss of all can rise, and every step towards the others looks like noise
    return Sign(min(uneven / UNEVEN, related / RELATED), words, explains=("rate_too_high", "noise_floor"))


def _rank_correlation(x: F64, y: F64) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(np.float64) for values in (x, y)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def even_participation(e: Evidence) -> Change:
    """Return uniform sampling where the scenario samples otherwise."""
    if e.get("algorithm.sampling") == "by_examples":
        return Change({"algorithm.sampling": "uniform", "algorithm.weighting": "unbiased"}, "draw clients uniformly")
    return Change(
        {}, "find out why these clients do not answer, and weigh those of their kind that do by what is missing"
    )
