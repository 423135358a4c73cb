"""`explain`: the causes of a run's course, ranked, each with evidence and one change to try."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from clients.core.errors import EngineError, UserError
from clients.core.parameters import Layout
from clients.engines.native.threads import threads_restored
from clients.flower.shim import quiet
from clients.modules.players import TwoPlayer
from server.algorithms.algorithm import Algorithm
from server.diagnosis.diagnose import diagnose
from server.diagnosis.evidence import Evidence
from server.diagnosis.federation import cohort_matters
from server.diagnosis.finding import Diagnosis, Finding, options_of
from server.record.checkpoint import CheckpointStore
from server.record.records import RunFolder
from simulator.engines.devices import device_restored
from simulator.engines.plan import EnginePlan
from simulator.explaining.looks import look
from simulator.explaining.pooled import wider_model
from simulator.explaining.reading import evidence_of
from simulator.explaining.trials import State
from simulator.runs.arguments.checks import check_parts, check_run_path
from simulator.runs.building import DataLike, ModelLike, Overrides
from simulator.runs.record import model_tensors, recorded_scenario
from simulator.runs.session import Session, open_session
from simulator.runs.strategies import StrategyChoice


@dataclass(frozen=True)
class Explanation:
    """Why a run went as it did.

    Attributes:
        path: the run's folder.
        diagnosis: the causes that were found.
        seconds: wall seconds that looking took, with making the data again.
        share: seconds of the trials and looks alone over those of the run's rounds; None for the record alone.
    """

    path: Path
    diagnosis: Diagnosis
    seconds: float
    share: float | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The causes, the most likely first."""
        return self.diagnosis.findings

    @property
    def healthy(self) -> bool:
        """Whether no cause was found."""
        return self.diagnosis.healthy

    def __str__(self) -> str:
        """Return a paragraph for each cause: its name, the evidence, and what to try."""
        return "\n".join(words_of(self))


@threads_restored()
@device_restored()
def explain(
    run: Path | str,
    *,
    looks: bool = True,
    write: bool = True,
    model: ModelLike | None = None,
    data: DataLike | None = None,
    algorithm: Algorithm | None = None,
    strategy: StrategyChoice | None = None,
) -> Explanation:
    """Explain a recorded run: rank the causes that kept it from converging, each with its evidence and one change.

    Beside the record it looks at the data of up to 50 clients, at the gradients of the first model, and plays about
    eight trials of one round, the finer ones with several cohorts: 13 rounds in all, and 25 where clients are few in a
    round or hold different classes. Where the run falls short of other models, it trains the
    run's own on the pooled data of these clients. Nothing of the run changes. The result is kept in explanation.json,
    which the report shows.

    Args:
        run: the folder of the run, which may be unfinished.
        looks: False for what the record alone shows.
        write: whether to write explanation.json.
        model: the one passed to `simulate`, if any.
        data: likewise.
        algorithm: likewise.
        strategy: likewise.

    Raises:
        RunFolderError: the folder cannot be read, or has no rounds.
        UserError: the run cannot be looked at here, such as one with the nodes' own data; `looks=False` can be. Or
            it is a game of two players.
    """
    quiet()
    check_parts(model=model, data=data, algorithm=algorithm, strategy=strategy)
    check_run_path(run)
    folder, begun = RunFolder.open(Path(run)), time.perf_counter()
    evidence, share = evidence_of(folder), None
    if looks:
        table, spent = _looks(folder, Overrides(model, data, algorithm, strategy), evidence)
        evidence = replace(evidence, looks=table)
        played = sum(float(line.get("wall_seconds") or 0.0) for line in evidence.lines)
        share = spent / played if played > 0 else None
    found = Explanation(folder.path, diagnose(evidence), time.perf_counter() - begun, share)
    if write:
        folder.write_explanation(as_table(found))
    return found


def _looks(folder: RunFolder, given: Overrides, known: Evidence) -> tuple[dict[str, Any], float]:
    """Return what is seen of a run's data and models, and the seconds it took without making the data."""
    scenario, started = recorded_scenario(folder), known.started
    problem = ""
    if scenario.nodes.own_data:
        problem = "has clients whose data are on nodes"
    elif "client_app" in (started.get("from_python") or ()):
        problem = "has clients in a ClientApp"
    if problem:
        raise UserError(
            "run", problem + ", so nothing can be looked at here", fix="Use the record alone: --record-only."
        )
    with closing(_session(replace(scenario, notices=(), named=frozenset()), given, started)) as session:
        assert session.engine is not None
        if isinstance(session.task.module, TwoPlayer):
            problem = "is a game of two players, and causes are found by a loss that should fall: none of a game does"
            fix = "Look at distance_to_optimum, or at the measures of samples."
            raise UserError("run", problem, fix=fix)
        begun = time.perf_counter()
        seen = look(
            session.task,
            session.engine,
            session.evaluator,
            _states(session, folder),
            cohort=scenario.algorithm.cohort or session.population.num_clients,
            wider=wider_model(None if given.model is not None else scenario.model, session.task),
            larger_cohort=cohort_matters(known),
        )
        return seen, time.perf_counter() - begun


def _session(scenario: Any, given: Overrides, started: Mapping[str, Any]) -> Session:
    """Open a session in this process alone, with the engine of the record where it can be had."""
    scenario = replace(scenario, engine=replace(scenario.engine, workers=1))
    plan = started.get("engine_plan")
    alone = EnginePlan.from_dict({**plan, "workers": 1}) if plan else None
    try:
        return open_session(scenario, given, plan=alone)
    except EngineError:
        return open_session(scenario, given)


def _states(session: Session, folder: RunFolder) -> list[State]:
    """Return the first state, and the last one that the folder has, if it has any."""
    found = [State("start", 0, session.start.params, session.start.buffers)]
    outcome = folder.read_outcome()
    if outcome is None:
        newest = CheckpointStore(folder.checkpoint).load()
        if newest is not None:
            found.append(State("end", newest.round_index, newest.tensors["parameters"], newest.tensors["buffers"]))
        return found
    tensors = model_tensors(folder.model)
    task = session.task
    params, buffers = (
        _vector(task.parameters, tensors, session.start.params),
        _vector(task.buffers, tensors, session.start.buffers),
    )
    return [*found, State("end", int(outcome.get("last_finite_round") or outcome["round"]), params, buffers)]


def _vector(layout: Layout, tensors: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """Return the tensors of a layout as one vector of the type of `like`."""
    if not layout.names:
        return like
    return layout.flatten({name: tensors[name].to(like.dtype) for name in layout.names})


def words_of(found: Explanation) -> list[str]:
    """Return an explanation as lines."""
    if found.healthy:
        lines = ["Healthy: no cause was found that kept this run from its best."]
    else:
        lines = []
        for place, finding in enumerate(found.findings, 1):
            because = f", which the finding '{finding.because_of}' explains" if finding.because_of else ""
            lines.append(
                f"{place}. {finding.title[0].upper()}{finding.title[1:]} (strength {finding.strength:.1f}){because}"
            )
            lines += [f"   - {clause}" for clause in finding.evidence]
            if finding.clients:
                shown = ", ".join(finding.clients[:10])
                lines.append(
                    f"   - clients: {shown}"
                    + (f" and {len(finding.clients) - 10} more" if len(finding.clients) > 10 else "")
                )
            if finding.change is not None:
                sets = options_of(finding.change.sets)
                lines.append(f"   Try: {finding.change.words}" + (f": {sets}" if sets else ""))
    return [*lines, *found.diagnosis.blind]


def as_table(found: Explanation) -> dict[str, Any]:
    """Return the content of explanation.json."""
    return {
        "findings": [asdict(finding) for finding in found.findings],
        "strengths": dict(found.diagnosis.strengths),
        "blind": list(found.diagnosis.blind),
        "seconds": found.seconds,
        "share": found.share,
    }
