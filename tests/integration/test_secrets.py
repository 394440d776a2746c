"""Password and secret are nowhere but where they must be: everything that can be read is searched for them.

One busy scene with real workers, crashes and commands; then each place it left its traces in is read.
"""

from __future__ import annotations

import base64
import contextlib
import io
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from conftest import processes_of, until
from harness import Server, binaries
from rushlight import Rush, RushWorker, isolated_loop, plan, worker_loop
from rushlight.errors import RushlightError, WaitTimeout, WorkerStartError

pytestmark = pytest.mark.slow

PASSWORD = "canary/p@ssw0rd:für+uns"
SECRET = "canary-of-the-secret-4711"
#: In what form a word may be written down.
FORMS: dict[str, Callable[[str], bytes]] = {
    "plain": str.encode,
    "quoted": lambda word: quote(word, safe="").encode(),
    "hex": lambda word: word.encode().hex().encode(),
    "base64": lambda word: base64.b64encode(word.encode())[:-4],
    "escaped": lambda word: ascii(word)[1:-1].encode(),
}


def chatty(worker, rush):
    """Says all it knows of its connection, to everybody; ends as its task says."""
    import os
    import signal
    import sys
    import warnings

    log = logging.getLogger("chatty")
    # What a library, or a user in search of a mistake, may print or log of itself.
    for thing in (worker, rush, worker.__dict__, rush.__dict__, rush._store.__dict__, rush._store.config):
        log.warning("%r", thing)
        print(thing)
        print(thing, file=sys.stderr)
    warnings.warn(f"something is odd with {rush!r} at {rush.url}", stacklevel=1)
    worker.finish_task(worker.push_running_task({"rush": rush}), {"n": rush.n_running_workers, "rush": rush})
    while not worker.terminated:
        task = worker.pop_task(timeout=5)
        if task is None:
            continue
        if task.xs["how"] == "raise":
            raise RuntimeError(f"it went wrong at {rush.url} with {rush!r} and {worker!r}")
        if task.xs["how"] == "kill":
            os.kill(os.getpid(), signal.SIGSEGV)
        worker.finish_task(task.key, {"y": 1})


def fail(x):
    """A task that fails."""
    local = os.environ.get("RUSHLIGHT_URL")
    raise ValueError(f"no luck with {x} and {len(local or '')}")


class Monitor:
    """Everything any client sends, as the server shows it."""

    def __init__(self, server: Server) -> None:
        self.seen = bytearray()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(server.socket))
        word = PASSWORD.encode()
        self._socket.sendall(b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n*1\r\n$7\r\nMONITOR\r\n" % (len(word), word))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while data := self._socket.recv(1 << 20):
            self.seen += data

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()


class Scene:
    """What happened, as the text or bytes of each place it can be read in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = f"test-{uuid.uuid4().hex[:12]}"
        self.seen: dict[str, bytes] = {}

    def add(self, place: str, found: object) -> None:
        """Remembers what is to be read in a place."""
        data = bytes(found) if isinstance(found, bytes | bytearray) else str(found).encode("utf-8", "replace")
        self.seen[place] = self.seen.get(place, b"") + data + b"\n"

    def error(self, place: str, call: Callable[[], Any], kind: type[BaseException] = RushlightError) -> None:
        """An error is read with all it says: its text, its fields, its chain of tracebacks."""
        try:
            call()
        except kind as error:
            self.add(place, "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error)))
            self.add(place, pickle.dumps(error))
        else:
            pytest.fail("there was no error")

    # --- the scene ------------------------------------------------------------------------------

    def play(self, server: Server) -> None:
        """Everything, in order."""
        monitor = Monitor(server)
        logs = io.StringIO()
        handler = logging.StreamHandler(logs)
        logging.getLogger().addHandler(handler)
        try:
            with Rush(self.network, self.url(server), secret=SECRET) as rush:
                self._work(rush)
                self._read(rush)
                self._commands()
            self._mistakes(server)
        finally:
            logging.getLogger().removeHandler(handler)
            monitor.close()
        self.add("monitor", monitor.seen)
        self.add("logging here", logs.getvalue())
        self._server(server)
        for path in (self.folder / "logs").iterdir():
            self.add("log files", path.read_bytes())

    def url(self, server: Server, password: str = PASSWORD) -> str:
        return f"unix://:{quote(password, safe='')}@{server.socket}"

    def _work(self, rush: Rush) -> None:
        (self.folder / "logs").mkdir()
        options: dict[str, Any] = {"log_level": "DEBUG", "log_dir": self.folder / "logs"}
        ids = rush.start_workers(chatty, 3, kwargs={"rush": rush}, max_restarts=1, **options)
        with contextlib.suppress(WorkerStartError):
            rush.wait_for_workers(3)
        for process in processes_of(self.network):
            self.add("argv", " ".join(process.cmdline()))
        keys = rush.push_tasks([{"how": how} for how in ("raise", "kill", "raise", "kill", "raise", "kill")])
        rush.wait_for_tasks(keys, timeout=60)
        until(lambda: set(ids) <= {*rush.lost_worker_ids})
        (one,) = rush.start_workers(worker_loop(fail), **options)
        (two,) = rush.start_workers(isolated_loop(fail), **options)
        keys = rush.push_tasks([{"x": i} for i in range(4)])
        assert keys == rush.wait_for_tasks(keys, timeout=60).failed
        self.error("errors", lambda: self._unstartable(rush, options))
        with RushWorker(self.network, rush._store.config.url, secret=SECRET) as worker:
            self.add("repr", repr(worker) + str(worker) + repr(vars(worker)))
            worker.fail_task(worker.push_running_task({"x": 1}), ValueError(repr(worker)))
        rush.stop_workers("kill", [one, two])

    def _unstartable(self, rush: Rush, options: dict[str, Any]) -> None:
        ids = rush.start_workers(chatty, packages=["no_such_package"], **options)
        rush.wait_for_workers(worker_ids=ids)

    def _read(self, rush: Rush) -> None:
        self.add("worker table", rush.fetch_workers(as_="dicts"))
        self.add("task tables", rush.fetch_tasks(as_="tasks"))
        self.add("task tables", rush.fetch_tasks(as_="dicts"))
        self.add("log table", rush.read_log(as_="dicts"))
        self.add("repr", repr(rush) + str(rush) + str(rush.url) + repr(rush._store.config))
        self.add("server info", rush.server_info())
        self.add("script", rush.worker_script(chatty, 2, kwargs={"rush": rush}))
        with plan(url=rush._store.config.url, secret=SECRET) as current:
            self.add("repr", repr(current) + str(current))
        for suffix in ("parquet", "ndjson"):
            path = self.folder / f"archive.{suffix}"
            rush.export(path)
            self.add("archives", path.read_bytes())

    def _commands(self) -> None:
        """The command line finds the server in the environment, and is as wordy as it can be."""
        loop = self.folder / "loop.py"
        loop.write_text("def go(worker):\n    raise OSError(repr(vars(worker)))\n")
        path = str(self.folder / "from-cli.ndjson")
        for command in (
            *(["status"], ["tasks"], ["workers"], ["logs"], ["status", "--json"], ["workers", "--json"]),
            *(["export", path], ["doctor"], ["doctor", "--json"], ["script", f"{loop}:go"]),
            *(["run", f"{loop}:go", "--workers", "2"], ["retry", "--all"], ["stop", "--kill"]),
        ):
            self._command("command line", *command, "--network", self.network)

    def _command(self, place: str, *arguments: str, **environment: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "rushlight", "--debug", *arguments],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        self.add(place, done.stdout + done.stderr)

    def _failing(self, url: str, command: list[str]) -> None:
        self._command("command line, failing", *command, "--network", self.network, RUSHLIGHT_URL=url)

    def _mistakes(self, server: Server) -> None:
        """Servers that are not there or do not let us in, code that cannot be read, a program that dies."""
        gone = self.url(server).replace(str(server.socket), str(server.folder / "gone"))
        wrong = self.url(server, PASSWORD + "x")
        quick = {"connect_timeout": 0.5, "patience": 0.5}
        failing: list[tuple[str, list[str]]] = []
        for url in (
            gone,
            wrong,
            f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:1/0",
            f"http://{PASSWORD}@x/",
        ):
            self.error("errors", lambda url=url: Rush(self.network, url, secret=SECRET, **quick))
            for command in (["status"], ["worker", "--spec", "x"], ["doctor"]):
                failing.append((url, command))
        with ThreadPoolExecutor() as pool:  # they take their time to give up
            for future in [pool.submit(self._failing, *words) for words in failing]:
                future.result()
        with Rush(self.network, self.url(server), secret=SECRET) as rush:
            rush.push_finished_tasks([{"x": 1}], [{"y": Scene}])
            other = Rush(self.network, self.url(server), secret=SECRET + "-another", **quick)
            self.error("errors", lambda: other.fetch_tasks(as_="dicts"))
            other.close()
            self.error("errors", lambda: rush.wait_for_workers(9, timeout=0), WaitTimeout)
            rush.reset()
        program = "import sys\nfrom rushlight import Rush\nrush = Rush(sys.argv[1])\nrush.no_such_thing\n"
        done = subprocess.run([sys.executable, "-c", program, self.network], capture_output=True, check=False)
        self.add("a crash here", done.stderr)

    def _server(self, server: Server) -> None:
        for path in server.folder.rglob("*"):
            if path.is_file() and path.name != "conf":
                self.add("server's files", path.read_bytes())


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """A server with a password, its append-only file with all that was ever written, and a scene there."""
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="rl-", dir="/tmp") as folder,
    ):
        conf = Path(folder, "conf")
        conf.write_text(
            f'requirepass "{PASSWORD}"\nappendonly yes\nauto-aof-rewrite-percentage 0\nloglevel debug\n'
        )
        server = Server(str(binaries()["valkey"]), config=conf)
        played = Scene(Path(folder))
        try:
            patch.setenv("RUSHLIGHT_HOME", str(Path(folder, "home")))
            patch.delenv("REDIS_URL", raising=False)
            patch.setenv("RUSHLIGHT_URL", played.url(server))
            patch.setenv("RUSHLIGHT_SECRET", SECRET)
            played.play(server)
            yield played
            until(lambda: not processes_of(played.network))
        finally:
            for process in processes_of(played.network):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
            server.close()


#: Each place, and what shows that the scene was really written down there.
PLACES = {
    "argv": b"rushlight worker",
    "monitor": b'"EVALSHA"',
    "server's files": b"HSET",
    "log files": b"it went wrong at unix://",
    "logging here": b"",
    "log table": b"something is odd with <Rush",
    "worker table": b"RuntimeError: it went wrong at unix://",
    "task tables": b"it went wrong at unix://",
    "repr": b"<RushWorker",
    "server info": b"used_memory",
    "script": b"--spec=",
    "archives": b"it went wrong at unix://",
    "errors": b"no_such_package",
    "command line": b"it went wrong at unix://",
    "command line, failing": b"cannot reach the server",
    "a crash here": b"AttributeError",
}


@pytest.mark.parametrize("place", PLACES)
def test_no_password_and_no_secret(scene: Scene, place: str) -> None:
    """Neither can be read there, in whatever form, while what should be there is."""
    assert PLACES[place] in scene.seen[place]
    for word in (PASSWORD, SECRET):
        for form, write in FORMS.items():
            at = scene.seen[place].find(write(word))
            assert at < 0, f"{form}: {scene.seen[place][max(0, at - 300) : at + 100]!r}"


def test_every_place_was_looked_at(scene: Scene) -> None:
    """Nothing was gathered that no test looks through."""
    assert scene.seen.keys() == PLACES.keys()
