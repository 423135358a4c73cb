"""Quadratic objectives F_k(w) = (w - w_k*)' H_k (w - w_k*) / 2, whose federated optimum is known.

An example's features are [H row by row (d * d numbers), w* (d numbers)], so the model's value on it is an
objective; its target is 0. A client of weight n holds n examples, so p_k = n_k / sum n.
"""

from __future__ import annotations

import numpy as np
import torch

from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.errors import require
from clients.core.population import ClientData, Population
from clients.core.population_parts import ExampleSpec, FederationFacts, KnownObjective
from clients.core.ragged import cohort_of, offsets_of
from clients.sources.options import QuadraticOptions


def quadratic_population(options: QuadraticOptions, *, seed: int, dtype: torch.dtype = torch.float32) -> Population:
    """Make the population, its optimum and its optimal value.

    Args:
        options: the clients.
        seed: root seed of drawn clients.
        dtype: of features and targets; theory tests take float64.

    Returns:
        An `objective` population with `outputs` = d. `objective.optimum` (float64 [d]) minimises sum_k p_k F_k, where
        p_k = n_k / sum n.

    Raises:
        UserError: the shapes do not fit together, a matrix is not symmetric, or there is no unique minimiser.
    """
    hessians, centres = _given(options) if options.curvatures else _drawn(options, seed)
    clients, d = centres.shape
    sizes = np.asarray(options.weights or (1,) * clients, np.int64)
    p = sizes / sizes.sum()
    mean = np.einsum("k,kij->ij", p, hessians)
    lowest = float(np.linalg.eigvalsh(mean)[0])
    require(lowest > 0, "curvatures", f"must add up to a positive definite matrix, lowest eigenvalue {lowest:.3g}")
    optimum = np.linalg.solve(mean, np.einsum("k,kij,kj->i", p, hessians, centres))

    owner = np.repeat(np.arange(clients), sizes)
    if options.noise:
        own_centres = centres[owner] + _centre_noise(options.noise, hessians, sizes, seed)
        table = np.concatenate((hessians[owner].reshape(-1, d * d), own_centres), axis=1)
        rows = np.arange(len(owner))
    else:  # equal examples are kept once
        table = np.concatenate((hessians.reshape(clients, d * d), centres), axis=1)
        rows = owner
    away = optimum - table[rows, d * d :]
    value = 0.5 * np.einsum("ni,nij,nj->n", away, hessians[owner], away).mean()
    features = torch.from_numpy(table).to(dtype)
    cohort = cohort_of(features, torch.zeros(len(table), dtype=dtype), offsets_of(sizes), rows.astype(np.int64))
    return Population(
        spec=ExampleSpec(task="objective", feature_shape=(d * d + d,), outputs=d),
        federation=FederationFacts(
            name="quadratic", sizes=sizes.astype(np.int32), record={"dimension": d, "noise": options.noise}
        ),
        clients=ClientData(cohort=cohort),
        objective=KnownObjective(torch.from_numpy(optimum), float(value)),
    )


def _given(options: QuadraticOptions) -> tuple[F64, F64]:
    """Return H (K, d, d) and w* (K, d) of clients given one by one."""
    curvatures = [np.asarray(h, np.float64) for h in options.curvatures]
    centres = [np.asarray(c, np.float64) for c in options.centres]
    widths = {len(a) for a in (*curvatures, *centres) if a.ndim} or {options.dimension}
    require(len(widths) == 1, "curvatures", f"and centres must have one dimension, got {sorted(widths)}")
    d = widths.pop()
    for k, h in enumerate(curvatures):
        require(h.ndim < 2 or h.shape == (d, d), "curvatures", f"must be {d} x {d}, client {k} has shape {h.shape}")
        require(h.ndim < 2 or bool((h == h.T).all()), "curvatures", f"must be symmetric, client {k}'s is not")
        require(bool(np.isfinite(h).all()), "curvatures", f"must be finite, client {k}'s is not")
    for k, c in enumerate(centres):
        require(bool(np.isfinite(c).all()), "centres", f"must be finite, client {k}'s is not")
    full = [h if h.ndim == 2 else np.diag(np.broadcast_to(h, d)) for h in curvatures]
    return np.stack(full), np.stack([np.broadcast_to(c, d) for c in centres])


def _drawn(options: QuadraticOptions, seed: int) -> tuple[F64, F64]:
    """Draw H (K, d, d) and w* (K, d); a client's depend on the seed and its index alone."""
    clients, d = np.arange(options.clients), options.dimension
    eigenvalues = options.condition ** -streams.uniforms(streams.keys(seed, "quadratic/eigenvalues", clients), d)
    z = streams.normals(streams.keys(seed, "quadratic/rotation", clients), d * d).reshape(-1, d, d)
    q, r = np.linalg.qr(z)
    q = q * np.sign(np.einsum("kii->ki", r))[:, None, :]  # this sign makes the rotation uniform
    hessians = np.einsum("kij,kj,klj->kil", q, eigenvalues, q)
    centres = options.spread * streams.normals(streams.keys(seed, "quadratic/centre", clients), d)
    return 0.5 * (hessians + hessians.transpose(0, 2, 1)), centres


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
