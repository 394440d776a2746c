"""Archives: what was exported reads as the network did, and others can read the columns."""

from __future__ import annotations

import base64
import datetime as dt
import enum
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from harness import Server
from rushlight import Rush, RushWorker, TaskState
from rushlight._aio import AsyncReader
from rushlight._archive import RECORD, Archive
from rushlight._reader import TaskReader
from rushlight._server import find_binary
from rushlight.errors import (
    ConfigError,
    DecodeError,
    RushlightError,
    SecretRequired,
    SignatureMismatch,
    UnknownKey,
)

SUFFIXES = (".parquet", ".ndjson", ".jsonl")
#: What an archive has of its own.
OWN = {"close", "network"}


class Custom:
    """A value that only pickle can keep."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return type(other) is Custom and self.x == other.x


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: float


VALUES: dict[str, Any] = {
    "none": None,
    "bool": True,
    "int": -7,
    "huge": 2**200,
    "float": 0.1 + 0.2,
    "infinite": float("-inf"),
    "str": 'grüße 🎉\n"quoted"',
    "surrogate": "\ud800",
    "bytes": bytes(range(256)),
    "bytearray": bytearray(b"abc"),
    "complex": 1 + 2j,
    "list": [1, [2.5, None], "x"],
    "tuple": (1, (2,)),
    "dict": {"a": {"b": [1]}, "c": None},
    "keys": {1: "a", (2, 3): "b"},
    "set": {1, 2, 3},
    "frozenset": frozenset({"a"}),
    "datetime": dt.datetime(2024, 2, 29, 12, 30, 1, 999999),  # noqa: DTZ001 - one without a zone
    "aware": dt.datetime(2024, 2, 29, 12, 30, tzinfo=ZoneInfo("Europe/Berlin")),
    "date": dt.date(1, 1, 1),
    "time": dt.time(23, 59, 59, 1),
    "duration": dt.timedelta(days=-3, microseconds=5),
    "decimal": Decimal("1.2300"),
    "uuid": uuid.UUID(int=5),
    "range": range(0, 10, 3),
    "fraction": Fraction(1, 3),
    "enum": Colour.RED,
    "dataclass": Point(1, 2.5),
    "numpy_scalar": np.float32(1.5),
    "array": np.arange(6, dtype="int16").reshape(2, 3),
    "times": np.array(["2024-01-01", "NaT"], dtype="datetime64[D]"),
    "large": os.urandom(300_000),
    "large_array": np.arange(20_000.0),
    "custom": Custom(3),
    "nested_custom": [1, {"a": Custom(4)}],
    "polars": pl.DataFrame({"a": [1, None], "b": ["x", "y"]}),
    "pandas": pd.DataFrame({"a": [1.5, 2.5]}, index=["r", "s"]),
    "arrow": pa.table({"a": [1, 2]}),
}


def alike(a: Any, b: Any) -> bool:
    """The same value of the same type, all the way down; not a number equals itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, pl.DataFrame | pd.DataFrame | pa.Table):
        return bool(a.equals(b))
    return repr(a) == repr(b) if isinstance(a, float | complex) else bool(a == b)


def same_tasks(ours: TaskReader, theirs: TaskReader) -> None:
    """Both tell the same of every task: every field, in the same order."""
    names = ("key", "state", "worker_id", "created_at", "started_at", "finished_at", "attempt", "seed", "seq")
    names += ("xs", "ys", "xs_extra", "ys_extra", "condition", "timeout", "reseeded")
    for states in (None, *TaskState):
        mine, other = (face.fetch_tasks(states, as_="tasks") for face in (ours, theirs))
        assert len(mine) == len(other)
        for one, two in zip(mine, other, strict=True):
            for name in names:
                assert alike(getattr(one, name), getattr(two, name)), name


@pytest.fixture
def busy(rush: Rush, worker: RushWorker) -> Rush:
    """Tasks in every state, of every kind of value."""
    rush.push_finished_tasks([{name: value} for name, value in VALUES.items()], [{"y": 1}] * len(VALUES))
    rush.push_finished_tasks(
        [{"x": 1, "y": 2.0}], [{"y": float("nan")}], xs_extra={"by": "me"}, ys_extra={"log": [1, 2]}
    )
    rush.push_failed_tasks(
        [{"x": 2}], {"message": "no", "type": "ValueError", "traceback": "line 1", "more": {1}}
    )
    rush.push_tasks(
        [{"x": i} for i in range(3)], max_retries=1, seeds=[1, None, 2], timeout=60, priority=[0, 5, 1]
    )
    taken = worker.pop_task()
    assert taken is not None
    worker.fail_task(taken.key, "first attempt")
    worker.push_running_tasks([{"x": 10}, {"x": 11, "big": "a" * 100_000}])
    failed = worker.push_running_task({"x": 12})
    worker.fail_task(failed, KeyError("what"))
    return rush


@pytest.fixture(params=SUFFIXES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where an archive is to be, of each format."""
    return tmp_path / f"archive{request.param}"


# --- back again -------------------------------------------------------------------------------------


def test_an_archive_tells_what_the_network_told(busy: Rush, path: Path) -> None:
    """Tasks of every state with every field and every type of value, and tables in every form."""
    n = busy.export(path)
    archive = Rush.read_archive(path)
    assert n == len(archive) == busy.n_tasks
    same_tasks(busy, archive)
    assert busy.counts() == archive.counts()
    assert busy.keys() == archive.keys()
    for state in TaskState:
        assert busy.keys(state) == archive.keys(state)
    keys = [*busy.keys(), "unknown"]
    assert busy.states(keys) == archive.states(keys)
    plain = ["key", "x", "y_ys", "state", "condition", "worker_id", "finished_at", "seq"]
    assert_frame_equal(busy.fetch_tasks(fields=plain), archive.fetch_tasks(fields=plain))
    for form in ("polars", "pandas", "dicts"):
        for fetch in ("tasks", "queued_tasks", "running_tasks", "finished_tasks", "failed_tasks"):
            ours, theirs = (getattr(face, f"fetch_{fetch}")(as_=form) for face in (busy, archive))
            assert len(ours) == len(theirs)
            assert list(ours[0] if form == "dicts" else ours.columns) == list(
                theirs[0] if form == "dicts" else theirs.columns
            )


def test_single_tasks_are_those_of_the_network(busy: Rush, path: Path) -> None:
    """Also what the last attempt of a task that is tried again ended with."""
    busy.export(path)
    archive = Rush.read_archive(path)
    for key in busy.keys():  # noqa: SIM118 - a method of its own
        ours, theirs = busy.task(key), archive.task(key)
        assert alike(ours.condition, theirs.condition)
        assert (ours.state, ours.attempt, ours.seed, ours.seq) == (
            theirs.state,
            theirs.attempt,
            theirs.seed,
            theirs.seq,
        )
    assert any(archive.task(key).condition for key in archive.keys("queued"))
    with pytest.raises(UnknownKey):
        archive.task("unknown")


def test_an_archive_outlives_its_network(busy: Rush, path: Path) -> None:
    """No server is asked, neither at reading nor later."""
    busy.export(path)
    before = busy.fetch_finished_tasks(as_="dicts")
    busy.reset()
    assert alike(before, Rush.read_archive(path).fetch_finished_tasks(as_="dicts"))


def test_an_empty_network_has_an_archive(rush: Rush, path: Path) -> None:
    """Of no tasks."""
    assert 0 == rush.export(path)
    archive = Rush.read_archive(path)
    assert (rush.network, 0) == (archive.network, len(archive))
    assert rush.fetch_tasks().columns == archive.fetch_tasks().columns
    assert bool(archive)


def test_a_frozen_network_stays_as_it_was(busy: Rush) -> None:
    """Without a file."""
    frozen = busy.freeze()
    before = busy.fetch_tasks(as_="tasks")
    same_tasks(busy, frozen)
    busy.empty_queue()
    assert len(before) == len(frozen)
    assert frozen.n_queued_tasks > 0 == busy.n_queued_tasks


def test_tables_from_an_archive_are_their_holders(busy: Rush, path: Path) -> None:
    """Changing one changes no other."""
    busy.export(path)
    archive = Rush.read_archive(path)
    first = archive.fetch_tasks(as_="tasks")
    for task in first:
        task.xs.clear()
    same_tasks(busy, archive)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
names = st.text(st.characters(codec="utf-8"), max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(*[st.dictionaries(names, json_like, max_size=4)] * 3), max_size=6))
def test_any_tasks_come_back(rush: Rush, tmp_path: Path, tasks: list[tuple[dict[str, Any], ...]]) -> None:
    """Whatever their columns are called and hold, in both formats."""
    rush.reset()
    xss, yss, extras = ([task[i] for task in tasks] for i in range(3))
    rush.push_finished_tasks(xss, yss, xs_extra=extras)
    rush.push_tasks(yss)
    rush.push_failed_tasks(xss, "no")
    for suffix in (".parquet", ".ndjson"):
        rush.export(tmp_path / f"any{suffix}")
        same_tasks(rush, Rush.read_archive(tmp_path / f"any{suffix}"))


# --- what others read -------------------------------------------------------------------------------


def _columns(path: Path) -> dict[str, Any]:
    read = pl.read_parquet if path.suffix == ".parquet" else pl.read_ndjson
    return read(path, **({} if path.suffix == ".parquet" else {"infer_schema_length": None}))


def test_other_programs_read_the_columns(busy: Rush, path: Path) -> None:
    """With the values they have types for; others are JSON text, sealed ones are missing."""
    busy.export(path)
    frame = _columns(path)
    assert busy.n_tasks == frame.height
    table = busy.fetch_tasks()
    assert table["key"].to_list() == frame["key"].to_list()
    assert table["state"].to_list() == frame["state"].to_list()
    assert table["condition"].to_list() == frame["condition"].to_list()

    def cell(name: str) -> Any:
        return frame[name].drop_nulls().to_list()[0]

    assert [-7, 0.1 + 0.2, VALUES["str"]] == [cell("int"), cell("float"), cell("str")]
    assert [[0, 1, 2], [3, 4, 5]] == json.loads(cell("array"))
    assert {"a": {"b": [1]}, "c": None} == json.loads(cell("dict"))
    assert 20_000 == len(cell("large_array"))
    assert 0 == frame["custom"].drop_nulls().len()
    if path.suffix == ".parquet":
        assert VALUES["bytes"] == cell("bytes")
        assert VALUES["datetime"] == cell("datetime")
    else:
        assert VALUES["bytes"] == base64.b64decode(cell("bytes"))
        assert VALUES["datetime"].isoformat() == cell("datetime")


def test_pandas_and_pyarrow_read_it_too(busy: Rush, tmp_path: Path) -> None:
    """Parquet by its standard, one JSON object a line."""
    busy.export(tmp_path / "a.parquet")
    busy.export(tmp_path / "a.jsonl")
    assert busy.n_tasks == len(pd.read_parquet(tmp_path / "a.parquet"))
    assert busy.n_tasks == len(pd.read_json(tmp_path / "a.jsonl", lines=True))
    objects = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert busy.keys("finished") == [row["key"] for row in objects if row["state"] == "finished"]


def test_a_column_may_have_our_name(rush: Rush, path: Path) -> None:
    """The record keeps its place; the task's own column is beside it."""
    rush.push_finished_tasks([{RECORD: 5}], [{}])
    rush.export(path)
    assert [5] == _columns(path)[f"{RECORD}_"].to_list()
    assert {RECORD: 5} == Rush.read_archive(path).fetch_tasks(as_="tasks")[0].xs


def test_a_value_many_tasks_share_is_there_once(rush: Rush, tmp_path: Path) -> None:
    """Stored apart on the server, it is stored once in the archive too."""
    data = os.urandom(2_000_000)
    rush.push_tasks([{"i": i, "data": data} for i in range(20)])
    rush.export(tmp_path / "a.ndjson")
    assert (tmp_path / "a.ndjson").stat().st_size < 3_000_000
    archive = Rush.read_archive(tmp_path / "a.ndjson")
    assert all(task.xs["data"] == data for task in archive.fetch_tasks(as_="tasks"))


# --- what is sealed ---------------------------------------------------------------------------------


def test_sealed_values_need_the_secret_and_others_do_not(rush: Rush, network: str, path: Path) -> None:
    """An archive opens without it; only a table that contains such a value says that it needs it."""
    with Rush(network, rush._store.config.url, secret="the right one") as writer:
        writer.push_finished_tasks([{"x": 1, "c": Custom(1)}], [{"frame": VALUES["polars"]}])
        writer.export(path)
    wrong = Rush.read_archive(path, secret="the wrong one")
    assert [1] == wrong.fetch_tasks(fields=["x"])["x"].to_list()
    with pytest.raises(SignatureMismatch, match="secret"):
        wrong.fetch_tasks(fields=["c"])
    with pytest.raises(SignatureMismatch):
        wrong.fetch_tasks(as_="tasks")
    without = Rush.read_archive(path, url="redis://far.example:6379")
    assert 1 == without.n_finished_tasks
    with pytest.raises(SecretRequired):
        without.fetch_tasks(fields=["c"])
    right = Rush.read_archive(path, secret="the right one")
    task = right.fetch_tasks(as_="tasks")[0]
    assert Custom(1) == task.xs["c"]
    assert task.ys["frame"].equals(VALUES["polars"])


def test_exporting_runs_no_code(rush: Rush, tmp_path: Path) -> None:
    """Neither that of pickled values nor anything else a task brings along."""

    class Loud:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "ran"),))

    rush.push_tasks([{"v": Loud()}])
    rush.export(tmp_path / "a.parquet")
    archive = Rush.read_archive(tmp_path / "a.parquet")
    archive.fetch_tasks(fields=["key"])
    assert not (tmp_path / "ran").exists()
    archive.fetch_tasks()
    assert (tmp_path / "ran").exists()


# --- nothing can be written -------------------------------------------------------------------------


def _members(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_everything_that_is_no_reading_is_refused(busy: Rush, path: Path) -> None:
    """Every method and property of managers and workers, those of later releases too."""
    busy.export(path)
    archive = Rush.read_archive(path)
    before = archive.fetch_tasks(as_="dicts")
    reading = _members(TaskReader) | OWN
    refused = (_members(Rush) | _members(RushWorker)) - reading
    assert {
        "push_tasks",
        "finish_tasks",
        "reset",
        "start_workers",
        "worker_info",
        "aio",
        "pop_task",
    } <= refused
    for name in refused:
        with pytest.raises(RushlightError, match=f"archive.*{name}"):
            getattr(archive, name)()
    assert reading <= _members(Archive)
    assert alike(before, archive.fetch_tasks(as_="dicts"))


def test_what_nobody_has_is_no_attribute(busy: Rush, path: Path) -> None:
    """As with any object."""
    busy.export(path)
    archive = Rush.read_archive(path)
    assert not hasattr(archive, "nonsense")
    assert not hasattr(archive, "_private")
    assert isinstance(busy.aio, AsyncReader)


def test_waits_return_at_once(busy: Rush, path: Path) -> None:
    """Nothing new comes to an archive."""
    busy.export(path)
    with Rush.read_archive(path) as archive:
        result = archive.wait_for_tasks(archive.keys())
        assert ("no_workers", archive.keys("failed")) == (
            result.reason,
            sorted(result.failed, key=archive.keys().index),
        )
        assert "done" == archive.wait_for_tasks(archive.keys("finished")).reason
        assert archive.n_finished_tasks == archive.fetch_new_tasks(timeout=60, fields=["key"]).height
        assert 0 == archive.fetch_new_tasks(timeout=60, fields=["key"]).height
        ended = [task.key for task in archive.stream()]
    assert {*archive.keys("finished"), *archive.keys("failed")} == set(ended)


# --- files that are none ----------------------------------------------------------------------------


def test_a_path_that_cannot_be_is_told_before_anything_is_read(rush: Rush, tmp_path: Path) -> None:
    """Another suffix, no directory, no file."""
    for name in ("a.csv", "a", "parquet"):
        for call in (rush.export, Rush.read_archive):
            with pytest.raises(ConfigError, match=r"\.parquet, \.ndjson, \.jsonl"):
                call(tmp_path / name)
    with pytest.raises(ConfigError, match="directory"):
        rush.export(tmp_path / "no" / "a.parquet")
    with pytest.raises(ConfigError, match="no file"):
        Rush.read_archive(tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="path"):
        rush.export(5)  # type: ignore[arg-type]
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_no_archive(busy: Rush, path: Path, kept: float) -> None:
    """Wherever it was cut; the error names it."""
    busy.export(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(DecodeError, match=path.name):
        Rush.read_archive(path)


def test_a_file_cut_between_lines_is_no_archive(busy: Rush, tmp_path: Path) -> None:
    """Nor one that lost a line, or has one twice; the order of lines does not matter."""
    path = tmp_path / "a.ndjson"
    busy.export(path)
    lines = path.read_bytes().splitlines(keepends=True)
    for wrong in (lines[:-1], lines[1:], lines[:5] + lines[6:], [*lines, lines[3]], []):
        path.write_bytes(b"".join(wrong))
        with pytest.raises(DecodeError, match=r"a\.ndjson"):
            Rush.read_archive(path)
    path.write_bytes(b"\n".join(reversed(lines)))
    same_tasks(busy, Rush.read_archive(path))


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PAR1PAR1", b"PAR1" + bytes(100) + b"PAR1", b'{"key": 1}\n']
)
def test_a_foreign_file_is_no_archive(path: Path, content: bytes) -> None:
    """Whatever it holds."""
    path.write_bytes(content)
    with pytest.raises(DecodeError, match=path.name):
        Rush.read_archive(path)


def test_a_foreign_table_is_no_archive(tmp_path: Path) -> None:
    """Also where it has a column of our name."""
    for cells in (["x"], [b"x"], [None], [5], []):
        path = tmp_path / "a.parquet"
        pl.DataFrame({RECORD: cells}).write_parquet(path)
        with pytest.raises(DecodeError, match=r"a\.parquet"):
            Rush.read_archive(path)
        pl.DataFrame({"a": [1]}).write_parquet(path)
        with pytest.raises(DecodeError, match=r"a\.parquet"):
            Rush.read_archive(path)


def test_damage_within_a_file_is_found(busy: Rush, path: Path) -> None:
    """A byte that changed gives an error, or the same tasks where it was in what others read."""
    busy.export(path)
    data = path.read_bytes()
    found = 0
    for at in range(10, len(data) - 10, max(1, len(data) // 150)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        try:
            archive = Rush.read_archive(path)
        except DecodeError:
            found += 1
        else:
            assert busy.keys() == archive.keys()
    assert found > 50


def test_an_export_that_fails_leaves_the_old_file(
    busy: Rush, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new one appears whole or not at all."""
    busy.export(path)
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="space"):
            busy.export(path)
    assert before == path.read_bytes()
    assert [path] == list(path.parent.iterdir())


# --- one instant ------------------------------------------------------------------------------------


@pytest.fixture
def apart(home: Path) -> Iterator[Server]:
    """A server of the test's own."""
    server = Server(find_binary())
    yield server
    server.close()


_BUSY = """
import sys
from rushlight import RushWorker
with RushWorker("moving", sys.argv[1]) as worker:
    key = worker.push_running_task({"i": 0})
    print("ready", flush=True)
    for i in range(1, 10_000):
        key = worker.step((key, {"y": i}), {"i": i})
    sys.stdin.read()
"""


@pytest.mark.slow
def test_an_archive_is_of_one_instant(apart: Server, tmp_path: Path) -> None:
    """While a worker finishes one task and begins the next: always exactly one runs."""
    source = Path(__file__).resolve().parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source)}
    command = [sys.executable, "-c", _BUSY, apart.url]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            with Rush("moving", apart.url) as rush:
                for _ in range(8):
                    rush.export(tmp_path / "a.ndjson")
                    archive = Rush.read_archive(tmp_path / "a.ndjson")
                    assert 1 == archive.n_running_tasks
                    assert archive.n_finished_tasks == archive.task(archive.keys("running")[0]).xs["i"]
        finally:
            process.kill()


def test_a_network_is_exported_from_the_shell(rush: Rush, tmp_path: Path) -> None:
    """And no file is replaced by accident."""
    rush.push_finished_tasks([{"x": 1}], [{"y": 2}])
    path = tmp_path / "a.parquet"

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "rushlight",
            "export",
            str(path),
            "--network",
            rush.network,
            *options,
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    done = run()
    assert (0, "") == (done.returncode, done.stderr)
    assert "1 task" in done.stdout
    assert 1 == len(Rush.read_archive(path))
    again = run()
    assert (2, "") == (again.returncode, again.stdout)
    assert "--force" in again.stderr
    rush.push_tasks([{"x": 2}])
    assert 0 == run("--force").returncode
    assert 2 == len(Rush.read_archive(path))
