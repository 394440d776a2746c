"""From a URL to a connection: plain ones by ourselves, others by redis-py. Both do the same."""

from __future__ import annotations

import gc
import socket
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from harness import Server, binaries, ended, run_python
from rushlight import Rush
from rushlight._dial import Place
from rushlight.errors import StoreUnavailable

#: Behind a URL: what redis-py is asked for, and nothing else changes.
BY = {"plain": "", "redis-py": "?health_check_interval=0"}
LOADED = """
import sys
from rushlight import Rush
with Rush("dialled", sys.argv[1]) as rush:
    rush.counts()
print("redis" in sys.modules)
"""


DIALLED = """
import sys
from rushlight._dial import Place, dial
try:
    dial(Place.parse(sys.argv[1]), 10)
except ConnectionError as error:
    print(error)
"""


@dataclass
class Guarded:
    """A server and its port."""

    server: Server
    port: int

    def url(self, kind: str, account: str, db: int) -> str:
        """By TCP or by the Unix socket."""
        if kind == "tcp":
            return f"redis://{account}127.0.0.1:{self.port}/{db}"
        return f"unix://{account}{self.server.socket}?db={db}"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    """A server that wants a user and a password, on a Unix socket and on a port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Server(str(binaries()["valkey"]), "--port", str(port), "--bind", "127.0.0.1")
    with server.client() as raw:
        raw.execute_command("ACL", "SETUSER", "ann", "on", ">p@ss", "~*", "&*", "+@all")
        raw.execute_command("ACL", "SETUSER", "default", "off")
    yield Guarded(server, port)
    server.close()


def by(url: str, way: str) -> str:
    """The URL that goes this way."""
    return url + BY[way].replace("?", "&" if "?" in url else "?")


@pytest.mark.parametrize("way", BY)
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_who_asks_and_which_database(guarded: Guarded, way: str, kind: str) -> None:
    """User, password and database of a URL are in force, also on connections made later."""
    network = f"dialled-{way}-{kind}"
    with Rush(network, by(guarded.url(kind, "ann:p%40ss@", 3), way), secret="a secret of ours") as rush:
        rush.push_tasks([{"x": 1}])
        with guarded.server.client(username="ann", password="p@ss", db=3) as raw:
            assert [] != raw.keys(f"rl:{{{network}}}:*")
            raw.client_kill_filter(_type="normal", skipme=True)
        assert 1 == rush.n_queued_tasks
        rush.reset()


@pytest.mark.parametrize("way", BY)
@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("account", ["", "ann:wrong@", "nobody:p%40ss@"])
def test_who_is_not_let_in(guarded: Guarded, way: str, kind: str, account: str) -> None:
    """Told at once, with the address and without the password."""
    with pytest.raises(StoreUnavailable, match=r"(?i)auth|password") as caught:
        Rush("dialled", by(guarded.url(kind, account, 0), way), connect_timeout=60)
    assert "p@ss" not in str(caught.value) and ":wrong" not in str(caught.value)


def test_a_database_that_is_not_there(guarded: Guarded) -> None:
    """The server's words are the error's."""
    with pytest.raises(StoreUnavailable, match="DB index"):
        Rush("dialled", guarded.url("tcp", "ann:p%40ss@", 4711))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://127.0.0.1:1/0", "Connection refused"),
        ("unix:///tmp/nothing-listens-here", "No such file"),
        ("redis://no-such-host.invalid", "no-such-host.invalid: .*[Nn]ame"),
        (f"redis://{'x' * 80}.invalid", "cannot be the name of a host"),
    ],
)
def test_nobody_there(url: str, told: str) -> None:
    """The error says what the system said, and where."""
    with pytest.raises(StoreUnavailable, match=told) as caught:
        Rush("dialled", url, connect_timeout=5)
    assert url in str(caught.value)


def test_a_server_that_hangs_up_while_it_is_told_who_asks() -> None:
    """It is no server of ours, or it ends: an error with the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"redis://ann:word@127.0.0.1:{listener.getsockname()[1]}"
        listener.settimeout(10)
        process = run_python(DIALLED, url)
        connection, _ = listener.accept()
        assert b"AUTH" in connection.recv(1000)
        connection.close()
        assert "the server closed the connection" == ended(process).strip()


@pytest.mark.parametrize(("way", "loaded"), [("plain", "False"), ("redis-py", "True")])
def test_what_is_imported_for_it(guarded: Guarded, way: str, loaded: str) -> None:
    """redis-py only where the URL asks for more than a plain connection."""
    url = by(guarded.url("tcp", "ann:p%40ss@", 0), way)
    assert loaded == ended(run_python(LOADED, url)).strip()


def test_a_rush_that_is_let_go_of(network: str) -> None:
    """Its connection is closed with it, without a warning of an open socket."""
    rush = Rush(network)
    left = weakref.ref(rush._store.link._socket)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del rush
        gc.collect()
    assert None is left()
    assert [] == [warning for warning in caught if warning.category is ResourceWarning]


def test_which_urls_are_plain() -> None:
    """Those that say no more than place, account and database."""
    assert Place(host="h") == Place.parse("redis://h")
    assert Place(host="::1", port=7, db=2) == Place.parse("redis://[::1]:7/2")
    assert Place(username="a b", password="c/d", host="h", db=5) == Place.parse(
        "redis+cluster://a%20b:c%2Fd@h/?db=5"
    )
    assert Place(path="/x y/s", db=1) == Place.parse("unix:///x%20y/s?db=1")
    assert Place(password="word", path="/s") == Place.parse("unix://:word@/s")
    for url in (
        "rediss://h",
        "redis+sentinel://h/m",
        "redis://h?ssl=true",
        "redis://h/db",
        "redis://h/0?db=x",
    ):
        assert None is Place.parse(url), url
