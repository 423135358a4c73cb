"""Quadratic objectives F_k(w) = (w - w_k*)' H_k (w - w_k*) / 2 + b_k' w, whose federated optimum is known.

An example's features are [H row by row (d * d numbers), w* (d numbers)], and b (d numbers) where there are linear
terms, so the model's value on it is an objective; its target is 0. A client of weight n holds n examples, so
p_k = n_k / sum n. Weights that are no whole numbers are p_k themselves, and each client holds one example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.errors import require
from clients.core.population import ClientData, Population
from clients.core.population_parts import ExampleSpec, FederationFacts, KnownObjective
from clients.core.ragged import cohort_of, offsets_of
from clients.sources.options import QuadraticOptions, are_counts

ASYMMETRY = 1e-12
"""A matrix whose entries differ from their mirrors by at most this share of its largest entry is made symmetric."""
ROUNDING = 4 * float(np.finfo(np.float64).eps)
"""Asymmetry up to this share is rounding, and is not reported."""


@dataclass(frozen=True)
class Quadratics:
    """The clients' objectives.

    Attributes:
        hessians: H (K, d, d), symmetric.
        centres: w* (K, d).
        linear: b (K, d); None without linear terms.
        notices: what was changed in them.
    """

    hessians: F64
    centres: F64
    linear: F64 | None = None
    notices: tuple[str, ...] = ()

    def value(self, w: F64, clients: I64, centres: F64) -> F64:
        """Return the objectives at w of some clients around some centres, (n,)."""
        away = w - centres
        curved: F64 = 0.5 * np.einsum("ni,nij,nj->n", away, self.hessians[clients], away)
        return curved if self.linear is None else curved + self.linear[clients] @ w


def quadratic_population(options: QuadraticOptions, *, seed: int, dtype: torch.dtype = torch.float32) -> Population:
    """Make the population, its optimum and its optimal value.

    Args:
        options: the clients.
        seed: root seed of drawn clients.
        dtype: of features and targets; theory tests take float64.

    Returns:
        An `objective` population with `outputs` = d. `objective.optimum` (float64 [d]) minimises sum_k p_k F_k.

    Raises:
        UserError: the shapes do not fit together, a matrix is not symmetric, or there is no unique minimiser.
    """
    if options.curvatures:
        problem = _given(options.curvatures, options.centres, options.linear, options.dimension)
    else:
        problem = _drawn(options, seed)
    return _population(problem, options.weights, options.noise, seed, dtype)


def quadratics(
    curvatures: Any,
    centres: Any = (),
    *,
    linear: Any = (),
    weights: Any = (),
    noise: float = 0.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Population:
    """Make clients with objectives (w - w_k*)' H_k (w - w_k*) / 2 + b_k' w from arrays.

    Args:
        curvatures: H_k of each client: numbers (K,), diagonals (K, d) or matrices (K, d, d); arrays, tensors or lists.
        centres: w_k* of each client: (K,) or (K, d); 0 by default.
        linear: b_k of each client: (K,) or (K, d); none by default.
        weights: p_k of each client up to a common factor, (K,); whole numbers are numbers of equal examples; equal by
            default.
        noise: see `QuadraticOptions`.
        seed: of the noise.
        dtype: of the clients' numbers; the optimum is computed in float64.

    Returns:
        A population for `simulate(..., data=...)`, whose model is `kind = "quadratic"` with its `start`.

    Raises:
        UserError: the shapes do not fit together, a matrix is not symmetric, or there is no unique minimiser.

    Example:
        >>> people = quadratics([1.0, 4.0], [-1.0, 3.0], weights=[0.25, 0.75])
        >>> people.objective.optimum.round(decimals=6).tolist()
        [2.692308]
    """
    curvatures, centres, linear = (
        _entries(curvatures, "curvatures"),
        _entries(centres, "centres"),
        _entries(linear, "linear"),
    )
    weights = tuple(float(w) if float(w) % 1 else int(w) for w in _entries(weights, "weights"))
    require(bool(curvatures), "curvatures", "must have one entry a client, got none")
    centres = centres or (0.0,) * len(curvatures)
    placeholder = (0.0,) * len(curvatures)  # the matrices are checked below, without a copy into tuples
    QuadraticOptions(
        curvatures=placeholder, centres=(0.0,) * len(centres), linear=(0.0,) * len(linear), weights=weights, noise=noise
    )
    return _population(_given(curvatures, centres, linear, 1), weights, noise, seed, dtype)


def _entries(values: Any, field: str) -> tuple[Any, ...]:
    """Return an array, tensor or sequence as one entry a client."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    require(np.ndim(values) > 0 if isinstance(values, np.ndarray) else isinstance(values, Sequence), field,
            f"must have one entry a client, got {values!r:.80}")  # fmt: skip
    return tuple(v.detach().cpu().numpy() if isinstance(v, torch.Tensor) else v for v in values)


def _population(
    problem: Quadratics, weights: Sequence[int | float], noise: float, seed: int, dtype: torch.dtype
) -> Population:
    hessians, centres = problem.hessians, problem.centres
    clients, d = centres.shape
    sizes, shares = _sizes_and_shares(weights, clients)
    p = sizes / sizes.sum() if shares is None else shares
    optimum = _optimum(problem, p)

    owner = np.repeat(np.arange(clients), sizes)
    if noise:
        own_centres = centres[owner] + _centre_noise(noise, hessians, sizes, seed)
        holders, rows = owner, np.arange(len(owner))
    else:  # equal examples are kept once
        own_centres, holders, rows = centres, np.arange(clients), owner
    values = problem.value(optimum, holders, own_centres)
    value = values[rows].mean() if shares is None else shares @ values
    parts = [hessians[holders].reshape(-1, d * d), own_centres]
    parts += [] if problem.linear is None else [problem.linear[holders]]
    table = np.concatenate(parts, axis=1)
    features = torch.from_numpy(table).to(dtype)
    cohort = cohort_of(features, torch.zeros(len(table), dtype=dtype), offsets_of(sizes), rows.astype(np.int64))
    return Population(
        spec=ExampleSpec(task="objective", feature_shape=(table.shape[1],), outputs=d),
        federation=FederationFacts(
            name="quadratic", sizes=sizes.astype(np.int32), shares=shares, record={"dimension": d, "noise": noise},
            notices=problem.notices,
        ),
        clients=ClientData(cohort=cohort),
        objective=KnownObjective(torch.from_numpy(optimum), float(value)),
    )  # fmt: skip


def _sizes_and_shares(weights: Sequence[int | float], clients: int) -> tuple[I64, F64 | None]:
    """Return examples of each client, and p_k where the weights are no numbers of examples."""
    if are_counts(weights):
        return np.asarray([int(w) for w in weights] or (1,) * clients, np.int64), None
    shares = np.asarray(weights, np.float64)
    return (shares > 0).astype(np.int64), shares / shares.sum()


def _optimum(problem: Quadratics, p: F64) -> F64:
    """Return the minimiser of sum_k p_k F_k, (d,)."""
    mean = np.einsum("k,kij->ij", p, problem.hessians)
    eigenvalues = np.linalg.eigvalsh(mean)
    lowest, highest = float(eigenvalues[0]), float(eigenvalues[-1])
    require(
        lowest > len(mean) * float(np.finfo(np.float64).eps) * highest,
        "curvatures",
        f"must add up to a positive definite matrix, lowest eigenvalue {lowest:.3g}, highest {highest:.3g}",
        fix="Otherwise there is no unique minimiser. Add a small multiple of the identity to a client's curvature.",
    )
    pull = np.einsum("k,kij,kj->i", p, problem.hessians, problem.centres)
    optimum: F64 = np.linalg.solve(mean, pull if problem.linear is None else pull - p @ problem.linear)
    return optimum


def _given(curvatures: Sequence[Any], centres: Sequence[Any], linear: Sequence[Any], dimension: int) -> Quadratics:
    """Return the objectives of clients given one by one."""
    matrices = _numbers(curvatures, "curvatures", 2)
    vectors, terms = _numbers(centres or (0.0,) * len(matrices), "centres", 1), _numbers(linear, "linear", 1)
    widths = {len(a) for a in (*matrices, *vectors, *terms) if a.ndim} or {dimension}
    require(len(widths) == 1, "curvatures", f"and centres must have one dimension, got {sorted(widths)}")
    d = widths.pop()
    notices = []
    for k, h in enumerate(matrices):
        require(h.ndim < 2 or h.shape == (d, d), "curvatures", f"must be {d} x {d}, client {k} has shape {h.shape}")
        notices += [f"curvatures: {notice}" for notice in _check_symmetric(k, h)]
    full = [0.5 * (h + h.T) if h.ndim == 2 else np.diag(np.broadcast_to(h, d)) for h in matrices]
    return Quadratics(
        np.stack(full),
        np.stack([np.broadcast_to(c, d) for c in vectors]),
        np.stack([np.broadcast_to(b, d) for b in terms]) if terms else None,
        tuple(notices),
    )


def _numbers(values: Sequence[Any], field: str, most_axes: int) -> list[F64]:
    """Return the entry of each client as an array of finite numbers."""
    found = []
    for k, value in enumerate(values):
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            array = np.zeros((0,) * 3)
        allowed = "a number or a vector" if most_axes == 1 else "a number, a diagonal or a matrix"
        require(array.ndim <= most_axes and array.size > 0, field, f"must be {allowed} of numbers for each client, "
                f"client {k}'s is not")  # fmt: skip
        require(bool(np.isfinite(array).all()), field, f"must be finite, client {k}'s is not")
        found.append(array)
    return found


def _check_symmetric(client: int, h: F64) -> list[str]:
    """Refuse a matrix that is not symmetric; return a sentence where it is not quite."""
    if h.ndim < 2:
        return []
    apart, scale = np.abs(h - h.T), np.abs(h).max()
    i, j = (int(n) for n in np.unravel_index(int(apart.argmax()), h.shape))
    worst = float(apart[i, j])
    require(
        worst <= ASYMMETRY * scale,
        "curvatures",
        f"must be symmetric, client {client}'s has {h[i, j]:.17g} in row {i + 1}, column {j + 1} and {h[j, i]:.17g} in "
        f"row {j + 1}, column {i + 1}",
        fix="Give (H + H') / 2, which has the same objective.",
    )
    if worst <= ROUNDING * scale:
        return []
    return [f"client {client}'s matrix is asymmetric by {worst / scale:.1g} of its largest entry; (H + H') / 2 is used"]


def _drawn(options: QuadraticOptions, seed: int) -> Quadratics:
    """Draw H and w*; a client's depend on the seed and its index alone."""
    clients, d = np.arange(options.clients), options.dimension
    eigenvalues = options.condition ** -streams.uniforms(streams.keys(seed, "quadratic/eigenvalues", clients), d)
    z = streams.normals(streams.keys(seed, "quadratic/rotation", clients), d * d).reshape(-1, d, d)
    q, r = np.linalg.qr(z)
    q = q * np.sign(np.einsum("kii->ki", r))[:, None, :]  # this sign makes the rotation uniform
    hessians = np.einsum("kij,kj,klj->kil", q, eigenvalues, q)
    centres = options.spread * streams.normals(streams.keys(seed, "quadratic/centre", clients), d)
    return Quadratics(0.5 * (hessians + hessians.transpose(0, 2, 1)), centres)


def _centre_noise(noise: float, hessians: F64, sizes: I64, seed: int) -> F64:
    """Return the offset of every example's centre, (n, d): H^-1 e with e of sample deviation `noise` and sum 0."""
    d = hessians.shape[1]
    pieces = []
    for k, size in enumerate(sizes):
        require(abs(np.linalg.det(hessians[k])) > 0, "noise", f"needs invertible curvatures, client {k}'s is not")
        e = streams.normals(streams.keys(seed, "quadratic/noise", k, np.arange(size)), d)
        e -= e.mean(axis=0)
        e *= noise / np.sqrt(np.mean(e**2, axis=0))
        pieces.append(np.linalg.solve(hessians[k], e.T).T)
    return np.concatenate(pieces)
