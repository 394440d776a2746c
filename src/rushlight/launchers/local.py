"""Workers as processes of this machine: one supervisor process per launch.

Owns the supervisor's process, the pipe that tells it that its launcher is gone, and what it printed.
Never looks at the workers themselves: those are the supervisor's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from ..errors import LaunchError
from ._base import RUNNING, Handle, HandleState, WorkerCommand, exited

if TYPE_CHECKING:
    import subprocess

#: How long a supervisor may take to kill its workers and say so before it is killed itself, seconds.
_PATIENCE = 5.0
_TAIL = 8192


@dataclass(slots=True)
class _Process:
    popen: subprocess.Popen[bytes]
    output: IO[bytes]
    outlive: bool
    last_words: str = ""

    def tail(self) -> str:
        if self.output.closed:
            return self.last_words
        descriptor = self.output.fileno()
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, _TAIL, max(0, size - _TAIL)).decode(errors="replace")

    def retire(self) -> None:
        """Lets go of the descriptors, once the process has ended or nobody here will ask again."""
        self.last_words = self.tail()
        self.output.close()
        if self.popen.stdin is not None:
            self.popen.stdin.close()


class LocalLauncher:
    """Starts n workers under one supervisor process, in a session of its own.

    The supervisor ends its workers when this process ends, however it ends, unless the command says
    ``outlive``. Handles stay usable in another process: there ``poll`` knows alive and gone, but
    neither exit code nor log. Of a handle from another host nothing is known: it counts as running, and
    nothing is done to it. Thread-safe.
    """

    name = "local"

    def __init__(self) -> None:
        self._processes: dict[str, _Process] = {}
        self._lock = threading.Lock()

    def launch(self, command: WorkerCommand, n: int) -> list[Handle]:
        """Starts one supervisor for all n workers: one handle."""
        # Here, as workers import this module too and start none.
        import subprocess
        import tempfile

        argv = command.with_option("launcher", self.name).for_workers(n)
        if not command.outlive:
            argv.append(f"--parent={os.getpid()}")
        self._sweep()
        # Unlinked from the start: it can neither fill a pipe nor be left behind.
        output = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        try:
            popen = subprocess.Popen(
                argv,
                bufsize=0,
                stdin=subprocess.DEVNULL if command.outlive else subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **command.environment},
                start_new_session=True,
            )
        except OSError as error:
            output.close()
            raise LaunchError(
                f"cannot start {argv[0]!r}: {error}", command=tuple(argv), output=str(error), log_tail=""
            ) from error
        details = {"start": process_start(popen.pid), "host": socket.gethostname()}
        handle = Handle(self.name, str(popen.pid), command.worker_ids, details)
        with self._lock:
            self._processes[handle.id] = _Process(popen, output, command.outlive)
        return [handle]

    def poll(self, handles: Sequence[Handle]) -> list[HandleState]:
        """The states of the supervisors."""
        return [self._state(handle) for handle in handles]

    def terminate(self, handles: Sequence[Handle]) -> None:
        """Has the supervisors kill their workers and report that; kills those that do not within seconds."""
        live = [one for one in handles if not _elsewhere(one) and self._state(one).phase == "running"]
        for handle in live:
            self._signal(handle, signal.SIGQUIT)
        deadline = time.monotonic() + _PATIENCE
        for handle in live:
            if not self._wait(handle, deadline):
                # Its guard process ends the workers then.
                self._signal(handle, signal.SIGKILL)
                self._wait(handle, deadline + _PATIENCE)

    def wait(self, handles: Sequence[Handle], timeout: float) -> bool:
        """Waits for supervisors that are about to end by themselves; False where one has not within
        ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        return all(self._wait(handle, deadline) for handle in handles if not _elsewhere(handle))

    def log_tail(self, handle: Handle) -> str:
        """The last of what the supervisor printed, also after its end."""
        process = None if _elsewhere(handle) else self._processes.get(handle.id)
        return process.tail() if process is not None else ""

    def close(self) -> None:
        """Ends what may not outlive this process and forgets the rest; idempotent."""
        with self._lock:
            processes = dict(self._processes)
        self.terminate([Handle(self.name, id_) for id_, process in processes.items() if not process.outlive])
        for id_, process in processes.items():
            if process.popen.poll() is None:
                # Popen would warn that nobody waits for it: that is what outliving means.
                process.popen.returncode = 0
            process.retire()
            self._processes.pop(id_, None)

    def _sweep(self) -> None:
        """Lets go of what has ended unasked, so that no number of launches adds up."""
        with self._lock:
            processes = list(self._processes.values())
        for process in processes:
            if process.popen.poll() is not None:
                process.retire()

    def _state(self, handle: Handle) -> HandleState:
        if _elsewhere(handle):
            return HandleState("running", reason=f"on {handle.details['host']}, and unknown here")
        process = self._processes.get(handle.id)
        if process is not None:
            code = process.popen.poll()
            if code is None:
                return RUNNING
            process.retire()
            return exited(code, _reason(code))
        start = process_start(int(handle.id))
        gone = not start or start != handle.details.get("start")
        return exited(None, "its process is gone") if gone else RUNNING

    def _signal(self, handle: Handle, number: signal.Signals) -> None:
        process = self._processes.get(handle.id)
        if process is not None:
            process.popen.send_signal(number)
        elif self._state(handle).phase == "running":
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(handle.id), number)

    def _wait(self, handle: Handle, deadline: float) -> bool:
        from subprocess import TimeoutExpired

        process = self._processes.get(handle.id)
        if process is not None:
            try:
                process.popen.wait(max(0.0, deadline - time.monotonic()))
            except TimeoutExpired:
                return False
            return True
        pause = 0.001
        while self._state(handle).phase == "running":
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return True


def _elsewhere(handle: Handle) -> bool:
    """Whether its process is one of another host, where its number means something else."""
    return handle.details.get("host", socket.gethostname()) != socket.gethostname()


def _reason(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def process_start(pid: int) -> str:
    """What tells this process from a later one with the same id; '' when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return _start_without_proc(pid)
    return "" if fields[0] == b"Z" else fields[19].decode()


def _start_without_proc(pid: int) -> str:
    if os.path.isdir("/proc/self"):
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "unknown"
