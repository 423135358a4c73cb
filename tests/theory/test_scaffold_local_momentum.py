"""SCAFFOLD with local momentum: a control variate is a mean gradient, so the move is divided by local_lr |a|.

An optimiser that is linear in the gradient moves a client by local_lr sum a_j g_j. With the number of steps K in place
of |a| = sum a_j, the variate is |a| / K times the gradient, and small rates diverge.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from federations import objectives, quadratics

from clients.core.errors import StrategyError
from clients.training.options import LocalOptions
from server.algorithms.build import build_algorithm
from server.algorithms.options import FedDynOptions, ScaffoldOptions

OPTIMUM = 2.2
MOMENTUM = {"batch_size": "full", "momentum": 0.9}
optimizers = pytest.mark.parametrize("optimizer", ["momentum", "nesterov"])


@optimizers
@pytest.mark.parametrize("lr", [0.1, 0.01, 0.002])
@pytest.mark.parametrize("steps", [10, (3, 17)], ids=["equal steps", "unequal steps"])
def test_limit_is_the_optimum_at_any_small_rate(optimizer: str, lr: float, steps: int | tuple[int, ...]) -> None:
    """a = (1, 4), b = (-1, 3), momentum 0.9. With K instead of |a| it diverges at 0.01 and at 0.002."""
    federation = quadratics((1.0, 4.0), (-1.0, 3.0), algorithm=ScaffoldOptions(), local_lr=lr, local_steps=steps,
                            optimizer=optimizer, **MOMENTUM)  # fmt: skip
    path = federation.step(300)[:, 0].numpy()
    assert path[-1] == pytest.approx(OPTIMUM, abs=1e-6)
    assert np.abs(path).max() < 10


@optimizers
def test_optimum_is_a_fixed_point(optimizer: str) -> None:
    """From the optimum with the variates at the gradients there, nothing moves."""
    federation = quadratics((1.0, 4.0), (-1.0, 3.0), algorithm=ScaffoldOptions(), local_lr=0.05, local_steps=(3, 17),
                            optimizer=optimizer, start=OPTIMUM, **MOMENTUM)  # fmt: skip
    gradients = torch.tensor([[3.2], [-3.2]], dtype=torch.float64)
    federation.session.states.put("client_variate", np.arange(2), gradients)
    federation.session.states.commit()
    assert federation.step(3)[-1].item() == pytest.approx(OPTIMUM, abs=1e-14)
    kept = federation.client_state("client_variate", np.arange(2))
    torch.testing.assert_close(kept, gradients, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("engine", ["plain", "stacked"])
@pytest.mark.parametrize("optimizer", ["gd", "sgd", "momentum", "nesterov"])
def test_variate_of_a_constant_gradient_is_that_gradient(optimizer: str, engine: str) -> None:
    """On b x every gradient is b, so after one round c_i = b exactly, whatever the optimiser and its steps."""
    slopes, steps = (-1.0, 2.0, 5.0), (1, 7, 20)
    local = LocalOptions(optimizer=optimizer, momentum=0.6, batch_size="full", local_lr=0.1, local_steps=steps)
    federation = objectives([(0.0, b) for b in slopes], algorithm=ScaffoldOptions(), local=local, engine=engine)
    federation.step()
    kept = federation.client_state("client_variate", np.arange(3))[:, 0]
    torch.testing.assert_close(kept, torch.tensor(slopes, dtype=torch.float64), rtol=1e-13, atol=0)


@optimizers
def test_feddyn_reaches_the_optimum_with_momentum(optimizer: str) -> None:
    """Its client state is alpha times a move, and is divided by no number of steps."""
    federation = quadratics((1.0, 4.0), (-1.0, 3.0), algorithm=FedDynOptions(alpha=1.0), local_lr=0.01,
                            local_steps=(3, 17), optimizer=optimizer, **MOMENTUM)  # fmt: skip
    assert federation.step(600)[-1].item() == pytest.approx(OPTIMUM, abs=1e-6)


def test_limit_with_an_l2_penalty_is_the_penalised_optimum() -> None:
    """The penalty is a part of every gradient: sum a_k (x - b_k) + 2 x 0.5 x = 0 at 11 / 6."""
    federation = quadratics((1.0, 4.0), (-1.0, 3.0), algorithm=ScaffoldOptions(), local_lr=0.02, local_steps=10,
                            optimizer="momentum", l2=0.5, **MOMENTUM)  # fmt: skip
    assert federation.step(300)[-1].item() == pytest.approx(11 / 6, abs=1e-9)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop", "adagrad"])
def test_option_2_is_refused_where_moves_are_no_sums_of_gradients(optimizer: str) -> None:
    local = LocalOptions(optimizer=optimizer)  # type: ignore[arg-type]
    with pytest.raises(StrategyError, match=rf"algorithm.option: is 2, .*'{optimizer}' does not move in proportion"):
        build_algorithm(ScaffoldOptions(), local)
    assert build_algorithm(ScaffoldOptions(option=1), local).name == "scaffold"
