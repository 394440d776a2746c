"""Making worker processes and being sure of their end: fork, sessions, pidfds, pipes, the guard.

Owns everything here that is a system call about a process. Decides nothing about workers and never
talks to the server. For single-threaded callers only: it forks.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


def _load_prctl() -> Callable[[int, Any], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    function = ctypes.CDLL(None).prctl
    function.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
    return lambda option, value: int(function(option, value, 0, 0, 0))


# Looked up before any fork: a child should not have to load a library to be safe.
_prctl = _load_prctl()


@dataclass(frozen=True, slots=True)
class Status:
    """How a process ended: its exit code, or the number of the signal that killed it."""

    exit_code: int | None
    signal: int | None

    @property
    def text(self) -> str:
        """``exited with code 3``, ``killed by SIGSEGV``."""
        if self.signal is None:
            return f"exited with code {self.exit_code}"
        try:
            return f"killed by {signal.Signals(self.signal).name}"
        except ValueError:
            return f"killed by signal {self.signal}"


@dataclass(frozen=True, slots=True)
class Born:
    """The parent's ends of a new process: its id, pidfd (None without them), pipes and channel."""

    pid: int
    pidfd: int | None
    stdout: int
    stderr: int
    channel: Channel

    def abandon(self) -> None:
        """Closes the channel and the pidfd; the pipes are whose they were given to. Idempotent."""
        if self.pidfd is not None and self.channel.fileno() >= 0:
            os.close(self.pidfd)
        self.channel.close()


class Channel:
    """JSON lines between a supervisor and one worker process, over a socket pair.

    The supervisor's end never blocks; a worker's end blocks only to ``wait``.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._rest = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, **message: Any) -> bool:
        """False when the other side is gone, or reads nothing any more."""
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive(self) -> list[dict[str, Any]] | None:
        """The messages that have arrived, without waiting; None once the other side is gone."""
        try:
            data = self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in whole]

    def wait(self) -> dict[str, Any] | None:
        """Blocks for one message; None when the other side is gone."""
        while b"\n" not in self._rest:
            data = self._socket.recv(1 << 16)
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        self._socket.close()

    def detach(self) -> int:
        """Gives up the descriptor, which will survive an exec."""
        os.set_inheritable(self._socket.fileno(), True)
        return self._socket.detach()


def open_channel(descriptor: int) -> Channel:
    """The worker's end of a channel whose descriptor came through an exec."""
    os.set_inheritable(descriptor, False)
    return Channel(socket.socket(fileno=descriptor))


def fork() -> Born | Channel:
    """Forks a worker process: returns twice, with what the parent needs, and in the child its channel.

    The child leads a session of its own, reads nothing on stdin, writes into the pipes, and on Linux
    is killed by the kernel when this process ends. It still holds what else the parent had open.
    OSError where the system has no process or descriptor left.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pipes: list[int] = []
    try:
        pipes += os.pipe()
        pipes += os.pipe()
        ours, theirs = socket.socketpair()
        pid = os.fork()
    except OSError:
        for descriptor in pipes:
            os.close(descriptor)
        raise
    out_read, out_write, err_read, err_write = pipes
    if pid == 0:
        os.setsid()
        die_with(parent)
        _redirect(out_write, err_write)
        for descriptor in (out_read, out_write, err_read, err_write):
            os.close(descriptor)
        ours.close()
        return Channel(theirs)
    os.close(out_write)
    os.close(err_write)
    theirs.close()
    ours.setblocking(False)
    return Born(pid, open_pidfd(pid), out_read, err_read, Channel(ours))


def start_anew(channel: Channel) -> NoReturn:
    """In a forked process: goes on as a fresh interpreter, which adopts the channel."""
    command = [sys.executable, "-P", "-m", "rushlight", "worker", f"--child={channel.detach()}"]
    os.execv(sys.executable, command)


def _redirect(stdout: int, stderr: int) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(nothing)


def die_with(parent: int) -> None:
    """Has this process killed when its parent ends; ends it at once if that has happened already."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def set_name(name: str) -> None:
    """The name ``ps`` and ``top`` show, where the system allows it; 15 bytes of it count."""
    if _prctl is not None:
        buffer = ctypes.create_string_buffer(name.encode(errors="replace")[:15])
        _prctl(_PR_SET_NAME, ctypes.addressof(buffer))


def allow_descriptors(n: int) -> None:
    """Raises the limit of open descriptors to n, as far as it may be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = n if hard == resource.RLIM_INFINITY else min(n, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None where there is no such thing."""
    opener = getattr(os, "pidfd_open", None)
    if opener is None or os.environ.get("RUSHLIGHT_PIDFD") == "0":
        return None
    try:
        return int(opener(pid))
    except ProcessLookupError:
        raise
    except OSError:
        return None


def kill_group(pid: int) -> None:
    """Kills a worker process that was not yet waited for, with all of its session's process group."""
    for kill in (os.kill, os.killpg):
        # Between fork and setsid there is no such group; after the end there may be no such process.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def reap(pid: int) -> Status | None:
    """How the process ended, None while it runs. Kills what it left behind in its group."""
    if hasattr(os, "waitid"):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        # Before it is waited for, while nobody else can have its number.
        kill_group(pid)
    waited, status = os.waitpid(pid, os.WNOHANG)
    if waited == 0:
        return None
    if not hasattr(os, "waitid"):
        kill_group(pid)
    code = os.waitstatus_to_exitcode(status)
    return Status(code, None) if code >= 0 else Status(None, -code)


class Guard:
    """A small process that kills the workers' process groups when the supervisor is gone.

    The kernel kills the workers themselves then, but not what they have started. The guard knows of a
    worker before the worker may do anything.
    """

    def __init__(self) -> None:
        self.pid = 0
        self.pidfd: int | None = None
        self._pipe = -1

    def start(self, groups: list[int]) -> None:
        """Starts the process, or another one after it was killed."""
        self.abandon()
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                _stand_guard(read)
            finally:
                os._exit(0)
        os.close(read)
        self.pid, self.pidfd, self._pipe = pid, open_pidfd(pid), write
        for group in groups:
            self.add(group)

    def ended(self) -> bool:
        """True where no guard runs; takes note of the end of one that was killed."""
        if self.pid and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.pid = 0
        return self.pid == 0

    def add(self, group: int) -> None:
        self._tell(b"+%d\n" % group)

    def remove(self, group: int) -> None:
        self._tell(b"-%d\n" % group)

    def stop(self) -> None:
        """Ends the guard: nothing is left to be killed."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.abandon()
        self.pid = 0

    def abandon(self) -> None:
        """Lets go of the descriptors, in a forked child or for a new start."""
        for descriptor in (self._pipe, self.pidfd):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)
        self._pipe, self.pidfd = -1, None

    def _tell(self, line: bytes) -> None:
        # A guard that was killed is noticed by its pidfd, and replaced with all groups told anew.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._pipe, line)


def _stand_guard(pipe: int) -> None:
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    set_name("rushlight-guard")
    # Whatever else is open here would keep others from seeing its end.
    os.dup2(pipe, 0)
    for descriptor in sorted(map(int, os.listdir("/dev/fd")))[1:]:
        # The listing's own descriptor is closed already.
        with contextlib.suppress(OSError):
            os.close(descriptor)
    groups: set[int] = set()
    rest = b""
    while data := os.read(0, 4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
