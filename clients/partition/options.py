"""Options of every partition."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from clients.core.errors import require
from clients.core.options import KindOptions, check_at_least, check_not_negative, check_positive, check_range, unread_of

AT_LEAST = "at least {:g}"
LABEL_AXES = ("label_js", "label_emd", "label_hellinger")
"""Measures of label skew that a calibrated partition can reach, one at a time."""
LARGEST = {"label_js": 1.0, "label_emd": 2.0, "label_hellinger": 1.0, "quantity_gini": 1.0, "feature_shift": math.inf}
"""All measures that a calibrated partition can reach, and their largest values."""


@dataclass(frozen=True, kw_only=True)
class PartitionOptions(KindOptions):
    """Options of a kind of partition."""


@dataclass(frozen=True, kw_only=True)
class NaturalOptions(PartitionOptions):
    """One client for every distinct value of the array called `key` in the data, in sorted order.

    Attributes:
        key: the array; empty for data that have their own clients or a default key.
    """

    kind: Literal["natural"] = "natural"
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class DealtOptions(PartitionOptions):
    """The base of partitions that deal examples to a given number of clients.

    Attributes:
        clients: how many.
    """

    clients: int

    def __post_init__(self) -> None:
        check_at_least(self, 1, "clients", words=AT_LEAST)


@dataclass(frozen=True, kw_only=True)
class IidOptions(DealtOptions):
    """Examples dealt at random, sizes equal to within one."""

    kind: Literal["iid"] = "iid"


@dataclass(frozen=True, kw_only=True)
class DirichletOptions(DealtOptions):
    """Label skew by Dirichlet laws.

    Attributes:
        concentration: alpha > 0; small is skewed.
        convention: "prior": a client's label law is Dir(alpha p), p the label frequencies (Hsu et al. 2019);
            "uniform": Dir(alpha 1) over classes for each client; "over_clients": Dir(alpha 1) over clients for each
            class (NIID-Bench), which makes sizes unequal too. The first two give sizes equal to within one.
        min_size: examples every client gets at least.
    """

    kind: Literal["dirichlet"] = "dirichlet"
    concentration: float
    convention: Literal["prior", "uniform", "over_clients"] = "prior"
    min_size: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "concentration", words="a finite number > 0")
        check_at_least(self, 0, "min_size", words=AT_LEAST)

    def unread(self) -> dict[str, str]:
        """Return why a key has no effect, for each key that another convention reads."""
        if self.convention == "over_clients":
            return {}
        return {"min_size": f"with convention {self.convention!r} sizes are equal to within one"}


@dataclass(frozen=True, kw_only=True)
class ShardsOptions(DealtOptions):
    """Examples sorted by label and cut into shards; each client gets some shards (McMahan et al. 2017).

    Attributes:
        shards_per_client: shards of each client.
    """

    kind: Literal["shards"] = "shards"
    shards_per_client: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "shards_per_client", words=AT_LEAST)


@dataclass(frozen=True, kw_only=True)
class QuantityOptions(DealtOptions):
    """Examples dealt at random, sizes unequal.

    Attributes:
        law: "lognormal": shares proportional to exp(sigma z), z standard normal; "power": shares proportional to
            rank^-exponent, ranks dealt to clients at random.
        sigma: of the log-normal law, >= 0.
        exponent: of the power law, >= 0.
        min_size: examples every client gets before the rest is shared out.
    """

    kind: Literal["quantity"] = "quantity"
    law: Literal["lognormal", "power"] = "lognormal"
    sigma: float = 1.0
    exponent: float = 1.0
    min_size: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(self, "sigma", "exponent", words="a finite number >= 0")
        check_at_least(self, 0, "min_size", words=AT_LEAST)

    def unread(self) -> dict[str, str]:
        """Return why a key has no effect, for each key that another law reads."""
        return unread_of(self.law, {"sigma": ("lognormal",), "exponent": ("power",)}, "law")


@dataclass(frozen=True, kw_only=True)
class SimilarityOptions(DealtOptions):
    """A share of the examples dealt at random, the rest sorted by label (Karimireddy et al. 2020).

    Attributes:
        similarity: the share dealt at random, 0 to 1.
    """

    kind: Literal["similarity"] = "similarity"
    similarity: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, 1, "similarity")


@dataclass(frozen=True, kw_only=True)
class CalibratedOptions(DealtOptions):
    """Clients that differ by the given values. Without a value, sizes are equal, and labels and features random.

    Attributes:
        label_js: mean over examples of their client's Jensen-Shannon divergence of labels, in bits, 0 to 1.
        label_emd: instead, the mean label EMD, 0 to 2.
        label_hellinger: instead, the mean Hellinger distance of labels, 0 to 1.
        quantity_gini: Gini coefficient of client sizes, 0 to below 1.
        feature_shift: mean energy distance of clients' standardised features (`clients.heterogeneity.feature_shift`).
        tolerance: how far from each value the partition may end, absolute.
        min_size: examples every client gets at least.
    """

    kind: Literal["requested"] = "requested"
    label_js: float | None = None
    label_emd: float | None = None
    label_hellinger: float | None = None
    quantity_gini: float | None = None
    feature_shift: float | None = None
    tolerance: float = 0.01
    min_size: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        values = self.values
        require(bool(values), "kind", "'requested' needs a value to reach", fix=f"Give one of {', '.join(LARGEST)}.")
        for name, value in values.items():
            ok = 0 <= value <= LARGEST[name] and value < math.inf
            top = f"from 0 to {LARGEST[name]:g}" if LARGEST[name] < math.inf else "a finite number >= 0"
            require(ok, name, f"must be {top}, got {value}")
        labels = [name for name in values if name in LABEL_AXES]
        beside = f"cannot be given together with {', '.join(labels[:-1])}"
        require(len(labels) < 2, "".join(labels[-1:]), beside, fix="Give one measure of labels.")
        check_positive(self, "tolerance", words="a finite number > 0")
        check_at_least(self, 0, "min_size", words=AT_LEAST)

    def unread(self) -> dict[str, str]:
        """Return why a key has no effect, for each key that has none."""
        if self.quantity_gini is not None:
            return {}
        return {"min_size": "without quantity_gini sizes are equal to within one"}

    @property
    def values(self) -> dict[str, float]:
        """The values that are given, by name."""
        return {name: getattr(self, name) for name in LARGEST if getattr(self, name) is not None}

    @property
    def label_axis(self) -> str | None:
        """The measure of labels that is given."""
        return next((name for name in self.values if name in LABEL_AXES), None)
