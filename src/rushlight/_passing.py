"""Calls that go on elsewhere: after their last crash, in another controller's network.

Owns how a call is told in another network, whose signatures are its own. Where it goes is the controllers'
to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import _seeds
from ._calls import ARGUMENTS, CONSTANT, FUNCTION, Shelf, _bytes, elsewhere
from ._store import Store

#: In a pickle that a constant stands in.
_MENTION = b"_constant"


@dataclass(frozen=True, slots=True)
class Passed:
    """A call as it is told in the other network: its key and inputs, encoded, and what its options were."""

    key: str
    xs: bytes
    spilled: dict[str, bytes]
    options: dict[str, Any]


def translate(row: Sequence[Any], source: Store, target: Store, shelf: Shelf) -> Passed:
    """A call's record of the source's network, for the target's; what it refers to is uploaded there.

    Opened and sealed again, and unpickled only where constants are in it. Raises DataMissing,
    SignatureMismatch.
    """
    xs = dict(row[4])
    name, _, digest = str(xs["call"]).rpartition(":")
    xs["call"] = f"{name}:{_carry(FUNCTION, digest, source, shelf)}"
    if "pickled" in xs:
        sealed = _bytes(source, xs["pickled"])
        trust = source.require_trust("a call")
        body = trust.open(ARGUMENTS, sealed)
        if _MENTION in body:
            # Constants are named by what they are in one network.
            with elsewhere(lambda digest: _carry(CONSTANT, digest, source, shelf)):
                given = trust.loads(ARGUMENTS, sealed)
            xs["pickled"] = target.require_trust("a call").dumps(ARGUMENTS, given, by_value=True)
        else:
            xs["pickled"] = target.require_trust("a call").seal(ARGUMENTS, body, pickled=True)
    spilled: dict[str, bytes] = {}
    encoded = target.codec.encode_fields(xs, "xs", spilled)
    opts: Mapping[str, Any] = row[2] or {}
    names = {"t": "timeout", "q": "queue_timeout", "p": "priority", "r": "max_retries"}
    options = {names[letter]: value for letter, value in opts.items() if letter in names}
    if opts.get("s"):
        options["seed"] = _seeds.decode(opts["s"])
    return Passed(row[3], encoded, spilled, options)


def _carry(purpose: str, digest: str, source: Store, shelf: Shelf) -> str:
    sealed = source.large.object("specs", digest)
    return shelf.keep(purpose, source.require_trust("a call").open(purpose, bytes(sealed)))
