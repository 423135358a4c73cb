"""The remote-write body, read back by a decoder that shares nothing with the encoder."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from receivers import STALE, decoded, unsnappy

from server.metrics.run_stream import Moment
from server.metrics.samples import Sample
from server.sinks.write_request import RequestEncoder, snappy

SHARED = (("run_id", "a"), ("clock", "round"))
WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


def body_of(
    moments: list[Moment], labels: tuple[tuple[str, str], ...] = (("run_id", "a"), ("clock", "round"))
) -> bytes:
    encoder = RequestEncoder(labels)
    return encoder.body(encoder.split(moments).items())


def test_a_body_has_sorted_labels_and_every_sample_in_order() -> None:
    sample = Sample("fedscape_loss", (("split", "train"),), 0.5)
    found = decoded(body_of([Moment(1000, [sample]), Moment(2000, [sample._replace(value=0.25)])]))
    labels = (("__name__", "fedscape_loss"), ("clock", "round"), ("run_id", "a"), ("split", "train"))
    assert found == [(labels, [(1000, struct.pack("<d", 0.5)), (2000, struct.pack("<d", 0.25))])]


@given(
    st.lists(st.tuples(WORDS, st.floats(), st.integers(0, 2**48)), min_size=1, max_size=20, unique_by=lambda x: x[0]),
    WORDS,
)
def test_any_label_number_and_time_survives(points: list[tuple[str, float, int]], run: str) -> None:
    moments = [Moment(at, [Sample("m", (("layer", word),), value)]) for word, value, at in points]
    found = decoded(body_of(moments, (("run_id", run),)))
    expected = [
        ((("__name__", "m"), ("layer", word), ("run_id", run)), [(at, struct.pack("<d", value))])
        for word, value, at in points
    ]
    assert found == expected


def test_an_end_is_the_stale_marker_and_a_nan_is_not() -> None:
    moments = [Moment(1, [Sample("a", (), float("nan"))]), Moment(2, (), [("a", ())])]
    ((_, points),) = decoded(body_of(moments))
    assert [raw == STALE for _, raw in points] == [False, True]
    assert struct.unpack("<d", points[0][1])[0] != struct.unpack("<d", points[0][1])[0]


def test_an_empty_label_is_left_out() -> None:
    ((labels, _),) = decoded(body_of([Moment(1, [Sample("m_info", (("tile", ""), ("engine", "plain")), 1.0)])]))
    assert dict(labels) == {"__name__": "m_info", "engine": "plain", "run_id": "a", "clock": "round"}


@pytest.mark.parametrize("sample", [Sample("1bad", (), 1.0), Sample("a-b", (), 1.0), Sample("a", (("x:y", "z"),), 1.0)])
def test_a_name_that_prometheus_does_not_allow_is_not_sent(sample: Sample) -> None:
    with pytest.raises(ValueError, match="does not allow"):
        body_of([Moment(1, [sample])])


@given(st.binary(max_size=300_000))
def test_snappy_blocks_hold_what_went_in(data: bytes) -> None:
    assert unsnappy(snappy(data)) == data


def test_long_blocks_are_made_of_short_literals() -> None:
    data = bytes(range(256)) * 1000
    assert unsnappy(snappy(data)) == data
    assert len(snappy(data)) < len(data) + 20
