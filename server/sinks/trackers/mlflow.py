"""A run in MLflow: a server, or a database such as sqlite:///mlflow.db. This module is a process.

The experiment is `MLFLOW_EXPERIMENT_NAME`, or `fedscape`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from server.sinks.curves import plain_facts
from server.sinks.trackers.child import serve

MOST_AT_ONCE, GATHER_SECONDS = 900, 2.0
"""Metrics in one request, of which MLflow takes 1,000; and seconds between requests where there are fewer."""
LONGEST_PARAM = 500
RUN_ID = "fedscape.run_id"
_UNFIT = re.compile(r"[^\w\-. :/]", re.ASCII)
_STATUS = {"interrupted": "KILLED", "diverged": "FINISHED"}


class MlflowRun:
    """A run.

    Args:
        target: the tracking URI.
        facts: with `run_id`; a resumed run goes on in the run that has this tag.
        before: the lines recorded before; they are there already.
    """

    def __init__(self, target: str, facts: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> None:
        self._client, self._target = MlflowClient(tracking_uri=target), target
        self._waiting: list[Metric] = []
        self._sent = time.monotonic()
        name, experiment = str(facts.get("run_id", "run")), _experiment(self._client)
        found = self._client.search_runs([experiment], f"tags.`{RUN_ID}` = '{name}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            history = self._client.get_metric_history(self._id, "round")
            self._last = max((metric.step for metric in history), default=-1)
            self._client.update_run(self._id, status="RUNNING")
            return
        self._last = -1
        self._id = self._client.create_run(experiment, run_name=name, tags={RUN_ID: name}).info.run_id
        params = [Param(_fit(key), str(value)[:LONGEST_PARAM]) for key, value in plain_facts(facts).items()]
        self._client.log_batch(self._id, params=params)

    def round(self, number: int, at: float, values: Mapping[str, float]) -> None:
        """Log a round; a round that the run has already is left out: it has the same numbers."""
        if number <= self._last:
            return
        moment = int((at or time.time()) * 1000)
        self._waiting += [Metric(_fit(name), value, moment, number) for name, value in values.items()]
        if len(self._waiting) >= MOST_AT_ONCE or time.monotonic() - self._sent > GATHER_SECONDS:
            self._flush()

    def end(self, outcome: Mapping[str, Any] | None, values: Mapping[str, float]) -> str:
        """Log the outcome at its round, and end the run."""
        status = "FAILED"
        if outcome is not None:
            status = _STATUS.get(str(outcome.get("outcome")), "FINISHED")
            number, moment = int(outcome.get("round", 0)), int(time.time() * 1000)
            self._waiting += [Metric(_fit(name), value, moment, number) for name, value in values.items()]
            tags = {"fedscape.outcome": outcome.get("outcome"), "fedscape.verdict": outcome.get("words")}
            self._client.log_batch(self._id, tags=[RunTag(key, str(word)[:5000]) for key, word in tags.items()])
        self._flush()
        self._client.set_terminated(self._id, status)
        return f"run {self._id} of {self._target}"

    def _flush(self) -> None:
        while self._waiting:
            self._client.log_batch(self._id, metrics=self._waiting[:MOST_AT_ONCE])
            del self._waiting[:MOST_AT_ONCE]
        self._sent = time.monotonic()


def _experiment(client: MlflowClient) -> str:
    """Return the id of the experiment; another process may make it at the same moment."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "fedscape"
    for _ in range(2):
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(client.create_experiment(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    raise MlflowException(f"the experiment {name!r} can neither be found nor made")


def _fit(name: str) -> str:
    """Return a name with the characters that MLflow takes."""
    return _UNFIT.sub("_", name)


if __name__ == "__main__":
    serve(MlflowRun)
