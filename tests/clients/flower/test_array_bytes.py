"""Arrays from other machines: any bytes give the numbers that NumPy wrote, or a ValueError, and run nothing."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array
from hostile_nodes import bare_pickle, pickled_array, stated, zipped_array
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from clients.flower.array_bytes import number_bytes, numbers_of

TYPES = st.sampled_from(["<f2", "<f4", "<f8", "<i4", "<i8", "|u1", "|b1"])


@given(of_numpy.arrays(TYPES, of_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)), st.booleans())
def test_numbers_are_those_that_numpy_wrote(values: np.ndarray, is_fortran: bool) -> None:
    values = np.asfortranarray(values) if is_fortran else values
    array = Array(values)
    found = numbers_of(array, "w", values.shape)
    np.testing.assert_array_equal(found, values)
    assert found.dtype == values.dtype
    assert found.flags.writeable
    assert number_bytes(array) == values.nbytes


@given(st.binary(max_size=300))
def test_other_bytes_are_refused(data: bytes) -> None:
    for bytes_ in (data, b"\x93NUMPY\x01\x00" + data, b"PK\x03\x04" + data):
        array = Array("float32", (2,), "numpy.ndarray", bytes_)
        with pytest.raises(ValueError, match="array 'w'"):
            numbers_of(array, "w")
        assert 0 <= number_bytes(array) <= len(bytes_)


@given(st.data())
def test_changed_byte_gives_numbers_of_the_shape_or_is_refused(data: st.DataObject) -> None:
    whole = bytearray(Array(np.arange(6, dtype=np.float32)).data)
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] = data.draw(st.integers(0, 255))
    try:
        found = numbers_of(Array("float32", (6,), "numpy.ndarray", bytes(whole)), "w", (6,))
    except ValueError:
        return
    assert found.shape == (6,)


@pytest.mark.parametrize("make", [pickled_array, bare_pickle, zipped_array])
def test_pickle_is_refused_and_not_executed(make: object, tmp_path: Path) -> None:
    array = make(tmp_path / "executed")  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"array 'w' (is not in NumPy's format|has no header of plain numbers)"):
        numbers_of(array, "w")
    assert not (tmp_path / "executed").exists()


def test_pickle_of_the_test_does_execute_where_it_is_loaded(tmp_path: Path) -> None:
    np.load(io.BytesIO(pickled_array(tmp_path / "executed").data), allow_pickle=True)
    assert (tmp_path / "executed").exists(), "else the test above proves nothing"


@pytest.mark.parametrize(
    "data",
    [stated((10**12,)), stated((10**12, 0), b"1"), stated((2,), b"1234"), stated((2,), b"123456789"),
     stated((2,), b"12345678", ">f4"), stated((2,), b"", "|O"), stated((1,) * 200, b"1234"),
     stated((2,), b"", "<f3"), b"", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x01\x00\xff\xff"],
)  # fmt: skip
def test_header_that_does_not_fit_its_bytes_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"array 'w'|dim"):
        numbers_of(Array("float32", (2,), "numpy.ndarray", data), "w")
