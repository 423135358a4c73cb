"""A run in Weights & Biases, online or offline (`WANDB_MODE=offline`, then `wandb sync`). This module is a process.

Nothing but the metric table, facts and outcome is sent: no code, no output of the terminal, no names of the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import wandb

from server.sinks.curves import plain_facts
from server.sinks.trackers.child import serve

INIT_SECONDS = 20.0
"""Seconds in which the server must answer first."""


class WandbRun:
    """A run.

    Args:
        target: the project, or entity/project.
        facts: with `run_id`, which names the run; a resumed run goes on in the same.
        before: the lines recorded before; they are there already.
    """

    def __init__(self, target: str, facts: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> None:
        entity, _, project = target.rpartition("/")
        settings = wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            host="",
            init_timeout=INIT_SECONDS,
            save_code=False,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        known = plain_facts(facts)
        name = str(facts.get("run_id", "run"))
        self._run = wandb.init(
            entity=entity or None, project=project, id=name, name=name, resume="allow", config=known,
            settings=settings, group=str(known.get("scenario", "")) or None,
        )  # fmt: skip
        self._run.define_metric("round", hidden=True)
        self._run.define_metric("*", step_metric="round")

    def round(self, number: int, at: float, values: Mapping[str, float]) -> None:
        """Log a round; the number of the round is the step of all charts."""
        self._run.log({**values, "round": number})

    def end(self, outcome: Mapping[str, Any] | None, values: Mapping[str, float]) -> str:
        """Put the outcome into the summary, and finish."""
        if outcome is not None:
            self._run.summary.update({**values, "outcome": str(outcome.get("outcome", "")),
                                      "verdict": str(outcome.get("words", ""))})  # fmt: skip
        where = self._run.url or self._run.dir
        self._run.finish(exit_code=0 if outcome is not None else 1)
        return str(where)


if __name__ == "__main__":
    serve(WandbRun)
