"""What many tests share: Hypothesis's settings, the summary of skipped tests, one torch thread, small populations."""

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from needs import CUDA, skips_in_words

from clients.core.examples import Task
from clients.core.population import Population
from clients.sources.custom import custom_population

# A busy machine may take any time for an example: no time limit fails a test.
settings.register_profile(
    "fedscape", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob="CI" in os.environ
)
settings.load_profile("fedscape")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Say in one line, just above the line of counts, what was skipped and which command would run it."""
    yield
    reports = terminalreporter.stats.get("skipped", [])
    if words := skips_in_words(report.longrepr[2] for report in reports):
        terminalreporter.write_line(words)


@pytest.fixture(autouse=True)
def states_of_nodes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nodes keep client states in a folder of the test, not in the home folder."""
    if "FLWR_HOME" not in os.environ:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "states"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Run torch in one thread: threads on busy cores are slow, and sums of their parts differ in the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda:0", marks=[pytest.mark.cuda, CUDA.mark])])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Return each device that clients may train on: the CPU, and a CUDA card where there is one."""
    return torch.device(request.param)


def _population(
    sizes: list[int],
    shape: tuple[int, ...] = (6,),
    outputs: int = 3,
    task: Task = "classification",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Population:
    def client(k: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng((seed, k))
        if task == "objective":  # a positive definite quadratic, and its minimiser
            root = random.normal(size=(sizes[k], outputs, outputs))
            hessian = root @ root.transpose(0, 2, 1) / outputs + np.eye(outputs)
            flat = hessian.reshape(sizes[k], -1)
            return np.concatenate((flat, random.normal(size=(sizes[k], outputs))), 1), np.zeros(sizes[k])
        features = random.normal(size=(sizes[k], *shape))
        if task == "classification":
            return features, random.integers(0, outputs, sizes[k])
        return features, random.normal(size=(sizes[k], outputs))

    shape = (outputs * outputs + outputs,) if task == "objective" else shape
    return custom_population(client, sizes, outputs=outputs, task=task, feature_shape=shape, dtype=dtype)


@pytest.fixture(scope="session")
def population_of() -> Callable[..., Population]:
    """Return `(sizes, shape, outputs, task, seed, dtype) -> Population`."""
    return _population
