"""The user's own clients, from Python: a callable `client -> (features, targets)` and sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import I32, I64, Array
from clients.core.checks import WIDER_ARRAYS, check_finite, check_fits, check_same_length, tensor_of
from clients.core.errors import DataError, FedscapeError, require, unknown_name
from clients.core.examples import Examples, Task
from clients.core.on_demand import ExampleLayout, Made, Make, on_demand_cohort
from clients.core.population import ClientData, Population
from clients.core.population_parts import CentralData, CentralExamples, ExampleSpec, FederationFacts
from clients.core.ragged import label_counts_of
from clients.core.user_code import described, name_of
from clients.sources.labels import class_labels
from clients.sources.user_arrays import check_dtype, check_outputs, conversions, pair_of

ArrayLike = Array | Tensor
Pair = tuple[ArrayLike, ArrayLike]


def custom_population(
    client: Callable[[int], Pair],
    sizes: Sequence[int] | Array,
    *,
    outputs: int,
    task: Task = "classification",
    feature_shape: tuple[int, ...] | None = None,
    client_test: Callable[[int], Pair] | None = None,
    client_test_sizes: Sequence[int] | Array | None = None,
    validation: Pair | None = None,
    test: Pair | None = None,
    names: Sequence[str] | None = None,
    name: str = "custom",
    dtype: torch.dtype = torch.float32,
) -> Population:
    """Make a population of the user's own clients. A client is read and checked on demand.

    Args:
        client: index -> (features (n, ...), targets (n,) or (n, outputs)): arrays, tensors, data frames or lists; must
            return the same every time. Labels may be whole numbers of any type, truth values, or one-hot.
        sizes: training examples of each client; 0 is allowed, and such a client is never read.
        outputs: classes, or width of the regression target.
        task: see `clients.core.examples.Task`.
        feature_shape: shape of one example's features; None takes it from the first client that has examples.
        client_test: the same as `client` for the examples that each client holds out.
        client_test_sizes: their numbers.
        validation: central examples for criteria.
        test: central examples for the end.
        names: client names for people.
        name: the data's name for people.
        dtype: features (and regression targets) are converted to it. An integer type such as `torch.int64` keeps token
            ids whole; regression targets are then float32.

    Returns:
        The population. Its `federation.notices` say what was converted in the first client with examples; that client
        is read at once, unless `feature_shape` is given.

    Raises:
        DataError: a client's data are unusable; raised here or when the client is read, with its name.

    Example:
        >>> p = custom_population(lambda k: (np.full((3, 2), k), np.zeros(3, int)), [3, 3], outputs=2)
        >>> p.cohort(np.array([1])).client(0).features[0].tolist()
        [1.0, 1.0]
    """
    n = _sizes(sizes, "sizes")
    _check_arguments(client, client_test, task, outputs)
    check_dtype(dtype)
    require(names is None or len(names) == len(n), "names", f"must be one a client ({len(n)})")
    both = (client_test is None) == (client_test_sizes is None)
    require(both, "client_test_sizes", "must come together with client_test")
    first: tuple[Pair, str] | None = None
    if feature_shape is None:
        some = np.flatnonzero(n)
        if not len(some):
            raise DataError("sizes", "no client has examples", fix="Give at least one client a size above 0.")
        k = int(some[0])
        first = _read(client, k), f"client {k}"
        _check_repeatable(client, k, first[0])
        feature_shape = pair_of(first[0], first[1])[0].shape[1:]
    shape = _shape(feature_shape)
    regression = task == "regression"
    target_dtype = (dtype if dtype.is_floating_point else torch.float32) if regression else torch.int64
    layout = ExampleLayout(shape, (outputs,) if regression else (), dtype, target_dtype)

    check = partial(_checked, task=task, outputs=outputs, layout=layout)
    seen = [first, *((pair, part) for pair, part in ((validation, "validation"), (test, "test")) if pair is not None)]
    notices = _notices(next((part for part in seen if part is not None), None), check, layout, task)
    cohort = on_demand_cohort(_maker(client, n, check, layout), n, layout)
    held_out = None
    if client_test is not None and client_test_sizes is not None:
        held = _sizes(client_test_sizes, "client_test_sizes")
        require(len(held) == len(n), "client_test_sizes", f"must be one a client ({len(n)}), got {len(held)}")
        held_out = on_demand_cohort(_maker(client_test, held, check, layout), held, layout)

    def central(pair: Pair | None, part: str) -> CentralExamples | None:
        return None if pair is None else CentralExamples(Examples(*check(pair, part)))

    return Population(
        spec=ExampleSpec(task=task, feature_shape=shape, outputs=outputs),
        federation=FederationFacts(
            name=name,
            sizes=n,
            client_name=list(names).__getitem__ if names is not None else str,
            notices=notices,
        ),
        clients=ClientData(
            cohort=cohort,
            held_out=held_out,
            label_counts=label_counts_of(cohort, outputs) if task == "classification" else None,
        ),
        central=CentralData(validation=central(validation, "validation"), test=central(test, "test")),
    )


def _check_arguments(client: object, client_test: object, task: str, outputs: object) -> None:
    for name, function in (("client", client), ("client_test", client_test)):
        if not callable(function) and not (name == "client_test" and function is None):
            got = f"must be a function of a client's index, got {type(function).__name__}"
            pairs = isinstance(function, list | tuple) and len(function) > 0 and isinstance(function[0], tuple)
            fix = f"Pass {name}=clients.__getitem__." if pairs else f"Pass {name}=lambda k: (features[k], targets[k])."
            raise DataError(name, got, fix=fix)
    if task not in get_args(Task):
        raise DataError("task", unknown_name(task, get_args(Task), "a task"))
    check_outputs(outputs)


def _read(read: Callable[[int], Pair], k: int) -> Pair:
    """Read a client. An error of the user's function is raised again with the client's index."""
    try:
        return read(k)
    except FedscapeError:
        raise
    except Exception as error:  # the user's function may raise anything
        raise DataError(f"client {k}", f"{name_of(read)}({k}) raised {described(error)}") from error


def _check_repeatable(read: Callable[[int], Pair], k: int, first: Pair) -> None:
    """Refuse a function that returns other examples in a second call: a run reads a client again in each round.

    Raises:
        DataError: it does.
    """
    who = f"client {k}"
    pairs = zip(pair_of(first, who), pair_of(_read(read, k), who), strict=True)
    if not all(a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all()) for a, b in pairs):
        problem = f"{name_of(read)}({k}) returns other examples in a second call, and a run reads clients again"
        raise DataError(who, problem, fix="Draw from a generator seeded by the index: np.random.default_rng(k).")


def _maker(
    read: Callable[[int], Pair],
    sizes: I32,
    check: Callable[[Pair, str], tuple[Tensor, Tensor]],
    layout: ExampleLayout,
) -> Make:
    """Return a function that reads and checks some clients. A client without examples is not read."""

    def make(clients: I64) -> Made:
        pieces = [layout.empty(0)]
        for k in clients[sizes[clients] > 0].tolist():
            piece = check(_read(read, k), f"client {k}")
            if len(piece[0]) != sizes[k]:
                raise DataError(f"client {k}", f"has {len(piece[0])} examples, and its size is given as {sizes[k]}")
            pieces.append(piece)
        return Made(torch.cat([f for f, _ in pieces]), torch.cat([t for _, t in pieces]))

    return make


def _sizes(sizes: Sequence[int] | Array, field: str) -> I32:
    n = np.asarray(sizes)
    ok = n.ndim == 1 and len(n) > 0 and n.dtype.kind in "iu" and bool((n >= 0).all()) and int(n.max()) < 2**31
    require(ok, field, f"must be whole numbers >= 0, one a client, got {sizes!r:.80}")
    return n.astype(np.int32)


def _shape(shape: object) -> tuple[int, ...]:
    """Return a shape from Python as a tuple."""
    given = tuple(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else (0,)
    is_shape = all(isinstance(s, int | np.integer) and not isinstance(s, bool) and s > 0 for s in given)
    require(is_shape, "feature_shape", f"must be the shape of one example, such as (3, 32, 32), got {shape!r:.40}")
    return given


def _checked(pair: Pair, who: str, task: Task, outputs: int, layout: ExampleLayout) -> tuple[Tensor, Tensor]:
    """Convert the user's examples to tensors of the layout; an error names the mistake and its place."""
    features, targets = pair_of(pair, who)
    if features.shape[1:] != layout.feature_shape:
        shapes = f"{list(features.shape[1:])} an example, the population's have {list(layout.feature_shape)}"
        raise DataError(who, f"features have shape {shapes}")
    check_same_length(features, targets, who)
    check_finite(features, who, "features")
    check_fits(features, layout.dtype, who, "features", fix=WIDER_ARRAYS)
    if task == "classification":
        targets, _ = class_labels(targets, outputs, who)
    elif task == "regression":
        check_finite(targets, who, "targets")
        check_fits(targets, layout.target_dtype, who, "targets", fix=WIDER_ARRAYS)
        if targets.size != len(targets) * outputs:
            raise DataError(who, f"targets have shape {list(targets.shape)}, need [{len(targets)}, {outputs}]")
        targets = targets.reshape(len(targets), outputs)
    else:
        targets = np.zeros(len(features))
    return tensor_of(features, layout.dtype), tensor_of(targets, layout.target_dtype)


def _notices(
    seen: tuple[Pair, str] | None, check: Callable[[Pair, str], object], layout: ExampleLayout, task: Task
) -> tuple[str, ...]:
    """Return what the conversion of some examples changes, in sentences; none where none were read."""
    if seen is None:
        return ()
    check(*seen)
    return tuple(
        f"{seen[1]}: {words}" for words in conversions(*pair_of(*seen), layout.dtype, layout.target_dtype, task)
    )
