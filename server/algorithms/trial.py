"""A trial of a user's algorithm before the run: its local rule must give the same result in every engine."""

from __future__ import annotations

import torch
from torch import Tensor

from clients.core.errors import FedscapeError, StrategyError
from clients.training.rules import Correct, LocalRule, Vectors

_CLIENTS, _NUMBERS = 3, 6
_ELEMENTWISE = "Compute each number from the numbers at the same place alone; docs/extending.md has examples."


def check_rule(rule: LocalRule) -> None:
    """Call a rule's function on random numbers: for a stack of clients, and for each number by itself.

    A function that fails on them is left to the run, whose error names the round and the client.

    Raises:
        StrategyError: it returns something else than a gradient, writes to an input other than the gradient,
            draws random numbers, or is not elementwise.
    """
    if rule.correct is None:
        return
    noise = torch.Generator().manual_seed(0)

    def rows(clients: int) -> Tensor:
        return torch.randn(clients, _NUMBERS, generator=noise, dtype=torch.float64)

    inputs = _Inputs(
        rows(_CLIENTS),
        rows(_CLIENTS),
        rows(1)[0],
        {name: rows(1)[0] for name in rule.broadcast},
        {name: rows(_CLIENTS) for name in rule.client_state},
    )
    try:
        _check(rule, rule.correct, inputs)
    except FedscapeError:
        raise
    except Exception:  # the user's function may raise anything
        return


def _check(rule: LocalRule, correct: Correct, inputs: _Inputs) -> None:
    whole = inputs.call(correct)
    _check_gradient(rule, whole)
    written = inputs.written(correct)
    if written:
        fix = "Return a new tensor; only the gradient may be overwritten."
        raise StrategyError("algorithm", f"{rule.name!r} writes to its input {written}", fix=fix)
    if not _same(inputs.call(correct), whole):
        problem = f"{rule.name!r} gives two results for the same input: it draws random numbers, or it remembers"
        raise StrategyError("algorithm", problem, fix="Noise is a key of the scenario: local.gradient_noise.")
    for client in range(_CLIENTS):
        for place in range(_NUMBERS):
            alone = inputs.at(client, place).call(correct)
            if not _same(alone, whole[client : client + 1, place : place + 1]):
                problem = f"{rule.name!r} is not elementwise: its result at one place depends on other places"
                raise StrategyError("algorithm", problem, fix=_ELEMENTWISE)


class _Inputs:
    """The inputs of a rule's function for K clients and P numbers."""

    def __init__(self, gradient: Tensor, params: Tensor, anchor: Tensor, broadcast: Vectors, state: Vectors) -> None:
        self.gradient, self.params, self.anchor = gradient, params, anchor
        self.broadcast, self.state = broadcast, state

    def call(self, correct: Correct) -> Tensor:
        """Call the function on copies."""
        return self._copied()._called(correct)

    def written(self, correct: Correct) -> str:
        """Return the name of an input that the function writes to; empty if it writes to the gradient alone."""
        copied = self._copied()
        copied._called(correct)
        pairs = {"params": (self.params, copied.params), "anchor": (self.anchor, copied.anchor)}
        pairs |= {f"broadcast[{n!r}]": (v, copied.broadcast[n]) for n, v in self.broadcast.items()}
        pairs |= {f"state[{n!r}]": (v, copied.state[n]) for n, v in self.state.items()}
        return next((name for name, (before, after) in pairs.items() if not torch.equal(before, after)), "")

    def at(self, client: int, place: int) -> _Inputs:
        """Return the inputs of one client at one place."""
        k, p = slice(client, client + 1), slice(place, place + 1)
        return _Inputs(
            self.gradient[k, p],
            self.params[k, p],
            self.anchor[p],
            {n: v[p] for n, v in self.broadcast.items()},
            {n: v[k, p] for n, v in self.state.items()},
        )

    def _copied(self) -> _Inputs:
        return _Inputs(
            self.gradient.clone(),
            self.params.clone(),
            self.anchor.clone(),
            {n: v.clone() for n, v in self.broadcast.items()},
            {n: v.clone() for n, v in self.state.items()},
        )

    def _called(self, correct: Correct) -> Tensor:
        return correct(self.gradient, self.params, self.anchor, self.broadcast, self.state)


def _check_gradient(rule: LocalRule, found: object) -> None:
    wanted = (_CLIENTS, _NUMBERS)
    if isinstance(found, Tensor) and tuple(found.shape) == wanted:
        return
    got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
    problem = f"{rule.name!r} must return a gradient of the shape {wanted} that it gets, returned {got}"
    raise StrategyError("algorithm", problem, fix="Return the changed gradient.")


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-9, atol=1e-12, equal_nan=True)
