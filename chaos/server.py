"""The server of a run: on a small disk of its own, with a clock of its own, both of which can be spoilt."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import redis

from rushlight._server import find_binary

#: Bytes of the server's disk, where we may mount one.
DISK = 192 << 20
_FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


def faketime(clock: Path) -> dict[str, str]:
    """Environment of a C program whose wall clock goes wrong by what stands in the file; empty where the
    library that does it is not here. The monotonic clock stays right."""
    if not os.path.exists(_FAKETIME):
        return {}
    return {
        "LD_PRELOAD": _FAKETIME,
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


class Disk:
    """A small filesystem in memory; where none may be mounted, a plain folder that cannot be filled."""

    def __init__(self, folder: Path, size: int = DISK) -> None:
        self.folder = folder
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)]
        mounted = os.geteuid() == 0 and subprocess.run(command, check=False, capture_output=True)
        self.small = bool(mounted) and not mounted.returncode
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leaves no byte."""
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                if file.write(bytes(1 << 20)) < 1 << 20:
                    break
            while file.write(bytes(512)):
                pass

    def clear(self) -> None:
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """The folder stays behind, empty, unless it was plain."""
        if self.small:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)
            self.folder.rmdir()
        else:
            shutil.rmtree(self.folder)


class ChaosServer:
    """One server process on a Unix socket, with an append-only file."""

    def __init__(self, folder: Path, binary: str | None = None, fsync: str = "always") -> None:
        self.folder = folder
        self.fsync = fsync
        self.binary = binary or find_binary() or "redis-server"
        self.disk = Disk(folder / "disk")
        self.clock = folder / "server.clock"
        self.socket = folder / "s"
        self.turn(0.0)
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        #: Whether its clock can be turned: Debian's Redis does not run under libfaketime.
        self.clocked = bool(faketime(self.clock))
        try:
            self.start()
        except RuntimeError:
            if not self.clocked:
                raise
            self.clocked = False
            self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), protocol=2)

    def turn(self, seconds: float) -> None:
        """Sets the server's wall clock this far ahead of the true time."""
        spare = self.clock.with_suffix(".new")
        spare.write_text(f"{seconds:+.1f}\n")
        spare.replace(self.clock)

    def start(self) -> None:
        """Starts it on the data that is there, and waits until it answers."""
        self.socket.unlink(missing_ok=True)
        options = {
            "port": "0", "unixsocket": str(self.socket), "dir": str(self.disk.folder), "save": "",
            "appendonly": "yes", "appendfsync": self.fsync, "auto-aof-rewrite-min-size": "16mb",
            "logfile": str(self.folder / "server.log"),
        }  # fmt: skip
        command = [self.binary, *(word for name, value in options.items() for word in (f"--{name}", value))]
        environment = {**os.environ, **(faketime(self.clock) if self.clocked else {})}
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
        self.starts += 1
        deadline = time.monotonic() + 30
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                log = self.folder / "server.log"
                raise RuntimeError(
                    f"the server does not start:\n{log.read_text()[-2000:] if log.exists() else ''}"
                )
            threading.Event().wait(0.02)

    def answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._clear_memory()

    def end(self) -> None:
        """As an administrator does: asks it to end, and waits."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        self._clear_memory()

    def _clear_memory(self) -> None:
        """What libfaketime shares with children stays behind where its process is killed."""
        for name in ("faketime_shm", "sem.faketime_sem"):
            Path(f"/dev/shm/{name}_{self.pid}").unlink(missing_ok=True)

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def limit_memory(self, *, spare: int) -> None:
        """Leaves this many bytes to be used; 0 lifts the limit."""
        with self.client() as client:
            used = int(client.info("memory")["used_memory"])
            client.config_set("maxmemory", used + spare if spare else 0)

    def rewrite(self) -> None:
        """Has the append-only file written anew, and waits for it."""
        deadline = time.monotonic() + 60
        with self.client() as client:
            for wanted in ("aof_last_write_status", "aof_last_bgrewrite_status"):
                while client.info("persistence")[wanted] != "ok" or self._rewriting(client):
                    if time.monotonic() > deadline:
                        raise RuntimeError(f"{wanted} is not ok a minute after there is room")
                    threading.Event().wait(0.05)
                if wanted == "aof_last_write_status":
                    client.bgrewriteaof()

    def _rewriting(self, client: redis.Redis) -> bool:
        found = client.info("persistence")
        return bool(found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"])

    def close(self, *, keep: bool = False) -> None:
        """``keep``: what is on the disk is copied beside it."""
        self.go_on()
        self.kill()
        if keep:
            shutil.copytree(self.disk.folder, self.folder / "kept")
        self.disk.close()
