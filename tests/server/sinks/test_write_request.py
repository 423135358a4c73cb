"""The remote-write body, read back by a decoder that shares no code with the encoder."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from receivers import STALE, decoded, unsnappy

from server.metrics.run_stream import Moment
from server.metrics.samples import Sample
from server.sinks.write_request import RequestEncoder

SHARED = (("run_id", "a"), ("clock", "round"))
WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


def body_of(
    moments: list[Moment], labels: tuple[tuple[str, str], ...] = (("run_id", "a"), ("clock", "round"))
) -> bytes:
    return RequestEncoder(labels).body(moments)


def test_body_has_sorted_labels_and_every_sample_in_order() -> None:
    sample = Sample("fedscape_loss", (("split", "train"),), 0.5)
    found = decoded(body_of([Moment(1000, [sample]), Moment(2000, [sample._replace(value=0.25)])]))
    labels = (("__name__", "fedscape_loss"), ("clock", "round"), ("run_id", "a"), ("split", "train"))
    assert found == [(labels, [(1000, struct.pack("<d", 0.5)), (2000, struct.pack("<d", 0.25))])]


@given(
    st.lists(st.tuples(WORDS, st.floats(), st.integers(0, 2**48)), min_size=1, max_size=20, unique_by=lambda x: x[0]),
    WORDS,
)
def test_body_keeps_any_label_number_and_time(points: list[tuple[str, float, int]], run: str) -> None:
    moments = [Moment(at, [Sample("m", (("layer", word),), value)]) for word, value, at in points]
    found = decoded(body_of(moments, (("run_id", run),)))
    expected = [
        ((("__name__", "m"), ("layer", word), ("run_id", run)), [(at, struct.pack("<d", value))])
        for word, value, at in points
    ]
    assert found == expected


def test_stale_marker_differs_from_nan() -> None:
    moments = [Moment(1, [Sample("a", (), float("nan"))]), Moment(2, (), [("a", ())])]
    ((_, points),) = decoded(body_of(moments))
    assert [raw == STALE for _, raw in points] == [False, True]
    assert struct.unpack("<d", points[0][1])[0] != struct.unpack("<d", points[0][1])[0]


def test_body_omits_empty_labels() -> None:
    ((labels, _),) = decoded(body_of([Moment(1, [Sample("m_info", (("tile", ""), ("engine", "plain")), 1.0)])]))
    assert dict(labels) == {"__name__": "m_info", "engine": "plain", "run_id": "a", "clock": "round"}


@pytest.mark.parametrize("sample", [Sample("1bad", (), 1.0), Sample("a-b", (), 1.0), Sample("a", (("x:y", "z"),), 1.0)])
def test_encoder_refuses_names_that_prometheus_does_not_allow(sample: Sample) -> None:
    with pytest.raises(ValueError, match="does not allow"):
        body_of([Moment(1, [sample])])


def test_moments_without_samples_make_no_body() -> None:
    assert body_of([]) == b""
    assert body_of([Moment(1, ()), Moment(2, ())]) == b""


def test_characters_that_utf_8_lacks_become_question_marks() -> None:
    ((labels, _),) = decoded(body_of([Moment(1, [Sample("a", (("layer", "x\ud800"),), 1.0)])]))
    assert dict(labels)["layer"] == "x?"


def test_encoder_repeats_labels_in_every_request() -> None:
    encoder = RequestEncoder(SHARED)
    bodies = [encoder.body([Moment(at, [Sample("a", (("x", "y"),), 0.0)])]) for at in (0, 1)]
    (first, second) = (decoded(body) for body in bodies)
    assert first[0][0] == second[0][0] == (("__name__", "a"), ("clock", "round"), ("run_id", "a"), ("x", "y"))
    assert [first[0][1], second[0][1]] == [[(0, bytes(8))], [(1, bytes(8))]]


def test_long_request_is_compressed_and_complete() -> None:
    samples = [Sample("a", (("client", str(k)),), k / 7) for k in range(300)]
    moments = [Moment(at, samples) for at in range(50)]
    body = body_of(moments)
    assert len(body) < len(unsnappy(body)) / 2
    expected = [[(at, struct.pack("<d", k / 7)) for at in range(50)] for k in range(300)]
    assert [points for _, points in decoded(body)] == expected
