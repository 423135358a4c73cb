"""Options of the sources outside the city: digits, arrays from files, and problems made by formula."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from clients.core.errors import require
from clients.core.file_paths import all_files
from clients.core.numbers.bounds import Within
from clients.core.options import DataOptions, HeldOutOptions, check_at_least, check_not_negative, check_range
from clients.partition.long_tail import Thinning

ImageTask = Literal["classify", "generate"]
DRAWING = 56
"""Bytes that each drawn number takes while it is drawn, in float64 and its steps (`clients.core.streams.normals`)."""


class ThinnedOptions(HeldOutOptions):
    """Options of examples of which some classes may be kept rarer than they come.

    This is no dataclass: each kind declares these fields at their place among its own.

    Attributes:
        long_tail: imbalance factor of an exponential profile over classes in the training examples: the first class
            has about this many times the examples of the last (Cui et al. 2019). Central examples are not thinned;
            the examples that clients hold out have the clients' imbalance.
        rare_classes: classes thinned to `rare_share` of their training examples.
        rare_share: see `rare_classes`.
    """

    long_tail: float
    rare_classes: tuple[int, ...]
    rare_share: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self.thinning()

    def unread(self) -> dict[str, str]:
        """Return why a key has no effect, for each key that other keys leave without one."""
        return {} if self.rare_classes else {"rare_share": "no class is rare (`rare_classes` is empty)"}

    def thinning(self) -> Thinning:
        """Return how many training examples of each class are kept.

        Raises:
            UserError: the options describe a profile that does not exist.
        """
        return Thinning(long_tail=self.long_tail, rare_classes=self.rare_classes, rare_share=self.rare_share)


@dataclass(frozen=True, kw_only=True)
class DigitsOptions(ThinnedOptions):
    """The 1,797 handwritten 8x8 digits bundled with scikit-learn, scaled to [0, 1].

    Attributes:
        flat: True gives features of shape (64,), False (1, 8, 8).
        task: "classify" them, or "generate" such digits, by the model "gan". Labels are then for partitions and for
            measures of samples alone.
        rotation: each client's digits are turned by an angle of its own, uniform between -rotation and rotation, in
            degrees; each central digit by one that is drawn in the same way.
    """

    kind: Literal["digits"] = "digits"
    flat: bool = True
    task: ImageTask = "classify"
    rotation: Annotated[float, Within(0, 180, why="an angle is at most half a turn either way")] = 0.0
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    client_test_fraction: float = 0.0
    long_tail: float = 1.0
    rare_classes: tuple[int, ...] = ()
    rare_share: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, 180, "rotation")


@dataclass(frozen=True, kw_only=True)
class ImagesOptions(ThinnedOptions):
    """Labelled arrays from a file.

    Attributes:
        path: an .npz file; or an IDX images file (`*-images*idx3-ubyte`, also .gz) next to its labels file; or
            a folder of IDX files with a training and possibly a `t10k` or `test` part, which is the central test set.
        features: the array's name in an .npz; empty finds a usual name. `x_test` and `y_test`, if present, are
            the central test set.
        targets: the same for the labels.
        flat: True gives flat features; False images (channels, height, width).
        shape: shape of one example; empty takes the file's own. With flat = false a flat square becomes an image of one
            channel, byte images without channels get one, and trailing channels (1, 3 or 4) go first.
        layout: axes of an image in the file: "CHW", "HWC", or "HW" without channels; channels go first. Empty guesses,
            says so, and refuses what could be either.
        task: "classify" them, or "generate" such images, by the model "gan", whose numbers must lie between 0 and 1.
            Labels are then for partitions and for measures of samples alone.
        test_fraction: share held centrally for the end; unset takes the file's own test set, or a tenth without one.

    Bytes are divided by 255; other integers are multiplied by a number called `scale` in the file, if there is
    one. A natural partition may use every array of one axis and the right length.
    """

    kind: Literal["images"] = "images"
    path: str
    features: str = ""
    targets: str = ""
    flat: bool = True
    shape: tuple[int, ...] = ()
    layout: Literal["", "CHW", "HWC", "HW"] = ""
    task: ImageTask = "classify"
    validation_fraction: float = 0.1
    test_fraction: float | None = None
    client_test_fraction: float = 0.0
    long_tail: float = 1.0
    rare_classes: tuple[int, ...] = ()
    rare_share: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.path), "path", "must name a file or a folder, got nothing")
        require(all(s > 0 for s in self.shape), "shape", f"must hold positive numbers, got {list(self.shape)}")
        one_axis = not (self.flat and len(self.shape) > 1)
        require(one_axis, "shape", f"{list(self.shape)} has several axes and flat is true", fix="Set flat = false.")
        known = self.layout in ("", "CHW", "HWC", "HW")
        require(known, "layout", f"must be CHW, HWC or HW, got {self.layout!r}")

    def files(self) -> list[Path]:
        """Return the archive; the file of images with that of its labels; or the files of the folder."""
        place = Path(self.path).expanduser()
        if not place.is_file():
            return all_files(self.path, "path")
        labels = labels_beside(place)
        return [place, *([labels] if labels != place and labels.is_file() and place.suffix != ".npz" else [])]


def labels_beside(images: Path) -> Path:
    """Return the place of the labels of an IDX file of images.

    Example:
        >>> labels_beside(Path("train-images-idx3-ubyte")).name
        'train-labels-idx1-ubyte'
    """
    return images.with_name(images.name.replace("images", "labels").replace("idx3", "idx1"))


Curvature = float | tuple[float, ...] | tuple[tuple[float, ...], ...]


Centre = float | tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class QuadraticOptions(DataOptions):
    """Quadratic clients, given one by one or drawn.

    Attributes:
        curvatures: H_k of each client: a number h (h times the identity), a diagonal, or a full symmetric matrix.
        centres: w_k* of each client: a number (the same in every coordinate) or a vector. May be left out where there
            are linear terms, and is 0 then.
        linear: b_k of each client, a number or a vector: F_k = (w - w_k*)' H_k (w - w_k*) / 2 + b_k' w.
        clients: how many to draw, if none are given.
        dimension: d; for drawn clients, or if all given clients are plain numbers.
        condition: drawn H_k = Q diag(l) Q' with Q a random rotation and the logarithm of every eigenvalue l uniform
            between 1 / condition and 1.
        spread: standard deviation of every coordinate of a drawn w_k*.
        weights: of each client in the mean objective. Whole numbers are numbers of (equal) examples. Real numbers are
            p_k, up to a common factor, and each client holds one example. Empty for equal weights.
        noise: standard deviation of each coordinate of an example's gradient about its client's (at one example a
            batch, drawn with replacement, the gradient noise of a step). Each example has its own centre,
            w_k* + H^-1 (noise z), and the z of a client add up to 0, so w_k* stays its minimiser. Needs several
            examples a client.
    """

    kind: Literal["quadratic"] = "quadratic"
    curvatures: tuple[Curvature, ...] = ()
    centres: tuple[Centre, ...] = ()
    clients: int = 10
    dimension: int = 1
    condition: Annotated[float, Within(1, 1e15, why="float64 must tell the least curvature from 0")] = 10.0
    spread: float = 1.0
    weights: tuple[int | float, ...] = ()
    noise: float = 0.0
    linear: tuple[Centre, ...] = ()

    @property
    def foreseen_bytes(self) -> int:
        """Bytes that drawing the clients' matrices takes."""
        return 0 if self.curvatures else DRAWING * self.clients * self.dimension * (self.dimension + 2)

    def __post_init__(self) -> None:
        given = len(self.curvatures)
        for name, may_lack in (("centres", bool(self.linear)), ("linear", True)):
            count = len(getattr(self, name))
            pair = f"must be one a curvature, got {count} for {given} curvatures"
            require(count == given or (may_lack and not count), name, pair)
        check_at_least(self, 1, "clients", words="at least {:g}")
        agrees = not given or self.clients in (given, 10)
        require(agrees, "clients", f"is {self.clients}, and {given} curvatures are given", fix="Leave it out.")
        check_at_least(self, 1, "dimension", words="at least {:g}")
        require(1 <= self.condition < math.inf, "condition", f"must be a finite number >= 1, got {self.condition}")
        check_not_negative(self, "spread", "noise", words="a finite number >= 0")
        clients = given or self.clients
        one_each = f"must be one a client, got {len(self.weights)} for {clients} clients"
        require(len(self.weights) in (0, clients), "weights", one_each)
        allowed = all(0 <= w < math.inf for w in self.weights)
        require(allowed, "weights", f"must be numbers of examples or p_k, finite and >= 0, got {list(self.weights)}")
        require(not self.weights or sum(self.weights) > 0, "weights", "must not all be 0")
        several = bool(self.weights) and are_counts(self.weights) and min(self.weights) >= 2
        require(
            not self.noise or several, "noise", "needs at least two examples a client", fix="Give whole weights >= 2."
        )

    def unread(self) -> dict[str, str]:
        """Return why a key has no effect, for each key that given curvatures leave without one."""
        if not self.curvatures:
            return {}
        found = dict.fromkeys(("condition", "spread"), "it is for drawn clients, and curvatures are given")
        if any(isinstance(h, tuple) for h in (*self.curvatures, *self.centres, *self.linear)):
            found["dimension"] = "the given curvatures and centres have theirs"
        return found


@dataclass(frozen=True, kw_only=True)
class DiracOptions(DataOptions):
    """Points of the Dirac-GAN: each client's data are one point, given or drawn.

    Attributes:
        points: x_k of each client: a number (the same in every coordinate) or a vector.
        clients: how many to draw, if none are given.
        dimension: d; for drawn points, or if all given points are plain numbers.
        spread: standard deviation of every coordinate of a drawn point.
    """

    kind: Literal["dirac"] = "dirac"
    points: tuple[Centre, ...] = ()
    clients: int = 10
    dimension: int = 1
    spread: float = 1.0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "clients", "dimension", words="at least {:g}")
        check_not_negative(self, "spread", words="a finite number >= 0")
        given = len(self.points)
        agrees = not given or self.clients in (given, 10)
        require(agrees, "clients", f"is {self.clients}, and {given} points are given", fix="Leave it out.")

    @property
    def foreseen_bytes(self) -> int:
        """Bytes that drawing the points takes."""
        return 0 if self.points else DRAWING * self.clients * self.dimension

    def unread(self) -> dict[str, str]:
        """Return why a key has no effect, for each key that given points leave without one."""
        if not self.points:
            return {}
        found = {"spread": "it is for drawn points, and points are given"}
        if any(isinstance(p, tuple) for p in self.points):
            found["dimension"] = "the given points have theirs"
        return found


@dataclass(frozen=True, kw_only=True)
class SineOptions(DataOptions):
    """Sine curves, one a client: y = a sin(x - phi) (Finn et al. 2017).

    Attributes:
        clients: number of clients.
        examples: training points of each client, x uniform in -5..5.
        held_out: points that each client holds out.
        amplitude: the least and the largest a; uniform between them.
        phase: phi is uniform between 0 and this.
    """

    kind: Literal["sine"] = "sine"
    clients: int = 100
    examples: int = 20
    held_out: int = 50
    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: float = math.pi

    def __post_init__(self) -> None:
        check_at_least(self, 1, "clients", "examples", "held_out", words="at least {:g}")
        check_not_negative(self, "phase", words="a finite number >= 0")
        low, high = self.amplitude
        allowed = 0 <= low <= high < math.inf
        require(allowed, "amplitude", f"must be two finite numbers, 0 <= least <= largest, got {list(self.amplitude)}")

    @property
    def foreseen_bytes(self) -> int:
        """Bytes that drawing the points takes."""
        return DRAWING * self.clients * (self.examples + self.held_out)


def are_counts(weights: Sequence[int | float]) -> bool:
    """Return whether weights are numbers of examples; no weights are."""
    return all(float(w).is_integer() for w in weights)


@dataclass(frozen=True, kw_only=True)
class SyntheticOptions(DataOptions):
    """FedProx's synthetic(alpha, beta).

    Attributes:
        alpha: how much local models differ, a standard deviation.
        beta: how much local inputs differ, a standard deviation.
        iid: True for the paper's synthetic_iid, which does not use alpha and beta (leave them 0).
        clients: how many.
        features: numbers an example.
        classes: labels.
        sizes: "lognormal" as in the paper; an integer gives every client that many training examples.
    """

    kind: Literal["synthetic"] = "synthetic"
    alpha: float = 0.0
    beta: float = 0.0
    iid: bool = False
    clients: int = 30
    features: int = 60
    classes: int = 10
    sizes: Literal["lognormal"] | int = "lognormal"

    @property
    def foreseen_bytes(self) -> int:
        """Bytes that making the clients of the central examples takes, with their models drawn at once."""
        central = min(self.clients, 1000)
        held_out = 100 if self.sizes == "lognormal" else self.sizes // 9 + 1
        drawn = central * (2 + self.features + (self.features + 1) * self.classes) + 2048 * self.features
        return DRAWING * drawn + 12 * self.clients + 16 * central * held_out * self.features

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            value = getattr(self, name)
            require(0 <= value < math.inf, name, f"must be a finite number >= 0, got {value}")
            require(not (self.iid and value), name, f"has no effect with iid = true, got {value}", fix="Leave it out.")
        check_at_least(self, 1, "clients", "features", words="at least {:g}")
        check_at_least(self, 2, "classes", words="at least {:g}")
        if self.sizes != "lognormal":
            require(self.sizes >= 1, "sizes", f"must be 'lognormal' or at least 1, got {self.sizes}")
