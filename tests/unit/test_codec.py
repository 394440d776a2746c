"""Values go to bytes and come back as they were, type and all; what cannot says where it sits."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushlight._codec import Codec, Spilled, register_type
from rushlight._trust import Trust
from rushlight.errors import (
    ConfigError,
    DataMissing,
    DecodeError,
    EncodeError,
    SecretRequired,
    SignatureMismatch,
)

plain = Codec()
trusting = Codec(Trust(b"a secret of the tests", "net"))


def same(left: Any, right: Any) -> bool:
    """Equal in type as well as in value, all the way down; NaN is the same as NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        signs_match = math.copysign(1, left) == math.copysign(1, right)
        return (left == right and signs_match) or (math.isnan(left) and math.isnan(right))
    if isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    if isinstance(left, Decimal):
        return str(left) == str(right)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return len(left) == len(right) and all(map(same, left.items(), right.items()))
    if isinstance(left, set | frozenset):
        return len(left) == len(right) and all(any(same(mine, other) for other in right) for mine in left)
    if isinstance(left, datetime | time):
        zones_match = type(left.tzinfo) is type(right.tzinfo) and str(left.tzinfo) == str(right.tzinfo)
        return bool(
            left.replace(tzinfo=None) == right.replace(tzinfo=None)
            and left.fold == right.fold
            and zones_match
        )
    return bool(left == right)


def there_and_back(value: Any, codec: Codec = plain) -> Any:
    """The value, encoded and decoded."""
    return codec.decode(codec.encode(value, "xs"))


zones = st.one_of(
    st.none(),
    st.just(UTC),
    st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23))),
    st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)), st.text(max_size=5)),
    st.sampled_from(["Europe/Berlin", "America/Argentina/Ushuaia", "UTC", "Etc/GMT+5"]).map(ZoneInfo),
)
hashable_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    st.text(st.characters(codec=None), max_size=8),
    st.binary(max_size=8),
    st.complex_numbers(allow_nan=True),
    st.datetimes(timezones=zones),
    st.dates(),
    st.times(timezones=zones),
    st.timedeltas(),
    st.decimals(),
    st.uuids(),
)
keys = st.recursive(
    hashable_scalars.filter(lambda value: not (type(value) is Decimal and value.is_snan())),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
data = st.recursive(
    hashable_scalars | st.binary(max_size=8).map(bytearray),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.dictionaries(st.text(max_size=4), inner, max_size=4),
        st.sets(keys, max_size=4),
        st.frozensets(keys, max_size=4),
    ),
    max_leaves=12,
)


@given(data)
def test_any_data_comes_back_as_it_was(value: Any) -> None:
    """Nested data of every type the contract lists keeps its types, its signs of zero and its NaNs."""
    assert same(there_and_back(value), value)


@given(st.dictionaries(st.text(max_size=5), data, max_size=6), st.integers(1, 60))
def test_fields_come_back_whatever_was_spilled(fields: dict[str, Any], spill_size: int) -> None:
    """A mapping of columns survives any spill size, with large values replaced by references."""
    codec = Codec(spill_size=spill_size)
    spilled: dict[str, bytes] = {}
    encoded = codec.encode_fields(fields, "xs", spilled)
    (row,), met = codec.decode_rows([encoded])
    assert list(row) == list(fields)
    for name, value in fields.items():
        if isinstance(row[name], Spilled):
            assert row[name] in met and row[name].size > spill_size
            assert same(codec.decode_spilled(row[name], spilled[row[name].digest]), value)
        else:
            assert same(row[name], value)
    assert {reference.digest for reference in met} == set(spilled)


@pytest.mark.parametrize(
    "value",
    [
        2**64,
        2**64 - 1,
        -(2**63) - 1,
        -(2**63),
        -(2**64),
        10**5000,
        "\ud800",
        {"\udfff": {"\ud800": 2**70}},
        -0.0,
        math.nan,
        Decimal("sNaN123"),
        Decimal("-0E-30"),
        Decimal("1E+999999"),
        datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
        time(2, 30, tzinfo=timezone(timedelta(hours=1), "MEZ"), fold=1),
        timedelta.min,
        timedelta.max,
        UUID(int=0),
        {1: "int", 1.5: "float", None: "none", b"b": "bytes", (1, (2,)): "tuple", frozenset({1}): "set"},
        {True: 1, 2: ()},
        (),
        set(),
        {},
        [[]],
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_awkward_values_come_back(value: Any) -> None:
    """Values at the edges of their type come back exactly, alone and inside fields."""
    assert same(there_and_back(value), value)
    assert same(plain.decode(plain.encode_fields({"x": value, "y": 1}, "xs", {})), {"x": value, "y": 1})


def test_one_value_is_one_element_of_plain_msgpack() -> None:
    """What msgpack has a form for is written in it, so that any msgpack reader can read simple tasks."""
    fields = {"x": 1.5, "n": [1, None, "a", {"b": True}]}
    assert msgspec.msgpack.decode(plain.encode_fields(fields, "xs", {})) == fields


def test_decoded_data_does_not_share_memory_with_the_buffer() -> None:
    """Changing the network buffer after decoding leaves the values alone."""
    buffer = bytearray(plain.encode({"b": b"abc", "a": bytearray(b"abc"), "s": "abc"}, "xs"))
    value = plain.decode(buffer)  # type: ignore[arg-type]
    buffer[:] = bytes(len(buffer))
    assert value == {"b": b"abc", "a": bytearray(b"abc"), "s": "abc"}


# Classes


class Colour(Enum):
    RED = 1
    PAIR = (1, 2)


class Level(IntEnum):
    HIGH = 3


class Word(str, Enum):
    YES = "yes"


class Bits(Flag):
    A = 1
    B = 2


@dataclass(frozen=True)
class Point:
    x: float
    y: tuple[int, ...] = ()


@register_type
class Suit(Enum):
    HEARTS = "h"


@register_type
class Rights(Flag):
    READ = 1
    WRITE = 2


@register_type
@dataclass
class Config:
    name: str
    parts: list[Any] = field(default_factory=list)
    total: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.total = 99


@register_type
@dataclass(frozen=True, slots=True)
class Cell:
    row: int


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (Colour.RED, 1),
        (Colour.PAIR, (1, 2)),
        (Level.HIGH, 3),
        (Word.YES, "yes"),
        (Bits.A | Bits.B, 3),
        (Point(1.0, (2,)), {"x": 1.0, "y": (2,)}),
        ([Point(1.0)], [{"x": 1.0, "y": ()}]),
        ({Word.YES: Level.HIGH}, {"yes": 3}),
        ({Colour.RED, 2}, {1, 2}),
    ],
)
def test_unregistered_enums_and_dataclasses_read_back_as_data(value: Any, read: Any) -> None:
    """Enum members become their value and dataclasses dicts, of exactly the plain types."""
    assert same(there_and_back(value), read)
    assert same(plain.decode(plain.encode_fields({"v": value}, "xs", {})), {"v": read})


def test_registered_types_read_back_as_themselves() -> None:
    """Registered classes come back as instances, also nested, as keys, composite and frozen."""
    config = Config("a", [Suit.HEARTS, (Cell(1),)])
    config.total = 7
    value = {"c": config, "s": {Cell(2), Suit.HEARTS}, "k": {Cell(3): Rights.READ | Rights.WRITE}}
    back = there_and_back(value)
    assert back == value
    assert back["c"].total == 7, "__post_init__ did not run"
    assert back["c"].parts[0] is Suit.HEARTS


def test_reading_without_the_registration_gives_plain_data() -> None:
    """A process that never registered (or has) the class reads dicts and values, and imports nothing."""
    encoded = plain.encode([Suit.HEARTS, Config("a"), Rights.READ], "xs")
    code = (
        "import sys; from rushlight._codec import Codec; before = set(sys.modules)\n"
        f"print(Codec().decode(bytes.fromhex({encoded.hex()!r})), set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['h', {'name': 'a', 'parts': [], 'total': 99}, 1] set()"


def test_a_class_that_gained_fields_takes_their_defaults() -> None:
    """A record written before a field existed reads with its default, or as a dict where it has none."""

    def define(**fields: Any) -> type:
        made = type(
            "Grown", (), {"__annotations__": dict.fromkeys(fields, int), "__module__": __name__, **fields}
        )
        made.__qualname__ = "Grown"
        return register_type(dataclass(made))

    first = type("Grown", (), {"__annotations__": {"a": int}, "__module__": __name__})
    old = plain.encode(register_type(dataclass(first))(1), "xs")
    grown = define(a=0, b=5)
    assert plain.decode(old) == grown(1, 5)
    strict = type("Grown", (), {"__annotations__": {"a": int, "b": int}, "__module__": __name__})
    register_type(dataclass(strict))
    assert plain.decode(old) == {"a": 1}


def test_register_type_takes_only_dataclasses_and_enums() -> None:
    """Any other class, or an instance, is refused."""
    for wrong in (int, Config("a"), object(), len):
        with pytest.raises(ConfigError, match="dataclass or an Enum"):
            register_type(wrong)  # type: ignore[type-var]


def test_members_that_would_become_one_key_are_refused() -> None:
    """Unregistered members whose values equal another key would silently drop an entry."""
    for value in ({Colour.RED: "a", 1: "b"}, {Colour.RED, 1}):
        with pytest.raises(EncodeError, match=r"xs\.d.*register_type") as caught:
            plain.encode(Holder(value), "xs")
        assert caught.value.path == "xs.d"  # type: ignore[attr-defined]


@dataclass
class Holder:
    d: Any


def test_an_unregistered_dataclass_is_no_key() -> None:
    """It would read back as a dict, which cannot be a key, so writing refuses it."""
    with pytest.raises(EncodeError, match="register_type"):
        plain.encode({"m": {(Point(1.0),): 1}}, "xs")


# Pickles


class Layer:
    def __init__(self, held: Any) -> None:
        self.held = held


class Model:
    def __init__(self, *layers: Any) -> None:
        self.layers = list(layers)


class Name(str):
    __slots__ = ()


def test_other_objects_are_pickled_and_sealed() -> None:
    """Arbitrary objects, subclasses of builtins and lambdas come back through a signed pickle."""
    value = {"m": Model(Layer(1)), "o": OrderedDict(a=1), "n": Name("x"), "f": lambda a: a + 1}
    back = there_and_back(value, trusting)
    assert back["m"].layers[0].held == 1
    assert type(back["o"]) is OrderedDict and type(back["n"]) is Name
    assert back["f"](1) == 2


def test_without_a_secret_pickling_is_refused_with_the_path_and_the_way_out() -> None:
    """No secret, no pickles: neither written nor read."""
    with pytest.raises(SecretRequired, match=r'xs\["a"\]\[1\] is a .*Model.*RUSHLIGHT_SECRET'):
        plain.encode_fields({"a": [0, Model()]}, "xs", {})
    with pytest.raises(SecretRequired, match="RUSHLIGHT_SECRET"):
        plain.decode(trusting.encode(Model(), "xs"))


def test_a_pickle_of_another_secret_is_not_opened() -> None:
    """A forged pickle raises before a byte of it is unpickled."""
    other = Codec(Trust(b"another secret", "net"))
    with pytest.raises(SignatureMismatch):
        trusting.decode(other.encode(Model(), "xs"))


def test_a_pickle_that_cannot_be_read_here_is_a_decode_error_with_its_cause() -> None:
    """A missing module names itself in the error and is kept as the cause."""
    module = type(sys)("module_of_another_machine")
    exec("class Thing:\n    pass", module.__dict__)
    sys.modules[module.__name__] = module
    encoded = trusting.encode(module.Thing(), "xs")
    del sys.modules[module.__name__]
    with pytest.raises(DecodeError, match="module_of_another_machine") as caught:
        trusting.decode(encoded)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


lock = threading.Lock()


def closure_over(held: Any) -> Callable[[], Any]:
    """A function that drags its argument along."""
    return lambda: held


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"model": Model(1, 2, 3, lock)}, r'xs["model"].layers[3]'),
        ({"model": Model(Layer({"k": [lock]}))}, r'xs["model"].layers[0].held["k"][0]'),
        ({"a": [1, (2, lock)]}, r'xs["a"][1][1]'),
        ({"a": {7: lock}}, r'xs["a"][7]'),
        ({"f": closure_over(lock)}, r'xs["f"].<closure held>'),
        ({"d": Holder(lock)}, r'xs["d"].d'),
    ],
)
def test_what_cannot_be_pickled_is_named_by_its_path(value: dict[str, Any], path: str) -> None:
    """The error points at the deepest part that fails, in the notation one would type."""
    with pytest.raises(EncodeError) as caught:
        trusting.encode_fields(value, "xs", {})
    assert caught.value.path == path  # type: ignore[attr-defined]
    assert str(caught.value).startswith(path) and "lock" in str(caught.value)


# Shapes that are refused


def circle_of(kind: str) -> Any:
    """A container of that kind that contains itself."""
    inner: list[Any] = []
    shapes: dict[str, Any] = {
        "list": inner,
        "tuple": [(inner,)],
        "dict": {"a": {"b": inner}},
        "object": Holder(inner),
    }
    inner.append(shapes[kind])
    return shapes[kind]


@pytest.mark.parametrize("kind", ["list", "tuple", "dict", "object"])
def test_a_container_that_contains_itself_is_refused(kind: str) -> None:
    """A circle is an EncodeError that says so, not a RecursionError."""
    with pytest.raises(EncodeError, match="contains itself"):
        plain.encode({"a": circle_of(kind)}, "xs")


def test_depth_is_limited_and_what_is_written_can_be_read() -> None:
    """Up to the limit every kind of nesting is written and read; beyond it, refused."""
    for wrap in (
        lambda v: [v],
        lambda v: (v,),
        lambda v: {"k": v},
        lambda v: {(1,): v},
        lambda v: frozenset({v}),
    ):
        value: Any = wrap(1)
        deepest = None
        for _ in range(200):
            try:
                encoded = plain.encode(value, "xs")
            except EncodeError:
                break
            assert plain.decode(encoded) == value
            deepest = value
            value = wrap(value)
        assert deepest is not None
        with pytest.raises(EncodeError, match="levels deep"):
            plain.encode(value, "xs")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([1], "xs must be a dict of column names to values, got list"),
        (None, "xs must be a dict of column names to values, got NoneType"),
        ("ab", "xs must be a dict of column names to values, got str"),
        ({1: 2}, "xs must have column names of type str, got 1 (int)"),
        ({"a": 1, ("b",): 2}, "xs must have column names of type str, got <tuple> (tuple)"),
        ({"\ud800": 1}, "xs has a column name that is not valid Unicode"),
    ],
)
def test_only_a_mapping_with_str_names_is_a_row(fields: Any, message: str) -> None:
    """Anything else is refused by name, and nothing is spilled."""
    spilled: dict[str, bytes] = {}
    with pytest.raises(ConfigError) as caught:
        plain.encode_fields(fields, "xs", spilled)
    assert message in str(caught.value)
    assert not spilled


def test_any_mapping_and_str_subclass_names_are_taken() -> None:
    """A read-only view or a name that is a str subclass is written as an ordinary dict."""
    fields = MappingProxyType({Word.YES: 1, Name("b"): "c"})
    assert same(plain.decode(plain.encode_fields(fields, "xs", {})), {"yes": 1, "b": "c"})


# Spilling and rows


def test_large_values_are_spilled_by_content() -> None:
    """Only values above the limit go, equal ones once, and a plain row takes the same way as others."""
    codec = Codec(spill_size=100)
    spilled: dict[str, bytes] = {}
    row = codec.decode(codec.encode_fields({"a": "x" * 200, "b": "x" * 200, "c": [1]}, "xs", spilled))
    assert row["a"] == row["b"] and row["c"] == [1] and len(spilled) == 1
    assert codec.decode_spilled(row["a"], spilled[row["a"].digest]) == "x" * 200
    many = {f"c{i}": i for i in range(100)}
    assert codec.decode(codec.encode_fields(many, "xs", spilled)) == many
    assert len(spilled) == 1


def test_a_reference_is_stored_as_a_reference() -> None:
    """A row that was read with its large values still apart can be written again as it is."""
    reference = Spilled("ab" * 16, 70000)
    assert there_and_back({"model": reference}) == {"model": reference}


def test_a_spilled_value_is_checked_against_its_reference() -> None:
    """Other bytes raise, and so does a value the server no longer has."""
    codec = Codec(spill_size=10)
    spilled: dict[str, bytes] = {}
    row = codec.decode(codec.encode_fields({"a": b"x" * 50}, "xs", spilled))
    stored = spilled[row["a"].digest]
    for wrong in (stored[:-1], stored[:-1] + b"y", b""):
        with pytest.raises(DecodeError):
            codec.decode_spilled(row["a"], wrong)
    with pytest.raises(DataMissing):
        codec.decode_spilled(row["a"], None)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 65535, 65536])
def test_rows_are_joined_and_read_in_order(count: int) -> None:
    """Every number of rows has its header, and the garbage collector is as it was afterwards."""
    rows, met = plain.decode_rows([plain.encode([i, "k"], "row") for i in range(count)], 2)
    assert rows == [[i, "k"] for i in range(count)] and met == []
    assert gc.isenabled()


def test_a_bad_row_is_named() -> None:
    """One broken record among many is found by its index, whether broken, doubled or too short."""
    good = plain.encode([1, 2], "row")
    for bad in (b"\xc1", good + good, plain.encode([1], "row"), plain.encode(7, "row"), b"", good[:-1]):
        with pytest.raises(DecodeError) as caught:
            plain.decode_rows([good, good, bad, good], 2)
        assert caught.value.index == 2  # type: ignore[attr-defined]
    assert gc.isenabled()
    with pytest.raises(SecretRequired) as refused:
        plain.decode_rows([good, trusting.encode([1, Model()], "row")], 2)
    assert refused.value.index == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65536])
def test_a_row_may_have_any_number_of_columns(count: int) -> None:
    """Rows on the careful path get the same map header msgpack would give them."""
    fields: dict[str, Any] = {f"c{i}": i for i in range(count)}
    fields["t"] = (1,)
    assert Codec(spill_size=1 << 22).decode(plain.encode_fields(fields, "xs", {})) == fields


def test_encoding_and_decoding_never_import_a_heavy_library() -> None:
    """The worker path loads none of the table libraries or NumPy for values that are not theirs."""
    code = (
        "import sys; from rushlight._codec import Codec; from rushlight._trust import Trust\n"
        "c = Codec(Trust(b's', 'n')); v = {'a': (1, {2}, 2**70), 'o': Exception('x')}\n"
        "c.decode(c.encode_fields(v, 'xs', {}))\n"
        "print([m for m in ('numpy', 'pandas', 'polars', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
