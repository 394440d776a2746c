"""Records that cannot be read: signed with another secret, damaged, or of a library that is not here.

Owns what of such a record is read all the same: its plain parts. Whoever put it there must not be able to end
those who come across it, nor to hide what stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final, NoReturn

import msgspec
import msgspec.msgpack

from .errors import CodecError, DataMissing, MissingExtra, RushlightError

#: What reading a record may raise that is the record's fault.
UNREADABLE: Final = (CodecError, MissingExtra, DataMissing)


class Unread(Mapping[str, Any]):
    """In the place of a record's inputs or results: whoever looks for one hears why there is none."""

    def __init__(self, error: RushlightError) -> None:
        self._error = error

    def __getitem__(self, name: str) -> NoReturn:
        raise self._error

    def __iter__(self) -> Iterator[str]:
        raise self._error

    def __len__(self) -> int:
        return 1


def _nothing(_code: int, _data: memoryview) -> None:
    return None


#: The parts of a packed record; None stands for every value that is not plain.
plain_parts: Final[Callable[[bytes], list[Any]]] = msgspec.msgpack.Decoder(ext_hook=_nothing).decode


_Number = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
_Options = dict[str, Any] | None
#: A running record; inputs and results are not looked at.
_RUNNING: Final = (str | None, _Number, _Options, str, Any, Any, _Number, _Number, _Number)


def _parts(*types: Any) -> Callable[[bytes], list[Any] | None]:
    kind = tuple.__class_getitem__(types)
    decode = msgspec.msgpack.Decoder(kind, ext_hook=_nothing).decode

    def read(value: bytes) -> list[Any] | None:
        try:
            return list(decode(value))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None

    return read


#: The plain parts of a record that has ended: None where it is none.
plain_finished: Final = _parts(*_RUNNING, _Number, Any, Any)
_failed: Final = _parts(_Number, Any, dict[str, Any], *_RUNNING)


def plain_failed(value: bytes) -> list[Any] | None:
    """The same of what ``failed`` holds: time, size and condition before a running record."""
    return _failed(b"\x9c" + value)
