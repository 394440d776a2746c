"""The keeper: a small process that starts one embedded server, watches it and stops it when idle.

Owns the server process and the decision to stop it. `rushlight._server` runs it with ``-I -S`` and
without ``rushlight/__init__``, so it holds little more than the interpreter. It never opens a TCP
port, never reads what is stored, and never outlives its server; on Linux the server does not outlive
it either.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time

from . import _server_files as files
from ._server_repair import close_holes

if sys.platform != "win32":
    _STOP = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    _SIGNALS = _STOP | {signal.SIGCHLD, signal.SIGALRM}

#: Seconds between two looks at the server. A server cannot announce that its last client left, so
#: somebody has to ask; one `INFO` every five seconds is far less than the server's own ten timer ticks
#: a second, and the answer is only needed to a fraction of the idle time.
LOOK_EVERY = 5.0
#: Seconds a start waits for a lock that another process is only testing.
LOCK_PATIENCE = 0.5


class Wire:
    """One connection to the server for a few inline commands; any failure raises OSError."""

    def __init__(self, path: str, timeout: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise
        self._unread = b""

    def ask(self, command: str) -> str:
        """The reply as text; that of an error starts with ``-``, that of a status with ``+``."""
        self._socket.sendall(command.encode() + b"\r\n")
        head = self._take(b"\r\n")
        if not head.startswith(b"$"):
            return head.decode("utf-8", "replace")
        size = int(head[1:])
        while len(self._unread) < size + 2:
            self._more()
        body, self._unread = self._unread[:size], self._unread[size + 2 :]
        return body.decode("utf-8", "replace")

    def info(self, section: str = "") -> dict[str, str]:
        """The fields of `INFO`."""
        lines = self.ask(f"INFO {section}").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _take(self, end: bytes) -> bytes:
        while end not in self._unread:
            self._more()
        line, self._unread = self._unread.split(end, 1)
        return line

    def _more(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionResetError("the server hung up")
        self._unread += data


def server_command(binary: str, path: str, data: str) -> list[str]:
    """The server's arguments; run in the home directory."""
    command = [binary, "--port", "0", "--unixsocket", path, "--unixsocketperm", "700", "--dir", files.DATA]
    command += ["--daemonize", "no", "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
    command += ["--aof-load-truncated", "yes", "--maxmemory-policy", "noeviction"]
    # A hash of so few fields is a list to the server, which goes through it at every look. As shipped that
    # goes on to 512, and is a quarter of what a task costs in a network of 100 to 400. Servers before
    # version 7 know this name, too.
    command += ["--hash-max-ziplist-entries", "64"]
    # Commands instead of a snapshot at the head of the file: any server of any age can read them, so
    # the data survives a change from one server package to another. 200,000 tasks load in 0.28 s
    # instead of 0.16 s.
    command += ["--aof-use-rdb-preamble", "no"]
    if os.path.isdir(os.path.join(data, "appendonlydir")):
        # A server from before version 7 would not see this directory and start empty; it does not know
        # the option either, and stops with an error instead.
        command += ["--appenddirname", "appendonlydir"]
    return command


def pause(seconds: float) -> int:
    """Wait for a signal, at most this long; which one came (SIGALRM: none)."""
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    arrived = signal.sigwait(_SIGNALS)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return arrived


def die_with_parent(parent: int) -> bool:
    """Have the kernel end this process when its parent dies (Linux); False where that cannot be had."""
    try:
        import ctypes

        done: bool = ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM, 0, 0, 0) == 0
    except (ImportError, OSError, AttributeError):
        return False
    if os.getppid() != parent:
        os._exit(1)
    return done


class Keeper:
    """One server's life, from the lock to the last file removed."""

    def __init__(self, home: str, path: str, binary: str, idle: float, patience: float, guard: str) -> None:
        self.home, self.path, self.binary = home, path, binary
        self.idle, self.patience, self.guard = idle, patience, guard
        self.born = time.time_ns()
        self.server = 0
        self.status = 0
        self.inode = 0
        self.guard_pipe = -1
        self.log = -1
        self.wire: Wire | None = None
        self.connections = -1
        self.quiet_since = time.monotonic()
        self.unwritten = False

    def run(self) -> None:
        """Start the server, say how that went on standard output, keep it until it ends."""
        os.chdir(self.home)
        life = files.lock_life(self.home, patience=LOCK_PATIENCE)
        if life is None or answers(self.path):
            report("busy")
            return
        try:
            self._prepare()
            self._start(life)
            told = self._wait_until_ready()
            if told != "ready" and not self.server and close_holes(os.path.join(self.home, files.DATA)):
                self._start(life)
                told = self._wait_until_ready()
            report(told)
            for fd in (1, 2):
                os.dup2(self.log, fd)
            self._watch()
        finally:
            self._clean_up()

    def _prepare(self) -> None:
        data = os.path.join(self.home, files.DATA)
        os.makedirs(data, mode=0o700, exist_ok=True)
        files.trim_torn_tail(data)
        folder = os.path.dirname(self.path)
        if folder != self.home:
            files.own_folder(folder)
        for stale in (self.path, self.path + files.CLOSING):
            files.remove(stale)
        if os.path.exists(files.LOG) and os.path.getsize(files.LOG) > files.LOG_ROTATE:
            os.replace(files.LOG, files.LOG + ".1")
        self.log = os.open(files.LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._record()

    def _record(self) -> None:
        facts = {
            "run": self.born,
            "keeper": os.getpid(),
            "server": self.server,
            "host": os.uname().nodename,
            "binary": self.binary,
            "idle": self.idle,
        }
        files.write_file(files.RECORD, "".join(f"{name}={value}\n" for name, value in facts.items()))

    def _start(self, life: int) -> None:
        parent = os.getpid()
        command = server_command(self.binary, self.path, os.path.join(self.home, files.DATA))
        told, tell = os.pipe()
        self.server = os.fork()
        if self.server == 0:
            self._become_server(command, life, parent, tell)
        os.close(tell)
        with open(told, "rb") as file:
            if file.read():
                self._start_guard()
        self._record()

    def _become_server(self, command: list[str], life: int, parent: int, tell: int) -> None:
        """In the child: give up everything of the keeper but lock and log, and become the server."""
        try:
            if self.guard != "kernel" or not die_with_parent(parent):
                os.write(tell, b"guard")
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, 0)
            os.dup2(self.log, 1)
            os.dup2(self.log, 2)
            os.set_inheritable(life, True)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            os.execv(command[0], command)
        except OSError as error:
            os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)

    def _start_guard(self) -> None:
        """Where the kernel has no such service: a shell at the end of a pipe that ends the server with us."""
        read, self.guard_pipe = os.pipe()
        if os.fork() == 0:
            try:
                os.dup2(read, 0)
                signal.pthread_sigmask(signal.SIG_SETMASK, [])
                script = 'trap "" HUP INT TERM; read -r line && exit; kill -TERM "$1"'
                for fd in (1, 2):
                    os.dup2(self.log, fd)
                os.execv("/bin/sh", ["sh", "-c", script, "rushlight-guard", str(self.server)])
            finally:
                os._exit(127)
        os.close(read)

    def _wait_until_ready(self) -> str:
        began = time.monotonic()
        deadline = began + self.patience
        while self._alive():
            try:
                self.wire = self.wire or Wire(self.path, 5.0)
                if not self.wire.ask("PING").startswith("-LOADING"):
                    self.inode = files.inode_of(self.path)
                    return "ready"
            except TimeoutError:
                # It listens: a server that reads much data may be deaf for a while.
                self._hang_up()
            except OSError:
                self._hang_up()
                if time.monotonic() >= deadline:
                    os.kill(self.server, signal.SIGKILL)
            # A server that comes up at once is met at once; one that reads its data for long is left to that.
            pause(min((time.monotonic() - began) / 20, 0.1))
        late = f" (did not listen within {self.patience:.1f} s)" if time.monotonic() >= deadline else ""
        return f"failed\n{outcome(self.status)}{late}"

    def _watch(self) -> None:
        self.quiet_since = time.monotonic()
        while self._alive():
            idle = files.read_number(files.IDLE_FILE, self.idle)
            wait = LOOK_EVERY if idle <= 0 else min(LOOK_EVERY, max(idle / 4, 0.02))
            if pause(wait) in _STOP or files.inode_of(self.path) != self.inode:
                # A socket that somebody removed can never be reached again: make way for a new server.
                os.kill(self.server, signal.SIGTERM)
            elif self._alive():
                if os.fstat(self.log).st_size > files.LOG_LIMIT:
                    os.ftruncate(self.log, 0)
                self._mind_the_disk()
                idle = files.read_number(files.IDLE_FILE, self.idle)
                if not self._in_use() and 0 < idle <= time.monotonic() - self.quiet_since:
                    self._leave()

    def _mind_the_disk(self) -> None:
        """Have the file written anew once a disk that was full has room: the server leaves a hole in it, and
        at the next full disk would cut off what it has confirmed (Redis 7.0, Valkey 9.1)."""
        try:
            if self.wire is not None:
                failing = self.wire.info("persistence")["aof_last_write_status"] != "ok"
                if self.unwritten and not failing:
                    failing = self.wire.ask("BGREWRITEAOF").startswith("-")
                self.unwritten = failing
        except (OSError, KeyError):
            self._hang_up()

    def _in_use(self) -> bool:
        """Whether somebody is connected, or was since the last look."""
        try:
            if self.wire is None:
                self.connections = -1
                self.wire = Wire(self.path, 5.0)
            others = int(self.wire.info("clients")["connected_clients"]) - 1
            connections = int(self.wire.info("stats")["total_connections_received"])
        except (OSError, KeyError, ValueError):
            self._hang_up()
            others, connections = 1, -1
        used = others > 0 or connections != self.connections
        self.connections = connections
        if used:
            self.quiet_since = time.monotonic()
        return used

    def _leave(self) -> None:
        """Stop the idle server, unless somebody is coming in at this moment.

        With the socket out of the way nobody new can connect. Who did just before is seen by another
        look: its two questions are answered in two turns of the server's loop, and each turn takes in
        everybody who waits. Who comes later finds no socket and waits for the life lock.
        """
        os.rename(self.path, self.path + files.CLOSING)
        if self._in_use() or self.wire is None or not self._shut_down(self.wire):
            os.rename(self.path + files.CLOSING, self.path)
            self.quiet_since = time.monotonic()

    def _shut_down(self, wire: Wire) -> bool:
        try:
            wire.ask("SHUTDOWN")
        except ConnectionError:
            while self._alive():
                pause(LOOK_EVERY)
        except OSError:
            return False
        return not self._alive()

    def _alive(self) -> bool:
        """Whether the server runs; collects it, and the guard, when they have ended."""
        while self.server:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.server = 0
                break
            if pid == 0:
                return True
            if pid == self.server:
                self.server, self.status = 0, status
        return False

    def _hang_up(self) -> None:
        if self.wire is not None:
            self.wire.close()
            self.wire = None

    def _clean_up(self) -> None:
        self._hang_up()
        if self.server:
            os.kill(self.server, signal.SIGTERM)
            os.waitpid(self.server, 0)
        if self.guard_pipe >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(self.guard_pipe, b"done\n")
            os.close(self.guard_pipe)
        for name in (self.path, self.path + files.CLOSING):
            if files.inode_of(name) == self.inode:
                files.remove(name)
        files.remove(files.RECORD)
        folder = os.path.dirname(self.path)
        if folder != self.home and os.path.isdir(folder) and not os.listdir(folder):
            os.rmdir(folder)


def answers(path: str) -> bool:
    """Whether a server listens there although the lock says no: a lock file can be removed."""
    try:
        Wire(path, 1.0).close()
    except OSError:
        return False
    return True


def outcome(status: int) -> str:
    """An exit status in words."""
    code = os.waitstatus_to_exitcode(status)
    return f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"


def report(text: str) -> None:
    """Tell the process that waits for the start; it may have given up."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, text.encode())
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)


def main(home: str, path: str, binary: str, idle: str, patience: str, guard: str = "kernel") -> None:
    """Leave the starting process behind and keep a server."""
    for name in _SIGNALS:
        signal.signal(name, signal.SIG_DFL)
    # Ignored by default, and some systems drop what is ignored even while it is blocked.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, _SIGNALS)
    if os.fork():
        os._exit(0)
    try:
        Keeper(home, path, binary, float(idle), float(patience), guard).run()
    except OSError as error:
        report(f"failed\n{error}\n")
