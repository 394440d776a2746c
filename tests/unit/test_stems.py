"""The quick way to pack a call gives what the plain way does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushlight._keys import Keys
from rushlight._scripts import Scripts
from rushlight._stems import Stems

WORKER, FIRST = b"\xa3ann", b"\xa3ann\x01"
keys = st.text(min_size=1, max_size=60).filter(lambda key: "\0" not in key)
data = st.binary(min_size=1, max_size=300)


@pytest.mark.parametrize("full", [False, True])
@given(key=keys, new=keys, payload=data, head=data, number=st.integers(1, 2**53))
def test_stems_pack_the_same_bytes(
    full: bool, key: str, new: str, payload: bytes, head: bytes, number: int
) -> None:
    """Whatever the lengths of keys and records, and with the keys of all lines or of the plain queue."""
    scripts = Scripts(Keys("a network/ü"))
    member = ("1.epoch", "ann", "token", full)
    stems = Stems(scripts, member, WORKER, FIRST)
    k, n = key.encode(), new.encode()
    verdict = ("f", FIRST, key, payload)
    assert scripts.begin(member, FIRST, key, head) == stems.begin(k, head)
    assert scripts.settle(member, *verdict) == stems.finish(k, payload)
    assert scripts.step(member, FIRST, verdict, new, head) == stems.step(k, payload, n, head)
    for woken in (False, True):
        assert scripts.claim(member, WORKER, 1, woken, number) == stems.claim(number, woken=woken)
    assert scripts.settle_claim(member, WORKER, 1, verdict, number) == stems.finish_claim(k, payload, number)
