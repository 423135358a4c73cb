"""fedscape: simulate federated training, and see how, how fast and whether it converges.

Five lines run a federation and read its record:

    import fedscape as fs

    run = fs.simulate("digits-label-skew", seed=7)
    print(run.verdict)                          # Converged at round ...: why
    print(run.rounds["validation_loss"])        # one value a round, round 0 first
    model = run.model()                         # a torch.nn.Module with the final parameters

Change a scenario with `fs.load_scenario("digits-label-skew", sets=["algorithm.kind=fedprox"])`; list the built-in
ones with `fs.builtin_names()`. Bring your own parts:

    fs.simulate(scenario, model=MyNet(), data=fs.custom_population(client, sizes, outputs=10))
    fs.simulate(scenario, strategy=flwr.serverapp.strategy.Krum(...))    # any Flower strategy
    fs.simulate(scenario, strategy=lambda ours: Wrapper(ours, ...))      # one around ours
    fs.simulate(scenario, model=MyNet(), client_app=app)                 # any Flower ClientApp

See what clients hold, and how unequal they are: `fs.describe_data(scenario, out="folder")` measures it and draws it;
`fs.population(scenario)` is the clients themselves, with the masks of what faults changed.

`run.path` is the run's folder: rounds.jsonl, clients/ (Parquet), model.safetensors, scenario.toml. `fs.resume(path)`
goes on with a run that was interrupted, and `fs.open_run(path)` reads a finished one: `.verdict`, `.rounds` and
`.clients` (`["client_drift"]`: one value for each client in each round), all as NumPy arrays by name.
"""

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
from clients.core.population import CohortData, Examples, Population
from clients.heterogeneity.table import HeterogeneityMeasures
from clients.sources.custom import custom_population
from server.convergence.verdict import Verdict
from server.record.client_rows import ClientRows
from server.record.round_table import RoundTable
from simulator.runs.describing import describe_data
from simulator.runs.populations import population
from simulator.runs.record import Record, open_run
from simulator.runs.run import Run, resume, simulate
from simulator.scenario.sections import Scenario, builtin_names, load_scenario, to_toml

__all__ = [
    "ClientRows",
    "CohortData",
    "DataError",
    "EngineError",
    "Examples",
    "FedscapeError",
    "HeterogeneityMeasures",
    "PartitionError",
    "Population",
    "Record",
    "RoundTable",
    "Run",
    "RunFolderError",
    "Scenario",
    "ScenarioError",
    "StrategyError",
    "UserError",
    "Verdict",
    "builtin_names",
    "custom_population",
    "describe_data",
    "load_scenario",
    "open_run",
    "population",
    "resume",
    "simulate",
    "to_toml",
]
