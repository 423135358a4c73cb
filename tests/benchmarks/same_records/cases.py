"""The cases of `same_records`: small federations that together use every part that computes numbers.

A case is a base with changes as after `--set`, and optionally parts from Python (`parts`). Engines are
fixed, because a choice by timing changes the last bits.
"""

from __future__ import annotations

from dataclasses import dataclass

STACKED = ("engine.kind=stacked", "engine.tile=3", "engine.threads=1", "engine.workers=1", "engine.compile=never")
PLAIN = ("engine.kind=plain", "engine.tile=", "engine.threads=1", "engine.workers=1", "engine.compile=never")
TILES = ("engine.keep_bytes=1000",)
"""With so little memory, no cohort is kept whole; updates are summed tile by tile."""


@dataclass(frozen=True)
class Case:
    """One run whose record is compared.

    Attributes:
        base: a key of `bases`, or a built-in scenario's name.
        sets: changes as after `--set`; those of the engine come first.
        parts: the function of `parts` that makes the parts from Python; empty for none.
        cuts: numbers of rounds after which the run is stopped and resumed.
        describe: whether the data are described instead of a run.
    """

    base: str
    sets: tuple[str, ...] = ()
    parts: str = ""
    cuts: tuple[int, ...] = ()
    describe: bool = False


def _case(base: str, *sets: str, engine: tuple[str, ...] = STACKED, **more: object) -> Case:
    return Case(base, (*engine, *sets), **more)  # type: ignore[arg-type]


def _algorithm(kind: str, *sets: str, engine: tuple[str, ...] = STACKED, **more: object) -> Case:
    local = ("local.batch_size=", "local.local_epochs=") if kind == "fedsgd" else ("local.local_epochs=2",)
    return _case("digits", f"algorithm.kind={kind}", *local, *sets, engine=engine, **more)


def _fault(base: str, **faults: str) -> Case:
    """Return a case with a fault for each name."""
    sets = [f"faults.{n}.kind={v.split()[0]}" for n, v in faults.items()]
    sets += [f"faults.{n}.{setting}" for n, v in faults.items() for setting in v.split()[1:]]
    return _case(base, "local.clip_norm=1.0", *sets)


ALGORITHMS = ("fedavg", "fedsgd", "fedavgm", "fedprox", "fedadam", "fedyogi", "fedadagrad", "scaffold", "fednova",
              "feddyn", "reptile", "fomaml")  # fmt: skip
OPTIMIZERS = ("gd", "sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "adagrad")
CITY = ("traffic", "meters", "air", "bridge", "intrusion", "activity")
BUILTINS = (
    "digits-label-skew", "digits-iid", "digits-diverges", "digits-overfits", "digits-noisy-sensors",
    "synthetic-stragglers", "city-traffic-outages", "city-traffic-roadworks",
    "city-congestion-unreported", "city-congestion-balanced", "city-meters-bursts", "city-meters-watts-clipped",
    "city-air-clocks", "city-air-calibration", "city-bridge-noise", "city-intrusion-campaign",
    "city-intrusion-normalised", "city-activity-labels", "city-activity-clipped-normalised",
)  # fmt: skip
BUILT_IN = ("evaluation.federated_clients=10", "evaluation.federated_every=2", "convergence.stop=never")
_SENSOR_FAULTS = (
    ("stuck_at severity=0.7 steps=4", "spikes severity=0.8", "bias clients=0.5"),
    ("calibration_drift severity=1.0 steps=60", "noise snr_db=6.0", "unit_mixup severity=0.5 clients=0.5"),
    ("saturation severity=0.9", "quantisation severity=0.8", "missing fill='mean'"),
    ("missing_bursts severity=0.9 fill='interpolate'", "clock_skew steps=3.0 direction='either'", "duplicated"),
    ("reordered severity=0.7", "gateway_outage severity=1.0 share=0.4 fill='zero'", "missing severity=0.3"),
)
_OF_EXAMPLES = [
    {n: v for n, v in zip("abc", faults, strict=True) if "unit_mixup" not in v} for faults in _SENSOR_FAULTS
]
"""The same without `unit_mixup`, which needs a channel with another unit."""
_ROUNDS = "schedule={unit='rounds',start=2,stop=3}"
_HOURS = "schedule={unit='hours',start=48.0,stop=150.0}"

CASES: dict[str, Case] = {
    **{f"algorithm-{kind}": _algorithm(kind) for kind in ALGORITHMS},
    "algorithm-scaffold-option-1": _algorithm("scaffold", "algorithm.option=1"),
    "algorithm-fednova-prox-momentum": _algorithm("fednova", "algorithm.mu=0.1", "local.optimizer=momentum"),
    **{f"plain-{kind}": _algorithm(kind, engine=PLAIN) for kind in ("fedavg", "scaffold", "fednova")},
    "plain-cnn-batchnorm": _case(
        "digits", "data.flat=false", "model={kind='small_cnn',norm='batch'}", "local.optimizer=adam", engine=PLAIN
    ),
    **{f"tiles-{kind}": _algorithm(kind, *TILES) for kind in ("fedavg", "scaffold", "fednova", "feddyn")},
    "whole-cohort": _case("digits", "engine.tile=8"),
    "float64": _case("digits", "run.dtype=float64"),
    "everyone": _case("digits", "algorithm.cohort="),
    "partial-work": _algorithm("fedprox", "local.partial_work=0.7", "local.local_epochs=4"),
    "partial-work-fednova": _algorithm("fednova", "local.partial_work=0.7", "local.local_epochs=4"),
    "partial-work-dropped": _algorithm(
        "scaffold", "local.partial_work=0.5", "local.local_epochs=3", "algorithm.partial_work=drop"
    ),
    "sampling-by-examples": _case(
        "digits",
        "partition={kind='quantity',clients=8}",
        "algorithm.sampling=by_examples",
        "algorithm.weighting=uniform",
    ),
    "weighting-uniform": _case("digits", "partition={kind='quantity',clients=8}", "algorithm.weighting=uniform"),
    "weighting-unbiased": _case("digits", "partition={kind='quantity',clients=8}", "algorithm.weighting=unbiased"),
    "server-lr": _case("digits", "algorithm.server_lr=0.7"),
    **{
        f"buffers-{kind}": _case(
            "digits", "model.norm=batch", f"local.buffers={kind}", "local.drop_last=true", "partition.min_size=20"
        )
        for kind in ("average", "local", "server")
    },
    **{f"optimizer-{kind}": _case("digits", f"local.optimizer={kind}", "local.local_lr=0.02") for kind in OPTIMIZERS},
    **{
        f"optimizer-{kind}": _case(
            "digits",
            f"local.optimizer={kind}",
            "model={kind='softmax'}",
            "local.l2=0.01",
            "local.batch_size=full",
            "local.local_lr=1",
        )
        for kind in ("newton", "lbfgs")
    },
    "optimizer-adamw-decay": _case(
        "digits", "local.optimizer=adamw", "local.decoupled_weight_decay=0.1", "local.local_lr=0.01"
    ),
    **{
        f"schedule-{words.split(chr(39))[1]}": _case("digits", f"local.schedule={{{words}}}", "run.rounds=5")
        for words in (
            "kind='step',every=2,factor=0.5",
            "kind='cosine',rounds=5,floor=0.1",
            "kind='inverse_time',decay=0.5",
            "kind='constant',warmup_rounds=2",
        )
    },
    "clip-norm": _case("digits", "local.clip_norm=0.5"),
    "clip-value": _case("digits", "local.clip_value=0.01"),
    "gradient-noise": _case("digits", "local.gradient_noise=0.01"),
    "l1-l2": _case("digits", "local.l1=0.001", "local.l2=0.01"),
    "dropout": _case("digits", "model.dropout=0.3"),
    "augment": _case("digits", "local.augment={scaling=0.1,jitter=0.05,mixup=0.4}"),
    "augment-windows": _case(
        "activity", "model={kind='cnn1d',channels=[4,8]}", "local.augment={time_shift=4,scaling=0.1}"
    ),
    "class-balanced": _case("digits", "local.sampling=class_balanced", "data.long_tail=8.0"),
    "focal": _case("digits", "local.focal_gamma=2.0"),
    "class-weights-inverse": _case("digits", "local.class_weights=inverse", "local.weights_from=federation"),
    "class-weights-effective": _case("digits", "local.class_weights=effective", "local.effective_beta=0.9"),
    "steps-per-client": _case("digits", "local.local_epochs=", "local.local_steps=[1,2,3,4,5,6,7,8]"),
    "baselines": _case("digits", "evaluation.baselines=true"),
    "criteria": _case(
        "digits",
        "convergence={stop='any',min_rounds=5,plateau={patience=2,min_delta=0.5},agreement={},settled={}}",
        "evaluation.gradient_every=1",
        "run.rounds=9",
    ),
    "diverges": _case("digits", "local.local_lr=1e15"),
    "error-free": _case("digits", "convergence={stop='never',error_free={hold=1}}"),
    "target-and-rate": _case(
        "quadratic",
        "convergence={stop='never',target={metric='optimality_gap',at_most=0.01}}",
        "data.noise=0.0",
        "run.rounds=30",
        "run.dtype=float64",
    ),
    "rate": _case("quadratic", "run.rounds=30", "run.dtype=float64"),
    "quadratic-linear-and-real-weights": _case(
        "quadratic",
        "data={kind='quadratic',curvatures=[1.0,[1.0,3.0]],linear=[0.5,[0.1,0.2]],weights=[0.3,0.7]}",
        "model.start=[3.0,-3.0]",
        "algorithm.cohort=",
        "run.dtype=float64",
    ),
    # Sources of data.
    **{f"data-{name}": _case(name) for name in ("synthetic", "quadratic", *CITY, "wide", "long", "labelled")},
    "data-synthetic-lognormal": _case("synthetic", "data.sizes=lognormal", "data.clients=6"),
    "data-congestion": _case("traffic", "data.task=congestion"),
    "data-peak-hour": _case("meters", "data.task=peak_hour", "data.stride=24"),
    "data-reconstruct": _case("bridge", "data.task=reconstruct"),
    "data-attack": _case("intrusion", "data.task=attack"),
    "data-held-out": _case("digits", "data.client_test_fraction=0.2", "data.rare_classes=[3]"),
    "data-images-2nn": _case("images", engine=PLAIN),
    "data-custom": _case("python", parts="custom"),
    "data-custom-plain": _case("python", engine=PLAIN, parts="custom"),
    "data-arrays": _case("python", "partition={kind='dirichlet',clients=6,concentration=0.5}", parts="arrays"),
    "data-arrays-natural": _case("python", "partition={kind='natural',key='house'}", parts="arrays"),
    "data-images-channels": _case("images", "data.flat=false", "data.layout=HW", "model={kind='small_cnn'}"),
    **{f"builtin-{name}": _case(name, "run.rounds=2") for name in ("points-xor", "churn", "reviews-transformer")},
    # Models.
    "model-softmax": _case("digits", "model={kind='softmax'}"),
    "model-softmax-xavier": _case("digits", "model={kind='softmax',initialisation='xavier'}"),
    "model-linear": _case("traffic", "model={kind='linear'}"),
    "model-mlp-deep": _case(
        "digits", "model={kind='mlp',hidden=[8,8],activation='tanh',initialisation='torch',norm='group'}"
    ),
    "model-cnn": _case(
        "images",
        "data.flat=false",
        "model={kind='cnn'}",
        "local.local_epochs=",
        "local.local_steps=1",
        "algorithm.cohort=2",
        "run.rounds=2",
        "evaluation.federated_clients=2",
        engine=PLAIN,
    ),
    "model-small-cnn": _case("digits", "data.flat=false", "model={kind='small_cnn',channels=[4,4]}"),
    "model-cnn1d": _case("activity", "model={kind='cnn1d',channels=[4,8]}"),
    "model-logistic": _case("digits", "model={kind='logistic'}"),
    "model-svm": _case("digits", "model={kind='svm',squared=true}", "local.l2=0.01"),
    "model-perceptron": _case("digits", "model={kind='perceptron'}", "convergence={stop='never',error_free={}}"),
    "model-rbf": _case("digits", "model={kind='rbf',centres=9,width=4.0,trained='all'}"),
    "model-autoencoder": _case("bridge", "data.task=reconstruct", "model={kind='autoencoder',hidden=[6],code=3}"),
    "model-lstm": _case("air", "model={kind='lstm',hidden=4}"),
    "model-transformer": _case("air", "model={kind='transformer',width=4,heads=2,feed_forward=5}"),
    "model-gan": _case(
        "digits", "data.task=generate", "model={kind='gan',hidden=[6],latent=3}", "convergence.stop=never"
    ),
    "data-rotated": _case("digits", "data.rotation=90.0"),
    "loss-hinge": _case("digits", "local.loss=hinge", "local.class_weights=inverse"),
    "model-gru": _case("air", "model={kind='gru',hidden=4}", engine=PLAIN),
    # Kernels and worker processes: a tree without them computes the same with torch, in one process.
    **{
        f"kernel-gru-{kind}": _case(
            "air", "model={kind='gru',hidden=4}", f"local.optimizer={kind}", "local.local_lr=0.02"
        )
        for kind in ("sgd", "adam")
    },
    "workers": _case("digits", "engine.workers=2"),
    "workers-sums": _algorithm("scaffold", *TILES, "engine.workers=2"),
    "workers-baselines": _case("traffic", "engine.workers=2", "evaluation.baselines=true"),
    # Partitions.
    **{
        f"partition-{name}": _case("digits", f"partition={{{words}}}")
        for name, words in {
            "iid": "kind='iid',clients=8",
            "shards": "kind='shards',clients=8",
            "lognormal": "kind='quantity',clients=8,sigma=0.8",
            "power": "kind='quantity',clients=8,law='power',min_size=5",
            "similarity": "kind='similarity',clients=8,similarity=0.4",
            "uniform": "kind='dirichlet',clients=8,concentration=0.5,convention='uniform'",
            "over-clients": "kind='dirichlet',clients=8,concentration=0.5,convention='over_clients'",
            "feature-shift": "kind='requested',clients=8,feature_shift=0.1,tolerance=0.05",
            "requested": "kind='requested',clients=8,label_js=0.3,quantity_gini=0.3",
        }.items()
    },
    "partition-natural": _case(
        "images", "partition={kind='natural',key='site'}", "model={kind='mlp',hidden=[4]}", "algorithm.cohort=3"
    ),
    # Faults, drift, features.
    **{f"faults-series-{i}": _fault("traffic", a=a, b=b, c=c) for i, (a, b, c) in enumerate(_SENSOR_FAULTS)},
    **{f"faults-examples-{i}": _fault("digits", **faults) for i, faults in enumerate(_OF_EXAMPLES)},
    "faults-windows": _fault("activity", a="saturation severity=1.0", b="stuck_at severity=0.6"),
    "faults-packets": _fault("intrusion", a="missing severity=0.8", b="gateway_outage severity=1.0"),
    "faults-named": _fault("digits", a="noise severity=1.0 clients=['1','6']", b="label_symmetric clients=['0']"),
    "faults-table": _fault("wide", a="noise severity=1.0", b="missing_bursts severity=0.5"),
    "faults-rounds": _fault("air", a=f"noise severity=1.0 {_ROUNDS}", b="bias severity=0.5 clients=0.4"),
    "faults-hours": _fault("meters", a=f"spikes severity=1.0 {_HOURS}", b="unit_mixup severity=1.0 clients=0.5"),
    "faults-labels": _fault("digits", a="label_symmetric severity=0.5", b=f"label_pair_flip {_ROUNDS}"),
    "faults-labels-classes": _fault(
        "bridge", a="label_class_dependent severity=1.0 rates=[0.0,0.5]", b="label_concentrated clients=0.4"
    ),
    **{
        f"drift-{kind}-{base}": _case(
            base,
            f"drifts.turn={{kind='{kind}',changes='{changes}',start=1.0,duration=3.0,period=1.0,strength=0.8}}",
            "run.rounds=4",
        )
        for base, kind, changes in (
            ("digits", "abrupt", "p(y|x)"),
            ("digits", "gradual", "p(x)"),
            ("digits", "incremental", "p(y)"),
            ("digits", "recurring", "p(y|x)"),
            ("traffic", "abrupt", "p(y|x)"),
            ("air", "gradual", "p(y)"),
            ("intrusion", "incremental", "p(x)"),
        )
    },
    "drift-hours-with-fault": _case(
        "traffic",
        "drifts.turn={unit='hours',start=100.0,stagger=50.0,clients=0.6,changes='p(y|x)'}",
        "drifts.turn.kind=abrupt",
        "faults.a.kind=noise",
    ),
    **{f"normalise-{how}": _case("intrusion", f"features.normalise={how}") for how in ("federated", "client")},
    "select-variance": _case("intrusion", "features={select='variance',keep=5}"),
    "select-information": _case("intrusion", "features={select='mutual_information',keep=5,normalise='federated'}"),
    # Parts of Flower's.
    "flower-fedavg": _case("digits", parts="flower_fedavg"),
    "flower-fedadam": _case("digits", parts="flower_fedadam"),
    "flower-krum": _case("digits", parts="flower_krum"),
    "flower-trimmed-mean": _case("digits", parts="flower_trimmed_mean"),
    "flower-wrapper": _case("digits", parts="flower_clipping"),
    "flower-client-app": Case(
        "python", ("engine.threads=1", "engine.workers=1", "evaluation.gradient_every=0"), parts="client_app"
    ),
    # Stopping and resuming.
    "resume-fedavg": _case("digits", "run.rounds=6", cuts=(2, 2)),
    "resume-scaffold": _algorithm("scaffold", "run.rounds=5", cuts=(2,)),
    "resume-fedadam": _algorithm("fedadam", "run.rounds=5", cuts=(3,)),
    "resume-buffers": _case(
        "digits",
        "model.norm=batch",
        "local.buffers=local",
        "local.drop_last=true",
        "partition.min_size=20",
        "run.rounds=5",
        cuts=(2,),
    ),
    "resume-custom": _case("python", "run.rounds=5", parts="custom", cuts=(2,)),
    # Shortened built-in scenarios: their text is compared too.
    **{f"builtin-{name}": _case(name, "run.rounds=2", "algorithm.cohort=4", *BUILT_IN) for name in BUILTINS},
    "builtin-quadratic-scaffold": _case("quadratic-scaffold", "run.rounds=5"),
    # Descriptions of data, as by `fedscape data`.
    **{f"describe-{base}": _case(base, describe=True) for base in ("digits", "intrusion", "air")},
}
