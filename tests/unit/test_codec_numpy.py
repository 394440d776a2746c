"""NumPy scalars and arrays of every dtype and shape keep dtype, shape and values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rushlight._codec import Codec
from rushlight._trust import Trust
from rushlight.errors import EncodeError, SecretRequired

plain = Codec()
trusting = Codec(Trust(b"a secret of the tests", "net"))

dtypes = st.one_of(
    hnp.scalar_dtypes(),
    hnp.scalar_dtypes(),
    hnp.array_dtypes(allow_subarrays=True),
    st.sampled_from(["g", "G", ">f8", ">i4", ">U3", ">M8[s]", "M8[25s]", "m8", "M8", "S3"]).map(np.dtype),
)


def there_and_back(value: Any, codec: Codec = plain) -> Any:
    """The value, encoded and decoded."""
    return codec.decode(codec.encode(value, "xs"))


def same(left: Any, right: Any) -> bool:
    """Equal type, dtype, shape and items, byte for byte where the items are bytes."""
    if type(left) is not type(right) or left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype.fields is not None:
        return all(same(np.asarray(left[name]), np.asarray(right[name])) for name in left.dtype.names)
    if left.dtype.kind in "gG" or left.dtype.char in "gG":
        return bool(np.array_equal(left, right, equal_nan=True))
    return bool(left.tobytes() == right.tobytes())


@given(dtypes.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=3))))
def test_arrays_come_back(array: np.ndarray[Any, Any]) -> None:
    """Any dtype and shape, empty and 0-d ones too, is an ordinary writable array again."""
    if array.dtype.itemsize == 0:
        return
    back = there_and_back(array)
    assert same(back, array)
    assert back.flags.writeable and back.flags.owndata and back.flags.c_contiguous


@given(dtypes.flatmap(lambda dtype: hnp.arrays(dtype, ())))
def test_scalars_come_back(array: np.ndarray[Any, Any]) -> None:
    """A scalar of any dtype keeps its type: a NumPy float is not turned into a Python one."""
    if array.dtype.itemsize == 0:
        return
    scalar = array[()]
    back = there_and_back({"x": scalar})["x"]
    assert same(back, scalar)
    assert same(there_and_back((scalar,))[0], scalar)


@pytest.mark.parametrize(
    "scalar",
    [
        np.float64(0.1),
        np.float16(1),
        np.bool_(True),
        np.str_("a\0"),
        np.bytes_(b"a\0"),
        np.str_(""),
        np.datetime64("NaT"),
        np.datetime64("2024-01-01T00:00:00.123456789"),
        np.timedelta64(3, "h"),
        np.complex64(1j),
        np.longdouble("0.1"),
        np.void(b"abc"),
        np.uint64(2**64 - 1),
    ],
    ids=repr,
)
def test_scalars_that_look_like_python_ones(scalar: Any) -> None:
    """Scalars that are subclasses of float, str or bytes do not slip through as those."""
    for back in (there_and_back(scalar), plain.decode(plain.encode_fields({"x": scalar}, "xs", {}))["x"]):
        assert type(back) is type(scalar) and back.dtype == scalar.dtype
        assert repr(back) == repr(scalar)


def test_views_of_any_order_keep_their_values() -> None:
    """Fortran order, strides, broadcasts and big contiguous arrays are all written in C order."""
    base = np.arange(60000.0).reshape(200, 300)
    for view in (base, base.T, base[::2, ::-3], np.asfortranarray(base), np.broadcast_to(base[0], (5, 300))):
        assert np.array_equal(there_and_back(view), view)
    dates = np.arange(20000).astype("M8[s]")
    assert np.array_equal(there_and_back(dates), dates)


def test_structured_layouts_are_kept() -> None:
    """Padding, offsets, titles, nesting and sub-arrays of a record dtype survive."""
    for dtype in (
        np.dtype([("a", "u1"), ("b", "f8")], align=True),
        np.dtype({"names": ["x", "y"], "formats": ["<i2", ">f4"], "offsets": [6, 0], "itemsize": 12}),
        np.dtype([(("title", "a"), "i4"), ("n", [("p", "M8[ms]"), ("q", "S3", (2, 2))])]),
    ):
        array = np.zeros(4, dtype)
        back = there_and_back(array)
        assert back.dtype == dtype and back.dtype.itemsize == dtype.itemsize
        assert back.dtype.fields == dtype.fields
        assert np.array_equal(back, array)
        assert type(there_and_back(array[0])) is np.void


def test_string_arrays_of_any_length() -> None:
    """NumPy's variable-width strings are kept as such."""
    array = np.array([["a", "long" * 20], ["", "é\0"]], np.dtypes.StringDType())
    back = there_and_back(array)
    assert back.dtype == array.dtype and back.shape == (2, 2) and (back == array).all()


def test_object_arrays_of_data_need_no_secret() -> None:
    """Their elements are written one by one, so data stays data."""
    array = np.empty((2, 2), object)
    array[0, 0], array[0, 1], array[1, 0], array[1, 1] = "a", (1, 2), None, np.arange(3)
    back = there_and_back(array)
    assert back.shape == (2, 2) and back.dtype == object
    assert back[0, 1] == (1, 2) and back[1, 0] is None and np.array_equal(back[1, 1], [0, 1, 2])


def test_objects_in_an_array_are_named_by_their_place() -> None:
    """An element that needs a pickle, or cannot have one, is pointed at."""
    array = np.array([1, object()], object)
    with pytest.raises(SecretRequired, match=r'xs\["a"\]\.flat\[1\]'):
        plain.encode_fields({"a": array}, "xs", {})
    array[1] = (item for item in "ab")
    with pytest.raises(EncodeError, match=r'xs\["a"\]\.flat\[1\]'):
        trusting.encode_fields({"a": array}, "xs", {})


def test_an_array_in_itself_is_refused() -> None:
    """An object array that contains itself is an EncodeError, not a crash."""
    array = np.empty(1, object)
    array[0] = array
    with pytest.raises(EncodeError, match="contains itself"):
        plain.encode(array, "xs")


def test_what_has_no_form_of_its_own_is_pickled() -> None:
    """Masked arrays, matrices, generators and dtypes without a size come back through a pickle."""
    masked = np.ma.masked_array([1, 2], mask=[True, False])
    back = there_and_back(masked, trusting)
    assert type(back) is np.ma.MaskedArray and back.mask.tolist() == [True, False]
    generator = there_and_back(np.random.default_rng(3), trusting)
    assert generator.random() == np.random.default_rng(3).random()
    for odd in (np.zeros(3, np.dtype([])), np.zeros(2, [("a", "O")])):
        assert there_and_back(odd, trusting).dtype == odd.dtype
        with pytest.raises(SecretRequired):
            plain.encode(odd, "xs")


def test_an_array_does_not_share_memory_with_the_buffer() -> None:
    """Writing to the decoded array, or to the buffer, changes nothing else."""
    buffer = bytearray(plain.encode(np.arange(100000), "xs"))
    array = plain.decode(buffer)  # type: ignore[arg-type]
    buffer[:] = bytes(len(buffer))
    assert np.array_equal(array, np.arange(100000))
    array += 1


def test_scalar_types_of_one_kind_do_not_mix() -> None:
    """What is remembered of one scalar type is not used for another."""
    values = {kind: np.dtype(kind).type(1) for kind in "?bBhHiIlLqQefdgFDG"}
    for _ in range(2):
        back = there_and_back(values)
        assert {kind: type(value) for kind, value in back.items()} == {
            kind: np.dtype(np.dtype(kind).str).type for kind in values
        }
