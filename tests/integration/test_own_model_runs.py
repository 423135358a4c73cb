"""Whole runs with a user's model: resumed, on nodes, through a ClientApp, saved and loaded, with its notices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from own_models import CallsByLength, GlobalNoise, Loop, Sampling, Shared, Tied, Unused
from run_folders import assert_same_run, stop_after
from strange_grid import StrangeGrid
from torch import nn

from clients.core.errors import DataError, RunFolderError
from clients.core.population import Population
from clients.engines.plain import PlainEngine
from clients.flower.answering import ClientTask
from clients.flower.app import make_client_app
from clients.flower.codec import Codec, tied_names
from clients.sources.custom import custom_population
from clients.sources.pooled_arrays import arrays
from clients.training.task import make_task
from clients.training.work import LocalWork
from server.record.records import RunFolder
from simulator.runs.record import open_run
from simulator.runs.run import Run, resume, simulate
from simulator.scenario.sections import Scenario, load_scenario

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = [9, 14, 6, 11, 8]
SETS = (
    "algorithm.cohort=3", "convergence.target=", "evaluation.baselines=false", "evaluation.federated_every=2",
    "run.rounds=5", "local.batch_size=4", "local.local_epochs=2", "local.drop_last=true", "engine.threads=1",
    "engine.workers=1",
)  # fmt: skip


def examples(client: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a client's examples; client 99 is the server."""
    generator = torch.Generator().manual_seed(client)
    n = SIZES[client] if client < len(SIZES) else 40
    features = torch.randn(n, 8, generator=generator) + client % 3
    return features, features[:, :3].argmax(1)


def population() -> Population:
    return custom_population(examples, SIZES, outputs=3, validation=examples(99), test=examples(98))


def scenario(*sets: str) -> Scenario:
    return load_scenario("digits-iid", sets=[*SETS, *sets], seed=5)


def fresh(make: type[nn.Module]) -> nn.Module:
    torch.manual_seed(2)
    return make()


def test_final_model_of_a_record_says_what_it_needs_from_python(tmp_path: Path) -> None:
    simulate(scenario("run.rounds=1"), model=nn.Linear(8, 3), data=population(), out=tmp_path / "own")
    with pytest.raises(RunFolderError, match=r"was run with a model= from Python.*record.model\(MyNet\)"):
        open_run(tmp_path / "own").model()
    run = simulate(scenario("run.rounds=1", "model.kind=softmax"), data=population(), out=tmp_path / "built_in")
    with pytest.raises(RunFolderError, match=r"was run with data= from Python.*record.model\(data=data\)"):
        open_run(tmp_path / "built_in").model()
    loaded = open_run(tmp_path / "built_in").model(data=population())
    assert torch.equal(torch.cat([p.detach().flatten() for p in loaded.parameters()]), run.params)


def test_objects_print_as_one_short_line(tmp_path: Path) -> None:
    run = simulate(scenario("run.rounds=1"), model=nn.Linear(8, 3), data=population(), out=tmp_path / "run")
    assert repr(run) == f"<Run in {tmp_path / 'run'}: Stopped at round 1, 27 parameters>"
    record = open_run(tmp_path / "run")
    assert repr(record) == f"<Record of {tmp_path / 'run'}: 2 rounds recorded, Stopped at round 1>"
    assert repr(run.rounds).startswith("<RoundTable: 2 rows, ")
    assert repr(run.clients).startswith("<ClientRows: 3 rows, ")
    shown = "<Population 'custom': 5 clients, 48 training examples of shape (8,), classification>"
    assert repr(population()) == shown
    assert repr(arrays(*examples(0))) == "<PooledArrays: 9 examples of shape (8,)>"


def test_function_that_returns_other_examples_each_time_is_refused() -> None:
    def drawn(client: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(SIZES[client], 8), torch.zeros(SIZES[client], dtype=torch.int64)

    with pytest.raises(DataError, match=r"client 0: drawn\(0\) returns other examples in a second call"):
        custom_population(drawn, SIZES, outputs=3)


@pytest.mark.parametrize("make", [Sampling, GlobalNoise, CallsByLength, Loop])
@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold"])
def test_resumed_run_of_a_drawing_model_has_the_same_bits(
    make: type[nn.Module], algorithm: str, tmp_path: Path
) -> None:
    """Option 1 of SCAFFOLD also computes full gradients, in which such a model draws."""
    rows = ("algorithm.kind=scaffold", "algorithm.weighting=", "algorithm.option=1") if algorithm == "scaffold" else ()
    chosen, data, model = scenario("engine.kind=plain", *rows), population(), fresh(make)
    whole = simulate(chosen, model=model, data=data, out=tmp_path / "whole")
    torch.seed()
    np.random.seed(None)  # noqa: NPY002 (what a user's model draws from)
    run = simulate(chosen, model=model, data=data, out=tmp_path / "cut", stop_asked=stop_after(2))
    assert run.verdict.outcome == "interrupted"
    np.random.random(3)  # noqa: NPY002
    run = resume(tmp_path / "cut", model=model, data=data)
    assert torch.equal(run.params, whole.params)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.parametrize("make", [Sampling, CallsByLength, Shared])
def test_nodes_draw_what_the_plain_engine_draws(make: type[nn.Module]) -> None:
    chosen, data, model = scenario("engine.kind=plain"), population(), fresh(make)
    here = simulate(chosen, model=model, data=data, record=False)
    task = make_task(model, data, chosen.local, seed=chosen.run.seed)
    node = ClientTask(PlainEngine(task), Codec.flat(task.parameters, task.buffers, task.dtype), LocalWork())
    grid = StrangeGrid(make_client_app(lambda *_: node), [3, 0, 4, 1, 2])
    there = simulate(chosen, model=model, data=data, grid=grid, record=False)
    torch.testing.assert_close(there.params, here.params, rtol=1e-6, atol=1e-7)


def test_notices_and_the_reason_are_in_the_record(tmp_path: Path) -> None:
    run = simulate(scenario(), model=fresh(Sampling), data=population(), out=tmp_path / "run")
    facts = (RunFolder(tmp_path / "run").read_environment() or {})["run"]
    assert facts["notices"] == [*run.session.population.federation.notices, *run.session.task.notices]
    assert any("Only the plain engine can train the model: its training pass draws" in n for n in facts["notices"])
    source = "torch's generator, in Sampling.forward"
    assert facts["engine_reason"] == f"plain: cannot be stacked: its training pass draws from {source}"


def client_app(make: type[nn.Module]) -> ClientApp:
    """Return a ClientApp as a user writes it."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        features, labels = examples(int(context.node_config["partition-id"]))
        net = make()
        net.load_state_dict(message.content["arrays"].to_torch_state_dict())  # type: ignore[union-attr]
        optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
        loss = torch.nn.functional.cross_entropy(net(features), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        metrics = MetricRecord({"train_loss": loss.item(), "num-examples": len(labels)})
        return Message(RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics}), reply_to=message)

    return app


def assert_tied_model_is_kept(run: Run, folder: Path) -> None:
    """Check that the final model is tied, that the saved one has its numbers, and that both loaded ways agree."""
    final, loaded = run.model(), open_run(folder).model(fresh(Tied))
    for model in (final, loaded):
        assert model.first.weight is model.second.weight
        assert model.norm is model.again
    assert final.state_dict().keys() == fresh(Tied).state_dict().keys()
    for name, value in final.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    assert not torch.equal(final.first.weight, fresh(Tied).first.weight)
    assert run.rounds["validation_loss"][-1] < run.rounds["validation_loss"][0]


@pytest.mark.parametrize("strategy", [None, FedAvg])
def test_tied_weights_go_through_a_client_app(strategy: type[FedAvg] | None, tmp_path: Path) -> None:
    chosen = scenario("algorithm.cohort=", "evaluation.federated_every=0")
    flower = FedAvg(fraction_train=1.0, fraction_evaluate=0.0) if strategy is not None else None
    run = simulate(
        chosen, model=fresh(Tied), data=population(), client_app=client_app(Tied), strategy=flower, out=tmp_path / "run"
    )
    assert_tied_model_is_kept(run, tmp_path / "run")


def test_tied_weights_are_trained_alike_by_both_engines(tmp_path: Path) -> None:
    runs = []
    for kind in ("plain", "stacked"):
        chosen, folder = scenario(f"engine.kind={kind}"), tmp_path / kind
        runs.append(simulate(chosen, model=fresh(Tied), data=population(), out=folder))
        assert_tied_model_is_kept(runs[-1], folder)
    torch.testing.assert_close(runs[0].params, runs[1].params, rtol=1e-4, atol=1e-5)
    names = runs[0].session.task.parameters.names
    assert names == ("first.weight", "first.bias", "second.bias", "norm.weight", "norm.bias", "last.weight",
                     "last.bias")  # fmt: skip


def test_codec_writes_every_name_of_a_tied_tensor_and_reads_one() -> None:
    module = fresh(Tied)
    assert tied_names(module)["second.weight"] == "first.weight"
    record = ArrayRecord(module.state_dict())
    codec = Codec.of_state_dict(record, module)
    params, buffers = codec.decode(record)
    assert params.numel() == sum(p.numel() for p in module.parameters())
    written = codec.encode(2 * params, buffers)
    assert written.keys() == record.keys()
    assert (written["second.weight"].numpy() == 2 * record["first.weight"].numpy()).all()
    untied = ArrayRecord({**record, "second.weight": written["second.weight"]})
    with pytest.raises(ValueError, match=r"arrays 'first.weight' and 'second.weight' differ, and are one tensor"):
        codec.decode(untied)


def test_adaptive_optimizer_with_decay_leaves_unused_parameters_in_a_whole_run() -> None:
    model = fresh(Unused)
    for kind in ("plain", "stacked"):
        chosen = scenario(f"engine.kind={kind}", "local.optimizer=adam", "local.local_lr=0.01", "local.l2=0.1")
        final = simulate(chosen, model=model, data=population(), record=False).model()
        assert torch.equal(final.left_out.weight, model.left_out.weight)
        assert torch.equal(final.scale, model.scale)
        assert not torch.equal(final.last.weight, model.last.weight)
