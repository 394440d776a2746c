"""Records that cannot be read: signed with another secret, damaged, or of a library that is not here.

Owns what of such a record is read all the same: its plain parts. Whoever put it there must not be able to end
those who come across it, nor to hide what stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NoReturn

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
