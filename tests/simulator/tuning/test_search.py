"""Proposals of a search depend on its trials alone: not on the process, and not on how often it was cut off."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest

from clients.core.errors import FedscapeError
from simulator.scenario.sections import load_scenario
from simulator.tuning.findings import Tuned, found
from simulator.tuning.measures import SeedResult
from simulator.tuning.parameters import parameters_of
from simulator.tuning.search import MOST_RETRIES, Proposal, Search
from simulator.tuning.storage import open_study, quietly
from simulator.tuning.trial_runs import Played

SCENARIO = load_scenario("digits-label-skew")
PARAMETERS = parameters_of(["local_lr=log:0.001:1", "local_epochs=1:8"], SCENARIO)


def search_in(
    folder: Path, *, sampler: str = "tpe", trials: int = 16, owner: str = "a", url: str | None = None
) -> Search:
    """Return a search as a process that has just started would open it."""
    folder.mkdir(exist_ok=True)
    with quietly():
        study = open_study(folder, url, "study", "minimize", {"seeds": [0]})
    study.pruner = optuna.pruners.NopPruner()
    return Search(study, SCENARIO, PARAMETERS, trials, sampler, 7, owner)


def score(proposal: Proposal) -> float:
    """Return a made-up score: the best is local_lr 0.1 and 3 epochs."""
    rate, epochs = float(proposal.values["local.local_lr"]), int(proposal.values["local.local_epochs"])
    return abs(math.log10(rate) + 1) + 0.1 * abs(epochs - 3) + 1


def end(search: Search, proposal: Proposal) -> None:
    search.finish(proposal.trial, Played((SeedResult(0, "run", score(proposal), False, False, 9),), is_whole=True))


def play(search: Search, most: int = 1000) -> list[dict[str, Any]]:
    """Play the next trials, and return their values."""
    values = []
    for _ in range(most):
        if (proposal := search.next()) is None:
            break
        values.append(dict(proposal.values))
        end(search, proposal)
    return values


def findings(search: Search) -> Tuned:
    names = {"name": "a", "measure": "validation_loss", "sampler": "tpe", "pruner": "none"}
    return found(search.study, PARAMETERS, **names, seeds=(0,), within=0.3, has_own=False)


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "qmc"])
def test_search_that_is_cut_off_proposes_what_an_uninterrupted_one_does(sampler: str, tmp_path: Path) -> None:
    whole = play(search_in(tmp_path / "whole", sampler=sampler))
    assert len(whole) == 16
    assert len({values["local.local_lr"] for values in whole}) == 16
    cut: list[dict[str, Any]] = []
    for done in (0, 3, 9):  # after so many trials of each process, one more is cut off
        search = search_in(tmp_path / "cut", sampler=sampler)
        search.recover()
        cut += play(search, done)
        assert search.next() is not None
    search = search_in(tmp_path / "cut", sampler=sampler)
    assert search.recover() == 1
    cut += play(search)
    assert cut == whole
    assert [row.number for row in findings(search).trials] == list(range(16))


def test_better_sampler_comes_closer_to_the_planted_optimum(tmp_path: Path) -> None:
    tuned = {}
    for sampler in ("tpe", "random"):
        search = search_in(tmp_path / sampler, sampler=sampler, trials=50)
        play(search)
        tuned[sampler] = findings(search)
    best = tuned["tpe"].best
    assert 0.07 < float(best["local.local_lr"]) < 0.14
    assert best["local.local_epochs"] == 3
    middle = [sorted(row.value or 0.0 for row in tuned[name].trials[20:])[15] for name in ("tpe", "random")]
    assert middle[0] < middle[1]


def test_flatness_and_importance_are_those_of_the_planted_score(tmp_path: Path) -> None:
    search = search_in(tmp_path, sampler="random", trials=80)
    play(search)
    tuned = findings(search)
    rate, epochs = tuned.flatness
    good = [row for row in tuned.trials if (row.value or 0.0) <= 1.3 * (tuned.value or 0.0)]
    assert tuned.as_good == len(good) > 3
    assert rate.low == min(row.values["local.local_lr"] for row in good)
    assert rate.high == max(row.values["local.local_lr"] for row in good)
    width = 1.3 * (tuned.value or 0.0) - 1  # of the planted score in powers of ten
    assert 10 ** (-1 - width) <= (rate.low or 0.0) < 0.1 < (rate.high or 0.0) <= 10 ** (-1 + width)
    assert rate.importance is not None
    assert epochs.importance is not None
    assert rate.importance > epochs.importance
    assert rate.importance + epochs.importance == pytest.approx(1)


def test_trial_that_is_cut_off_too_often_fails(tmp_path: Path) -> None:
    for cut in range(MOST_RETRIES + 1):
        search = search_in(tmp_path, trials=2)
        assert search.recover() == (cut > 0)
        assert search.next() is not None
    search = search_in(tmp_path, trials=2)
    assert search.recover() == 0
    assert len(play(search)) == 1
    first, second = findings(search).trials
    assert (first.state, second.state) == ("failed", "complete")
    assert first.error == "its process ended in the middle of it"


def test_third_failure_in_turn_ends_the_search(tmp_path: Path) -> None:
    search = search_in(tmp_path)
    for number in range(4):
        proposal = search.next()
        assert proposal is not None
        if number == 1:
            end(search, proposal)
        else:
            search.fail(proposal.trial, "no memory")
    proposal = search.next()
    assert proposal is not None
    with pytest.raises(FedscapeError, match="three trials in turn failed; the last one: no disk"):
        search.fail(proposal.trial, "no disk")


def test_folders_that_share_a_database_have_proposals_of_their_own(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    one, two = (search_in(tmp_path, owner=owner, url=url, sampler="random", trials=6) for owner in ("a", "b"))
    proposals = [search.next() for search in (one, two, one, two)]
    assert len({str(proposal.values) for proposal in proposals if proposal}) == 4
    assert two.recover() == 2  # its own alone
    for search, proposal in ((one, proposals[0]), (one, proposals[2])):
        assert proposal is not None
        end(search, proposal)
    play(two)
    assert len(findings(one).trials) == 6
    assert all(row.state == "complete" for row in findings(one).trials)
