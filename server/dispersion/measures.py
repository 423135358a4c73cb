"""Dispersion of clients' updates: spread, diversity and cosines, by client and by layer.

Every sum runs over differences from the mean, never as a difference of squares, in float64 or where that loses nothing
in float32 (`sums`). So the dispersion is exact even where clients agree to seven digits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients.core.arrays import F64, Bool
from server.dispersion.differences import Differences
from server.dispersion.sums import Layers, by_layer, exact_sums, sums_of

NOT_KEPT = "not measured: the cohort's updates were not kept whole"


@dataclass(frozen=True)
class Dispersion:
    """How the updates of one round differ.

    p_k are the aggregation's coefficients, normalised to sum 1; g_k are pseudo-gradients, m = sum p_k g_k their mean.
    The aggregate is what the server receives: the coefficients need not sum to 1, and a median is no mean. An update
    whose coefficient is 0 changes nothing but its own entries, also one that is not finite.

    Attributes:
        update_norm: |g_k|, float64 (K,).
        cosine: of g_k to the aggregate, float64 (K,), 0 where either is zero; None: not measured (`reason`).
        distance: |g_k - m|, float64 (K,); None: not measured.
        aggregate_norm: norm of the aggregate, not of m.
        update_dispersion: sum p_k |g_k - m|^2.
        gradient_diversity: sum |p_k g_k|^2 / |sum p_k g_k|^2 (Yin et al. 2018, definition 1, with each client's term of
            the weighted sum for an example's gradient; with equal weights theirs exactly). 1/K where all K updates are
            equal, 1 where they are orthogonal, infinite where they cancel, nan where all are zero.
        by_layer: layer -> (its part of the dispersion, norm of the aggregate within it); the parts sum to the
            dispersion, the squared norms to the squared aggregate_norm.
        reason: why something was not measured.
    """

    update_norm: F64
    cosine: F64 | None
    distance: F64 | None
    aggregate_norm: float
    update_dispersion: float
    gradient_diversity: float
    by_layer: dict[str, tuple[float, float]]
    reason: str = ""

    def over(self, chosen: Bool) -> Dispersion:
        """Return it with the entries of the chosen clients only, bool (K,)."""
        if chosen.all():
            return self
        cosine, distance = (None if v is None else v[chosen] for v in (self.cosine, self.distance))
        return replace(self, update_norm=self.update_norm[chosen], cosine=cosine, distance=distance)


def measure_dispersion(
    pseudo_gradients: Tensor | Differences,
    weights: Tensor | npt.NDArray[np.generic],
    *,
    layers: Layers,
    aggregate: Tensor | None = None,
    total: float = 1.0,
) -> Dispersion:
    """Measure the dispersion of a cohort with all its updates in memory.

    Args:
        pseudo_gradients: server minus client parameters [K, P], any floating type, any device; or both of them.
        weights: aggregation weights [K], >= 0, not normalised.
        layers: (name, start, end) of each layer's slice of the P parameters, in order and without gaps.
        aggregate: the aggregated pseudo-gradient [P]; `total` times the weighted mean if not given.
        total: sum of the coefficients that the aggregation used.

    Returns:
        The dispersion. Non-finite updates give non-finite numbers, without a warning.

    Example:
        >>> found = measure_dispersion(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), np.ones(2), layers=[("weight", 0, 2)])
        >>> found.update_dispersion, found.gradient_diversity
        (0.5, 1.0)
    """
    p, _ = _shares(weights)
    g = Differences(pseudo_gradients) if isinstance(pseudo_gradients, Tensor) else pseudo_gradients
    sums = sums_of(g, p, aggregate, layers)
    with np.errstate(all="ignore"):
        norms, distances = np.sqrt(sums.squares), np.sqrt(sums.distances)
        along_norm = math.sqrt(sums.aggregate_square)
        lengths = norms * along_norm
        cosine = np.where(lengths == 0.0, 0.0, sums.dots / lengths)
        found = Dispersion(
            update_norm=norms,
            cosine=cosine,
            distance=distances,
            aggregate_norm=total * along_norm,
            update_dispersion=float(sums.spread.sum()),
            gradient_diversity=_ratio(_weighted(p * p, sums.squares), float(sums.mean_square.sum())),
            by_layer=_by_layer(layers, sums.spread, total * np.sqrt(sums.mean_square)),
        )
    return found if aggregate is None else of_aggregate(found, aggregate, layers, norm=along_norm)


def of_aggregate(found: Dispersion, aggregate: Tensor, layers: Layers, *, norm: float | None = None) -> Dispersion:
    """Return a dispersion with the norms of another aggregate [P]; `norm` is its norm where that is known."""
    with np.errstate(all="ignore"):
        squares = by_layer(_on_host(aggregate) ** 2, layers)
        parts = np.array([part for part, _ in found.by_layer.values()])
        whole = math.sqrt(float(squares.sum())) if norm is None else norm
        return replace(found, aggregate_norm=whole, by_layer=_by_layer(layers, parts, np.sqrt(squares)))


class DispersionStream:
    """Measures the dispersion of a cohort that arrives in tiles and is too large to keep.

    Tiles are merged by the parallel variance of Chan, Golub and LeVeque (1983), which subtracts means and never sums
    of squares. Cosines and distances need the final mean together with every update, so they are not measured.

    Example:
        >>> stream = DispersionStream(layers=[("weight", 0, 2)])
        >>> stream.add(torch.tensor([[1.0, 0.0]]), np.ones(1))
        >>> stream.add(torch.tensor([[0.0, 1.0]]), np.ones(1))
        >>> stream.result().update_dispersion
        0.5
    """

    def __init__(self, *, layers: Layers) -> None:
        self._layers = layers
        self._norms: list[F64] = []
        self._weight = 0.0
        self._weighted_squares = 0.0
        self._mean: F64 | None = None
        self._spread: F64 = np.zeros(0)

    def add(self, pseudo_gradients: Tensor, weights: Tensor | npt.NDArray[np.generic]) -> None:
        """Add a tile: pseudo-gradients [k, P] and their weights [k], on one scale for all tiles.

        A tile whose weights are all 0 adds only its norms.
        """
        if not _on_host(weights).any():
            self._norms.append(torch.linalg.vector_norm(pseudo_gradients.double(), dim=1).cpu().numpy())
            return
        p, weight = _shares(weights)
        sums = exact_sums(Differences(pseudo_gradients), p, self._layers)
        assert sums.mean is not None, "exact sums have it"
        with np.errstate(all="ignore"):
            spread = weight * sums.spread
            squares = weight * weight * _weighted(p * p, sums.squares)
            self._norms.append(np.sqrt(sums.squares))
        self._merge(weight, sums.mean, spread, squares)

    def merge(self, other: DispersionStream) -> None:
        """Add the tiles of another stream; its clients follow those of this one."""
        self._norms += other._norms
        if other._mean is not None:
            self._merge(other._weight, other._mean, other._spread, other._weighted_squares)

    def tensors(self) -> dict[str, Tensor]:
        """Return all that the stream has added up, by name; `restored` makes the same stream of it."""
        mean = np.zeros(0) if self._mean is None else self._mean
        norms = np.concatenate(self._norms) if self._norms else np.zeros(0)
        sums = np.array([self._weight, self._weighted_squares])
        return {
            n: torch.from_numpy(v)
            for n, v in (("norms", norms), ("sums", sums), ("mean", mean), ("spread", self._spread))
        }

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], *, layers: Layers) -> DispersionStream:
        """Return the stream whose `tensors` these are."""
        found = cls(layers=layers)
        norms, sums, mean, spread = (tensors[n].numpy() for n in ("norms", "sums", "mean", "spread"))
        found._norms, found._weight, found._weighted_squares = [norms], float(sums[0]), float(sums[1])
        found._mean, found._spread = (mean if len(mean) else None), spread
        return found

    def _merge(self, weight: float, mean: F64, spread: F64, weighted_squares: float) -> None:
        with np.errstate(all="ignore"):
            self._weighted_squares += weighted_squares
            if self._mean is None:
                self._mean, self._spread, self._weight = mean.copy(), spread.copy(), weight
                return
            total = self._weight + weight
            shift = mean - self._mean
            between = by_layer(shift * shift, self._layers)
            self._spread += spread + between * (self._weight * weight / total)
            self._mean += shift * (weight / total)
            self._weight = total

    def result(self, total: float = 1.0) -> Dispersion:
        """Return the dispersion of all tiles so far, clients in order of arrival; at least one weight is above 0.

        Args:
            total: sum of the coefficients that the aggregation used.
        """
        assert self._mean is not None, "no tile that counts was added"
        with np.errstate(all="ignore"):
            mean_square = by_layer(self._mean**2, self._layers)
            square = float(mean_square.sum())
            spread = self._spread / self._weight
            return Dispersion(
                update_norm=np.concatenate(self._norms),
                cosine=None,
                distance=None,
                aggregate_norm=total * math.sqrt(square),
                update_dispersion=float(spread.sum()),
                gradient_diversity=_ratio(self._weighted_squares / self._weight**2, square),
                by_layer=_by_layer(self._layers, spread, total * np.sqrt(mean_square)),
                reason=NOT_KEPT,
            )


@dataclass(frozen=True)
class Dissimilarity:
    """Gradient dissimilarity at the broadcast parameters.

    Attributes:
        gradient_dissimilarity: (1/K) sum_k |grad F_k - grad f|^2: an unweighted mean around the weighted mean
            grad f = sum p_k grad F_k, as the code of FedProx (Li, Sahu et al. 2020) reports it.
        b_squared: sum p_k |grad F_k|^2 / |grad f|^2, their definition 3; 1 where all gradients are zero, infinite
            where only their mean is.
    """

    gradient_dissimilarity: float
    b_squared: float


def gradient_dissimilarity(gradients: Tensor, weights: Tensor | npt.NDArray[np.generic]) -> Dissimilarity:
    """Measure how the clients' true gradients [K, P] at the broadcast parameters differ.

    The weights [K] are >= 0 and need not be normalised.

    Example:
        >>> gradient_dissimilarity(torch.tensor([[3.0], [0.0]]), np.array([1, 2]))
        Dissimilarity(gradient_dissimilarity=2.5, b_squared=3.0)
    """
    p, _ = _shares(weights)
    whole = [("", 0, gradients.shape[1])]
    sums = sums_of(Differences(gradients), p, None, whole)
    with np.errstate(all="ignore"):
        mean_square = float(sums.mean_square[0])
        squares = _weighted(p, sums.squares)
    ratio = 1.0 if squares == 0.0 else _ratio(squares, mean_square)
    return Dissimilarity(float(sums.distances.sum()) / len(p), ratio)


def _on_host(weights: Tensor | npt.NDArray[np.generic]) -> F64:
    w = weights.detach().cpu().numpy() if isinstance(weights, Tensor) else weights
    return np.asarray(w, np.float64)


def _shares(weights: Tensor | npt.NDArray[np.generic]) -> tuple[F64, float]:
    """Return the weights normalised to sum 1, and their sum."""
    w64 = _on_host(weights)
    total = float(w64.sum())
    assert total > 0.0, "weights are not all 0"
    assert float(w64.min()) >= 0.0, "weights are >= 0"
    return w64 / total, total


def _weighted(weights: F64, values: F64) -> float:
    """Return sum_k weights[k] values[k]; a weight of 0 leaves its value out, also one of nan."""
    return float(weights.dot(np.where(weights > 0, values, 0.0)))


def _by_layer(layers: Layers, spread: F64, norms: F64) -> dict[str, tuple[float, float]]:
    """Pair each layer's name with its dispersion and its norm of the aggregate."""
    pairs = zip(spread.tolist(), norms.tolist(), strict=True)
    return {name: pair for (name, _, _), pair in zip(layers, pairs, strict=True)}


def _ratio(above: float, below: float) -> float:
    """Divide; infinite for x/0, nan for 0/0."""
    return above / below if below != 0.0 else (math.inf if above > 0.0 else math.nan)
