"""The device of a run: which one is taken, what is refused, and what is restored afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import fedscape as fs
from clients.core.errors import EngineError, UserError
from simulator.engines.devices import (
    Cards,
    Processes,
    cards_here,
    choose_device,
    device_restored,
    on_device,
    set_rounding,
)
from simulator.engines.options import EngineOptions
from simulator.engines.plan import EnginePlan
from simulator.runs.resumption import fingerprint
from simulator.testing.checks import small_federation
from simulator.workers.ranks import ranks_of_torchrun

NONE = Cards((), "torch 2.13.0+cpu is built without CUDA")
TWO = Cards(("NVIDIA H200", "NVIDIA H100"))


def chosen(device="auto", cards=TWO, *, forked=1, rank=None, recorded=None, **more):
    options = EngineOptions(device=device, **more)
    found = choose_device(options, Processes(forked, rank), recorded=recorded, find=lambda: cards)
    return str(found.device), found.words


def no_look():
    raise AssertionError("the CPU is named, and cards are looked for")


@pytest.mark.parametrize(("device", "cards", "taken"), [
    ("auto", TWO, "cuda:0"), ("auto", NONE, "cpu"),
    ("cpu", TWO, "cpu"), ("cuda", TWO, "cuda:0"), ("cuda:1", TWO, "cuda:1"),
])  # fmt: skip
def test_device_is_the_named_one_and_auto_takes_a_card(device, cards, taken):
    assert chosen(device, cards)[0] == taken


def test_cpu_is_taken_without_a_look_at_cards():
    assert choose_device(EngineOptions(device="cpu"), find=no_look).device.type == "cpu"


def test_card_is_named_in_words_and_the_cpu_is_not():
    assert chosen("cuda:1")[1] == "on cuda:1 (NVIDIA H100)"
    assert chosen("cuda", tf32=True, bf16=True)[1] == "on cuda:0 (NVIDIA H200), tf32, bf16"
    assert chosen("auto", NONE)[1] == ""
    assert chosen("cpu", bf16=True)[1] == "on the CPU, bf16"


@pytest.mark.parametrize(("device", "cards", "message"), [
    ("cuda", NONE, "engine.device: is 'cuda', and there is no CUDA card: torch 2.13.0+cpu is built without CUDA. "
                   "Set engine.device = 'auto' or 'cpu'."),
    ("cuda:2", TWO, "engine.device: is 'cuda:2', and torch finds cuda:0 (NVIDIA H200), cuda:1 (NVIDIA H100). "
                    "Set engine.device = 'cuda:1' or a lower number."),
])  # fmt: skip
def test_card_that_is_not_there_is_an_error(device, cards, message):
    with pytest.raises(EngineError) as error:
        chosen(device, cards)
    assert str(error.value) == message


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "CUDA", "cuda:01", "mps", "cuda:0 "])
def test_unknown_device_is_an_error(device):
    with pytest.raises(UserError, match="device: must be 'auto', 'cpu', 'cuda' or 'cuda:N'"):
        EngineOptions(device=device)


def test_rank_takes_the_card_of_its_local_rank():
    assert [chosen(rank=r)[0] for r in range(5)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]
    assert [chosen("cuda:1", rank=r)[0] for r in range(3)] == ["cuda:1"] * 3
    assert chosen(cards=NONE, rank=1)[0] == "cpu"


def test_local_rank_comes_from_torchrun(monkeypatch):
    for name, value in {"WORLD_SIZE": 8, "RANK": 5, "LOCAL_RANK": 1, "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, str(value))
    assert ranks_of_torchrun().local == 1


def test_forked_workers_cannot_use_a_card():
    with pytest.raises(EngineError) as error:
        chosen("cuda", forked=4)
    assert str(error.value) == (
        "engine.device: is 'cuda', and 4 worker processes are forked: CUDA cannot be used after a fork. "
        "Start them with torchrun: torchrun --nproc-per-node 4 -m simulator.cli run SCENARIO"
    )
    assert chosen("auto", forked=4) == ("cpu", "on the CPU, since forked workers cannot use CUDA (torchrun's can)")
    assert chosen("auto", NONE, forked=4) == ("cpu", "")


@pytest.mark.parametrize(("recorded", "device", "taken"), [
    ("cpu", "auto", "cpu"), ("cuda:0", "auto", "cuda:0"), ("cuda:7", "auto", "cuda:0"), ("cuda:1", "cuda:1", "cuda:1"),
])  # fmt: skip
def test_resumed_run_keeps_its_kind_of_device(recorded, device, taken):
    assert chosen(device, recorded=recorded)[0] == taken


def test_run_of_a_card_is_not_resumed_without_one():
    with pytest.raises(EngineError, match=r"there is no CUDA card.*the run began on cuda:0. Resume it where there is"):
        chosen("auto", NONE, recorded="cuda:0")


def test_tf32_is_of_cards_alone():
    with pytest.raises(UserError, match="tf32: rounds products on a CUDA card, and device is 'cpu'"):
        EngineOptions(device="cpu", tf32=True)
    for more in ({"cards": NONE}, {"forked": 2}):
        with pytest.raises(EngineError, match=r"engine.tf32: is true.*clients train on the CPU"):
            chosen("auto", tf32=True, **more)


def test_bf16_needs_float32_parameters():
    task = small_federation().session.task
    assert task.dtype == torch.float64
    with pytest.raises(EngineError, match=r"engine.bf16: is true, and the run computes with float64. Set run.dtype"):
        on_device(task, EngineOptions(bf16=True), torch.device("cpu"))
    assert on_device(replace(task, dtype=torch.float32), EngineOptions(bf16=True), torch.device("cpu")).bf16


def test_rounding_is_set_and_restored():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision
    with device_restored():
        set_rounding(tf32=True)
        assert (matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision) == ("tf32",) * 3
        set_rounding(tf32=False)
        assert (matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision) == ("ieee",) * 3
    assert (matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision) == before


def test_run_on_the_cpu_leaves_the_rounding_of_cards(monkeypatch):
    monkeypatch.setattr("simulator.engines.devices.set_rounding", lambda **_: pytest.fail("the CPU has no TF32"))
    fs.simulate(fs.load_scenario("quadratic-two-clients", sets=["engine.device=cpu"]), record=False)


def test_cards_here_say_why_there_are_none():
    found = cards_here()
    assert bool(found.names) != bool(found.missing)
    assert ("CUDA" in found.missing) == (not torch.cuda.is_available())


def test_plan_records_the_device_and_old_plans_have_the_cpu(tmp_path):
    run = fs.simulate(fs.load_scenario("quadratic-two-clients", sets=["engine.device=cpu"]), record=False)
    recorded = run.session.plan.to_dict()
    assert recorded["device"] == "cpu"
    del recorded["device"]
    assert EnginePlan.from_dict(recorded).device == "cpu"


def test_checkpoints_without_the_new_keys_still_fit(monkeypatch):
    scenario = fs.load_scenario("quadratic-two-clients")
    assert "device" not in str(fingerprint(scenario))
    assert fingerprint(scenario) != fingerprint(fs.load_scenario("quadratic-two-clients", sets=["engine.device=auto"]))
