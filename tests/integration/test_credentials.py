"""Accounts whose password changes: credential providers, here and in worker processes."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from harness import Server, binaries
from rushlight import Rush, RushWorker
from rushlight._connect import StoreConfig
from rushlight.errors import ConfigError, StoreUnavailable

MODULE = '''
from pathlib import Path

class Vault:
    """Knows the password of the hour."""

    def get_credentials(self):
        return "ann", Path({path!r}).read_text()

vault = Vault()

def nothing():
    return 5
'''


class Guarded:
    """A server with one account, whose password stands in a file."""

    def __init__(self, folder: Path) -> None:
        self.server = Server(str(binaries()["valkey"]))
        self.word = folder / "word"
        self.change("first-word")
        self.url = self.server.url

    def change(self, word: str) -> None:
        """Sets another password and ends all connections."""
        self.word.write_text(word)
        with self.server.client() as raw:
            raw.execute_command("ACL", "SETUSER", "ann", "on", "resetpass", f">{word}", "~*", "+@all")

    def bar_strangers(self) -> None:
        with self.server.client() as raw:
            raw.execute_command("ACL", "SETUSER", "default", "off")

    def part(self) -> None:
        """Ends all connections."""
        with self.ann(self.word.read_text()) as raw:
            raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def ann(self, word: str) -> redis.Redis:
        """A plain client under the account."""
        path = str(self.server.socket)
        return redis.Redis(unix_socket_path=path, username="ann", password=word, protocol=2)


@pytest.fixture
def guarded(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    """The server, and a module ``our_vault`` that workers can import."""
    found = Guarded(tmp_path)
    (tmp_path / "our_vault.py").write_text(MODULE.format(path=str(found.word)))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield found
    sys.modules.pop("our_vault", None)
    found.server.close()


def serve(worker: RushWorker) -> None:
    """Gives back what it gets."""
    while not worker.terminated:
        task = worker.pop_task(timeout=1)
        if task is not None:
            worker.finish_task(task.key, {"y": task.xs["x"]})


def test_workers_and_managers_ask_at_every_connection(guarded: Guarded) -> None:
    """A password that changes under a running network stops nobody, neither the manager nor its workers."""
    guarded.bar_strangers()
    with pytest.raises(StoreUnavailable):
        Rush("vault", guarded.url)
    with Rush("vault", guarded.url, secret="a secret of ours", credential_provider="our_vault:vault") as rush:
        rush.start_workers(serve, 2)
        keys = rush.push_tasks([{"x": 1}])
        assert "done" == rush.wait_for_tasks(keys, timeout=60).reason
        with guarded.ann("first-word") as raw:
            guarded.word.write_text("second-word")
            raw.execute_command("ACL", "SETUSER", "ann", "resetpass", ">second-word")
        guarded.part()
        keys = rush.push_tasks([{"x": 2}])
        assert "done" == rush.wait_for_tasks(keys, timeout=60).reason
        assert 2 == rush.n_running_workers
        again = pickle.loads(pickle.dumps(rush))
        assert 2 == again.n_finished_tasks
        again.close()
        rush.reset()


def test_an_object_serves_this_process(guarded: Guarded) -> None:
    """It connects managers and plain workers; workers of other processes are refused before anything is
    written, with the way out."""
    import our_vault

    url = guarded.url
    with (
        Rush("vault", url, secret="a secret of ours", credential_provider=our_vault.Vault()) as rush,
        RushWorker("vault", url, secret="a secret of ours", credential_provider=our_vault.vault) as worker,
    ):
        worker.finish_task(worker.push_running_task({"x": 1}), {"y": 1})
        with guarded.server.client() as raw:
            before = sorted(raw.keys("*"))
            with pytest.raises(ConfigError, match="module:name"):
                rush.start_workers(serve, 1)
            assert before == sorted(raw.keys("*"))
        worker.close()
        rush.reset()


def test_a_remote_server_needs_a_secret_besides(guarded: Guarded) -> None:
    """A password that changes cannot be what code is signed with."""
    remote = "redis://{}db.example.org:6379"
    assert StoreConfig.find(remote.format("ann:word@")).key() is not None
    assert StoreConfig.find(remote.format(""), credential_provider="our_vault:vault").key() is None


@pytest.mark.parametrize(
    ("provider", "told"),
    [
        ("our_vault", "colon"),
        ("our_vault:missing", "missing"),
        ("no_such_module_at_all:x", "no_such_module_at_all"),
        ("our_vault:nothing", "get_credentials"),
        (5, "get_credentials"),
    ],
)
def test_what_is_no_provider(guarded: Guarded, provider: object, told: str) -> None:
    """Refused with its name, before anything is tried."""
    with pytest.raises(ConfigError, match=told):
        Rush("vault", guarded.url, credential_provider=provider)


def test_one_account_at_a_time(guarded: Guarded) -> None:
    """A password in the URL beside a provider is one too many; the embedded server has no accounts."""
    with pytest.raises(ConfigError, match="password in the URL"):
        Rush("vault", "redis://:word@127.0.0.1:1", credential_provider="our_vault:vault")
    with pytest.raises(ConfigError, match="embedded"):
        Rush("vault", credential_provider="our_vault:vault")
