"""Options of the faults of labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clients.core.errors import require
from clients.core.options import ClientChoice, check_range
from clients.faults.options import LabelFaultOptions


@dataclass(frozen=True, kw_only=True)
class SharedLabelFaultOptions(LabelFaultOptions):
    """The base of faults that change every label with the same probability, severity x share.

    Attributes:
        share: share of the labels that are wrong at severity 1.
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, 1, "share")


@dataclass(frozen=True, kw_only=True)
class LabelSymmetricOptions(SharedLabelFaultOptions):
    """A label becomes one of the other classes, all equally likely."""

    kind: Literal["label_symmetric"] = "label_symmetric"


@dataclass(frozen=True, kw_only=True)
class LabelPairFlipOptions(SharedLabelFaultOptions):
    """A label becomes the next class, the last class the first."""

    kind: Literal["label_pair_flip"] = "label_pair_flip"
    share: float = 0.45


@dataclass(frozen=True, kw_only=True)
class LabelClassDependentOptions(LabelFaultOptions):
    """A label of class c becomes another with probability severity x rates[c].

    Attributes:
        rates: share of each class's labels that are wrong at severity 1, one a class.
        to: the class that each class becomes; empty for any other class, all equally likely.
    """

    kind: Literal["label_class_dependent"] = "label_class_dependent"
    rates: tuple[float, ...]
    to: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for rate in self.rates:
            require(0 <= rate <= 1, "rates", f"must be from 0 to 1, got {rate}")
        classes = len(self.rates)
        require(classes >= 2, "rates", f"must have one rate a class, got {classes}")
        if self.to:
            require(len(self.to) == classes, "to", f"must name a class for each of {classes}, got {len(self.to)}")
            ok = all(0 <= new < classes and new != old for old, new in enumerate(self.to))
            require(ok, "to", f"must name another class from 0 to {classes - 1} for each, got {self.to}")

    def check_classes(self, classes: int) -> None:
        """Refuse data whose number of classes is not the number of rates."""
        given = len(self.rates)
        require(given == classes, "rates", f"must have one rate for each of the {classes} classes, got {given}")


@dataclass(frozen=True, kw_only=True)
class LabelConcentratedOptions(SharedLabelFaultOptions):
    """Few clients have most of the wrong labels, which become one of the other classes, all equally likely."""

    kind: Literal["label_concentrated"] = "label_concentrated"
    clients: ClientChoice = 0.1
    share: float = 0.9
