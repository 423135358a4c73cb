"""Small scenarios in which the keys of each section and kind are in use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clients.faults.table import FAULTS
from clients.training.options import READERS, SECOND_ORDER
from server.algorithms.table import ALGORITHMS

Table = dict[str, Any]

DIGITS: Table = {"kind": "digits", "client_test_fraction": 0.2, "validation_fraction": 0.1, "test_fraction": 0.7}
BASE: Table = {
    "data": DIGITS,
    "partition": {"kind": "quantity", "clients": 5, "min_size": 8},
    "model": {"kind": "softmax"},
    "local": {"batch_size": 24, "local_steps": 3},
    "algorithm": {"kind": "fedavg", "cohort": 3},
    "evaluation": {"federated_every": 0},
    "convergence": {"stop": "never", "settled": {"below": 0.5}},
    "engine": {"kind": "stacked", "tile": 3, "compile": "never", "threads": 1, "workers": 1},
    "run": {"rounds": 3},
}
"""A run takes some hundredths of a second. `stop` is "never", so that all rounds are played."""

WHOLE = {"data", "partition", "model", "world"}
"""Sections that a change replaces, because their keys depend on the kind."""


def changed(table: Mapping[str, Any], **sections: Any) -> Table:
    """Return a table with other sections: tables are merged, except those in `WHOLE`; None removes."""
    found = dict(table)
    for name, section in sections.items():
        if section is None:
            found.pop(name, None)
        elif isinstance(section, Mapping) and name not in WHOLE:
            both = {**found.get(name, {}), **section}
            found[name] = {key: value for key, value in both.items() if value is not None}
        else:
            found[name] = section
    return found


SHORT = changed(BASE, local={"local_steps": 1}, run={"rounds": 2})
WORLD: Table = {"days": 15, "districts": 3, "storms_per_month": 20.0, "power_cuts_per_month": 40.0}
CITY = changed(SHORT, partition=None, world=WORLD, model={"kind": "linear"})
AIR: Table = {"kind": "air", "clients": 6, "horizon": 1, "window": 6, "stride": 12}
OF_AIR = changed(CITY, data=AIR)
PEOPLE: Table = {"kind": "activity", "clients": 6, "windows": 24, "window": 16}
OF_PEOPLE = changed(CITY, data=PEOPLE, model={"kind": "softmax"})
QUADRATIC = changed(BASE, data={"kind": "quadratic", "clients": 4}, partition=None, model={"kind": "quadratic"})
WELL = changed(
    BASE,
    data={"kind": "double_well", "clients": 4, "examples": 3, "noise": 0.1, "spread": 0.1},
    partition=None,
    model={"kind": "double_well"},
)
DIRAC = changed(BASE, data={"kind": "dirac", "clients": 4}, partition=None, model={"kind": "dirac_gan"})
EPOCHS: Table = {"local_steps": None, "local_epochs": 2}


def cases(folder: Path) -> Iterator[tuple[str, Table, tuple[str, ...]]]:
    """Yield the name of a case, its scenario, and the table, or the key, that is changed.

    Args:
        folder: where files of data are.
    """
    yield from _local_cases()
    yield from _algorithm_cases()
    yield from _data_cases(folder)
    yield from _city_cases()
    yield from _other_cases()


def _local_cases() -> Iterator[tuple[str, Table, tuple[str, ...]]]:
    local, schedule = ("local",), ("local", "schedule")
    norm: Table = {"kind": "mlp", "hidden": [4], "norm": "batch"}
    yield "sgd", changed(BASE, local={"optimizer": "sgd"}), local
    yield "gd", changed(BASE, local={"optimizer": "gd"}), local
    yield "one epoch, with buffers", changed(BASE, local={"local_steps": None}, model=norm), local
    yield "balanced epochs", changed(BASE, local={**EPOCHS, "sampling": "class_balanced"}), local
    yield "one example", changed(QUADRATIC, local={"optimizer": "momentum"}), local
    for name in ("momentum", "nesterov", "adam", "adamw", "rmsprop", "adagrad"):
        table = changed(BASE, local={"optimizer": name, "class_weights": "effective"})
        for key in (*READERS, "effective_beta", "weights_from"):
            yield f"{key} of {name}", table, ("local", key)
    bowl = changed(QUADRATIC, data={"kind": "quadratic", "clients": 4, "dimension": 4})
    for name in SECOND_ORDER:  # steps of four times the method's own, which the line search shortens
        table = changed(bowl, local={"optimizer": name, "local_lr": 4.0, "local_steps": 4})
        for key in ("damping", "history", "line_search", "l2"):
            yield f"{key} of {name}", table, ("local", key)
    yield "augment", changed(OF_PEOPLE, local={"augment": {"jitter": 0.1}}), ("local", "augment")
    every: Table = {"kind": "step", "every": 1}
    at: Table = {"kind": "step", "at": [1]}
    for name, given in {
        "constant": {},
        "step": every,
        "step at": at,
        "cosine": {"rounds": 3},
        "inverse_time": {},
    }.items():
        table = {"kind": name, **given}
        yield f"schedule {name}", changed(BASE, local={"schedule": table}), schedule


def _algorithm_cases() -> Iterator[tuple[str, Table, tuple[str, ...]]]:
    for kind, row in ALGORITHMS.items():
        work: Table = {"partial_work": 0.5}
        if row.fixed_local is not None:
            work = {"local_steps": None, "batch_size": None}
            yield f"local of {kind}", changed(BASE, algorithm={"kind": kind}, local=work), ("local",)
        yield kind, changed(BASE, algorithm={"kind": kind}, local=work), ("algorithm",)
    yield "all work", changed(BASE, algorithm={"kind": "scaffold"}), ("algorithm",)


def _data_cases(folder: Path) -> Iterator[tuple[str, Table, tuple[str, ...]]]:
    data, partition = ("data",), ("partition",)
    yield "digits", SHORT, data
    for pattern in ("separable", "xor", "rings", "random"):
        points: Table = {"kind": "points", "pattern": pattern, "examples": 120}
        yield f"points {pattern}", changed(SHORT, data=points), data
    rare: Table = {**DIGITS, "rare_classes": [2]}
    yield "digits, rare", changed(SHORT, data=rare), data
    own = changed(SHORT, partition=None)
    reviews: Table = {"kind": "reviews", "shops": 5, "reviews": 20}
    yield "reviews", changed(own, data=reviews, model={"kind": "gru", "hidden": 3}), data
    yield "churn", changed(own, data={"kind": "churn", "branches": 5, "customers": 30}), data
    ways: tuple[Table, ...] = ({}, {"iid": True}, {"sizes": 9})
    for more in ways:
        yield f"synthetic {more}", changed(own, data={"kind": "synthetic", "clients": 4, **more}), data
    given = {"curvatures": [1.0, 2.0, 3.0, 4.0], "centres": [1.0, 2.0, 3.0, 5.0]}
    yield "quadratic", QUADRATIC, data
    yield "given quadratic", changed(QUADRATIC, data={"kind": "quadratic", **given}), data
    yield "double_well", WELL, data
    yield "double_well, one dimension", changed(WELL, data={"kind": "double_well", "clients": 4, "dimension": 1}), data
    yield "dirac", DIRAC, data
    yield "sine", changed(own, data={"kind": "sine", "clients": 4}, model={"kind": "linear"}), data
    yield "given dirac", changed(DIRAC, data={"kind": "dirac", "points": [1.0, 2.0, 3.0, 5.0]}), data
    yield from _file_cases(folder, own)
    kinds: dict[str, Table] = {
        "iid": {}, "shards": {}, "dirichlet": {"concentration": 0.5}, "quantity": {},
        "dirichlet, over_clients": {"concentration": 0.5}, "quantity, power": {"law": "power"},
        "similarity": {"similarity": 0.5}, "requested": {"label_js": 0.2},
        "requested, quantity_gini": {"quantity_gini": 0.5, "label_js": 0.2},
    }  # fmt: skip
    for name, keys in kinds.items():
        kind, _, convention = name.partition(", ")
        extra: Table = {"convention": convention} if convention == "over_clients" else {}
        table = {"kind": kind, "clients": 5, **keys, **extra}
        yield f"partition {name}", changed(SHORT, partition=table), partition


def _file_cases(folder: Path, own: Table) -> Iterator[tuple[str, Table, tuple[str, ...]]]:
    pictures: Table = {"kind": "images", "path": f"{folder}/images.npz", "flat": False, "layout": "HWC"}
    images = changed(SHORT, data=pictures, partition={"kind": "natural", "key": "who"})
    yield "images", images, ("data",)
    yield "partition natural", images, ("partition",)
    wide: Table = {"kind": "metr_la", "path": f"{folder}/wide.csv", "stride": 3}
    yield "metr_la", changed(own, data=wide, model={"kind": "linear"}), ("data",)
    air: Table = {"kind": "air_quality", "path": f"{folder}/air", "window": 6}
    yield "air_quality", changed(own, data=air, model={"kind": "linear"}, algorithm={"cohort": 2}), ("data",)


def write_files(folder: Path) -> None:
    """Write the files that the cases read."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    labels, who = np.arange(60) % 3, np.arange(60) % 5
    more: Any = {"who": who, "other": who // 2, "x_two": 255 - images, "y_two": (labels + 1) % 3}
    np.savez(folder / "images.npz", x=images, y=labels, **more)
    np.savez(folder / "other.npz", x=images[::-1], y=labels, **more)
    start = np.datetime64("2012-03-01T00:00:00")
    lines = [",a,b,c,d"]
    for i, row in enumerate(random.uniform(20, 70, (200, 4)).round(3).tolist()):
        speeds = [0.0 if (i + k) % 61 < 3 else v for k, v in enumerate(row)]
        lines.append(",".join([str(start + np.timedelta64(5 * i, "m")).replace("T", " "), *map(str, speeds)]))
    (folder / "wide.csv").write_text("\n".join(lines) + "\n")
    (folder / "other.csv").write_text("\n".join(lines[:150]) + "\n")
    (folder / "air").mkdir()
    header = "No,year,month,day,hour,PM2.5,PM10,SO2,NO2,CO,O3,TEMP,PRES,DEWP,RAIN,wd,WSPM,station"
    for k, station in enumerate(("Changping", "Dongsi", "Gucheng")):
        lines = [header]
        for i, v in enumerate(random.uniform(1, 99, (200, 11)).round(1).tolist()):
            time = (np.datetime64("2013-03-01T00") + i).astype(object)
            readings = ["NA" if (i + k) % 37 < 4 and c == 0 else str(x) for c, x in enumerate(v)]
            row = [i + 1, time.year, time.month, time.day, time.hour, *readings[:10], "NNW", readings[10], station]
            lines.append(",".join(map(str, row)))
        (folder / "air" / f"PRSA_Data_{k}.csv").write_text("\n".join(lines) + "\n")


def _city_cases() -> Iterator[tuple[str, Table, tuple[str, ...]]]:
    sources: dict[str, Table] = {
        "traffic": {"kind": "traffic", "clients": 6, "step_minutes": 15},
        "congestion": {"kind": "traffic", "clients": 6, "task": "congestion"},
        "meters": {"kind": "meters", "clients": 12, "horizon": 2, "window": 6, "stride": 12},
        "air": AIR,
        "bridge": {"kind": "bridge", "clients": 4, "windows": 24, "window": 32},
        "intrusion": {"kind": "intrusion", "clients": 12, "windows": 40, "campaigns_per_month": 60.0},
        "activity": PEOPLE,
    }
    for name, source in sources.items():
        classes = name in ("congestion", "bridge", "intrusion", "activity")
        table = changed(CITY, data=source, model={"kind": "softmax" if classes else "linear"})
        yield name, table, ("data",)
        yield f"world of {name}", table, ("world",)
    for kind in FAULTS:
        base = OF_PEOPLE if kind.startswith("label") else OF_AIR
        rates: Table = {"rates": [0.2] * 6} if kind == "label_class_dependent" else {}
        yield f"fault {kind}", changed(base, faults={"it": {"kind": kind, **rates}}), ("faults", "it")
    bias: Table = {"kind": "bias", "schedule": {"start": 2, "stop": 4}}
    yield "fault schedule", changed(OF_AIR, faults={"it": bias}, run={"rounds": 4}), ("faults", "it", "schedule")
    four: Table = {"rounds": 4}
    for kind, more in {
        "abrupt": {},
        "gradual": {"duration": 3.0},
        "incremental": {"duration": 3.0},
        "recurring": {"period": 1.0},
    }.items():
        drift: Table = {"kind": kind, "start": 1, **more}
        yield f"drift {kind}", changed(OF_AIR, drifts={"it": drift}, run=four), ("drifts", "it")
    for name, features in {
        "": {}, "client": {"normalise": "client"}, "federated": {"normalise": "federated"},
        "variance": {"select": "variance", "keep": 3},
        "mutual information": {"select": "mutual_information", "keep": 3},
    }.items():  # fmt: skip
        base = OF_PEOPLE if name.startswith("mutual") else OF_AIR
        yield f"features {name}", changed(base, features=features), ("features",)


def _other_cases() -> Iterator[tuple[str, Table, tuple[str, ...]]]:
    model, mlp = ("model",), {"kind": "mlp", "hidden": [4]}
    yield "softmax", SHORT, model
    for kind in ("logistic", "svm", "perceptron"):
        yield kind, changed(SHORT, model={"kind": kind}), model
    yield "mlp", changed(SHORT, model=mlp), model
    yield "mlp, group", changed(SHORT, model={**mlp, "hidden": [8], "norm": "group"}), model
    yield "mlp, none", changed(SHORT, model={**mlp, "hidden": []}), model
    yield "small_cnn", changed(SHORT, data={**DIGITS, "flat": False}, model={"kind": "small_cnn"}), model
    yield "cnn1d", changed(OF_PEOPLE, model={"kind": "cnn1d", "channels": [3, 4], "kernel": 3}), model
    yield "gru", changed(OF_AIR, model={"kind": "gru", "hidden": 3}), model
    yield "lstm", changed(OF_AIR, model={"kind": "lstm", "hidden": 3}), model
    bridge: Table = {"kind": "bridge", "clients": 4, "windows": 24, "window": 16, "task": "reconstruct"}
    coder: Table = {"kind": "autoencoder", "hidden": [5], "code": 3}
    yield "autoencoder", changed(CITY, data=bridge, model=coder), model
    yield "linear autoencoder", changed(CITY, data=bridge, model={**coder, "hidden": []}), model
    yield "rnn", changed(OF_AIR, model={"kind": "rnn", "hidden": 3}), model
    attentive: Table = {"kind": "transformer", "width": 4, "heads": 2, "feed_forward": 3}
    yield "transformer", changed(OF_AIR, model=attentive), model
    rbf: Table = {"kind": "rbf", "centres": 3, "width": 5.0}
    yield "rbf", changed(SHORT, model=rbf), model
    yield "rbf, given", changed(OF_AIR, data={**AIR, "window": 2}, model={**rbf, "centres": [[0.0] * 18]}), model
    yield "linear", OF_AIR, model
    yield "quadratic model", QUADRATIC, model
    yield "double_well model", WELL, model
    turns: Table = {"kind": "dirac_gan", "order": "alternating", "regularisation": "r1"}
    yield "dirac_gan", DIRAC, model
    yield "dirac_gan, alternating", changed(DIRAC, model=turns), model
    drawn: Table = {**DIGITS, "task": "generate", "validation_fraction": 0.05}
    gan: Table = {"kind": "gan", "hidden": [4], "latent": 2}
    yield "gan", changed(SHORT, data=drawn, model=gan), model
    yield "gan, alternating", changed(BASE, data=drawn, model={**gan, "order": "alternating"}), model
    evaluation, convergence = ("evaluation",), ("convergence",)
    yield "evaluation", changed(BASE, evaluation={"federated_every": 1}), evaluation
    yield "no evaluation", BASE, evaluation
    bare: Table = {**DIGITS, "validation_fraction": 0.0, "test_fraction": 0.0, "client_test_fraction": 0.0}
    yield "evaluation without held-out data", changed(BASE, data=bare, evaluation={"federated_every": 1}), evaluation
    adapted: Table = {"adapt_every": 1, "adapt_steps": 2}
    yield "adapted", changed(BASE, evaluation=adapted), evaluation
    yield "gradients", changed(BASE, evaluation={"gradient_every": 1}), evaluation
    yield "no criterion", changed(BASE, convergence={"settled": None, "stop": "any"}), convergence
    two: Table = {"pseudo_gradient": {"below": 1e6, "hold": 1}, "settled": {"below": 1e-9}}
    yield "criteria", changed(BASE, convergence={"stop": "any", **two}), convergence
    criteria: dict[str, Table] = {
        "target": {"metric": "validation_accuracy", "at_least": 0.3}, "plateau": {}, "settled": {},
        "pseudo_gradient": {"below": 0.1}, "gradient": {"below": 1.0}, "gap": {"below": 0.1}, "agreement": {},
        "error_free": {},
    }  # fmt: skip
    for name, options in criteria.items():
        every: Table = {"gradient_every": 1} if name == "gradient" else {}
        base = changed(BASE, convergence={name: options}, evaluation=every, run={"rounds": 6})
        yield f"criterion {name}", base, ("convergence", name)
    jump: Table = {"kind": "step", "at": [6], "factor": 500.0}
    wild = changed(
        QUADRATIC,
        local={"schedule": jump, "local_lr": 0.1},
        convergence={"stop": "any", "settled": None, "divergence": {"loss_factor": 1e15}},
        run={"rounds": 12},
    )
    yield "divergence", wild, ("convergence", "divergence")
    off: Table = {"loss_factor": 0.0, "spike": 0.0}
    yield "no divergence", changed(wild, convergence={"divergence": off}), ("convergence", "divergence")
    for section in ("fleet", "run", "engine", "nodes"):
        yield section, BASE, (section,)
