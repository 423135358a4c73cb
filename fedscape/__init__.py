"""fedscape: simulate federated training, and see how, how fast and whether it converges.

Five lines run a federation and read its record:

    import fedscape as fs

    run = fs.simulate("digits-label-skew", seed=7)
    print(run.verdict)                          # Converged at round ..., with the reasons
    print(run.rounds["validation_loss"])        # one value a round, round 0 first
    model = run.model()                         # a torch.nn.Module with the final parameters

Change a scenario with `fs.load_scenario("digits-label-skew", sets=["algorithm.kind=fedprox"])`, or write one as a
table: `fs.load_scenario({"data": {"kind": "digits"}, ...})`. `fedscape.options` has the option classes;
`fs.builtin_names()` lists the built-in scenarios. Bring your own parts:

    fs.simulate(scenario, model=lambda: MyNet(), data=fs.arrays(x, y))   # [partition] deals the arrays out
    fs.simulate(scenario, model=lambda: MyNet(), data=fs.custom_population(client, sizes, outputs=10))
    fs.simulate(scenario, strategy=flwr.serverapp.strategy.Krum(...))    # any Flower strategy
    fs.simulate(scenario, strategy=lambda ours: Wrapper(ours, ...))      # one around ours
    fs.simulate(scenario, model=MyNet(), client_app=app)                 # any Flower ClientApp

Write an algorithm of your own, from a local rule, an uplink, an aggregation and a server transform:

    @fs.local_rule(options={"mu": 0.1})
    def pull(gradient, params, anchor, broadcast, state):        # elementwise: it runs in every engine
        return gradient + 0.1 * (params - anchor)

    mine = fs.Algorithm("mine", local=pull, server=fs.chain(fs.clip_norm(1.0), fs.adam(0.01)))
    fs.simulate(scenario, algorithm=mine)

and test it with `fedscape.testing`.

`fs.describe_data(scenario, out="folder")` measures and plots how unequal the clients' data are;
`fs.population(scenario)` returns the clients themselves, with masks of the values that faults changed.

`run.path` is the run's folder: rounds.jsonl, clients/ (Parquet), model.safetensors, model.best.safetensors,
scenario.toml. `fs.resume(path)` continues an interrupted run, and `fs.open_run(path)` reads a finished one:
`.verdict`, `.rounds` and `.clients`
(`["client_drift"]`: one value for each client in each round), all as NumPy arrays by name.

`fs.branch(path, round=20, sets=[...])` starts a run from a kept checkpoint of another one. `fs.verify(path)` plays a
recorded run again and compares it with its record. `fs.bisect(a, b)` finds the first round in which two runs differ.

`fs.surface(path)` measures the loss over a plane of parameters, with the server's path and the clients' ends.

`fs.explain(path)` ranks the causes that kept a run from converging, each with evidence and a change;
`fs.try_change(path, finding)` plays the run again with it.

`fs.study(scenario, factors={"algorithm.kind": ["fedavg", "scaffold"]}, seeds=10)` plays arms over seeds and compares
them: `.table()`, `.compare("fedavg", "scaffold")`, `.ranking()`. `fs.open_study(path)` reads its folder.

`fs.lessons()` lists small experiments that show one phenomenon each; `fs.lesson("learning-rate")` plays one, checks
what it claims and writes its page.

`fs.simulate(scenario, observers=[mine])` calls your own observers in each round; `snapshot_taken(snapshot)` gets an
`fs.Snapshot` with a copy of the model.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import_module("clients")  # switches Flower's telemetry off, before the user imports Flower

if TYPE_CHECKING:
    from clients.core.errors import (
        DataError,
        EngineError,
        FedscapeError,
        PartitionError,
        RunFolderError,
        ScenarioError,
        StrategyError,
        UserError,
    )
    from clients.core.examples import CohortData, Examples
    from clients.core.population import Population
    from clients.heterogeneity.table import HeterogeneityMeasures
    from clients.sources.custom import custom_population
    from clients.sources.pooled_arrays import PooledArrays, arrays
    from clients.sources.quadratic import quadratics
    from clients.training.rules import LocalResult, LocalRule, local_rule, proximal
    from clients.training.uplink import Uplink, top_k
    from dashboards.statistics.comparing import Comparison
    from server.algorithms.aggregation import Aggregation, ClientFacts, clipped, coordinate_median, weighted_mean
    from server.algorithms.algorithm import Algorithm
    from server.algorithms.state import ServerState
    from server.algorithms.transforms import (
        Aggregate,
        ServerTransform,
        StepContext,
        adagrad,
        adam,
        chain,
        clip_norm,
        momentum,
        sgd,
        yogi,
    )
    from server.convergence.verdict import Verdict
    from server.record.client_rows import ClientRows
    from server.record.round_table import RoundTable
    from server.rounds.observers import Snapshot
    from simulator.explaining.explain import Explanation, explain
    from simulator.explaining.trying import Tried, try_change
    from simulator.lessons.lesson import Lesson
    from simulator.lessons.play import PlayedLesson, lesson, lessons
    from simulator.probes.probe import probe
    from simulator.probes.result import Probes
    from simulator.replay.bisect import Bisection, bisect
    from simulator.replay.branch import branch
    from simulator.replay.verify import Verification, verify
    from simulator.runs.describing import describe_data, population
    from simulator.runs.record import Record, open_run
    from simulator.runs.run import Run, resume, simulate
    from simulator.scenario.sections import Scenario, load_scenario, to_toml
    from simulator.scenario.sources import builtin_names
    from simulator.studies.study import Study, open_study
    from simulator.surface.measuring import surface
    from simulator.surface.result import Surface
    from simulator.tuning.tune import Tuning, tune
    from simulator.tuning.tuned_study import study

_HOME = {
    "Aggregate": "server.algorithms.transforms",
    "Aggregation": "server.algorithms.aggregation",
    "Algorithm": "server.algorithms.algorithm",
    "Bisection": "simulator.replay.bisect",
    "ClientFacts": "server.algorithms.aggregation",
    "ClientRows": "server.record.client_rows",
    "CohortData": "clients.core.examples",
    "Comparison": "dashboards.statistics.comparing",
    "DataError": "clients.core.errors",
    "EngineError": "clients.core.errors",
    "Examples": "clients.core.examples",
    "Explanation": "simulator.explaining.explain",
    "FedscapeError": "clients.core.errors",
    "HeterogeneityMeasures": "clients.heterogeneity.table",
    "Lesson": "simulator.lessons.lesson",
    "LocalResult": "clients.training.rules",
    "LocalRule": "clients.training.rules",
    "PartitionError": "clients.core.errors",
    "PooledArrays": "clients.sources.pooled_arrays",
    "PlayedLesson": "simulator.lessons.play",
    "Population": "clients.core.population",
    "Probes": "simulator.probes.result",
    "Record": "simulator.runs.record",
    "RoundTable": "server.record.round_table",
    "Run": "simulator.runs.run",
    "RunFolderError": "clients.core.errors",
    "Scenario": "simulator.scenario.sections",
    "ScenarioError": "clients.core.errors",
    "ServerState": "server.algorithms.state",
    "ServerTransform": "server.algorithms.transforms",
    "Snapshot": "server.rounds.observers",
    "StepContext": "server.algorithms.transforms",
    "StrategyError": "clients.core.errors",
    "Study": "simulator.studies.study",
    "Surface": "simulator.surface.result",
    "Tried": "simulator.explaining.trying",
    "Tuning": "simulator.tuning.tune",
    "Uplink": "clients.training.uplink",
    "UserError": "clients.core.errors",
    "Verdict": "server.convergence.verdict",
    "Verification": "simulator.replay.verify",
    "adagrad": "server.algorithms.transforms",
    "adam": "server.algorithms.transforms",
    "arrays": "clients.sources.pooled_arrays",
    "bisect": "simulator.replay.bisect",
    "branch": "simulator.replay.branch",
    "builtin_names": "simulator.scenario.sources",
    "chain": "server.algorithms.transforms",
    "clip_norm": "server.algorithms.transforms",
    "clipped": "server.algorithms.aggregation",
    "coordinate_median": "server.algorithms.aggregation",
    "custom_population": "clients.sources.custom",
    "describe_data": "simulator.runs.describing",
    "explain": "simulator.explaining.explain",
    "lesson": "simulator.lessons.play",
    "lessons": "simulator.lessons.play",
    "load_scenario": "simulator.scenario.sections",
    "local_rule": "clients.training.rules",
    "momentum": "server.algorithms.transforms",
    "open_run": "simulator.runs.record",
    "open_study": "simulator.studies.study",
    "population": "simulator.runs.describing",
    "probe": "simulator.probes.probe",
    "proximal": "clients.training.rules",
    "quadratics": "clients.sources.quadratic",
    "resume": "simulator.runs.run",
    "sgd": "server.algorithms.transforms",
    "simulate": "simulator.runs.run",
    "study": "simulator.tuning.tuned_study",
    "surface": "simulator.surface.measuring",
    "to_toml": "simulator.scenario.sections",
    "top_k": "clients.training.uplink",
    "try_change": "simulator.explaining.trying",
    "tune": "simulator.tuning.tune",
    "verify": "simulator.replay.verify",
    "weighted_mean": "server.algorithms.aggregation",
    "yogi": "server.algorithms.transforms",
}
"""The module of each public name; it is imported when the name is first used."""

__all__ = [
    "Aggregate",
    "Aggregation",
    "Algorithm",
    "Bisection",
    "ClientFacts",
    "ClientRows",
    "CohortData",
    "Comparison",
    "DataError",
    "EngineError",
    "Examples",
    "Explanation",
    "FedscapeError",
    "HeterogeneityMeasures",
    "Lesson",
    "LocalResult",
    "LocalRule",
    "PartitionError",
    "PlayedLesson",
    "PooledArrays",
    "Population",
    "Probes",
    "Record",
    "RoundTable",
    "Run",
    "RunFolderError",
    "Scenario",
    "ScenarioError",
    "ServerState",
    "ServerTransform",
    "Snapshot",
    "StepContext",
    "StrategyError",
    "Study",
    "Surface",
    "Tried",
    "Tuning",
    "Uplink",
    "UserError",
    "Verdict",
    "Verification",
    "adagrad",
    "adam",
    "arrays",
    "bisect",
    "branch",
    "builtin_names",
    "chain",
    "clip_norm",
    "clipped",
    "coordinate_median",
    "custom_population",
    "describe_data",
    "explain",
    "lesson",
    "lessons",
    "load_scenario",
    "local_rule",
    "momentum",
    "open_run",
    "open_study",
    "population",
    "probe",
    "proximal",
    "quadratics",
    "resume",
    "sgd",
    "simulate",
    "study",
    "surface",
    "to_toml",
    "top_k",
    "try_change",
    "tune",
    "verify",
    "weighted_mean",
    "yogi",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562): `import fedscape` imports no heavy library."""
    if name == "options":
        return import_module("fedscape.options")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    """Return the names of the module, public ones included."""
    return sorted({*globals(), *_HOME, "options"})
