"""The GRU's kernel has the numbers of `GruProgram` and of `torch.nn.GRU`, and no number depends on threads or tile."""

import copy
import ctypes
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from needs import C_COMPILER

from clients.engines.batch import Batch
from clients.engines.native import build
from clients.engines.native.choice import kernel_of
from clients.engines.native.gru import _CHECKS, GruKernel, NativeGruProgram, gru_kernel, gru_library
from clients.engines.recurrent import WEIGHTS, GruProgram
from clients.engines.stacked import StackedEngine
from clients.models.build import GruForecaster, build_model
from clients.models.options import GruOptions
from clients.training.losses import trained_losses
from clients.training.options import LocalOptions
from clients.training.task import make_task

F32, F64 = torch.float32, torch.float64


@st.composite
def problems(draw, dtype=F64):
    """Return a task, parameters of a few models and a batch for each of them, with padding in some."""
    k, b, hidden = draw(st.integers(1, 4)), draw(st.integers(1, 40)), draw(st.integers(1, 40))
    channels, time, outputs = draw(st.integers(1, 6)), draw(st.integers(1, 24)), draw(st.integers(1, 12))
    task = draw(st.sampled_from(["classification", "regression"]))
    counts = draw(st.none() | st.lists(st.integers(1, b), min_size=k, max_size=k))
    return task, *problem(task, k, b, hidden, channels, time, outputs, counts, draw(st.integers(0, 99)), dtype)


def problem(task, k, b, hidden, channels, time, outputs, counts=None, seed=0, dtype=F64):
    random = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=random, dtype=F64).to(dtype)

    module = GruForecaster(channels, hidden, outputs)
    params = {n: 0.4 * normal(k, *p.shape) for n, p in module.named_parameters()}
    classes = task == "classification"
    targets = torch.randint(outputs, (k, b), generator=random) if classes else normal(k, b, outputs)
    weights = None
    if counts is not None:
        held = torch.tensor(counts)[:, None]
        weights = ((torch.arange(b) < held) / held.double()).to(dtype)
    return params, Batch(normal(k, b, time, channels), targets, weights, {})


def native(task, params, dtype=F64, gamma=0.0):
    library = gru_library(dtype)
    assert library.functions is not None, library.reason
    channels, (outputs, hidden) = params[WEIGHTS[0]].shape[2], params[WEIGHTS[4]].shape[1:]
    kernel = GruKernel(library.functions, task == "regression", dtype, hidden, channels, outputs)
    return NativeGruProgram(task, gamma, kernel)


def small_task(population_of, dtype=F64):
    population = population_of([6, 4], (5, 2), 1, "regression", dtype=F64)
    module = build_model(GruOptions(hidden=3), population, 1)
    return make_task(module, population, LocalOptions(), seed=1, dtype=dtype)


def autograd(task, params, batch, gamma=0.0):
    """Return gradients and losses of one `torch.nn.GRU` after another."""
    found = {n: [] for n in params}
    losses, (k, b) = [], batch.features.shape[:2]
    for i in range(k):
        module = GruForecaster(batch.features.shape[3], params[WEIGHTS[1]].shape[2], params[WEIGHTS[5]].shape[1])
        module = module.to(batch.features.dtype)
        module.load_state_dict({n: p[i] for n, p in params.items()})
        remedy = {n: t[i] for n, t in batch.remedy.items()}
        each = trained_losses(module(batch.features[i]), batch.targets[i], task, gamma, remedy)
        weights = torch.full((b,), 1 / b, dtype=each.dtype) if batch.weights is None else batch.weights[i]
        (each * weights).sum().backward()
        losses.append(each.detach())
        for name, p in module.named_parameters():
            found[name].append(p.grad)
    return {n: torch.stack(g) for n, g in found.items()}, torch.stack(losses)


def real(batch):
    """Return where the batch has examples and no padding."""
    return torch.ones_like(batch.features[:, :, 0, 0], dtype=torch.bool) if batch.weights is None else batch.weights > 0


def assert_close(found, expected, tolerance):
    """Compare each tensor relative to the largest number of the reference."""
    for name, reference in expected.items():
        scale = max(1e-3, float(reference.abs().max()))
        torch.testing.assert_close(found[name], reference, rtol=0, atol=tolerance * scale, msg=name)


def same_bits(found, expected):
    return all(torch.equal(found[n], expected[n]) for n in expected)


@C_COMPILER.mark
class TestNumbers:
    @given(problems())
    def test_float64_gradients_equal_the_torch_programs(self, drawn):
        task, params, batch = drawn
        found, losses, outputs, buffers = native(task, params).gradients(params, {}, batch)
        expected, other_losses, other_outputs, _ = GruProgram(task).gradients(params, {}, batch)
        assert_close(found, expected, 1e-10)
        where = real(batch)
        torch.testing.assert_close(losses[where], other_losses[where], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(outputs[where], other_outputs[where], rtol=1e-10, atol=1e-12)
        assert buffers == {}

    @given(problems())
    def test_float64_gradients_equal_autograds(self, drawn):
        task, params, batch = drawn
        found, losses, _, _ = native(task, params).gradients(params, {}, batch)
        expected, other_losses = autograd(task, params, batch)
        assert_close(found, expected, 1e-10)
        torch.testing.assert_close(losses[real(batch)], other_losses[real(batch)], rtol=1e-10, atol=1e-12)

    @given(problems(F32))
    def test_float32_gradients_are_close_to_those_in_float64(self, drawn):
        task, params, batch = drawn
        found, losses, _, _ = native(task, params, F32).gradients(params, {}, batch)
        precise = Batch(
            batch.features.double(), batch.targets.double() if task == "regression" else batch.targets,
            None if batch.weights is None else batch.weights.double(), {},
        )  # fmt: skip
        expected, other, _, _ = GruProgram(task).gradients({n: p.double() for n, p in params.items()}, {}, precise)
        assert_close({n: g.double() for n, g in found.items()}, expected, 2e-4)
        torch.testing.assert_close(losses[real(batch)].double(), other[real(batch)], rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("mixed", [False, True])
    def test_focal_weighted_and_mixed_losses_equal_autograds(self, mixed):
        params, batch = problem("classification", 3, 7, 9, 2, 5, 4, counts=[7, 3, 1])
        random = torch.Generator().manual_seed(1)
        remedy = {"scales": torch.rand(3, 7, generator=random, dtype=F64)}
        if mixed:
            others = torch.randint(4, (3, 7), generator=random)
            remedy |= {"others": others, "other_scales": 1 - remedy["scales"]}
        batch = replace(batch, remedy=remedy)
        found, losses, _, _ = native("classification", params, gamma=2.0).gradients(params, {}, batch)
        expected, other = autograd("classification", params, batch, gamma=2.0)
        assert_close(found, expected, 1e-10)
        torch.testing.assert_close(losses[real(batch)], other[real(batch)])

    def test_parameters_and_batch_are_not_changed(self):
        params, batch = problem("regression", 2, 5, 7, 2, 4, 1, counts=[5, 2])
        before = copy.deepcopy((params, batch.features, batch.targets, batch.weights))
        native("regression", params).gradients(params, {}, batch)
        assert same_bits(params, before[0])
        for now, then in zip((batch.features, batch.targets, batch.weights), before[1:], strict=True):
            assert torch.equal(now, then)


@C_COMPILER.mark
class TestExtremeNumbers:
    @pytest.mark.parametrize("dtype", [F32, F64])
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, -200.0, 200.0, 0.0, 1e-40])
    @pytest.mark.parametrize("place", ["features", *WEIGHTS])
    def test_extreme_number_has_the_effect_that_it_has_in_torch(self, dtype, value, place):
        params, batch = problem("regression", 3, 4, 6, 2, 5, 2, dtype=dtype)
        changed = (batch.features if place == "features" else params[place])[1].view(-1)
        changed[1] = value
        found, losses, outputs, _ = native("regression", params, dtype).gradients(params, {}, batch)
        expected, other_losses, other_outputs, _ = GruProgram("regression").gradients(params, {}, batch)
        for n in WEIGHTS:
            torch.testing.assert_close(found[n], expected[n], rtol=1e-4, atol=1e-4, equal_nan=True)
        torch.testing.assert_close(losses, other_losses, rtol=1e-4, atol=1e-5, equal_nan=True)
        torch.testing.assert_close(outputs, other_outputs, rtol=1e-4, atol=1e-5, equal_nan=True)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 800.0, -800.0])
    def test_extreme_logit_has_the_effect_that_it_has_in_torch(self, value):
        params, batch = problem("classification", 3, 4, 6, 2, 5, 3)
        params["readout.bias"][1, 2] = value
        found, losses, _, _ = native("classification", params).gradients(params, {}, batch)
        expected, other_losses, _, _ = GruProgram("classification").gradients(params, {}, batch)
        for n in WEIGHTS:
            torch.testing.assert_close(found[n], expected[n], equal_nan=True)
        torch.testing.assert_close(losses, other_losses, equal_nan=True)

    def test_padding_reaches_no_result_even_if_it_is_nan(self):
        params, batch = problem("regression", 2, 6, 5, 2, 4, 1, counts=[6, 2])
        clean = native("regression", params).gradients(params, {}, batch)
        batch.features[1, 2:] = float("nan")
        found = native("regression", params).gradients(params, {}, batch)
        assert same_bits(found[0], clean[0])
        assert torch.equal(found[1][1, 2:], torch.zeros(4, dtype=F64))

    def test_client_without_examples_has_gradients_of_zero(self):
        params, batch = problem("regression", 2, 6, 5, 2, 4, 1, counts=[6, 2])
        batch.weights[1] = 0
        found, *_ = native("regression", params).gradients(params, {}, batch)
        assert not any(g[1].any() for g in found.values())
        assert all(g[0].any() for g in found.values())


@C_COMPILER.mark
class TestBits:
    @pytest.mark.parametrize("dtype", [F32, F64])
    def test_bits_depend_neither_on_threads_nor_on_the_tile(self, dtype):
        params, batch = problem(
            "classification", 9, 11, 19, 2, 6, 3, counts=[11, 9, 3, 11, 1, 2, 5, 11, 8], dtype=dtype
        )
        threads, program = torch.get_num_threads(), native("classification", params, dtype)
        try:
            torch.set_num_threads(1)
            alone = program.gradients(params, {}, batch)[0]
            for count in (2, 4, 30):
                torch.set_num_threads(count)
                assert same_bits(program.gradients(params, {}, batch)[0], alone)
        finally:
            torch.set_num_threads(threads)
        for part in (slice(0, 1), slice(3, 8)):
            some = replace(
                batch, features=batch.features[part], targets=batch.targets[part], weights=batch.weights[part]
            )
            found = program.gradients({n: p[part] for n, p in params.items()}, {}, some)[0]
            assert same_bits(found, {n: g[part] for n, g in alone.items()})


class TestRefusals:
    @C_COMPILER.mark
    @pytest.mark.parametrize("target", [-1, 3, 2**40])
    def test_target_that_is_no_class_is_refused(self, target):
        params, batch = problem("classification", 2, 5, 4, 1, 3, 3)
        batch.targets[1, 4] = target
        with pytest.raises(IndexError, match="label"):
            native("classification", params).gradients(params, {}, batch)

    @C_COMPILER.mark
    def test_tensor_of_another_dtype_is_refused(self):
        params, batch = problem("classification", 2, 5, 4, 1, 3, 3)
        with pytest.raises(TypeError, match="float64"):
            native("classification", params, F32).gradients(params, {}, batch)
        with pytest.raises(TypeError, match="int32"):
            native("classification", params).gradients(params, {}, replace(batch, targets=batch.targets.int()))

    @C_COMPILER.mark
    def test_sizes_that_do_not_fit_are_refused(self):
        params, batch = problem("classification", 2, 5, 4, 3, 3, 3)
        program = native("classification", params)
        wrong = params | {WEIGHTS[1]: params[WEIGHTS[1]][:1]}
        for p, b in (
            (wrong, batch),
            (params, replace(batch, features=batch.features[:, :, :, :2])),
            (params, replace(batch, targets=batch.targets[:, :4])),
        ):
            with pytest.raises(ValueError, match="do not fit 2 batches of a GRU of 4 units"):
                program.gradients(p, {}, b)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_kernel_is_left_out_for_other_types(self, dtype, population_of):
        assert gru_kernel(small_task(population_of, dtype)) == (
            None, f"it computes in float32 or float64, not in {dtype}"
        )  # fmt: skip

    def test_without_a_compiler_torchs_program_trains_and_the_reason_is_known(
        self, population_of, tmp_path, monkeypatch
    ):
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        build.load.cache_clear()
        try:
            task = small_task(population_of)
            found, engine = kernel_of(task), StackedEngine(task, native=True)
        finally:
            build.load.cache_clear()
        assert found == (None, "no C compiler (cc, gcc or clang) is installed")
        assert type(engine.program) is GruProgram

    @C_COMPILER.mark
    def test_torchs_program_trains_where_no_kernel_is_wanted(self, population_of):
        task = small_task(population_of)
        assert type(StackedEngine(task).program) is GruProgram
        assert type(StackedEngine(task, native=True).program) is NativeGruProgram

    def test_kernel_with_other_numbers_fails_its_self_check(self):
        class Zero(ctypes.CDLL):
            def gru_gradients(self, *arguments):
                error = self["gru_gradients"](*arguments)
                ctypes.memset(arguments[9][0], 0, 8)  # the first gradients of the first weights
                return error

        path = gru_library(F32).functions._name
        build.load.cache_clear()
        assert _CHECKS[F32](ctypes.CDLL(path)) == ""
        assert "gru.weight_ih_l0" in _CHECKS[F32](Zero(path))
