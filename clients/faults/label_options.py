"""Options of the faults of labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clients.core.errors import require
from clients.faults.common import Fault, require_share


@dataclass(frozen=True, kw_only=True)
class LabelSymmetricOptions(Fault):
    """A label becomes one of the other classes, each as likely, with probability severity x share.

    Attributes:
        share: share of the labels that are wrong at severity 1.
    """

    kind: Literal["label_symmetric"] = "label_symmetric"
    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self.share, "share")


@dataclass(frozen=True, kw_only=True)
class LabelPairFlipOptions(Fault):
    """A label becomes the next class, the last class the first, with probability severity x share.

    Attributes:
        share: share of the labels that are wrong at severity 1.
    """

    kind: Literal["label_pair_flip"] = "label_pair_flip"
    share: float = 0.45

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self.share, "share")


@dataclass(frozen=True, kw_only=True)
class LabelClassDependentOptions(Fault):
    """A label of class c becomes another with probability severity x rates[c].

    Attributes:
        rates: share of each class's labels that are wrong at severity 1, one a class.
        to: what each class becomes; empty for any of the others, each as likely.
    """

    kind: Literal["label_class_dependent"] = "label_class_dependent"
    rates: tuple[float, ...]
    to: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for rate in self.rates:
            require_share(rate, "rates")
        classes = len(self.rates)
        require(classes >= 2, "rates", f"must have one rate a class, got {classes}")
        if self.to:
            require(len(self.to) == classes, "to", f"must name a class for each of {classes}, got {len(self.to)}")
            ok = all(0 <= new < classes and new != old for old, new in enumerate(self.to))
            require(ok, "to", f"must name another class from 0 to {classes - 1} for each, got {self.to}")


@dataclass(frozen=True, kw_only=True)
class LabelConcentratedOptions(Fault):
    """Few clients have most of the wrong labels: theirs become other classes with probability severity x share.

    Attributes:
        clients: share of the clients it affects.
        share: share of such a client's labels that are wrong at severity 1.
    """

    kind: Literal["label_concentrated"] = "label_concentrated"
    clients: float = 0.1
    share: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self.share, "share")
