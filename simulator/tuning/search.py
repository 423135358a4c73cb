"""The trials of a tuning: proposed, reported and ended in Optuna's study, and found again after a kill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from clients.core.errors import FedscapeError
from simulator.scenario.sections import Scenario, load_scenario
from simulator.tuning.measures import score_of
from simulator.tuning.parameters import Parameter, Value, applies
from simulator.tuning.samplers import sampler_of
from simulator.tuning.storage import quietly
from simulator.tuning.trial_runs import Played

MOST_RETRIES = 3
"""Kills in the middle of one trial after which it counts as failed: its runs may be what ends the process."""
PLACE, OWNER, RETRIES = "place", "owner", "retries"
RESULTS, AT_LEAST, ERROR = "results", "at_least", "error"
"""Attributes of a trial."""


@dataclass(frozen=True)
class Proposal:
    """A trial that is to be played.

    Attributes:
        trial: Optuna's.
        values: the values of the parameters that its scenario has.
        scenario: the tuned scenario with these values.
    """

    trial: Trial
    values: Mapping[str, Value]
    scenario: Scenario


@dataclass
class Search:
    """The trials of one study.

    Attributes:
        study: Optuna's.
        scenario: the scenario that is tuned.
        parameters: what is tuned.
        trials: the most trials, those in the study included.
        sampler: the name of the sampler.
        seed: the sampler's.
        owner: the name of the folder that plays trials; a shared database has those of several.
        queue: values to try first, in order.
    """

    study: Study
    scenario: Scenario
    parameters: Sequence[Parameter]
    trials: int
    sampler: str
    seed: int
    owner: str
    queue: Sequence[Mapping[str, Value]] = ()
    _failures: int = field(default=0, init=False)

    def recover(self) -> int:
        """End the trials of this folder that a kill left running, and queue their values again.

        Returns:
            How many were queued.
        """
        with quietly():
            left = [t for t in self._all(TrialState.RUNNING) if t.user_attrs.get(OWNER, self.owner) == self.owner]
            return sum(self.put_back(trial) for trial in left)

    def put_back(self, trial: FrozenTrial | Trial) -> bool:
        """End a trial that was stopped, and queue its values again; return False if it was stopped too often."""
        with quietly():
            attrs = dict(trial.user_attrs)
            retries = int(attrs.get(RETRIES, 0)) + 1
            again = retries <= MOST_RETRIES and PLACE in attrs
            if again:
                self.study.enqueue_trial(dict(trial.params), user_attrs={PLACE: attrs[PLACE], RETRIES: retries})
            self.study.tell(trial.number, state=TrialState.FAIL)
            return again

    def next(self) -> Proposal | None:
        """Return the next trial; None where there are enough.

        Raises:
            UserError: three trials in turn failed.
        """
        while True:
            with quietly():
                trial = self._asked()
            if trial is None:
                return None
            try:
                with quietly():
                    values, scenario = self._values(trial)
            except FedscapeError as error:  # a combination that no scenario can have
                self.fail(trial, str(error))
                continue
            return Proposal(trial, values, scenario)

    def _asked(self) -> Trial | None:
        known = self._all()
        place = 1 + max((int(t.user_attrs[PLACE]) for t in known if PLACE in t.user_attrs), default=-1)
        queued = [t for t in known if t.state == TrialState.WAITING]
        if queued:
            place = int(queued[0].user_attrs.get(PLACE, place))
        else:
            if place >= self.trials:
                return None
            if place < len(self.queue):
                self.study.enqueue_trial(dict(self.queue[place]), user_attrs={PLACE: place})
        others = list(dict.fromkeys(t.user_attrs[OWNER] for t in known if OWNER in t.user_attrs))
        rank = others.index(self.owner) if self.owner in others else len(others)
        self.study.sampler = sampler_of(self.sampler, self.seed + 7919 * rank, place)
        trial = self.study.ask()
        trial.set_user_attr(OWNER, self.owner)
        if PLACE not in trial.user_attrs:
            trial.set_user_attr(PLACE, place)
        return trial

    def report(self, trial: Trial, step: int, value: float) -> bool:
        """Store a value of a trial; return whether the trial goes on."""
        with quietly():
            trial.report(value, step)
            return not trial.should_prune()

    def finish(self, trial: Trial, played: Played) -> None:
        """End a trial whose runs are finished, or that was pruned."""
        with quietly():
            trial.set_user_attr(RESULTS, [result.to_dict() for result in played.results])
            self._failures = 0
            if not played.is_whole:
                self.study.tell(trial, state=TrialState.PRUNED)
                return
            score = score_of(played.results)
            trial.set_user_attr(AT_LEAST, score.at_least)
            self.study.tell(trial, score.value)

    def fail(self, trial: Trial, words: str) -> None:
        """End a trial whose runs failed.

        Raises:
            FedscapeError: it is the third in turn: the mistake is not one of the values.
        """
        with quietly():
            trial.set_user_attr(ERROR, words[:500])
            self.study.tell(trial, state=TrialState.FAIL)
        self._failures += 1
        if self._failures >= 3:
            raise FedscapeError(f"three trials in turn failed; the last one: {words}")

    def _all(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def _values(self, trial: Trial) -> tuple[dict[str, Value], Scenario]:
        """Return the values that a trial proposes for the keys that its scenario has, and the scenario."""
        values: dict[str, Value] = {}
        scenario = self.scenario
        for parameter in self.parameters:
            if applies(parameter, scenario):
                values[parameter.key] = _suggested(trial, parameter)
                scenario = with_values(self.scenario, values)
        return values, scenario


def with_values(scenario: Scenario, values: Mapping[str, Value]) -> Scenario:
    """Return a scenario with the values of parameters."""
    return load_scenario(scenario, sets=[f"{key}={value}" for key, value in values.items()])


def _suggested(trial: Trial, parameter: Parameter) -> Value:
    if parameter.low is None or parameter.high is None:
        chosen: Any = trial.suggest_categorical(parameter.key, parameter.choices)
        return str(chosen)
    if parameter.is_whole:
        step = int(parameter.step or 1)
        return trial.suggest_int(parameter.key, int(parameter.low), int(parameter.high), step=step,
                                 log=parameter.is_log)  # fmt: skip
    return trial.suggest_float(parameter.key, parameter.low, parameter.high, step=parameter.step, log=parameter.is_log)
