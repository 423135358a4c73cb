"""A run read back from its folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from clients.core.errors import RunFolderError
from clients.modules.copies import copy_module
from server.convergence.verdict import Verdict
from server.record.checked.line_files import damaged
from server.record.checked.regular_files import LARGEST_PART, read_regular
from server.record.checked.seals import UNLIKE, checksum
from server.record.client_rows import ClientRows
from server.record.completeness import problems_of
from server.record.hints import is_resumable
from server.record.records import RunFolder
from server.record.round_table import RoundTable
from simulator.runs.arguments.checks import check_parts, check_run_path
from simulator.runs.building import DataLike, ModelLike, Overrides, made_model, make_task_of
from simulator.runs.nodes import of_one_table
from simulator.scenario.sections import Scenario, load_scenario

_log = logging.getLogger("fedscape.record")


@dataclass(frozen=True)
class Record:
    """A run read back from its folder.

    Attributes:
        path: the folder.
        scenario: the experiment.
        rounds: the record: `rounds["validation_loss"]` has one value a round.
        outcome: the results; None if the run is in progress or was killed.
        truncated: whether the last line of the record was incomplete and left out.
        problems: sentences on what is missing or damaged, compared with the record; also logged as warnings.
    """

    path: Path
    scenario: Scenario
    rounds: RoundTable
    outcome: Mapping[str, Any] | None
    truncated: bool
    problems: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return the folder, the number of rounds and the verdict."""
        ended = self.verdict.headline if self.verdict is not None else "not over"
        flaws = f", {len(self.problems)} problems" if self.problems else ""
        return f"<Record of {self.path}: {len(self.rounds)} rounds recorded, {ended}{flaws}>"

    @cached_property
    def verdict(self) -> Verdict | None:
        """How the run ended; printed, it is a sentence. None if the run is in progress or was killed.

        Raises:
            RunFolderError: outcome.json lacks the parts of a verdict.
        """
        if self.outcome is None:
            return None
        try:
            return Verdict.from_outcome(self.outcome)
        except KeyError as error:
            raise RunFolderError(str(self.path / "outcome.json"), f"lacks {error}") from error

    @cached_property
    def clients(self) -> ClientRows:
        """The values of each client in each round: `clients["client_drift"]` has one value per client and round.

        Raises:
            RunFolderError: a part of `clients/` cannot be read.
        """
        return ClientRows.read(RunFolder(self.path).clients)

    @cached_property
    def scores(self) -> ClientRows:
        """The scores of each client in each evaluated round, and of the final model: `scores["accuracy"]`.

        The columns are `num_examples`, `loss` and the score: `accuracy` and `balanced_accuracy`, `mae` or `objective`.

        Raises:
            RunFolderError: a part of `scores/` cannot be read.
        """
        return ClientRows.read(RunFolder(self.path).scores)

    @property
    def kept_rounds(self) -> list[int]:
        """The rounds whose parameters are in the folder, in order: see `run.keep_parameters_every`."""
        return RunFolder(self.path).parameters.rounds()

    def parameters(self, round_index: int) -> dict[str, Tensor]:
        """Return the model's state dict after a round of `kept_rounds`: `module.load_state_dict(...)` takes it.

        Raises:
            UserError: the parameters of this round were not kept.
            RunFolderError: the file cannot be read, or is damaged.
        """
        return RunFolder(self.path).parameters.read(round_index)

    def model(self, model: ModelLike | None = None, data: DataLike | None = None, *, best: bool = False) -> nn.Module:
        """Return the final model, in evaluation mode; or the best one.

        Args:
            model: the one passed to `simulate`, if any: a module, of which a copy is returned, or a function.
            data: likewise.
            best: the best model by validation instead (of the lowest loss, or Fréchet distance of samples);
                `outcome["best_model"]` names it.

        Raises:
            RunFolderError: the run has no such model yet, or its parameters do not fit this module.
        """
        check_parts(model=model, data=data)
        if model is None and self.scenario.model is None:
            problem = "was run with a model= from Python, which its folder does not hold"
            raise RunFolderError(str(self.path), problem, fix="Pass it: record.model(MyNet).")
        if model is None and data is None and self.scenario.data is None:
            problem = "was run with data= from Python, from which the model has its shape"
            raise RunFolderError(str(self.path), problem, fix="Pass them: record.model(data=data).")
        if model is None:
            scenario = of_one_table(self.scenario) if self.scenario.nodes.own_data else self.scenario
            module = make_task_of(scenario, Overrides(None, data)).module
        else:
            module = copy_module(made_model(model, self.scenario.run.seed)[0])
        folder = RunFolder(self.path)
        file = folder.best_model if best else folder.model
        if not file.is_file():
            raise RunFolderError(str(file), "does not exist", fix=self._without_model(best=best))
        try:
            module.load_state_dict(model_tensors(file))
        except RuntimeError as error:
            raise RunFolderError(str(file), f"does not fit the model: {' '.join(str(error).split())}") from error
        return module.eval()

    def _without_model(self, *, best: bool) -> str:
        """Return what to do if a model is missing."""
        if best and self.outcome is not None and not self.outcome.get("best_model"):
            return "The run measured no validation loss, or an earlier version wrote it; leave best= out."
        if self.outcome is not None and self.outcome.get("outcome") != "interrupted":
            return "The run is over, and this file is gone; run the scenario again."
        if is_resumable(self.path):
            return f"The run is not over: fedscape resume {self.path}"
        return "The run is not over; its folder has no final model yet."


def open_run(path: Path | str) -> Record:
    """Read a run's folder, finished or not.

    Raises:
        RunFolderError: the folder is not a run's, or cannot be read.
    """
    check_run_path(path)
    folder = RunFolder.open(Path(path))
    found = folder.read_rounds()
    if found.damage:
        raise damaged(folder.rounds, found)
    outcome = folder.read_outcome()
    problems = tuple(problems_of(folder, found, outcome))
    for problem in problems:
        _log.warning("%s: %s", path, problem)
    scenario = recorded_scenario(folder)
    return Record(folder.path, scenario, RoundTable(found.values), outcome, found.truncated, problems)


def model_tensors(file: Path) -> dict[str, Tensor]:
    """Return the state dict in a model's file of a run's folder.

    Raises:
        RunFolderError: it cannot be read, or is not the file that the run wrote.
    """
    content = read_regular(file, most=LARGEST_PART)
    stated = RunFolder(file.parent).read_seals().get(file.name)
    if stated is not None and checksum(content) != stated:
        raise RunFolderError(str(file), UNLIKE, fix="Restore it from a copy, or run the scenario again.")
    try:
        return load(content)
    except SafetensorError as error:
        raise RunFolderError(str(file), f"does not fit the model: {' '.join(str(error).split())}") from error


def recorded_scenario(folder: RunFolder) -> Scenario:
    """Return the scenario in a run's folder.

    Raises:
        RunFolderError: it cannot be read.
        ScenarioError: it is no valid scenario.
    """
    folder.read_scenario()  # refuses a symbolic link, a pipe, and a file that is too large
    return load_scenario(folder.scenario)
