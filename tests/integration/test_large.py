"""Objects one command cannot carry: sent in chunks, once, by content; or lying in files; read when needed."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from harness import Server, ended, run_python
from rushlight import Rush, RushWorker, _large, plan
from rushlight._disk_cache import DiskCache, digest_of
from rushlight._server import find_binary
from rushlight.errors import ConfigError, DataMissing, DecodeError, SecretRequired, SignatureMismatch

MB = 1 << 20


def big(megabytes: int, salt: bytes = b"") -> bytes:
    """Bytes of this size; another salt makes others."""
    return salt + bytes(megabytes * MB - len(salt))


def key_of(network: str, name: str) -> str:
    """One of the network's keys."""
    return f"rl:{{{network}}}:{name}"


@contextmanager
def traffic(server: redis.Redis) -> Iterator[Callable[[], tuple[int, int]]]:
    """Bytes the server has received and sent since the block began."""

    def read() -> tuple[int, int]:
        told = server.info("stats")
        return int(told["total_net_input_bytes"]), int(told["total_net_output_bytes"])

    start = read()
    yield lambda: (read()[0] - start[0], read()[1] - start[1])


def spy(owner: Any) -> list[bytes]:
    """The commands a manager or worker sends from now on."""
    sent: list[bytes] = []
    link = owner._store.link
    exchange = link._exchange

    def seen(commands: bytes, n: int, wait: float | None) -> list[Any]:
        sent.append(commands)
        return exchange(commands, n, wait)

    link._exchange = seen
    return sent


# --- chunks -----------------------------------------------------------------------------------------


def test_a_value_larger_than_a_command_carries_comes_back(rush: Rush, server: redis.Redis) -> None:
    """It lies on the server in chunks that are small enough for any server."""
    value = big(20)
    key = rush.push_tasks([{"v": value}])[0]
    assert value == rush.task(key).xs["v"]
    blobs = key_of(rush.network, "blobs")
    sizes = [server.hstrlen(blobs, field) for field in server.hkeys(blobs)]
    assert max(sizes) <= 16 * MB
    assert len(sizes) > 20 * MB // _large.CHUNK


_MEASURE = """
import resource, sys
from rushlight import Rush
network, url, megabytes = sys.argv[1], sys.argv[2] or None, int(sys.argv[3])
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
with Rush(network, url) as rush:
    rush.push_tasks([{"v": bytes(3 << 20)}])
    value = bytes(1 << 20) * megabytes
    start = peak()
    key = rush.push_tasks([{"v": value}])[0]
    written = peak() - start
    assert rush.task(key).xs["v"] == value
    print(written, peak() - start)
"""


def test_64_megabytes_are_not_held_in_many_copies(network: str, home: Path) -> None:
    """Sending takes one encoded copy beside the value, reading one beside the value that comes of it."""
    written, read = map(float, ended(run_python(_MEASURE, network, "", "64")).split())
    assert written < 64 * 1.6
    assert read < 64 * 2.6


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_600_megabytes_pass(home: Path) -> None:
    """More than a server takes in one command, in memory of a few copies; the server stays responsive."""
    server = Server(find_binary(), "--maxmemory", "4gb")
    try:
        told = ended(run_python(_MEASURE, "huge", server.url, "600"), seconds=240)
        written, read = map(float, told.split())
        assert written < 600 * 1.3
        assert read < 600 * 2.3
        with Rush("huge", server.url) as rush:
            rush.reset()
        assert 0 == server.client().dbsize()
    finally:
        server.close()


def test_what_the_server_has_is_not_sent_again(rush: Rush, network: str, server: redis.Redis) -> None:
    """Neither by the same manager nor by another, also for values of a single chunk."""
    rush.push_tasks([{"v": big(12), "w": big(2)}])
    with traffic(server) as used, Rush(network) as another:
        rush.push_tasks([{"v": big(12)}, {"v": big(2)}])
        another.push_tasks([{"other_name": big(12)}] * 3)
        assert used()[0] < MB


def test_an_upload_that_broke_off_goes_on_where_it_stopped(
    rush: Rush, network: str, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manager that died in the middle has left chunks, and nothing that could be taken for the value."""
    value = big(40)
    send, sent = rush._store.link.call, []

    def dying(command: bytes, **kwargs: Any) -> Any:
        sent.append(len(command))
        if sum(sent) > 30 * MB:
            raise KeyboardInterrupt
        return send(command, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rush._store.link, "call", dying)
        rush.push_tasks([{"v": value}])
    assert 0 == rush.n_tasks
    with traffic(server) as used, Rush(network) as another:
        key = another.push_tasks([{"v": value}])[0]
        assert 8 * MB < used()[0] < 20 * MB
    assert value == rush.task(key).xs["v"]


def test_a_reset_in_between_loses_no_part_of_a_value(rush: Rush, network: str) -> None:
    """A manager that does not know of the reset writes the whole value under the new epoch."""
    rush.push_tasks([{"v": big(10)}])
    with Rush(network) as another:
        another.reset()
    key = rush.push_tasks([{"v": big(10)}])[0]
    assert big(10) == rush.task(key).xs["v"]


def test_many_middling_values_travel_in_several_trips(rush: Rush) -> None:
    """Values that are small each, and together more than one command should carry."""
    values = [big(1, str(i).encode()) for i in range(12)]
    keys = rush.push_tasks([{"v": v} for v in values])
    sent = spy(rush)
    assert values == rush.fetch_queued_tasks(fields=["v"], as_="polars")["v"].to_list()
    assert len(sent) > 3
    assert values[7] == rush.task(keys[7]).xs["v"]


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda raw, key, chunk: raw.hdel(key, chunk), DataMissing),
        (lambda raw, key, chunk: raw.hset(key, chunk, b"short"), DataMissing),
        (lambda raw, key, chunk: raw.hset(key, chunk, b"x" * raw.hstrlen(key, chunk)), DecodeError),
    ],
    ids=["gone", "cut", "changed"],
)
def test_a_damaged_chunk_is_never_read_as_a_value(
    rush: Rush, server: redis.Redis, damage: Callable[..., Any], error: type[Exception]
) -> None:
    """What was evicted, cut or changed is told apart from a value."""
    key = rush.push_tasks([{"v": big(10)}])[0]
    blobs = key_of(rush.network, "blobs")
    chunk = sorted(server.hkeys(blobs))[1]
    damage(server, blobs, chunk)
    with pytest.raises(error):
        rush.task(key)


@pytest.mark.parametrize(
    "claims",
    [
        (1 << 62, 1 << 62),
        (3, 1 << 60),
        (-1, 0),
        (0, 1 << 50),
        (1 << 40, 1 << 20),
        (3, 1),
        (1, 2, 3),
        "text",
        (),
    ],
    ids=str,
)
def test_a_manifest_that_lies_costs_nothing(rush: Rush, server: redis.Redis, claims: Any) -> None:
    """Petabytes, too many chunks, too few, and what is no manifest at all: refused, and never waited for."""
    key = rush.push_tasks([{"v": big(10)}])[0]
    blobs = key_of(rush.network, "blobs")
    (digest,) = (field for field in server.hkeys(blobs) if b":" not in field)
    server.hset(blobs, digest, _large._CHUNKS + msgspec.msgpack.encode(claims))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((DataMissing, DecodeError)):
        rush.task(key)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


def test_workers_write_large_results(rush: Rush, worker: RushWorker) -> None:
    """In every way a result can be written."""
    first, second, third = worker.push_running_tasks([{"i": i} for i in range(3)])
    assert worker.finish_task(first, {"y": big(9)})
    fourth = worker.step((second, {"y": big(10)}), {"x": big(11)})
    with worker.write_behind():
        worker.finish_task(third, {"y": big(12)})
        worker.finish_task(fourth, {"y": 1})
    sizes = {task.xs.get("i"): task.ys for task in rush.fetch_finished_tasks(as_="tasks")}
    assert [9, 10, 12] == [len(sizes[i]["y"]) // MB for i in range(3)]
    assert big(11) == rush.task(fourth).xs["x"]


# --- columns that nobody asks for -------------------------------------------------------------------


def test_large_values_are_read_only_for_columns_a_table_has(rush: Rush) -> None:
    """A table without the column costs one round trip; the one with it reads the values, once."""
    rush.push_finished_tasks(
        [{"x": i} for i in range(3)], [{"y": i, "model": big(2, b"%d" % i)} for i in range(3)]
    )
    sent = spy(rush)
    assert [0, 1, 2] == rush.fetch_finished_tasks(fields=["x", "y"])["y"].to_list()
    assert 1 == len(sent)
    values = f":{{{rush.network}}}:blobs".encode()
    assert not any(values in command for command in sent)
    assert [2 * MB] * 3 == [len(v) for v in rush.fetch_finished_tasks(fields=["model"])["model"]]
    after = len(sent)
    assert any(values in command for command in sent)
    rush.fetch_finished_tasks()
    assert 1 == len(sent) - after


# --- workers: one download for a host ---------------------------------------------------------------


def _total(worker: RushWorker, data: bytes) -> None:
    with worker.task({"worker": worker.worker_id}) as task:
        task.finish({"size": len(data)})


def test_arguments_are_uploaded_once_and_downloaded_once_per_host(
    rush: Rush, server: redis.Redis, home: Path
) -> None:
    """However many workers are started however often; the host keeps them where only this user can read."""
    data = os.urandom(24 * MB)
    with traffic(server) as used:
        ids = rush.start_workers(_total, 3, kwargs={"data": data})
        rush.wait_for_workers(worker_ids=ids, timeout=60)
        ids += rush.start_workers(_total, 2, kwargs={"data": data})
        rush.wait_for_workers(worker_ids=ids, timeout=60)
        received, given = used()
    assert 24 * MB < received < 30 * MB
    assert 24 * MB < given < 30 * MB
    kept = home / "cache"
    assert 0o700 == stat.S_IMODE(kept.stat().st_mode)
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in kept.iterdir()}


def test_workers_share_large_inputs_through_the_disk(
    network: str, rush: Rush, server: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``RUSHLIGHT_CACHE`` says where."""
    monkeypatch.setenv("RUSHLIGHT_CACHE", str(tmp_path))
    rush.push_tasks([{"i": i, "data": big(10)} for i in range(4)])
    with RushWorker(network) as one, RushWorker(network) as two, traffic(server) as used:
        for worker in (one, two, one, two):
            task = worker.pop_task()
            assert task is not None
            assert big(10) == task.xs["data"]
        assert used()[1] < 12 * MB
    folder = tmp_path / f"rushlight-{os.geteuid()}"
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)


def test_the_disk_keeps_what_was_used_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within its limit; what is larger than the limit is not kept at all."""
    monkeypatch.setenv("RUSHLIGHT_CACHE", str(tmp_path))
    monkeypatch.setenv("RUSHLIGHT_CACHE_SIZE", "1000")
    cache = DiskCache()
    parts = [bytes([i]) * 400 for i in range(3)]
    fetched: list[int] = []

    def get(i: int) -> None:
        def fetch() -> bytes:
            fetched.append(i)
            return parts[i]

        assert parts[i] == cache.get(digest_of(parts[i]), fetch)

    for i in (0, 1, 0, 2, 0, 1):
        get(i)
    assert [0, 1, 2, 1] == fetched
    huge = bytes(2000)
    assert huge == cache.get(digest_of(huge), lambda: huge)
    folder = next(tmp_path.iterdir())
    assert 1000 >= sum(path.stat().st_size for path in folder.iterdir())


def test_a_file_that_was_changed_on_disk_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing on disk is believed that does not have its digest."""
    monkeypatch.setenv("RUSHLIGHT_CACHE", str(tmp_path))
    cache, data = DiskCache(), b"content"
    digest = digest_of(data)
    cache.get(digest, lambda: data)
    path = next(tmp_path.glob(f"*/{digest}"))
    path.write_bytes(b"something")
    assert data == cache.get(digest, lambda: data)
    assert data == path.read_bytes()


def test_without_a_disk_workers_fetch_for_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that cannot be there, or is switched off, costs nothing but time."""
    (tmp_path / "file").write_text("")
    for place, size in ((tmp_path / "file", ""), (tmp_path / "off", "0")):
        monkeypatch.setenv("RUSHLIGHT_CACHE", str(place))
        monkeypatch.setenv("RUSHLIGHT_CACHE_SIZE", size)
        assert b"data" == DiskCache().get(digest_of(b"data"), lambda: b"data")
    assert ["file"] == [path.name for path in tmp_path.iterdir()]
    monkeypatch.setenv("RUSHLIGHT_CACHE_SIZE", "much")
    with pytest.raises(ConfigError, match="RUSHLIGHT_CACHE_SIZE"):
        DiskCache()


# --- files --------------------------------------------------------------------------------------------


def files_in(folder: Path) -> list[Path]:
    """Every file below a directory."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_large_objects_go_to_a_directory_where_one_is_named(
    network: str, server: redis.Redis, tmp_path: Path
) -> None:
    """By ``plan``: each content once, readable by this user alone; the server keeps a reference."""
    with plan(large_object_dir=str(tmp_path)), Rush(network) as rush:
        keys = rush.push_tasks([{"v": big(10)}, {"v": big(10), "small": big(1)}])
        rush.push_tasks([{"v": big(10)}])
    assert [10] == [path.stat().st_size // MB for path in files_in(tmp_path)]
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in files_in(tmp_path)}
    assert server.memory_usage(key_of(network, "blobs"), samples=0) < 4 * MB
    with Rush(network) as reader:
        assert big(10) == reader.task(keys[1]).xs["v"]


def test_workers_take_their_arguments_and_leave_results_there(
    rush: Rush, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """``start_workers(large_object_dir=)``; a reset of the tasks leaves the arguments, a reset nothing."""

    def loop(worker: RushWorker, data: bytes) -> None:
        while not worker.terminated:
            task = worker.pop_task()
            if task is not None:
                worker.finish_task(task.key, {"y": data + b"!"})

    data = big(9)
    rush.start_workers(loop, kwargs={"data": data}, large_object_dir=tmp_path)
    rush.wait_for_workers(1, timeout=60)
    assert 1 == len(files_in(tmp_path))
    done = rush.wait_for_tasks(rush.push_tasks([{}]), timeout=60)
    assert data + b"!" == rush.task(done.done[0]).ys["y"]
    assert 2 == len(files_in(tmp_path))
    rush.reset(workers=False)
    assert [9 * MB] == [path.stat().st_size // MB * MB for path in files_in(tmp_path)]
    ids = rush.restart_workers(rush.worker_ids)
    wait_until(lambda: rush.running_worker_ids == ids)
    rush.reset()
    assert [] == list(tmp_path.iterdir())


def test_the_environment_names_the_directory(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a host knows it by another path than the one who wrote."""
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    monkeypatch.setenv("RUSHLIGHT_LARGE_OBJECT_DIR", str(there))
    with Rush(network) as rush:
        key = rush.push_tasks([{"v": big(9)}])[0]
    there.rename(here)
    with Rush(network) as rush, pytest.raises(DataMissing, match="RUSHLIGHT_LARGE_OBJECT_DIR"):
        rush.task(key)
    monkeypatch.setenv("RUSHLIGHT_LARGE_OBJECT_DIR", str(here))
    with Rush(network) as rush:
        assert big(9) == rush.task(key).xs["v"]
        rush.reset()
    assert [] == files_in(here)


def test_a_missing_directory_is_told_before_anything_is_written(
    rush: Rush, network: str, server: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it was named."""
    missing = str(tmp_path / "missing")
    with pytest.raises(ConfigError, match="missing"):
        plan(large_object_dir=missing)
    assert not plan.is_set()
    with pytest.raises(ConfigError, match="missing"):
        rush.start_workers(_total, large_object_dir=missing)
    monkeypatch.setenv("RUSHLIGHT_LARGE_OBJECT_DIR", missing)
    with Rush(network) as other, pytest.raises(ConfigError, match="missing"):
        other.push_tasks([{"v": big(9), "w": big(1)}])
    assert not server.exists(key_of(network, "blobs"), key_of(network, "specs"), key_of(network, "index"))


def test_two_writers_of_one_content_leave_one_file(
    network: str, rush: Rush, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one to tell the server removes its own file; a resent call keeps it."""
    monkeypatch.setenv("RUSHLIGHT_LARGE_OBJECT_DIR", str(tmp_path))
    with Rush(network) as one, Rush(network) as two:
        large = two._store.large
        monkeypatch.setattr(large, "_missing", lambda _place, fields: list(fields))
        keys = [*one.push_tasks([{"v": big(9)}]), *two.push_tasks([{"v": big(9)}])]
        assert 1 == len(files_in(tmp_path))
        assert [big(9)] * 2 == [one.task(key).xs["v"] for key in keys]


def test_a_forged_reference_is_not_followed(
    network: str, server: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may write to the server cannot make a reader open files, nor a reset remove them."""
    monkeypatch.setenv("RUSHLIGHT_LARGE_OBJECT_DIR", str(tmp_path))
    with Rush(network) as rush:
        key = rush.push_tasks([{"v": big(9)}])[0]
        blobs, files = key_of(network, "blobs"), key_of(network, "files")
        ((field, manifest),) = server.hgetall(blobs).items()
        victim = tmp_path / "victim"
        victim.write_text("precious")
        forged = manifest[:-3] + b"abc"
        server.hset(blobs, field, forged)
        server.hset(files, "blobs:x", forged)
        with pytest.raises(SignatureMismatch):
            rush.task(key)
        rush.reset()
        assert victim.exists()


def test_files_need_a_secret(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be signed no reference is written."""
    monkeypatch.setenv("RUSHLIGHT_LARGE_OBJECT_DIR", str(tmp_path))
    server = Server(find_binary())
    try:
        with Rush("unsigned", server.url) as rush:
            rush._store.codec.trust = None
            with pytest.raises(SecretRequired):
                rush.push_tasks([{"v": big(9)}])
        assert [] == files_in(tmp_path)
    finally:
        server.close()


def test_a_reference_that_is_sent_twice_is_ours_both_times(rush: Rush, network: str) -> None:
    """A writer whose reply was lost does not remove the file everybody refers to."""
    store = rush._store

    def refer(manifest: bytes) -> Any:
        return store.write(lambda epoch: store.scripts.refer("blobs", epoch, "d", manifest, "blobs:d"))

    assert [1, 1, 0] == [refer(m)[1] for m in (b"\xc1one", b"\xc1one", b"\xc1two")]
