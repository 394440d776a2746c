"""Envelopes open for the network and purpose they were sealed for, and for nothing else."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import types
from functools import partial
from pathlib import Path

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rushlight._trust as trust_module
from rushlight._trust import Trust, unverified_body
from rushlight.errors import ConfigError, DecodeError, EncodeError, RushlightError, SignatureMismatch

SECRET = b"the secret nobody must ever see"
trust = Trust(SECRET, "net")


@given(st.text(max_size=20), st.binary(max_size=200))
def test_what_is_sealed_opens_again(purpose: str, body: bytes) -> None:
    """Any purpose and body come back, also for another holder of the same secret."""
    assert Trust(SECRET, "net").open(purpose, trust.seal(purpose, body)) == body


@given(st.binary(max_size=80), st.data())
def test_no_change_goes_unnoticed(body: bytes, draw: st.DataObject) -> None:
    """Every flipped bit, cut and addition is a SignatureMismatch."""
    sealed = trust.seal("loop", body)
    at = draw.draw(st.integers(0, len(sealed) - 1))
    bit = 1 << draw.draw(st.integers(0, 7))
    flipped = sealed[:at] + bytes([sealed[at] ^ bit]) + sealed[at + 1 :]
    for forged in (flipped, sealed[:at], sealed + b"\x00", sealed[at + 1 :]):
        with pytest.raises(SignatureMismatch):
            trust.open("loop", forged)


@given(st.binary(max_size=200))
def test_any_bytes_at_all_are_a_signature_mismatch(data: bytes) -> None:
    """Bytes that are no envelope raise nothing but SignatureMismatch."""
    for opened in (trust.open, trust.loads):
        with pytest.raises(SignatureMismatch):
            opened("loop", data)
    with pytest.raises(SignatureMismatch):
        trust.loads("loop", b"RL\x01" + data)


@pytest.mark.parametrize(
    ("reader", "purpose", "message"),
    [
        (
            Trust(b"other", "net"),
            "loop",
            "another secret: start manager and workers with the same secret= or RUSHL",
        ),
        (Trust(SECRET, "other"), "loop", "signed for the network 'net', not for 'other'"),
        (trust, "value", "signed as 'loop', not as 'value'"),
    ],
)
def test_the_error_says_what_does_not_match(reader: Trust, purpose: str, message: str) -> None:
    """Another secret, network or purpose is told apart in the message."""
    with pytest.raises(SignatureMismatch, match=message):
        reader.open(purpose, trust.seal("loop", b"body"))


def test_network_and_purpose_do_not_run_into_each_other() -> None:
    """The boundary between the two names is part of the key."""
    with pytest.raises(SignatureMismatch):
        Trust(SECRET, "ab").open("c", Trust(SECRET, "a").seal("bc", b""))


def test_a_relabelled_envelope_is_refused() -> None:
    """Rewriting the header to claim the reader's network does not help a forger."""
    sealed = Trust(SECRET, "xxx").seal("loop", b"body").replace(b"xxx", b"net")
    with pytest.raises(SignatureMismatch):
        trust.open("loop", sealed)


def test_the_secret_is_never_shown() -> None:
    """Not in a repr, not in the object's own fields, not in an error."""
    shown = repr(trust) + str(trust) + "".join(repr(getattr(trust, name)) for name in Trust.__slots__)
    for bad in (
        lambda: trust.open("loop", b"x"),
        lambda: trust.dumps("loop", (lambda: sys.stdout,)[0]),
        trust.__reduce__,
    ):
        try:
            bad()
        except (RushlightError, TypeError) as error:
            shown += str(error) + repr(error) + repr(vars(error))
    assert SECRET.decode() not in shown and SECRET.hex() not in shown
    assert "net" in repr(trust)


@pytest.mark.parametrize("copied", [pickle.dumps, cloudpickle.dumps, copy.copy, copy.deepcopy])
def test_a_trust_is_never_pickled_or_copied(copied: object) -> None:
    """A secret must not travel inside a task by accident."""
    with pytest.raises(TypeError, match="secret"):
        copied(trust)  # type: ignore[operator]


def test_a_trust_in_a_closure_is_named() -> None:
    """A loop that drags its Trust along is refused, with the place."""
    held = Trust(b"s", "n")
    with pytest.raises(EncodeError, match=r"loop\.<closure held> cannot be stored or sent: TypeError"):
        trust.dumps("loop", lambda: held)


@pytest.mark.parametrize(
    ("secret", "network"), [(b"", "net"), ("text", "net"), (None, "net"), (b"s", ""), (b"s", 3)]
)
def test_bad_settings_are_refused(secret: object, network: object) -> None:
    """An empty or wrongly typed secret or name raises, without showing the secret."""
    with pytest.raises(ConfigError) as caught:
        Trust(secret, network)  # type: ignore[arg-type]
    assert "text" not in str(caught.value)


def test_another_python_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A genuine pickle of another minor version says so; raw bodies do not care."""
    monkeypatch.setattr(trust_module, "PYTHON", "3.9")
    pickled, raw = trust.dumps("loop", [1]), trust.seal("loop", b"raw")
    monkeypatch.undo()
    with pytest.raises(DecodeError, match=r"loop was pickled by Python 3\.9"):
        trust.loads("loop", pickled)
    with pytest.raises(DecodeError, match=r"3\.9"):
        trust.open("loop", pickled)
    assert trust.open("loop", raw) == b"raw"


def test_what_unpickling_raises_passes_through() -> None:
    """A worker shows the traceback of a missing module as it is."""
    body = cloudpickle.dumps(Path).replace(b"pathlib", b"pathlob")
    with pytest.raises(ModuleNotFoundError, match="pathlob"):
        trust.loads("loop", trust.seal("loop", body, pickled=True))


def test_code_keeps_the_name_of_its_file() -> None:
    """Tracebacks of a worker show the lines of the user's file, whatever cloudpickle leaves out; those of
    functions inside a function too."""

    def outer() -> types.FunctionType:
        def inner() -> None:
            raise RuntimeError

        return inner

    read = trust.loads("loop", trust.dumps("loop", outer))
    assert [__file__, __file__] == [read.__code__.co_filename, read().__code__.co_filename]


def test_equal_code_makes_equal_bytes() -> None:
    """A loop defined twice is one object on the server."""
    first, second = ({}, {})
    for space, number in ((first, 1), (second, 1)):
        exec(compile("def loop():\n    return lambda: 1\n", f"cell-{number}", "exec"), space)
    assert trust.dumps("loop", first["loop"]) == trust.dumps("loop", second["loop"])


def test_functions_of_local_modules_travel_with_their_code(tmp_path: Path) -> None:
    """A reader without the user's file still gets the function; what is installed goes by name."""
    (tmp_path / "local_loops.py").write_text(
        "def helper(x):\n    return x + 1\n\ndef loop(x):\n    return helper(x) * 2\n\n"
        "class Runner:\n    def run(self, x):\n        return loop(x)\n    __call__ = run\n"
    )
    code = (
        "import functools, sys; sys.path.insert(0, sys.argv[1]); import local_loops as l\n"
        "from rushlight._trust import Trust; import cloudpickle\n"
        "t = Trust(b's', 'n')\n"
        "loops = (l.loop, functools.partial(l.loop), l.Runner().run, l.Runner())\n"
        "for f in loops:\n    print(t.dumps('loop', f).hex())\n"
        "print(t.dumps('loop', {'loop': l.loop, 'kwargs': {}}).hex())\n"
        "print(t.dumps('value', l.loop).hex())\n"
        "assert not cloudpickle.list_registry_pickle_by_value()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    *by_value, in_a_dict, by_reference = [bytes.fromhex(line) for line in done.stdout.split()]
    reader = Trust(b"s", "n")
    assert [reader.loads("loop", sealed)(2) for sealed in by_value] == [6, 6, 6, 6]
    assert reader.loads("loop", in_a_dict)["loop"](2) == 6
    with pytest.raises(ModuleNotFoundError):
        reader.loads("value", by_reference)
    assert (
        b"co_code" not in reader.dumps("loop", partial(Path.exists)) and len(reader.dumps("loop", Path)) < 200
    )


def test_unverified_bodies_are_plain_data_only() -> None:
    """The reader of unsigned data gets the body of data, and never that of a pickle."""
    assert unverified_body(trust.seal("table", b"data")) == b"data"
    with pytest.raises(SignatureMismatch):
        unverified_body(trust.dumps("table", [1]))
    with pytest.raises(SignatureMismatch):
        unverified_body(b"RL")
