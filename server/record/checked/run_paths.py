"""The files of a run's folder.

scenario.toml      the scenario as resolved            rounds.jsonl    one line a round, flushed
environment.json   versions, machine, decisions        events.jsonl    one line an event
clients/           rows by client and round            checkpoint/     the state for `resume`
model.safetensors  the final model                     outcome.json    how it ended; absent before
model.best.safetensors  the best model by validation (only where validation is measured)
partition.json     client sizes and label counts       report.html     the report, from `dashboards`
data_truth.json    faults, concept drifts, the city    (only if any changed the data)
forecasts.json     forecasts against truth, for the report (only of forecasts)
samples.json       a few samples of the final model, for the report (only of models that draw images)
surface.json       the error surface, for the report (only after `fedscape surface`)
explanation.json   the causes that `fedscape explain` found (only after it)
parameters/        parameters of earlier rounds (only with run.keep_parameters_every)
checkpoints/       checkpoints of earlier rounds (only with run.keep_checkpoints_every)
probes.json        what `fedscape probe` measured, by round (only if a probe was made)
certificate.jsonl  hashes of the state after each round (unless run.certificate is off)
scores/            scores by client and evaluated round (only with federated evaluation)
logs/, states/     output of Flower's processes, and client states of their nodes (only of `fedscape federate`)
federation.json    how many nodes there are (only of `fedscape federate`)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPaths:
    """Where the files of one run are.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def scenario(self) -> Path:
        """The resolved scenario."""
        return self.path / "scenario.toml"

    @property
    def rounds(self) -> Path:
        """One line for each round: the source of truth for all exporters."""
        return self.path / "rounds.jsonl"

    @property
    def events(self) -> Path:
        """One line for each event: `round`, `kind`, `message` and more."""
        return self.path / "events.jsonl"

    @property
    def clients(self) -> Path:
        """Parquet parts by client and round."""
        return self.path / "clients"

    @property
    def scores(self) -> Path:
        """Parquet parts by evaluated round and client: the clients' scores; absent where no client evaluates."""
        return self.path / "scores"

    @property
    def logs(self) -> Path:
        """Output of the processes of `fedscape federate`."""
        return self.path / "logs"

    @property
    def states(self) -> Path:
        """Client states of the nodes of `fedscape federate`."""
        return self.path / "states"

    @property
    def federation(self) -> Path:
        """The number of nodes of `fedscape federate`; absent in any other run."""
        return self.path / "federation.json"

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's folder."""
        return self.path / "checkpoint"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of earlier rounds; absent where none are kept."""
        return self.path / "checkpoints"

    @property
    def certificate(self) -> Path:
        """One line for each round: hashes of the state's tensors; absent where nothing is certified."""
        return self.path / "certificate.jsonl"

    @property
    def probes(self) -> Path:
        """What probes of the run's states measured; absent where none were made."""
        return self.path / "probes.json"

    @property
    def model(self) -> Path:
        """The final model."""
        return self.path / "model.safetensors"

    @property
    def best_model(self) -> Path:
        """The best model by validation; absent where nothing was measured on validation examples."""
        return self.path / "model.best.safetensors"

    @property
    def environment(self) -> Path:
        """The environment and the decisions at the start."""
        return self.path / "environment.json"

    @property
    def partition(self) -> Path:
        """Sizes and label counts of the clients."""
        return self.path / "partition.json"

    @property
    def truth(self) -> Path:
        """Ground truth of the data: faults, concept drifts, the city's clock; absent without any of these."""
        return self.path / "data_truth.json"

    @property
    def forecasts(self) -> Path:
        """Forecasts against truth of a few clients, for the report; absent where nothing is forecast."""
        return self.path / "forecasts.json"

    @property
    def samples(self) -> Path:
        """A few samples of the final model, for the report; absent where it draws no images."""
        return self.path / "samples.json"

    @property
    def surface(self) -> Path:
        """The error surface, for the report; absent where none was measured."""
        return self.path / "surface.json"

    @property
    def explanation(self) -> Path:
        """The causes that `fedscape explain` found; absent before it."""
        return self.path / "explanation.json"

    @property
    def report(self) -> Path:
        """The report page of the run."""
        return self.path / "report.html"

    @property
    def outcome(self) -> Path:
        """How the run ended."""
        return self.path / "outcome.json"
