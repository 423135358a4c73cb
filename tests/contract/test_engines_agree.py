"""The stacked engine equals the plain engine for every model, optimiser, rule and shape of the work."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_cases import MODELS, REMEDIES, cases, make
from engine_distance import COUNTS, distance, run, tolerance
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import COMPILER

from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.training.losses import MARGIN_LOSSES
from clients.training.options import AugmentOptions
from clients.training.work import concatenate


@settings(max_examples=180)
@given(case=cases())
def test_stacked_equals_plain_in_float64(case, population_of, device):
    task, work, own = make(case, population_of, torch.float64, device)
    assert distance(run(PlainEngine(task), work, own), run(StackedEngine(task), work, own)) < tolerance(case, 1e-9)


@settings(max_examples=80, derandomize=True)
@given(case=cases())
def test_stacked_equals_plain_to_rounding_in_float32(case, population_of, device):
    # Momentum through batch normalisation of two examples amplifies rounding most: 4e-5 in 1,200 draws.
    task, work, own = make(case, population_of, torch.float32, device)
    assert distance(run(PlainEngine(task), work, own), run(StackedEngine(task), work, own)) < 1e-3


@settings(max_examples=60)
@given(case=cases(), tile=st.integers(1, 3), keep=st.data())
def test_client_does_not_depend_on_its_cohort(case, tile, keep, population_of):
    task, work, own = make(case, population_of, torch.float64)
    bound = tolerance(case, 1e-12)
    together = run(StackedEngine(task), work, own)
    assert distance(together, run(StackedEngine(task, tile=tile), work, own)) < bound

    order = np.array(keep.draw(st.permutations(range(work.num_clients))))
    some = order[: keep.draw(st.integers(1, len(order)))]
    index = torch.from_numpy(some)
    fewer = replace(work, clients=work.clients[some])
    for engine in (StackedEngine(task), PlainEngine(task)):
        update, kept = engine.train(fewer, {n: v[index] for n, v in own.items()})
        sort = np.argsort(some)
        rows = torch.from_numpy(some[sort])
        back = concatenate([update]), {n: v[torch.from_numpy(sort)] for n, v in kept.items()}
        whole = together[0]
        expected = replace(
            whole,
            **{n: getattr(whole, n)[some[sort]] for n in (*COUNTS, "train_loss", "client_drift", "gradient_norm")},
            params=whole.params[rows],
            buffers=whole.buffers[rows],
            extras={n: v[rows] for n, v in whole.extras.items()},
        )
        assert distance((expected, {n: v[rows] for n, v in together[1].items()}), back) < bound


@pytest.mark.parametrize("loss", MARGIN_LOSSES)
@pytest.mark.parametrize("name", ["svm", "svm, two classes", "relu", "cnn1d", "gru, classes", "lstm, one channel"])
@pytest.mark.parametrize("remedy", ["", "weights", "mixup"])
def test_losses_of_the_margin_agree(name, loss, remedy, population_of, device):
    remedies = dict(REMEDIES.get(remedy, {}))
    if "augment" in remedies:
        remedies["augment"] = AugmentOptions(**remedies["augment"])
    options = {"batch_size": 3, "local_epochs": 2, "local_lr": 0.05, "buffers": "average", "loss": loss, **remedies}
    task, work, own = make((MODELS[name], options, [7, 3, 5], "plain", 2, 1), population_of, torch.float64, device)
    assert distance(run(PlainEngine(task), work, own), run(StackedEngine(task), work, own)) < 1e-10


def test_full_gradients_agree_and_equal_those_of_the_whole_data(population_of, device):
    sizes = [3, 8, 0, 5]
    for name in ("relu", "batch norm", "gru", "lstm", "svm, two classes", "gan", "user's"):
        model = MODELS[name]
        options = {"batch_size": 4, "local_epochs": 1, "buffers": "average", "drop_last": True}
        case = (model, options, sizes, "plain", 1, 3)
        task, work, _ = make(case, population_of, torch.float64, device)
        plain, stacked = PlainEngine(task).gradients(work), StackedEngine(task).gradients(work)
        torch.testing.assert_close(plain, stacked, rtol=1e-10, atol=1e-12)
        assert not plain[2].any(), "an empty client has no gradient"
        assert (plain[[0, 1, 3]].norm(dim=1) > 0.01).all()


def test_ragged_cohort_computes_only_active_clients(population_of):
    """The active prefix shrinks: no gradient is computed for a client that has finished."""
    case = (MODELS["relu"], {"batch_size": 2, "local_epochs": 1, "buffers": "average"}, [2, 9, 4, 13], "plain", 1, 0)
    task, work, own = make(case, population_of, torch.float32)
    engine, widths = StackedEngine(task), []
    inner = engine.program

    class Watched:
        masks_padding, width = True, staticmethod(inner.width)

        def gradients(self, params, buffers, batch):
            widths.append(len(batch.features))
            return inner.gradients(params, buffers, batch)

    engine.program = Watched()
    engine.train(work, own)
    assert widths == [4, 3, 2, 2, 2, 1, 1]


@pytest.mark.slow
@COMPILER.mark
@pytest.mark.parametrize("name", ["gelu", "cnn, batch norm"])
def test_compiled_equals_eager_to_rounding(name, population_of):
    case = (MODELS[name], {"batch_size": 4, "local_epochs": 2, "buffers": "average"}, [28, 20, 8, 16, 6], "plain", 2, 1)
    task, work, own = make(case, population_of, torch.float32)
    engine = StackedEngine(task)
    eager = run(engine, work, own)
    engine.program.compile((5, 3), 4)
    assert engine.program.width(4) == 5
    assert distance(eager, run(engine, work, own)) < 1e-5
