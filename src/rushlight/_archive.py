"""Archives: all tasks of a network in one file, and as an object that reads like it and never changes.

Owns the two file formats. Each row has columns for people and other programs, and one with the exact
record, which is all that is read back. Never writes to a server.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import inspect
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn, cast

import msgspec

from . import _inputs
from ._codec import Codec
from ._forms import json_text
from ._frozen import FrozenStore, Record, take
from ._names import random_token
from ._plan import find_config
from ._reader import TaskReader
from ._records import Counts, Task
from ._store import Store
from ._tables import StatedRow, build_table
from ._trust import Trust
from .errors import ConfigError, DecodeError, RushlightError

if TYPE_CHECKING:
    import polars as pl

#: The column of exact records.
RECORD: Final = "__rushlight__"
#: Bytes one cell of a Parquet file can hold.
_PARQUET_CELL: Final = 2**31 - 1
_FORMATS = {".parquet": "parquet", ".ndjson": "ndjson", ".jsonl": "ndjson"}

Path = str | os.PathLike[str]


class Archive(TaskReader):
    """The tasks of a network as they were when it was exported or frozen: everything that reads tasks works
    as on the network, at once and without a server; everything else raises RushlightError."""

    _store: Any

    def __init__(self, store: FrozenStore, source: str) -> None:
        self._source = source
        self._begin_reading(cast("Store", store))

    def __repr__(self) -> str:
        return f"<Archive of {self.network!r} from {self._source}>"

    def __len__(self) -> int:
        return self.counts().total

    def __bool__(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        found = [inspect.getattr_static(face, name) for face in _faces(TaskReader) if hasattr(face, name)]
        if name.startswith("_") or not found:
            raise AttributeError(f"an Archive has no attribute {name!r}", name=name, obj=self)
        return self._refuse(name) if isinstance(found[0], property) else partial(self._refuse, name)

    def _refuse(self, name: str, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise RushlightError(
            f"this is an archive of network {self.network!r} ({self._source}): its tasks can be read and "
            f"never change, and there are no workers; {name} needs Rush({self.network!r})"
        )

    def close(self) -> None:
        """Nothing needs to be closed; the archive goes on."""

    def counts(self) -> Counts:
        """How many tasks were in each state."""
        return cast("Counts", self._store.counts())

    def fetch_new_tasks(
        self, timeout: float = 0.0, *, fields: Sequence[str] | None = None, as_: str = "polars"
    ) -> Any:
        """The finished tasks, the first time; none later on. Never waits: nothing new comes to an archive."""
        _inputs.seconds(timeout, "timeout", none=True)
        return super().fetch_new_tasks(0.0, fields=fields, as_=as_)

    def stream(self, timeout: float | None = None) -> Iterator[Task]:
        """The finished and failed tasks by the time of their end; then it ends."""
        _inputs.seconds(timeout, "timeout", none=True)
        return super().stream(0.0)

    def _more_may_come(self) -> bool:
        return False


def _faces(kind: type) -> Iterator[type]:
    """The classes made of this one, archives apart: managers and workers."""
    face: type
    for face in kind.__subclasses__():
        if face is not Archive:
            yield face
            yield from _faces(face)


class Archiving:
    """Making archives of a network, and reading them."""

    _store: Store

    def export(self, path: Path) -> int:
        """Writes all tasks, as they are at one instant, to a ``.parquet``, ``.ndjson`` or ``.jsonl`` file;
        returns how many.

        Any program can read the columns: those of ``fetch_tasks``, where a value that no column type holds is
        JSON text, and one of more than 1 MiB, or that only its Python class can read, is missing.
        ``read_archive`` reads everything back exactly. The file appears whole or not at all. Runs no code;
        the file holds no secret. Raises ConfigError for another suffix or a missing directory.
        """
        target, form = _target(path)
        write = _write_parquet if form == "parquet" else _write_ndjson
        taken = list(take(self._store))
        records = [item.record for item in taken] or [Record(self._store.network, 0, 0)]
        with _whole_file(target) as file:
            write(file, records, _readable_part([item.shown for item in taken]))
        return len(taken)

    def freeze(self) -> Archive:
        """All tasks as they are at one instant, as an Archive in memory."""
        records = [item.record for item in take(self._store)] or [Record(self._store.network, 0, 0)]
        return Archive(FrozenStore(records, lambda _network: self._store.codec), "a frozen network")

    @staticmethod
    def read_archive(path: Path, *, url: str | None = None, secret: str | bytes | None = None) -> Archive:
        """The tasks of a file that ``export`` wrote, as an Archive. Connects to nothing.

        Pickled values are read with the secret they were signed with: ``secret``, or the one a ``Rush`` at
        this ``url`` would have. Without it a table or task that contains one raises SecretRequired or
        SignatureMismatch; all others can be read. Raises ConfigError for a path that is no such file, and
        DecodeError, naming it, for one that is truncated, damaged, or not of Rushlight.
        """
        target, form = _target(path)
        if not os.path.isfile(target):
            raise ConfigError(f"there is no file {target!r}", path=target)

        def codec(network: str) -> Codec:
            key = find_config(url, secret).key()
            return Codec(None if key is None else Trust(key, network))

        read = _read_parquet if form == "parquet" else _read_ndjson
        try:
            return Archive(FrozenStore(map(Record.unpack, read(target)), codec), target)
        except DecodeError as error:
            raise DecodeError(f"{target} is no archive that can be read: {error}", path=target) from error


def _target(path: object) -> tuple[str, str]:
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"path must be the name of a file, got {path!r}")
    target = os.path.abspath(os.fspath(path))
    form = _FORMATS.get(os.path.splitext(target)[1].lower())
    if form is None:
        raise ConfigError(f"path={target!r}: an archive is named {', '.join(_FORMATS)}", path=target)
    if not os.path.isdir(os.path.dirname(target)):
        raise ConfigError(f"path={target!r}: there is no such directory, make it first", path=target)
    return target, form


@contextlib.contextmanager
def _whole_file(path: str) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` when it is complete and on the disk."""
    spare = f"{path}.{random_token()}.part"
    try:
        with open(spare, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(spare, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(spare)
        raise


def _readable_part(rows: Sequence[StatedRow]) -> pl.DataFrame:
    """The columns for others: only types that any program knows."""
    import polars as pl

    frame: pl.DataFrame = build_table(rows, "polars", state_column=True, conditions=True)
    columns = {}
    for series in frame:
        column = series
        if column.dtype == pl.Object:
            column = pl.Series(series.name, [json_text(value) for value in series], dtype=pl.String)
        elif column.dtype == pl.Null:
            column = series.cast(pl.String)
        columns[f"{column.name}_" if column.name == RECORD else column.name] = column
    return pl.DataFrame(columns)


# --- Parquet ----------------------------------------------------------------------------------------


def _write_parquet(file: BinaryIO, records: Sequence[Record], frame: pl.DataFrame) -> None:
    import polars as pl

    cells = [record.pack() for record in records]
    largest = max(map(len, cells))
    if largest > _PARQUET_CELL:
        raise ConfigError(
            f"a task of {largest} bytes is too large for Parquet, which holds {_PARQUET_CELL} in a cell: "
            "export to .ndjson"
        )
    if frame.is_empty():
        frame = frame.clear(1)
    frame.with_columns(pl.Series(RECORD, cells, dtype=pl.Binary)).write_parquet(file)


def _read_parquet(path: str) -> list[bytes]:
    import polars as pl

    with open(path, "rb") as file:
        head = file.read(4)
        file.seek(max(-4, -os.path.getsize(path)), os.SEEK_END)
        if head != b"PAR1" or file.read() != b"PAR1":
            raise DecodeError("it is truncated, or no Parquet file")
    try:
        found = pl.read_parquet(path, columns=[RECORD]).get_column(RECORD)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DecodeError(f"its Parquet cannot be read, or is not of Rushlight: {error}") from error
    if found.dtype != pl.Binary or found.null_count():
        raise DecodeError(f"its column {RECORD} does not hold records")
    return found.to_list()


# --- NDJSON -----------------------------------------------------------------------------------------


def _write_ndjson(file: BinaryIO, records: Sequence[Record], frame: pl.DataFrame) -> None:
    rows: Iterable[tuple[Any, ...]] = frame.iter_rows() if len(frame) else [(None,) * frame.width]
    for record, row in zip(records, rows, strict=True):
        told = {name: _json_cell(value) for name, value in zip(frame.columns, row, strict=True)}
        told[RECORD] = base64.b64encode(record.pack()).decode("ascii")
        file.write(json.dumps(told, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def _json_cell(value: Any) -> Any:
    """As JSON says it, so that a column has one type: what is not finite is null, durations are seconds."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_json_cell(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value) if isinstance(value, Decimal) else value


def _read_ndjson(path: str) -> Iterator[bytes]:
    decode: Callable[[bytes], dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                cell = msgspec.json.decode(decode(line)[RECORD], type=str)
                yield base64.b64decode(cell, validate=True)
            except (msgspec.MsgspecError, KeyError, binascii.Error, UnicodeDecodeError) as error:
                raise DecodeError(f"line {number} is truncated, or holds no record") from error
