"""Models: sizes, shapes, initial weights, and refused misfits."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from clients.core.errors import UserError
from clients.models.build import EMBEDDING, GruForecaster, Quadratic, build_model
from clients.models.linear_options import LogisticOptions, PerceptronOptions, SvmOptions
from clients.models.network_options import AutoencoderOptions, RbfOptions
from clients.models.options import (
    Cnn1dOptions,
    CnnOptions,
    GruOptions,
    LinearOptions,
    MlpOptions,
    ParameterVectorOptions,
    SmallCnnOptions,
    SoftmaxOptions,
    TwoNNOptions,
)
from clients.models.sequence_options import LstmOptions, RnnOptions, TransformerOptions
from clients.models.sequences import LstmForecaster
from clients.models.table import MODELS
from clients.sources.dirac import dirac_population
from clients.sources.landscapes.double_well import double_well_population
from clients.sources.landscapes.options import DoubleWellOptions
from clients.sources.options import DiracOptions
from clients.training.options import LocalOptions
from clients.training.task import make_task


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_match_mcmahan(population_of):
    assert count(build_model(TwoNNOptions(), population_of([2], (784,), 10), 0)) == 199_210
    assert count(build_model(TwoNNOptions(), population_of([2], (1, 28, 28), 10), 0)) == 199_210
    for shape in ((1, 28, 28), (28, 28), (784,)):
        assert count(build_model(CnnOptions(), population_of([2], shape, 10), 0)) == 1_663_370


@pytest.mark.parametrize(
    ("options", "shape", "parameters"),
    [
        (SoftmaxOptions(), (60,), 610),
        (LogisticOptions(), (2, 3), 70),
        (SvmOptions(bias=False), (6,), 60),
        (AutoencoderOptions(hidden=(6,), code=2), (5, 2), 11 * 6 + 7 * 2 + 3 * 6 + 7 * 10),
        (AutoencoderOptions(hidden=(), code=2), (10,), 11 * 2 + 3 * 10),
        (MlpOptions(hidden=(7, 5)), (6,), 7 * 7 + 8 * 5 + 6 * 10),
        (MlpOptions(hidden=()), (6,), 70),
        (MlpOptions(hidden=(8,), norm="batch"), (6,), 6 * 8 + 16 + 9 * 10),
        (MlpOptions(hidden=(8,), norm="group", dropout=0.5), (2, 3), 7 * 8 + 16 + 9 * 10),
        (SmallCnnOptions(), (1, 8, 8), 80 + 8 * 16 * 9 + 16 + 257 * 10),
        (SmallCnnOptions(norm="batch"), (8, 8), 72 + 16 + 8 * 16 * 9 + 32 + 257 * 10),
        (SmallCnnOptions(norm="group"), (64,), 80 + 16 + 8 * 16 * 9 + 16 + 32 + 257 * 10),
        (Cnn1dOptions(), (25, 9), 9 * 16 * 9 + 16 + 16 * 32 * 9 + 32 + 330),
        (Cnn1dOptions(channels=(3, 4), kernel=5), (13, 2), 2 * 3 * 5 + 3 + 3 * 4 * 5 + 4 + 50),
        (GruOptions(hidden=4), (12, 2), 3 * 4 * (2 + 4 + 2) + 50),
        (GruOptions(hidden=4), (12,), 3 * 4 * (1 + 4 + 2) + 50),
        (TransformerOptions(width=4, heads=2, feed_forward=5), (7, 2), 12 + 28 + 16 + 60 + 20 + 25 + 24 + 8 + 50),
        (RbfOptions(centres=5, trained="all"), (2, 3), 5 * 6 + 5 + 60),
        (LstmOptions(hidden=4), (12, 2), 4 * 4 * (2 + 4 + 2) + 50),
        (LstmOptions(hidden=4), (12,), 4 * 4 * (1 + 4 + 2) + 50),
        (RnnOptions(hidden=4), (12, 2), 4 * (2 + 1 + 4) + 50),
        (RnnOptions(hidden=4), (12,), 4 * (1 + 1 + 4) + 50),
    ],
)
def test_models_have_their_shapes_and_sizes(options, shape, parameters, population_of):
    task = MODELS.row_of(options).tasks[0]
    population = population_of([3, 4], shape, 10, task)
    module = build_model(options, population, 0)
    assert count(module) == parameters
    assert module(torch.randn(5, *shape)).shape == (5, 10)
    make_task(module, population, LocalOptions(batch_size=4), seed=0)


def test_every_registered_model_is_built(population_of):
    shapes = {
        "cnn": (8, 8),
        "small_cnn": (4, 4),
        "cnn1d": (25, 2),
        "gru": (4, 2),
        "lstm": (4, 2),
        "rnn": (4, 2),
        "transformer": (4, 2),
    }
    for kind, row in MODELS.items():
        task, options = row.tasks[0], row.options
        population = population_of([3], shapes.get(kind, (6,)), 6 if kind == "autoencoder" else 3, task)
        if kind == "dirac_gan":
            population = dirac_population(DiracOptions(clients=3, dimension=3), seed=0)
        if kind == "double_well":
            population = double_well_population(DoubleWellOptions(clients=3, dimension=3), seed=0)
        assert options().kind == kind
        make_task(build_model(options(), population, 0), population, LocalOptions(), seed=0)


def test_quadratic_matches_its_formula(population_of):
    population = population_of([4], outputs=3, task="objective", dtype=torch.float64)
    module = build_model(ParameterVectorOptions(start=(1.0, -2.0, 0.5)), population, 0)
    assert isinstance(module, Quadratic)
    x = population.cohort(np.arange(1)).client(0).features
    for row, value in zip(x, module(x).detach(), strict=True):
        hessian, away = row[:9].view(3, 3), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) - row[9:]
        assert float(value) == pytest.approx(float(away @ hessian @ away) / 2)


def test_gru_reads_out_its_last_state(population_of):
    module = build_model(GruOptions(hidden=5), population_of([3], (7, 2), 2, "regression"), 3)
    assert isinstance(module, GruForecaster)
    x = torch.randn(4, 7, 2)
    states, _ = module.gru(x)
    assert torch.equal(module(x), module.readout(states[:, 6]))


@pytest.mark.parametrize("shape", [(7, 2), (7,)])
def test_lstm_equals_torchs(shape, population_of):
    module = build_model(LstmOptions(hidden=5), population_of([3], shape, 2, "regression"), 3).double()
    assert isinstance(module, LstmForecaster)
    x = torch.randn(4, *shape, dtype=torch.float64)
    states, _ = module.lstm(x if x.dim() == 3 else x.unsqueeze(2))
    torch.testing.assert_close(module(x), module.readout(states[:, 6]), rtol=1e-12, atol=1e-12)


def test_lstm_starts_with_its_forget_bias(population_of):
    lstm = build_model(LstmOptions(hidden=3, forget_bias=1.5), population_of([3], (7, 2), 2, "regression"), 3).lstm
    bias = (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach()
    assert bias[3:6].tolist() == [1.5, 1.5, 1.5]
    assert 0 < float(bias[:3].abs().max()) < 2 / math.sqrt(3)


WIDE = {"fan_in": 400, "fan_out": 300}


@pytest.mark.parametrize(
    ("how", "variance"),
    [("xavier", 2 / (400 + 300)), ("he", 2 / 400), ("torch", 1 / (3 * 400))],
)
def test_initial_weights_have_the_variance_of_their_scheme(how, variance, population_of):
    population = population_of([2], (400,), 300)
    weight = build_model(MlpOptions(hidden=(300,), initialisation=how), population, 1)[0].weight.detach()
    assert float(weight.var()) == pytest.approx(variance, rel=0.03)
    assert abs(float(weight.mean())) < 5 * math.sqrt(variance / weight.numel())
    bounded = {"xavier": math.sqrt(6 / 700), "torch": math.sqrt(1 / 400)}
    if how in bounded:
        assert 0.99 * bounded[how] < float(weight.abs().max()) <= bounded[how]


@pytest.mark.parametrize(
    "options", [GruOptions(hidden=5), MlpOptions(hidden=(4,)), Cnn1dOptions(channels=(2, 3), kernel=3)]
)
def test_models_of_tokens_start_with_a_seeded_embedding(options, population_of):
    population = population_of([2], (12,), 3)
    of_tokens = replace(population, spec=replace(population.spec, tokens=11))
    one, same, other = (build_model(options, of_tokens, seed) for seed in (4, 4, 5))
    ids = torch.arange(24, dtype=torch.int32).reshape(2, 12) % 11
    assert one(ids).shape == (2, 3)
    assert one[0].weight.shape == (11, EMBEDDING)
    torch.testing.assert_close(one[1](one[0](ids)), one(ids))
    assert torch.equal(one[0].weight, same[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)


@pytest.mark.parametrize("options", [LogisticOptions(), SvmOptions(), PerceptronOptions(bias=False)])
def test_two_classes_share_one_weight_vector(options, population_of):
    module = build_model(options, population_of([3], (6,), 2), 0)
    assert count(module) == 6 + options.bias
    assert not any(p.any() for p in module.parameters())
    with torch.no_grad():
        module[0].weight.fill_(0.5)
    x = torch.randn(5, 6)
    torch.testing.assert_close(module(x), torch.stack([torch.zeros(5), 0.5 * x.sum(1)], 1))


def test_models_name_their_loss():
    assert LogisticOptions().loss == MlpOptions().loss == "auto"
    assert SvmOptions().loss == "hinge"
    assert SvmOptions(squared=True).loss == "squared_hinge"
    assert PerceptronOptions().loss == "perceptron"


def test_initial_scale_multiplies_weights_and_zero_leaves_none(population_of):
    population = population_of([2], (6,), 4)
    plain, doubled, zero = (
        build_model(options, population, 1)
        for options in (MlpOptions(), MlpOptions(initial_scale=2.0), MlpOptions(initialisation="zero"))
    )
    for layer in (0, 2):
        assert torch.equal(doubled[layer].weight, 2 * plain[layer].weight)
        assert plain[layer].weight.any()
    assert not any(p.any() for p in zero.parameters())
    assert "initial_scale" in MlpOptions(initialisation="zero", initial_scale=2.0).unread()
    with pytest.raises(UserError, match="initial_scale"):
        MlpOptions(initial_scale=0.0)


def test_biases_and_all_softmax_parameters_start_at_zero(population_of):
    population = population_of([2], (6,), 4)
    assert not any(p.any() for p in build_model(SoftmaxOptions(), population, 1).parameters())
    assert build_model(SoftmaxOptions(initialisation="xavier"), population, 1)[0].weight.any()
    assert not build_model(MlpOptions(), population, 1)[0].bias.any()
    assert build_model(MlpOptions(initialisation="torch"), population, 1)[0].bias.any()


@pytest.mark.parametrize(
    "options", [MlpOptions(), MlpOptions(initialisation="torch"), SmallCnnOptions(), GruOptions(hidden=4)]
)
def test_same_seed_gives_same_bytes_and_leaves_torchs_generator_unchanged(options, population_of):
    population = population_of([2], (4, 4), 3)
    before = torch.random.get_rng_state()
    one, same, other = (build_model(options, population, seed).state_dict() for seed in (7, 7, 8))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert not all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize(
    ("options", "shape", "task", "message"),
    [
        (SoftmaxOptions(), (6,), "regression", "kind: 'softmax' needs classes.*Use 'linear'"),
        (
            AutoencoderOptions(),
            (6,),
            "classification",
            "kind: 'autoencoder' reproduces its features, and the data have",
        ),
        (AutoencoderOptions(), (6,), "regression", "kind: 'autoencoder' reproduces its 6 features.* have 3 targets"),
        (SvmOptions(), (6,), "regression", "kind: 'svm' needs classes.*Use 'linear'"),
        (LinearOptions(), (6,), "classification", "kind: 'linear' is for regression.*Use 'softmax'"),
        (SoftmaxOptions(), (6,), "objective", "kind: 'softmax' does not fit data 'custom'. Data 'quadratic'"),
        (ParameterVectorOptions(), (6,), "classification", "kind: 'quadratic' does not fit"),
        (CnnOptions(), (6,), "classification", r"kind: 'cnn' needs images of at least 4x4.*\(6,\)"),
        (SmallCnnOptions(), (3, 1, 5), "classification", "kind: 'small_cnn' needs images of at least 2x2"),
        (Cnn1dOptions(), (24, 3), "classification", r"kind: 'cnn1d' .* time >= 25, the data have \(24, 3\)"),
        (Cnn1dOptions(), (60,), "classification", "kind: 'cnn1d' with a kernel of 9 needs"),
        (ParameterVectorOptions(start=(1.0, 2.0)), (6,), "objective", "start: must be one number or 3, got 2"),
    ],
)
def test_misfits_are_named(options, shape, task, message, population_of):
    with pytest.raises(UserError, match=message):
        build_model(options, population_of([3], shape, 3, task), 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda: MlpOptions(hidden=(3, 0)), r"hidden: every width must be >= 1, got \[3, 0\]"),
        (lambda: MlpOptions(dropout=1.0), r"dropout: must be in \[0, 1\), got 1.0"),
        (lambda: MlpOptions(hidden=(6,), norm="group"), "groups: must divide every hidden width"),
        (lambda: SmallCnnOptions(channels=(6, 8), norm="group"), "channels: must be multiples of 4"),
        (lambda: Cnn1dOptions(channels=(0, 8)), "channels: must be >= 1"),
        (lambda: Cnn1dOptions(kernel=0), "kernel: must be >= 1, got 0"),
        (lambda: AutoencoderOptions(code=0), "code: must be >= 1, got 0"),
        (lambda: AutoencoderOptions(hidden=(4, 0)), r"hidden: every width must be >= 1, got \[4, 0\]"),
        (lambda: GruOptions(hidden=0), "hidden: must be >= 1, got 0"),
        (lambda: LstmOptions(hidden=0), "hidden: must be >= 1, got 0"),
        (lambda: LstmOptions(forget_bias=math.inf), "forget_bias: must be finite, got inf"),
        (lambda: RnnOptions(hidden=0), "hidden: must be >= 1, got 0"),
        (lambda: RnnOptions(radius=0.0), "radius: must be > 0, got 0.0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        options()


def test_users_module_must_fit_the_data(population_of):
    population = population_of([3], (6,), 3)
    with pytest.raises(UserError, match="model: has no trainable parameters"):
        make_task(nn.Flatten(), population, LocalOptions(), seed=0)
    with pytest.raises(UserError, match=r"model: returns \(3, 2\) for 3 examples where classification needs \(3, 3\)"):
        make_task(nn.Linear(6, 2), population, LocalOptions(), seed=0)
    with pytest.raises(UserError, match=r"model: fails on features of shape \(6,\)"):
        make_task(nn.Linear(5, 3), population, LocalOptions(), seed=0)
    with pytest.raises(UserError, match="local_steps: lists 2 numbers for 1 clients"):
        make_task(nn.Linear(6, 3), population, LocalOptions(local_steps=(1, 2)), seed=0)
