"""Servers as they are found: with passwords, TLS, rights, little memory, of another age, or not at all."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import redis

from ground import Ground
from harness import KINDS, Server, keys_of
from rushlight import Rush, RushWorker
from rushlight._records import TaskState
from rushlight.errors import ConfigError, StoreError, StoreUnavailable, StoreVersion, StoreWarning

GroundOn = Callable[[Server], Ground]
OwnServer = Callable[..., Server]


def free_port() -> int:
    """A port of the loopback interface nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def on_port(own_server: OwnServer, *options: str, kind: str = "valkey") -> tuple[Server, int]:
    """A server that listens on a loopback port too."""
    port = free_port()
    return own_server("--port", str(port), "--bind", "127.0.0.1", *options, kind=kind), port


def works(network: str, url: str) -> None:
    """A task goes all the way, a wait included, and the network goes as it came."""
    with Rush(network, url) as rush, RushWorker(network, url) as worker:
        (key,) = rush.push_tasks([{"x": 1}])
        task = worker.pop_task()
        assert task is not None
        assert worker.pop_task(timeout=0.05) is None
        worker.finish_task(key, {"y": 2})
        assert [2] == [task.ys["y"] for task in rush.fetch_new_tasks(timeout=5, as_="tasks")]
        assert rush.wait_for_tasks([key], timeout=5)
        worker.close()
        rush.reset()


# --- addresses --------------------------------------------------------------------------------------


def test_all_spellings_of_an_address_work(own_server: OwnServer, network: str) -> None:
    """A socket's path, a host and port, a database number, Valkey's schemes."""
    server, port = on_port(own_server)
    for url in (
        f"unix://{server.socket}",
        f"unix://{server.socket}?db=3",
        f"redis://127.0.0.1:{port}",
        f"redis://localhost:{port}/2",
        f"valkey://127.0.0.1:{port}/1",
    ):
        works(network, url)


def test_databases_are_worlds_of_their_own(own_server: OwnServer, network: str) -> None:
    """The same name in another database is another network."""
    server, port = on_port(own_server)
    with (
        Rush(network, f"redis://127.0.0.1:{port}/1") as one,
        Rush(network, f"unix://{server.socket}?db=2") as two,
    ):
        one.push_tasks([{"x": 1}])
        assert (1, 0) == (one.n_queued_tasks, two.n_queued_tasks)
        with server.client(db=1) as raw:
            assert keys_of(raw, network)
        with server.client(db=2) as raw:
            assert not keys_of(raw, network)
        one.reset()


@pytest.mark.parametrize("url", ["http://host:1/0", "redis//host", "redis://host:seven", "unix://", 5])
def test_what_is_no_address_is_refused(network: str, url: object) -> None:
    """Before anything is tried, naming what is wrong and never a password."""
    with pytest.raises(ConfigError, match="url"):
        Rush(network, url)  # type: ignore[arg-type]


# --- not there --------------------------------------------------------------------------------------


def test_nobody_listens(network: str) -> None:
    """Said at once, with the address and without the password."""
    url = f"redis://ann:hidden-word@127.0.0.1:{free_port()}/3"
    with pytest.raises(StoreUnavailable, match=r"ann@127\.0\.0\.1") as caught:
        Rush(network, url)
    assert "hidden-word" not in repr(caught.value) + str(caught.value) + str(caught.value.fields)


def test_no_such_socket(network: str, tmp_path: Path) -> None:
    """The path is named."""
    with pytest.raises(StoreUnavailable, match="nowhere"):
        Rush(network, f"unix://{tmp_path}/nowhere")


def test_a_server_that_never_answers(network: str) -> None:
    """A port that takes connections and says nothing is given up after ``connect_timeout``, however long
    later calls may take."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=8)) as mute:
        url = f"redis://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1.*no answer within 0\.3 s"):
            Rush(network, url, connect_timeout=0.3, timeout=3600.0)


@contextmanager
def double(answers: Callable[[list[bytes]], bytes]) -> Iterator[int]:
    """A tiny server of our own that answers each command with what ``answers`` says; its port."""

    def read_command(stream) -> list[bytes]:
        count = int(stream.readline()[1:])
        words = []
        for _ in range(count):
            size = int(stream.readline()[1:])
            words.append(stream.read(size + 2)[:-2])
        return words

    def serve() -> None:
        try:
            while True:
                connection, _ = listener.accept()
                with connection, connection.makefile("rb") as stream:
                    try:
                        while True:
                            connection.sendall(answers(read_command(stream)))
                    except (ValueError, OSError):
                        continue
        except OSError:
            return

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_a_server_that_is_too_old(network: str) -> None:
    """A server without a command of Redis 6.2 is refused, naming the command, before anything is written."""
    asked: list[bytes] = []

    def answers(words: list[bytes]) -> bytes:
        asked.append(words[0].upper())
        if words[:2] == [b"COMMAND", b"INFO"]:
            known = b"*6\r\n$5\r\nblmov\r\n:1\r\n*0\r\n:1\r\n:1\r\n:1\r\n"
            replies = [b"*-1\r\n" if word == b"BLMOVE" else known for word in words[2:]]
            return b"*%d\r\n" % len(replies) + b"".join(replies)
        return b"+OK\r\n"

    with double(answers) as port, pytest.raises(StoreVersion, match=r"BLMOVE.*6\.2") as caught:
        Rush(network, f"redis://127.0.0.1:{port}")
    assert ["BLMOVE"] == caught.value.fields["missing"]
    assert not {b"EVALSHA", b"EVAL", b"SET", b"HSET", b"MULTI"} & set(asked)


# --- who may ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_passwords(own_server: OwnServer, network: str, kind: str) -> None:
    """With the right one everything works; a wrong one or none is told at once, without being repeated."""
    _, port = on_port(own_server, "--requirepass", "the-right-word", kind=kind)
    works(network, f"redis://:the-right-word@127.0.0.1:{port}/0")
    for account in (":hidden-word@", "ann:hidden-word@", ""):
        with pytest.raises(StoreUnavailable, match=rf"127\.0\.0\.1:{port}") as caught:
            Rush(network, f"redis://{account}127.0.0.1:{port}/0", patience=3600.0)
        assert "hidden-word" not in repr(caught.value) + str(caught.value) + str(caught.value.fields)


def test_a_password_that_was_changed(own_server: OwnServer, network: str) -> None:
    """A client that comes back to a server that does not let it in any more is told at once."""
    server, port = on_port(own_server, "--requirepass", "first-word")
    with Rush(network, f"redis://:first-word@127.0.0.1:{port}", patience=3600.0) as rush:
        rush.counts()
        with server.client(password="first-word") as raw:
            raw.config_set("requirepass", "second-word")
            raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with pytest.raises(StoreUnavailable, match=rf"127\.0\.0\.1:{port}") as caught:
            rush.counts()
        assert "-word" not in str(caught.value)


FORBIDDEN = (
    *("GET other", "FLUSHALL", "FLUSHDB", "CONFIG GET *", "KEYS *", "SHUTDOWN", "MONITOR", "ACL LIST"),
    *("CLIENT LIST", "SAVE", "REPLICAOF NO ONE", "PUBLISH x y", "EVAL return(1) 1 other"),
)


def published_account(network: str, word: str) -> list[str]:
    """The line of the documentation, for this network and password, as words of ACL SETUSER."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "server.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"```acl\nuser rushlight (.*)\n```", page)
    return line.replace("{study}", f"{{{network}}}").replace("the-password", word).split()


@pytest.mark.parametrize("kind", KINDS)
def test_an_account_of_one_network(own_server: OwnServer, network: str, kind: str) -> None:
    """The published account is enough for everything on its network, and is refused another network's keys,
    other keys, and all that could harm others."""
    server, port = on_port(own_server, kind=kind)
    other = f"{network}-other"
    with server.client() as raw:
        raw.execute_command("ACL", "SETUSER", "ann", *published_account(network, "word-for-ann"))
    url = f"redis://ann:word-for-ann@127.0.0.1:{port}"
    works(network, url)
    with Rush(other, server.url) as theirs:
        (key,) = theirs.push_tasks([{"x": 1}])
        with Rush(other, url) as rush:
            for call in (
                lambda: rush.push_tasks([{"x": 1}]),
                lambda: rush.task(key),
                lambda: RushWorker(other, url),
                rush.fetch_tasks,
                rush.reset,
            ):
                with pytest.raises(StoreError, match=r"(?i)perm|key") as caught:
                    call()
                assert "word-for-ann" not in str(caught.value)
        assert 1 == theirs.n_queued_tasks
        with redis.Redis(port=port, username="ann", password="word-for-ann", protocol=2) as ann:
            for words in FORBIDDEN:
                with pytest.raises(redis.exceptions.NoPermissionError):
                    ann.execute_command(*words.split(" "))
        theirs.reset()
    with server.client() as raw:
        assert [] == raw.keys("*")


def test_tls(own_server: OwnServer, network: str, tmp_path: Path) -> None:
    """Over an encrypted line with a checked certificate, waits included; an unknown one is refused."""
    key, certificate = certified(tmp_path, "server")
    port = free_port()
    own_server(
        *("--tls-port", str(port), "--bind", "127.0.0.1", "--tls-cert-file", str(certificate)),
        *("--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no"),
        kind="redis-7.0",
    )
    url = f"rediss://localhost:{port}"
    works(network, f"{url}?ssl_ca_certs={certificate}")
    with Rush(network, f"{url}?ssl_ca_certs={certificate}") as rush:
        listener = rush._store.listen()
        keys = rush.push_tasks([{"x": "a" * 200_000}] * 30)
        assert {200_000} == {len(row["x"]) for row in rush.fetch_queued_tasks(as_="dicts")}
        assert keys == rush.empty_queue()
        listener.close()
        rush.reset()
    with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
        Rush(network, url)


def certified(folder: Path, name: str) -> tuple[Path, Path]:
    """A fresh key and the certificate that vouches for itself."""
    key, certificate = folder / f"{name}-key.pem", folder / f"{name}-cert.pem"
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run(
        [*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True, timeout=60
    )
    return key, certificate


def test_tls_with_client_certificates(own_server: OwnServer, network: str, tmp_path: Path) -> None:
    """Who has a certificate the server trusts gets in, worker processes included; nobody else does."""
    key, certificate = certified(tmp_path, "server")
    own_key, own_certificate = certified(tmp_path, "client")
    port = free_port()
    own_server(
        *("--tls-port", str(port), "--bind", "127.0.0.1", "--tls-cert-file", str(certificate)),
        *(
            "--tls-key-file",
            str(key),
            "--tls-ca-cert-file",
            str(own_certificate),
            "--tls-auth-clients",
            "yes",
        ),
        kind="redis-7.0",
    )
    url = f"rediss://localhost:{port}?ssl_ca_certs={certificate}"
    with_certificate = f"{url}&ssl_certfile={own_certificate}&ssl_keyfile={own_key}"
    works(network, with_certificate)
    with Rush(network, with_certificate) as rush:
        rush.start_workers(double_it, 1)
        keys = rush.push_tasks([{"x": 4}])
        assert rush.wait_for_tasks(keys, timeout=60)
        assert [8] == [row["y"] for row in rush.fetch_finished_tasks(as_="dicts")]
        rush.reset()
    stranger = certified(tmp_path, "stranger")
    for strange in (url, f"{url}&ssl_certfile={stranger[1]}&ssl_keyfile={stranger[0]}"):
        with pytest.raises(StoreUnavailable, match=rf"localhost:{port}"):
            Rush(network, strange, connect_timeout=5)


def double_it(worker: RushWorker) -> None:
    """Doubles what it gets."""
    while not worker.terminated:
        task = worker.pop_task(timeout=1)
        if task is not None:
            worker.finish_task(task.key, {"y": 2 * task.xs["x"]})


# --- memory -----------------------------------------------------------------------------------------


def full(ground: Ground, *, full_: bool = True) -> None:
    """Makes the server believe that its memory is full."""
    ground.raw.config_set("maxmemory", "1" if full_ else "0")


@pytest.fixture(params=KINDS)
def crowded(request: pytest.FixtureRequest, own_server: OwnServer, ground_on: GroundOn) -> Ground:
    """A network on a server of its own, whose memory the test may let be full."""
    return ground_on(own_server(kind=request.param))


def test_a_full_server_takes_no_new_task(crowded: Ground) -> None:
    """Creating says what is the matter and what to do, and nothing is half there; afterwards it goes on."""
    worker = crowded.member()
    held = crowded.begin(worker)
    full(crowded)
    for call in (crowded.push, lambda: crowded.begin(worker, 3), lambda: crowded.push(1200), crowded.member):
        with pytest.raises(StoreError, match="maxmemory") as caught:
            call()
        assert not caught.value.transient
    with pytest.raises(StoreError, match="maxmemory"):
        crowded.store.record(crowded.encode(), "f", [crowded.payload()])
    full(crowded, full_=False)
    assert dict.fromkeys(held, "running") == crowded.states()
    keys = crowded.push(2)
    assert {"queued"} == {crowded.states()[key] for key in keys}


def test_a_full_server_takes_results(crowded: Ground) -> None:
    """What is under way is brought to its end: tasks are taken, finished, failed; leases are renewed."""
    worker = crowded.member()
    held = crowded.begin(worker, 3)
    queued = crowded.push(3)
    full(crowded)
    assert crowded.finish(worker, held[0], y=1)
    assert crowded.fail(worker, held[1])
    assert [queued[0]] == crowded.claim(worker)
    assert "r" == crowded.store.beat([(worker.card.worker_id, worker.card.token)], 60.0).letters
    assert [queued[1]] == crowded.store.drop({"message": "Cancelled"}, [queued[1]])
    crowded.store.watch(5.0)
    assert not worker.leaving
    crowded.store.stop([worker.card.worker_id], kill=False)
    worker.leave("bye")
    full(crowded, full_=False)
    assert ["finished", "failed", "failed", "failed", "failed", "queued"] == [
        crowded.states()[key] for key in (*held, *queued)
    ]


def test_a_full_server_can_be_read_and_reset(crowded: Ground) -> None:
    """The way out is open: results can be fetched, and the network deleted."""
    worker = crowded.member()
    held = crowded.begin(worker, 2)
    crowded.finish(worker, held[0], y=1)
    crowded.push(2)
    full(crowded)
    with Rush(crowded.network, crowded.url) as rush:
        assert [1] == [row["y"] for row in rush.fetch_finished_tasks(as_="dicts")]
        assert 4 == len(rush.fetch_tasks(as_="dicts"))
        assert [worker.card.worker_id] == rush.running_worker_ids
        assert 1 == len(rush.worker_info)
        rush.reset()
    assert [] == keys_of(crowded.raw, crowded.network)


def test_a_result_too_large_for_a_full_server_is_no_half_result(crowded: Ground) -> None:
    """Where a large value cannot be stored the task is not finished without it; it can still be failed."""
    with RushWorker(crowded.network, crowded.url, heartbeat=False, lease=600.0) as worker:
        key = worker.push_running_task({"x": 1})
        full(crowded)
        with pytest.raises(StoreError, match="maxmemory"):
            worker.finish_task(key, {"y": "a" * 100_000})
        assert [TaskState.RUNNING] == worker.states([key])
        full(crowded, full_=False)
        assert worker.finish_task(key, {"y": "a" * 100_000})
        assert 100_000 == len(worker.task(key).ys["y"])


def test_a_server_that_throws_data_away_is_warned_of(own_server: OwnServer, network: str) -> None:
    """An eviction policy is named at the first contact, with the way out."""
    server = own_server("--maxmemory-policy", "allkeys-lru")
    with pytest.warns(StoreWarning, match="allkeys-lru.*noeviction"), Rush(network, server.url) as rush:
        rush.counts()


def test_an_address_in_messages_has_no_password(own_server: OwnServer, network: str) -> None:
    """Neither do the text of a manager and its ``url``."""
    _, port = on_port(own_server, "--requirepass", "hidden-word")
    with Rush(network, f"redis://:hidden-word@127.0.0.1:{port}/0") as rush:
        assert "hidden-word" not in f"{rush!r} {rush.url}"
        assert re.search(rf"127\.0\.0\.1:{port}", repr(rush))


def test_a_plain_client_sees_the_keys(ground: Ground) -> None:
    """All that is stored stands under the network's own prefix, so that rights can be given by it."""
    ground.push(2)
    ground.member()
    assert set(keys_of(ground.raw, ground.network)) == {
        key for key in ground.raw.scan_iter(count=1000) if ground.network.encode() in key
    }
    assert isinstance(ground.raw, redis.Redis)
