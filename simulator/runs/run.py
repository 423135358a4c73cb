"""Run or resume a scenario: check the arguments, make or open the folder, open the session, and play it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from torch import Tensor, nn

from clients.core.errors import RunFolderError, UserError
from clients.engines.native.threads import threads_restored
from clients.federation.build import ground_truth_of
from clients.flower.shim import quiet
from clients.heterogeneity.measures import partition_table
from server.algorithms.algorithm import Algorithm
from server.convergence.verdict import Verdict
from server.record.checkpoint import CheckpointStore
from server.record.client_rows import ClientRows
from server.record.recorder import sole_writer
from server.record.records import RunFolder
from server.record.round_table import RoundTable
from server.rounds.best_model import BestModel
from simulator.engines.devices import device_restored
from simulator.engines.plan import EnginePlan
from simulator.runs.arguments.checks import check_observers, check_out, check_parts, check_record, check_run_path
from simulator.runs.building import DataLike, ModelLike, Overrides, federation_of, replacing, scenario_of
from simulator.runs.following import farewell, follow_run
from simulator.runs.playing import Ended, play
from simulator.runs.record import recorded_scenario
from simulator.runs.resumption import (
    check_data,
    check_resumable,
    check_strategy,
    go_back,
    missing_report,
    restore_nodes,
)
from simulator.runs.session import Session, open_session
from simulator.runs.strategies import StrategyChoice
from simulator.scenario.data_files import require_same_data
from simulator.scenario.sections import Scenario, ScenarioSource, to_toml
from simulator.workers.ranks import Ranks, ranks_of_torchrun

RUNS = Path("runs")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        verdict: how it ended; printed, it is a sentence.
        outcome: the results, as in outcome.json.
        rounds: the record: `run.rounds["validation_loss"]` has one value a round, round 0 first.
        params: final parameters [P]; `buffers` [Q].
        buffers: final floating-point buffers.
        path: the run's folder; None where nothing was recorded.
        session: the parts that were run.
        best: the best model by validation: its round, validation loss, parameters and buffers.
    """

    verdict: Verdict
    outcome: Mapping[str, Any]
    rounds: RoundTable
    params: Tensor
    buffers: Tensor
    path: Path | None
    session: Session
    best: BestModel

    def __repr__(self) -> str:
        """Return the verdict, the size of the model and the folder; the data may be many."""
        where = f"in {self.path}" if self.path is not None else "not recorded"
        return f"<Run {where}: {self.verdict.headline}, {self.params.numel()} parameters>"

    @cached_property
    def clients(self) -> ClientRows:
        """The values of each client in each round, read from the run's folder: `clients["client_drift"]`.

        Raises:
            RunFolderError: nothing was recorded, or a part cannot be read.
        """
        if self.path is None:
            problem = "is False, and only a record has the values of each client"
            raise RunFolderError("record", problem, fix="Leave it out.")
        return ClientRows.read(RunFolder(self.path).clients)

    @cached_property
    def scores(self) -> ClientRows:
        """The scores of each client in each evaluated round, and of the final model: `scores["accuracy"]`.

        Raises:
            RunFolderError: nothing was recorded, or a part cannot be read.
        """
        if self.path is None:
            problem = "is False, and only a record has the scores of each client"
            raise RunFolderError("record", problem, fix="Leave it out.")
        return ClientRows.read(RunFolder(self.path).scores)

    def parameters(self, round_index: int) -> dict[str, Tensor]:
        """Return the model's state dict after a round that `run.keep_parameters_every` kept.

        Raises:
            UserError: the parameters of this round were not kept.
            RunFolderError: nothing was recorded, or the file is damaged.
        """
        if self.path is None:
            raise RunFolderError("record", "is False, and only a record has parameters of earlier rounds",
                                 fix="Leave it out.")  # fmt: skip
        return RunFolder(self.path).parameters.read(round_index)

    def model(self, *, best: bool = False) -> nn.Module:
        """Return the final model: a copy of the module with the final parameters, in evaluation mode.

        Args:
            best: return the model of the round with the lowest validation loss, `run.best.round_index`, instead.

        Raises:
            UserError: `best`, and no validation loss was measured.
        """
        if not best:
            return self.session.module(self.params, self.buffers)
        if self.best.params is None or self.best.buffers is None:
            fix = "Leave it out, or use data with validation examples."
            raise UserError("best", "cannot be True: the run measured no validation loss", fix=fix)
        return self.session.module(self.best.params, self.best.buffers)


def simulate(
    scenario: ScenarioSource = None,
    *,
    seed: int | None = None,
    model: ModelLike | None = None,
    data: DataLike | None = None,
    algorithm: Algorithm | None = None,
    strategy: StrategyChoice | None = None,
    client_app: ClientApp | None = None,
    grid: Grid | None = None,
    out: Path | str | None = None,
    record: bool = True,
    observers: Sequence[object] = (),
    stop_asked: Callable[[], bool] = lambda: False,
) -> Run:
    """Run a federation and return the finished run. It runs in this process unless `grid` is given.

    Args:
        scenario: a `Scenario`, a table, a file, or a built-in's name, as for `load_scenario`; without one, the default.
        seed: instead of the scenario's.
        model: any torch module, instead of [model]; or a function without arguments that makes one, such as
            `lambda: MyNet()`: then the seed covers its initial values.
        data: a population such as `custom_population(...)` makes, instead of [data] and [partition]; or pooled arrays,
            `arrays(x, y)`, instead of [data]: then [partition] deals them out.
        algorithm: an algorithm of your own, instead of the row that [algorithm] names; cohort, sampling and partial
            work are still the scenario's.
        strategy: any Flower strategy, instead of [algorithm]; or a function that wraps ours, such as
            `lambda ours: DifferentialPrivacyServerSideFixedClipping(ours, 1.0, clipping_norm, num_sampled_clients)`.
        client_app: any Flower ClientApp, called with one message a client, instead of our clients. [local] and [engine]
            are then ignored, except `engine.threads`, and `engine.device` for evaluation. Its arrays are the state dict
            of the model; the client's index is in `context.node_config["partition-id"]`.
        grid: a Flower grid whose nodes run our ClientApp (`simulator.apps`) and hold the clients, one or many each.
        out: the run's folder; must be new or empty. By default a new one in `runs/`.
        record: False writes nothing to disk.
        observers: objects with any of the methods of `Observer`.
        stop_asked: called after each round; if it returns True, the run stops and keeps its checkpoint.

    Returns:
        The finished run. Divergence is a result, not an exception.

    Raises:
        UserError: an argument or a key of the scenario is not valid; the message names it and the fix.

    Example:
        >>> run = simulate("quadratic-two-clients", record=False)
        >>> print(run.verdict)
        Converged at round 16: relative change of the parameters 1.068e-07, below 1e-06 for 3 rounds
    """
    quiet()
    check_parts(model=model, data=data, algorithm=algorithm, strategy=strategy, client_app=client_app, grid=grid)
    check_observers(observers, stop_asked)
    check_out(out)
    check_record(record)
    given = Overrides(model, data, algorithm, strategy, client_app, grid)
    return start(scenario_of(scenario, seed=seed), given, out, record, observers, stop_asked)


@threads_restored()
@device_restored()
def start(
    scenario: Scenario,
    given: Overrides,
    out: Path | str | None,
    record: bool,
    observers: Sequence[object],
    stop_asked: Callable[[], bool],
) -> Run:
    """Run a scenario whose parts were checked; see `simulate`."""
    scenario, given = replacing(scenario, given)
    ranks = ranks_of_torchrun()
    if ranks is not None and ranks.follows:
        return _finished_run(*follow_run(scenario, given, ranks))
    session = open_session(scenario, given, ranks=ranks)
    with closing(session):
        ended, path = _simulated(session, given, out, record, observers, stop_asked)
        if ranks is not None:
            session.close(farewell(ended, path))
    return _finished_run(session, ended, path)


def _simulated(
    session: Session,
    given: Overrides,
    out: Path | str | None,
    record: bool,
    observers: Sequence[object],
    stop_asked: Callable[[], bool],
) -> tuple[Ended, Path | None]:
    """Make the run's folder, unless nothing is recorded, and play the session."""
    scenario, folder = session.scenario, None
    if record:
        name = scenario.name or "scenario"
        folder = RunFolder.create_at(Path(out)) if out else RunFolder.create(RUNS, name, now=datetime.now())
        folder.write_scenario(to_toml(scenario))
        _write_data(folder, session, given)
    stem = folder.path.resolve().name if folder is not None else scenario.name or "scenario"
    is_unique = folder is not None and not out  # `create` drew four digits for it
    run_id = stem if is_unique else f"{stem}-{secrets.token_hex(2)}"
    store = CheckpointStore(folder.checkpoint) if folder is not None else None
    with sole_writer(folder.path if folder is not None else None):
        ended = play(session, given, folder, store, observers, stop_asked, run_id=run_id)
    return ended, folder.path if folder is not None else None


@threads_restored()
@device_restored()
def resume(
    path: Path | str,
    *,
    model: ModelLike | None = None,
    data: DataLike | None = None,
    algorithm: Algorithm | None = None,
    strategy: StrategyChoice | None = None,
    grid: Grid | None = None,
    observers: Sequence[object] = (),
    stop_asked: Callable[[], bool] = lambda: False,
) -> Run:
    """Continue an interrupted or killed run. The result has the same bits as that of an uninterrupted run.

    Args:
        path: the run's folder.
        model: the one passed to `simulate`, if any.
        data: likewise.
        algorithm: likewise.
        strategy: likewise; it must have `state_dict` and `load_state_dict`.
        grid: for a run whose clients are on nodes: a grid with the same nodes, or others with their client states.
        observers: as in `simulate`.
        stop_asked: as in `simulate`.

    Raises:
        RunFolderError: the folder, its record or its checkpoint cannot be used, or the run is over.
    """
    quiet()
    check_parts(model=model, data=data, algorithm=algorithm, strategy=strategy, grid=grid)
    check_observers(observers, stop_asked)
    check_run_path(path)
    folder = RunFolder.open(Path(path))
    given = Overrides(model, data, algorithm, strategy, grid=grid)
    ranks = ranks_of_torchrun()
    if ranks is not None and ranks.follows:
        return _finished_run(*follow_run(recorded_scenario(folder), given, ranks))
    with sole_writer(folder.path):
        return go_on(folder, given, observers, stop_asked, ranks)


def _write_data(folder: RunFolder, session: Session, given: Overrides) -> None:
    """Write what the folder keeps of the clients' data: the partition last, whose absence shows a kill before it."""
    scenario, population = session.scenario, session.population
    source = population if given.population is not None else scenario.data
    truth = ground_truth_of(federation_of(scenario, source), population)
    if truth is not None:
        folder.write_truth(truth)
    folder.write_partition(partition_table(population))


def finished(path: Path) -> Path | None:
    """Write the report of a run that was killed between its outcome and its report; None for any other run.

    Raises:
        RunFolderError: the folder is no run's, or the report cannot be written.
    """
    check_run_path(path)
    folder = RunFolder.open(path)
    with sole_writer(folder.path):
        return missing_report(folder)


def go_on(
    folder: RunFolder,
    given: Overrides,
    observers: Sequence[object],
    stop_asked: Callable[[], bool],
    ranks: Ranks | None = None,
) -> Run:
    """Play the rest of the run in a folder, of which this process is the writer; see `resume`."""
    scenario = recorded_scenario(folder)
    environment = folder.read_environment()
    started = (environment or {}).get("run") or {}
    # The recorded file has every key; what its user set was stated when the run began.
    scenario = replace(scenario, notices=tuple(started.get("scenario_notices") or ()), named=frozenset())
    check_resumable(folder, started, given)
    check_data(folder, scenario, given)
    given = replace(given, study=started.get("study"))
    require_same_data(folder.path, started.get("data_files"), scenario)
    plan = started.get("engine_plan")
    session = open_session(scenario, given, plan=EnginePlan.from_dict(plan) if plan else None, ranks=ranks)
    with closing(session):
        ended = _resumed(session, folder, given, environment, started, observers, stop_asked)
        if ranks is not None:
            session.close(farewell(ended, folder.path))
    return _finished_run(session, ended, folder.path)


def _resumed(
    session: Session,
    folder: RunFolder,
    given: Overrides,
    environment: Mapping[str, Any] | None,
    started: Mapping[str, Any],
    observers: Sequence[object],
    stop_asked: Callable[[], bool],
) -> Ended:
    """Go back to the last checkpoint, and play the rest of the run."""
    scenario = session.scenario
    check_strategy(folder, session.played.strategy)
    store = CheckpointStore(folder.checkpoint)
    if started.get("branch") and not CheckpointStore.rounds_in(folder.checkpoint):
        fix = "Branch the run again: the rounds before this one are another scenario's."
        raise RunFolderError(str(folder.path), "is a branch, and its checkpoint is missing", fix=fix)
    back = go_back(folder, store, scenario, given.algorithm)
    if not folder.partition.exists():
        _write_data(folder, session, given)
    if environment is None and back.checkpoint is not None:
        lost = "environment.json is missing, so the engine is chosen anew and last bits may differ"
        back = replace(back, note="; ".join(filter(None, (back.note, lost))))
    run_id = started.get("run_id") or folder.path.resolve().name
    if session.sender is not None:
        restore_nodes(session.nodes, folder, back.round_index)
    back = replace(back, branch=started.get("branch"), is_new="version" not in started)
    return play(session, given, folder, store, observers, stop_asked, run_id=run_id, back=back)


def _finished_run(session: Session, ended: Ended, path: Path | None) -> Run:
    state = ended.state
    rounds = RoundTable(ended.lines)
    return Run(ended.verdict, ended.outcome, rounds, state.params, state.buffers, path, session, ended.best)
