"""The outcome of a finished run: verdict, scores, spread, target, rate, drift, baselines, and the final model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from clients.core.population import Population
from clients.engines.evaluation import Evaluation, Evaluator
from clients.engines.forecasts import forecast_errors, forecast_examples
from clients.engines.samples.held_out import sample_meter
from clients.training.class_metrics import (
    MOST_CLASSES,
    anomaly_scores,
    class_counts,
    class_metrics,
    imbalance,
    recalls,
)
from clients.training.losses import metrics
from server.algorithms.state import ServerState
from server.convergence.findings import findings
from server.convergence.monitor import ConvergenceOptions
from server.convergence.outcome import drift_course, to_target
from server.convergence.verdict import RESUME, Verdict
from server.record.files import whole_file
from server.record.recorder import Recorder
from server.record.records import RunFolder
from server.record.tensor_files import write_tensors
from server.rounds.best_model import BestModel
from server.rounds.evaluation_metrics import measure_evaluation, score_columns
from server.verdicts.judging import judged
from simulator.runs.baselines import baselines
from simulator.runs.experiment import trend_of
from simulator.runs.session import Session
from simulator.runs.strategies import evaluated_clients

LOAD_MODEL = """import fedscape as fs
model = fs.open_run(__file__.rpartition("/")[0] or ".").model()
"""

LOAD_OWN_MODEL = """import fedscape as fs
from my_module import model  # the torch module that the run was given
model = fs.open_run(__file__.rpartition("/")[0] or ".").model(model)
"""


def conclude(
    session: Session,
    state: ServerState,
    verdict: Verdict,
    lines: Sequence[dict[str, Any]],
    folder: RunFolder | None,
    recorder: Recorder | None = None,
    best: BestModel | None = None,
) -> dict[str, Any]:
    """Return the outcome of a run: verdict, best model, test scores, spread, target, rate, drift and baselines.

    The recorder gets the clients' scores of the final model, where its round has none. An interrupted run goes on.
    """
    scenario = session.scenario
    last = lines[-1]
    outcome: dict[str, Any] = verdict.to_outcome() | {
        "last_finite_round": state.round_index,
        "best_model": best.facts or None if best is not None else None,
        "to_target": to_target(lines, scenario.convergence.target),
        "drift": drift_course(lines),
        "bytes_total": last.get("bytes_total"),
        "simulated_seconds_total": last.get("simulated_seconds_total"),
        "record": str(folder.path) if folder is not None else None,
    }
    outcome |= {key: last[key] for key in ("optimality_gap", "distance_to_optimum") if key in last}
    outcome |= rate_of(session, lines)
    evaluated = any("client_spread" in line for line in lines if line["round"] == state.round_index)
    keeps = verdict.outcome != "interrupted" and not evaluated and state.round_index > 0
    outcome |= _final_scores(session, session.evaluator, state, folder, recorder if keeps else None)
    over = verdict.outcome in ("converged", "stopped") and state.round_index > 0
    if session.engine is not None and scenario.evaluation.baselines and over:
        cohort = session.played.cohort or session.population.federation.with_data
        outcome["baselines"] = baselines(
            session.task, session.engine, state.params, rounds=state.round_index, cohort=cohort
        )
    return outcome


def with_hint(verdict: Verdict, state: ServerState, folder: RunFolder | None, given: Sequence[str] = ()) -> Verdict:
    """Return the verdict with a hint: resume an interrupted run, or use the last finite model.

    Args:
        verdict: how the run ended.
        state: the server's last finite state.
        folder: the run's folder; None where nothing was recorded.
        given: the names of the parts passed from Python (`Overrides.names`).
    """
    hint = verdict.hint
    if verdict.outcome == "interrupted":
        hint = "The run was not recorded, so it cannot be resumed."
        if folder is not None:
            hint = f"To continue: {RESUME}"
            if given:
                hint = f"To continue in Python: fedscape.resume(path, {'=..., '.join(given)}=...)"
            if "client_app" in given:
                hint = "Its clients were in a ClientApp and their states were not kept, so it cannot be resumed."
            elif "grid" in given:
                path = folder.path if folder is not None else "runs/..."
                hint = f"To continue on the same nodes: flwr run . <federation> --run-config 'resume=\"{path}\"'"
    if verdict.outcome == "diverged" and state.round_index < verdict.round_index:
        model = f"The final model is that of round {state.round_index}, the last with finite parameters."
        hint = f"{hint}\n{model}" if hint else model
    return replace(verdict, hint=hint)


def with_findings(
    verdict: Verdict, lines: Sequence[Mapping[str, Any]], convergence: ConvergenceOptions | None = None
) -> Verdict:
    """Return the verdict with what the record knows beside its criteria: findings, its condition, and the signs.

    Findings such as overfitting are reasons of a run that did not diverge. A run whose condition contradicts that it
    converged has `stopped` (`server.verdicts.judging`).
    """
    if verdict.outcome in ("converged", "stopped"):
        verdict = replace(verdict, reasons=verdict.reasons + findings(lines))
    return judged(verdict, lines, convergence or ConvergenceOptions())


def rate_of(session: Session, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the rate fitted over a whole record, and the rounds still needed."""
    trend = trend_of(session)
    for line in lines:
        trend.observe(line)
    return trend.fit(whole=True)


def _final_scores(
    session: Session, evaluator: Evaluator, state: ServerState, folder: RunFolder | None, recorder: Recorder | None
) -> dict[str, Any]:
    """Evaluate the final model on the central test examples and on the clients; write forecasts or samples."""
    population = session.population.during(state.round_index)
    scores: dict[str, Any] = {}
    evaluator.load(state.params, state.buffers)
    samples = sample_meter(evaluator, population)
    if samples is not None and folder is not None and (picture := samples.picture()) is not None:
        folder.write_samples(picture)
    if samples is not None and population.test is not None:
        scores |= samples.measure("test")
    if population.test is not None:
        result = evaluator.on_central("test", state.round_index)
        scores |= metrics("test", result.loss, result.score, population.task)
        scores |= _forecasts(evaluator, result, population, folder)
        test = population.central.test
        if test is not None and test.anomalous is not None:
            scores["anomalies"] = anomaly_scores(result.predicted, test.examples.targets, test.anomalous)
        if population.task == "classification":
            counts = class_counts(result.predicted, population.test.targets, population.outputs)
            scores |= class_metrics("test", counts) | {"test_imbalance": imbalance(counts)}
            scores |= {"test_class_accuracy": recalls(counts)} if population.outputs <= MOST_CLASSES else {}
    if session.engine is None or population.clients.elsewhere:  # the data are not in this process
        return scores
    clients = evaluated_clients(session.scenario.evaluation, population.sizes, session.task.seed)
    evaluation = evaluator.clients(clients, state.round_index)
    found = measure_evaluation(evaluation, session.population)
    if recorder is not None and (columns := score_columns(evaluation, session.population)):
        recorder.add_scores(state.round_index, columns)
    if "client_spread" not in found:
        return scores
    spread = found["client_spread"]
    low = population.task == "classification"
    tenth = spread["score"]["p10" if low else "p90"]
    short = {"worst": spread["score"]["min" if low else "max"], "evaluated_on": spread["evaluated_on"]}
    short["lowest_tenth" if low else "highest_tenth"] = tenth
    balanced = spread.get("balanced_accuracy")
    if balanced is not None:
        short |= {"worst_balanced": balanced["min"], "lowest_tenth_balanced": balanced["p10"]}
    return scores | {"client_spread": short | {"clients": spread["clients"], "variance": spread["variance"]}}


def _forecasts(
    evaluator: Evaluator, result: Evaluation, population: Population, folder: RunFolder | None
) -> dict[str, Any]:
    """Return the errors of forecasts in their unit, beside persistence; write forecasts against truth to the folder."""
    spec, test = population.spec.forecast, population.central.test
    if spec is None or test is None or test.owners is None:
        return {}
    view = forecast_examples(evaluator, result, population) if folder is not None else None
    if folder is not None and view is not None:
        folder.write_forecasts(view)
    return {"forecast": forecast_errors(result, test, spec)}


def save_models(session: Session, state: ServerState, best: BestModel, folder: RunFolder) -> None:
    """Write the state dicts of the final model and of the best one as safetensors, and a file that loads the final one.

    Raises:
        RunFolderError: a file cannot be written.
    """
    write_tensors(folder.model, _state_dict(session, state.params, state.buffers))
    if best.params is not None and best.buffers is not None:
        write_tensors(folder.best_model, _state_dict(session, best.params, best.buffers))
    with whole_file(folder.model.with_name("load_model.py")) as file:
        file.write((LOAD_MODEL if session.scenario.model is not None else LOAD_OWN_MODEL).encode())


def _state_dict(session: Session, params: Tensor, buffers: Tensor) -> dict[str, Tensor]:
    """Return a model's state dict for a file."""
    return {name: tensor.contiguous() for name, tensor in session.module(params, buffers).state_dict().items()}
