"""Theory beside the run: limit of the local rate, predicted contraction and floor, and where the assumptions fail."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from clients.core.arrays import F64
from clients.core.numbers.lanczos import lanczos
from clients.engines.many.hessian import LossHessian
from clients.modules.players import TwoPlayer
from clients.training.optimizers import LINEAR, penalties
from clients.training.options import SECOND_ORDER, LocalOptions
from clients.training.schedule_options import ScheduleOptions
from server.algorithms.options import AlgorithmOptions, AveragingOptions
from simulator.probes.curvature import Curvature, steps_of
from simulator.probes.formulas.cohort_law import CohortLaw
from simulator.probes.formulas.dissimilarity import Dissimilarity, Estimate, dissimilarity, gram_of, within_clients
from simulator.probes.formulas.predicted import (
    Range,
    Work,
    contraction,
    factors,
    largest_stable,
    noise_floor,
    sampling_floor,
)
from simulator.probes.sample import Coefficients
from simulator.probes.shadow_updates import Shadows
from simulator.probes.standing import Standing

NORMS = (nn.modules.batchnorm._BatchNorm,)
PREDICTED = ("fedavg", "fedsgd")
EXACT = "no random number enters the clients' work"
GAME = "The model is a game of two players, whose steps do not descend the objective."


@dataclass(frozen=True)
class Gradients:
    """The clients' gradients at a state.

    Attributes:
        noise: sum p_k sigma_k^2, with sigma_k^2 = E|g_k(batch) - E g_k(batch)|^2 of one local step.
        between: see `Dissimilarity`.
        averaged_noise: sum E[c_k^2] sigma_k^2: the noise of a cohort's mean gradient; None without a law of cohorts.
        sampled: Var(sum c_k grad F_k) over cohorts; None likewise.
    """

    noise: Estimate
    between: Dissimilarity
    averaged_noise: float | None = None
    sampled: float | None = None


@dataclass(frozen=True)
class Theory:
    """What theory says of the run at a state.

    Attributes:
        local_lr: the round's local learning rate.
        limit: 2 / L; None where L is not positive, or steps are not in proportion to gradients.
        steepest_limit: 2 over the steepest client's curvature along that direction; None likewise.
        contraction: the factor by which the distance to the limit shrinks a round; None where the theory does not hold.
        floor: the loss above the limit at which the run ends; None likewise.
        failures: sentences on the assumptions that do not hold, each a reason for no prediction.
        remarks: sentences on what the prediction leaves out.
        factors: the factors of all directions: the least and the largest over the eigenvalues, mu and L taken within
            Lanczos' residuals; None likewise.
        gap: the objective above its minimum at the state, were it a quadratic: g' H^-1 g / 2 with its gradient g; None
            likewise.
    """

    local_lr: float
    limit: float | None
    steepest_limit: float | None
    contraction: float | None
    floor: Range | None
    failures: tuple[str, ...]
    remarks: tuple[str, ...]
    factors: Range | None = None
    gap: Range | None = None


def measured_gradients(
    standing: Standing, shadows: Shadows, coefficients: Coefficients | None, *, draws: int
) -> Gradients:
    """Measure noise within clients and dissimilarity between them; penalties are left out: they are alike."""
    sample, seed = shadows.sample, standing.session.task.seed
    rows = shadows.gradients()
    between = dissimilarity(rows, sample.weights, seed=seed)
    noise, each = _noise(standing, shadows, draws)
    if coefficients is None:
        return Gradients(noise, between)
    law = coefficients.law
    sampled = coefficients.correction() * _over_cohorts(law, rows)
    return Gradients(noise, between, float(np.diag(law.second) @ each), sampled)


def _noise(standing: Standing, shadows: Shadows, draws: int) -> tuple[Estimate, F64]:
    """Return sum p_k sigma_k^2 and sigma_k^2 (n,): of gradients of single steps of plain SGD.

    The steps have the round's rate; where that is 0, the rate 1.
    """
    sample = shadows.sample
    if not shadows.is_random:
        return Estimate(0.0, 0.0, EXACT), np.zeros(len(sample.clients))
    step = replace(
        shadows.local, optimizer="sgd", local_steps=1, l1=0.0, l2=0.0, decoupled_weight_decay=None, clip_norm=None,
        clip_value=None,
    )  # fmt: skip
    lr = step.lr(standing.next_round)
    if lr == 0:
        step, lr = replace(step, local_lr=1.0, schedule=ScheduleOptions()), 1.0
    rows = torch.stack([shadows.train(step, draw=r, plain=True) for r in range(draws)]) / lr
    return within_clients(rows, sample.weights)


def _over_cohorts(law: CohortLaw, rows: torch.Tensor) -> float:
    """Return the variance of sum c_k g_k over cohorts."""
    return max(0.0, float((law.covariance * gram_of(rows)).sum()))


def theory_of(
    standing: Standing, shadows: Shadows, curvature: Curvature, gradients: Gradients | None, hessian: LossHessian
) -> Theory:
    """Return what theory says of the next rounds; `hessian` is that of the curvature."""
    session = standing.session
    local, lr = session.task.local, session.task.local.lr(standing.next_round)
    if isinstance(session.task.module, TwoPlayer):
        return Theory(lr, None, None, None, None, (GAME,), ())
    largest, smallest = curvature.largest.value, curvature.smallest.value
    linear = local.optimizer in LINEAR
    limit = largest_stable(largest) if linear and 0 < largest < math.inf else None
    steepest = largest_stable(curvature.steepest_client) if linear and curvature.steepest_client > 0 else None
    steps = sorted(set(shadows.sample.steps.tolist()))
    failures = [*_of_curvature(curvature, local, lr), *_of_local(local, lr), *_of_server(standing), *_of_steps(steps)]
    own = session.scenario.algorithm
    if failures:
        return Theory(lr, limit, steepest, None, None, tuple(failures), ())
    work = Work(lr, steps[0], own.server_lr if isinstance(own, AveragingOptions) else 1.0)
    factor = contraction(work, smallest, largest)
    floor, remarks = None, _remarks(standing, shadows)
    if curvature.examples < 1:
        remarks.append(f"The curvature is of {curvature.examples:.2g} of the examples, evenly spaced in each client.")
    if factor >= 1.0:
        remarks.append(f"The server's step lets the distance grow by {factor:.4g} a round, so there is no floor.")
    elif gradients is not None and gradients.averaged_noise is not None and gradients.sampled is not None:
        floor = noise_floor(work, gradients.averaged_noise, smallest, largest)
        floor += sampling_floor(work, gradients.sampled, smallest, largest)
    least, most = smallest - curvature.residuals[0], largest + curvature.residuals[1]
    return Theory(
        lr,
        limit,
        steepest,
        factor,
        floor,
        (),
        tuple(remarks),
        factors(work, least, most),
        _gap(shadows, hessian, least),
    )


def _gap(shadows: Shadows, hessian: LossHessian, smallest: float) -> Range | None:
    """Return the objective above the minimum of its quadratic model at the state; None where rounding hides it."""
    standing = shadows.standing
    start = standing.state.params
    slope = (shadows.gradient_at(start) + penalties(standing.session.task.local)[1] * start).double().cpu()
    square = float(slope.square().sum())
    if square == 0:
        return Range(0.0, 0.0)
    found = lanczos(hessian.product, hessian.size, steps=steps_of(hessian.size), start=slope)
    if found.values[0] <= 0:
        return None
    low, high = found.inverse_form(smallest)
    return Range(0.5 * square * low, 0.5 * square * high)


def _of_curvature(curvature: Curvature, local: LocalOptions, lr: float) -> list[str]:
    found = []
    largest, smallest = curvature.largest.value, curvature.smallest.value
    if curvature.is_negative:
        found.append(f"Negative curvature was seen ({smallest:.3g}): the objective is not convex here.")
    elif not curvature.is_positive:
        found.append(
            "The smallest curvature is 0 within rounding: no linear rate follows, and there may be many minimisers."
        )
    elif curvature.residuals[0] > 0.1 * smallest:
        found.append(
            f"The smallest curvature, {smallest:.3g}, is known up to {curvature.residuals[0]:.2g}: no rate follows."
        )
    if local.optimizer in LINEAR and largest > 0 and lr >= largest_stable(largest):
        found.append(f"The local rate {lr:.4g} is at or above 2 / L = {largest_stable(largest):.4g}: steps along the "
                     "steepest direction do not descend.")  # fmt: skip
    return found


def _of_local(local: LocalOptions, lr: float) -> list[str]:
    found = []
    if local.optimizer in SECOND_ORDER:
        found.append(f"The local optimiser {local.optimizer!r} uses curvature, and the recursion is that of SGD.")
    elif local.optimizer not in LINEAR:
        found.append(
            f"The local optimiser {local.optimizer!r} is adaptive: its steps are not in proportion to gradients."
        )
    elif local.optimizer not in ("gd", "sgd") and local.momentum:
        found.append(f"The local optimiser {local.optimizer!r} has momentum, and the recursion is that of SGD.")
    if local.clip_norm is not None or local.clip_value is not None:
        found.append("Gradients are clipped, so steps are not linear in them.")
    if local.l1:
        found.append("The penalty l1 is not smooth.")
    if lr == 0:
        found.append("The local rate is 0 in this round.")
    return found


def _of_server(standing: Standing) -> list[str]:
    own: AlgorithmOptions = standing.session.scenario.algorithm
    if standing.run.given.algorithm is not None:
        return ["The algorithm is your own, and the recursion is that of FedAvg."]
    if own.kind not in PREDICTED:
        return [f"The algorithm is {own.kind!r}, and the recursion is that of FedAvg with SGD on the server."]
    return []


def _of_steps(steps: list[int]) -> list[str]:
    if len(steps) > 1:
        return [f"Clients take {steps[0]} to {steps[-1]} local steps, and the recursion has one number."]
    return []


def _remarks(standing: Standing, shadows: Shadows) -> list[str]:
    """Return sentences on what the prediction leaves out."""
    session, sample = standing.session, shadows.sample
    local = session.task.local
    found = ["Clients count as having one Hessian; where they do not, local steps move the limit (see drift by cause)."]
    if sample.cohort < sample.population:
        found.append(
            "Only cohorts take part: the floor has the dissimilarity measured here, and that at the limit may differ."
        )
    if local.schedule != type(local.schedule)():
        found.append("The local rate follows a schedule: limit, factor and floor are those of this round.")
    if session.task.sites or any(isinstance(part, NORMS) for part in session.task.module.modules()):
        found.append("Dropout and batch normalisation act in training alone, and the curvature is that in evaluation.")
    if not sample.is_whole:
        found.append(f"Measured on {len(sample.clients)} of {sample.population} clients, drawn at random.")
    return found
