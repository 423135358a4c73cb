"""The layout of every JSON file in a run's folder: the keys that readers use, with their shapes.

Keys may be missing, and files of earlier versions lack some, so readers ask for a key before they use it. A test holds
that every key in the table of metrics is here, and that records with changed values never break a reader.
"""

from __future__ import annotations

from collections.abc import Mapping

from server.record.checked.shapes import (
    Shape,
    anything,
    either,
    flag,
    list_of,
    maybe,
    number,
    round_index,
    table,
    table_of,
    text,
    whole,
)

_NUMBERS = table_of(number)
_TABLES = table_of(table_of(number))


def _each(names: str, shape: Shape) -> dict[str, Shape]:
    return dict.fromkeys(names.split(), shape)


_RANKED = list_of(table({"name": either(number, text)}, {"client": whole, "value": number}))
_RATE = table(
    {},
    _each("factor low high limit limit_low limit_high exponent exponent_low exponent_high", number)
    | _each("metric no_trend family", text)
    | {"iterates": maybe(_NUMBERS)},
)
_LEFT = either(maybe(number), table({}, _each("estimate low high", maybe(number))))
_CRITERION = table(
    {},
    _each("value threshold distance held needed", number) | {"holds": flag, "first_held": maybe(number), "words": text},
)
_SPREAD = table(
    {},
    _each("score balanced_accuracy loss", _NUMBERS)
    | {"variance": number, "clients": whole, "evaluated_on": text, "worst": _RANKED},
)

LINE = table(
    {"round": round_index},
    _each(
        "local_steps train_errors train_loss validation_loss federated_loss "
        "validation_accuracy federated_accuracy validation_balanced_accuracy federated_balanced_accuracy "
        "validation_macro_f1 federated_macro_f1 validation_error federated_error validation_mae federated_mae "
        "objective test_loss test_accuracy test_balanced_accuracy test_macro_f1 test_error test_mae "
        "adapted_loss adapted_accuracy adapted_error adapted_mae "
        "validation_frechet_distance validation_sample_precision validation_sample_coverage validation_sample_classes "
        "test_frechet_distance test_sample_precision test_sample_coverage test_sample_classes "
        "optimality_gap distance_to_optimum agreement relative_change pseudo_gradient_norm aggregate_norm step_norm "
        "gradient_norm largest_gradient_norm update_dispersion gradient_diversity gradient_dissimilarity "
        "bytes_down bytes_up bytes_total simulated_seconds simulated_seconds_total wall_seconds clients_per_second "
        "finished_at objective_penalty",
        maybe(number),
    )
    | _each("cohort respondents failures rejected late_replies repeats", maybe(whole))
    | _each("client_drift cosine update_norm distance", maybe(_NUMBERS))
    | _each("by_layer faults concept_drift districts", maybe(_TABLES))
    | {
        "criteria": maybe(table_of(_CRITERION)),
        "client_spread": maybe(_SPREAD),
        "class_accuracy": maybe(list_of(maybe(number))),
        "histograms": maybe(table_of(table_of(whole))),
        "worst_client_drift": maybe(_RANKED),
        "worst": maybe(table_of(_RANKED)),
        "rate": maybe(_RATE),
        "rounds_to_go": _LEFT,
        "overfitting": either(number, text),
        "workers": maybe(
            table(
                {}, {"count": whole, "busy_seconds": list_of(number), "imbalance": number, "seconds_per_step": _NUMBERS}
            )
        ),
        "not_measured": maybe(text),
        "state_hash": maybe(text),
        "inherited": flag,
    },
)
"""A line of rounds.jsonl."""

CERTIFICATE = table({"round": round_index, "state_hash": text, "tensors": table_of(text)}, {"updates": table_of(text)})
"""A line of certificate.jsonl."""

EVENT = table({}, {"round": maybe(round_index), "kind": text, "message": text, "name": maybe(text)})
"""A line of events.jsonl."""

_PERSISTENCE = table({}, _each("error error_in_unit", number) | {"not_measured": text})
_FORECAST = table(
    {},
    _each("error error_in_unit ratio", maybe(number))
    | _each("scaled_by unit quantity", maybe(text))
    | {"persistence": maybe(_PERSISTENCE)},
)
OUTCOME = table(
    {},
    {"round": round_index}
    | _each("outcome headline words reason", text)
    | _each("quantity hint record", maybe(text))
    | _each(
        "value threshold test_loss test_accuracy test_balanced_accuracy test_macro_f1 test_error test_mae "
        "test_imbalance test_frechet_distance test_sample_precision test_sample_coverage test_sample_classes "
        "optimality_gap distance_to_optimum bytes_total simulated_seconds_total",
        maybe(number),
    )
    | _each("reasons criteria", list_of(text))
    | {
        "last_finite_round": round_index,
        "condition": maybe(
            table({"kind": text, "round": round_index, "words": text}, {"numbers": _NUMBERS, "subkind": text})
        ),
        "signs": list_of(table({"name": text, "says": text, "number": maybe(number), "words": text})),
        "best_model": maybe(table({"round": round_index, "metric": text, "value": number})),
        "test_class_accuracy": maybe(list_of(maybe(number))),
        "rate": maybe(_RATE),
        "rounds_to_go": _LEFT,
        "baselines": maybe(_NUMBERS),
        "forecast": maybe(_FORECAST),
        "anomalies": maybe(_NUMBERS),
        "to_target": maybe(table({}, {"metric": text} | _each("value rounds bytes simulated_seconds", maybe(number)))),
        "drift": maybe(
            either(
                text,
                table({}, {"words": text, "worst_clients": list_of(either(number, text)),
                           "worst_rounds": list_of(number)}),
            )
        ),
        "client_spread": maybe(
            table({}, _each("worst variance lowest_tenth highest_tenth worst_balanced lowest_tenth_balanced", number)
                  | {"evaluated_on": text, "clients": whole})
        ),
        "seals": table_of(text),
    },
)  # fmt: skip
"""outcome.json."""

_PLAN = table(
    {"engine": text, "tile": maybe(whole), "compiled": flag, "reason": text},
    {
        "probes": _NUMBERS,
        "compile_seconds": number,
        "widths": list_of(whole),
        "length": whole,
        "threads": maybe(whole),
        "workers": whole,
        "native": flag,
    },
)
_BRANCH = table({}, {"parent": text, "round": round_index} | _each("sets notes", list_of(text)))
RUN = table(
    {},
    _each("label_emd label_js smallest_client median_client largest_client measured_on_clients", maybe(number))
    | _each("clients examples parameters rounds", whole)
    | _each("cohort seed", maybe(number))
    | _each("scenario title algorithm model engine engine_words engine_reason version data error run_id", maybe(text))
    | _each("notices scenario_notices from_python", maybe(list_of(text)))
    | {
        "engine_plan": maybe(_PLAN),
        "data_facts": maybe(table({})),
        "data_files": maybe(table({"digest": text}, {"path": text, "files": table_of(text)})),
        "foreseen_seconds": maybe(_NUMBERS),
        "certificate": maybe(table_of(text)),
        "branch": maybe(_BRANCH),
        "study": maybe(table({"name": text, "arm": text})),
    },
)
"""The facts of a run's start, in environment.json."""
ENVIRONMENT = table({}, {"run": maybe(RUN), "versions": maybe(table_of(maybe(text)))})
"""environment.json."""

PARTITION = table(
    {"clients": whole},
    _each("shown sizes size_percentiles", maybe(list_of(number)))
    | {"names": maybe(list_of(text)), "label_counts": maybe(list_of(list_of(number)))},
)
"""partition.json."""

_SERIES = maybe(list_of(maybe(number)))
FORECASTS = table(
    {"by_step": list_of(number)},
    _each("unit quantity origin left_out", maybe(text))
    | {
        "persistence_by_step": _SERIES,
        "step_hours": maybe(number),
        "jump": maybe(number),
        "lead": maybe(list_of(number, least=2)),
        "clients": maybe(
            list_of(
                table(
                    {"name": text, "windows": list_of(number, least=2), "error_in_unit": number,
                     "persistence_error_in_unit": number},
                    _each("steps hours truth forecast persistence", _SERIES) | {"rank": maybe(text)},
                )
            )
        ),
    },
)  # fmt: skip
"""forecasts.json."""

SAMPLES = table({"shape": list_of(whole, least=3), "images": list_of(list_of(number))}, {"classes": list_of(whole)})
"""samples.json."""

_ESTIMATE = table({"value": number, "error": number, "how": text})
_TRIAL = table({"name": text, "sets": list_of(text), "differences": list_of(number), "skipped": text},
               _each("mean error spread", number))  # fmt: skip
_CAUSES = _each("local_steps heterogeneity gradient_noise client_sampling", number)
_DRIFT_BY_CAUSE = table(
    {
        "causes": table(_CAUSES),
        "errors": table(_CAUSES | _each("residual total", number)),
        "clients": whole,
        "cohorts_drawn": whole,
    }
    | _each("residual total ideal_square observed observed_error", number)
)
_CURVATURE = table(
    {"values": list_of(number, least=1), "residuals": list_of(number, least=2), "products": whole, "is_whole": flag,
     "steepest_client": number, "examples": number, "rounding": number}
    | _each("largest smallest", _ESTIMATE)
)  # fmt: skip
_GRADIENTS = table(
    {"noise": _ESTIMATE, "averaged_noise": maybe(number), "sampled": maybe(number),
     "between": table({"gradient_square": number} | _each("between ratio", _ESTIMATE))}
)  # fmt: skip
_THEORY = table(
    {"local_lr": number, "floor": maybe(table(_each("low high", number)))}
    | _each("limit steepest_limit contraction", maybe(number))
    | _each("failures remarks", list_of(text)),
    _each("factors gap", maybe(table(_each("low high", number)))),
)
PROBE_VERSION = 1
"""The version of the layout of a probe."""
PROBE = table(
    {"version": whole, "round_index": round_index, "trials": list_of(_TRIAL), "reasons": list_of(text),
     "drift_by_cause": maybe(_DRIFT_BY_CAUSE), "curvature": maybe(_CURVATURE), "gradients": maybe(_GRADIENTS),
     "theory": maybe(_THEORY), "not_measured": table_of(text), "seconds": _NUMBERS}
    | _each("source measure", text)
    | _each("before own", number)
)  # fmt: skip
"""A probe in probes.json."""

_POINTS = table(
    {"x": list_of(number), "y": list_of(number)},
    {"names": list_of(text), "numbers": list_of(whole), "away": list_of(number), "loss": _SERIES},
)
SURFACE = table(
    {
        "plane": text,
        "of": text,
        "round": round_index,
        "x": list_of(number, least=2),
        "y": list_of(number, least=2),
        "loss": list_of(list_of(maybe(number), least=2), least=2),
        "server": _POINTS,
    },
    _each("share seconds", maybe(number))
    | _each("ends states", maybe(_POINTS))
    | {"start": maybe(list_of(number, least=2))}
    | {
        "line": maybe(
            table(
                {
                    "ends": list_of(text, least=2),
                    "t": list_of(number, least=2),
                    "loss": list_of(maybe(number), least=2),
                },
                _each("barrier distance", maybe(number)),
            )
        ),
        "curvature": list_of(
            table({"round": round_index, "values": list_of(number)}, {"errors": list_of(number), "smallest": number})
        ),
        "examples": list_of(whole, least=2),
        "program": text,
        "notes": list_of(text),
    },
)
"""surface.json."""

_CHANGE = table({"sets": table({}), "words": text})
EXPLANATION = table(
    {
        "findings": list_of(
            table(
                {"kind": text, "title": text, "strength": number, "evidence": list_of(text)},
                {
                    "change": maybe(_CHANGE),
                    "clients": list_of(text),
                    "because_of": text,
                    "round_index": maybe(round_index),
                },
            )
        )
    },
    {"strengths": _NUMBERS, "blind": list_of(text), "seconds": number, "share": maybe(number)},
)
"""explanation.json."""

_FILE = table({"name": text, "size": whole, "crc32": whole})
MANIFEST = table(
    {
        "round_index": round_index,
        "serial": whole,
        "facts": anything,
        "state": _FILE,
        "pieces": list_of(table({"file": _FILE, "rows": table_of(whole)})),
    }
)
"""A checkpoint's manifest."""

PART = table({"part": text, "rows": whole, "size": whole, "checksum": text})
"""A line of clients/_parts.jsonl."""

LAYOUTS: Mapping[str, Shape] = {
    "rounds.jsonl": LINE,
    "events.jsonl": EVENT,
    "certificate.jsonl": CERTIFICATE,
    "outcome.json": OUTCOME,
    "environment.json": ENVIRONMENT,
    "partition.json": PARTITION,
    "forecasts.json": FORECASTS,
    "samples.json": SAMPLES,
    "surface.json": SURFACE,
    "explanation.json": EXPLANATION,
    "federation.json": table({"nodes": whole}),
    "data_truth.json": table({}),
    "_parts.jsonl": PART,
    "probes.json": table({"probes": list_of(PROBE)}),
}
"""The layout of a file by its name; a file of another name may hold any table."""


def layout_of(name: str) -> Shape:
    """Return the layout of a file by its name."""
    return LAYOUTS.get(name, table({}))
