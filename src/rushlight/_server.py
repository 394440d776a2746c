"""The embedded server: a private Redis or Valkey for one user, started on first use.

Owns starting, stopping and describing the one server of a home. The server itself is started and
watched by a keeper process (`rushlight._server_keeper`), so it belongs to no program that uses it.
Never imports a client library, never opens a TCP port, never signals a process: pids in files may
belong to others by now, so who is alive is read from locks and from the server's own answers.
"""

from __future__ import annotations

import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from . import _server_files as files
from ._server_home import find_binary, home_dir, home_path, key_file, private, socket_path
from ._server_keeper import Wire
from .errors import ConfigError, StoreUnavailable

__all__ = [
    "ServerStatus",
    "ensure_server",
    "find_binary",
    "home_dir",
    "key_file",
    "server_status",
    "stop_server",
]

#: Seconds without a client after which the server ends, unless something else was asked for.
DEFAULT_IDLE = 60.0
#: Seconds between two attempts while another process starts or ends the server (locks have no event).
_STEP = 0.01
#: Seconds after which a start does not wait any longer for one that holds the start lock and is stuck.
_COURTESY = 2.0
#: What the server may know of the environment of the program that happened to need it first.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
#: Runs the keeper under its own name but without this package's ``__init__`` and all it imports.
_KEEPER = """\
import sys
package = type(sys)("rushlight")
package.__path__ = [sys.argv[1]]
sys.modules["rushlight"] = package
from rushlight._server_keeper import main
main(*sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The embedded server of one home as it was a moment ago.

    ``clients`` counts neither the keeper nor the one who asked. ``memory`` is in bytes, ``uptime`` in
    seconds, ``idle_timeout`` in seconds with 0 for never. ``pid`` and what follows from an answer are
    None when no server runs or when it did not answer in time.
    """

    running: bool
    pid: int | None
    keeper_pid: int | None
    socket: Path
    home: Path
    log: Path
    version: str | None
    binary: str | None
    clients: int | None
    memory: int | None
    idle_timeout: float
    uptime: float | None


def ensure_server(
    home: Path | None = None, timeout: float = 10.0, *, idle_timeout: float | None = None
) -> Path:
    """The Unix socket of a running server that has loaded its data; starts one when there is none.

    Safe to call from any number of processes and threads at once: they get one server. Costs about
    0.1 ms when it runs. ``idle_timeout`` (seconds, 0: never) is recorded and holds until `stop_server`;
    without it ``RUSHLIGHT_SERVER_IDLE`` or 60 applies to a server started here.

    The server counts the call as use, so the caller has the whole idle time to connect; a client that
    later finds nobody calls this again and gets a new server on the same data. Raises
    `StoreUnavailable` when there is no server program, when it does not start (``log_tail``), or when
    ``timeout`` seconds were not enough.
    """
    base = private(home_path(home))
    try:
        if idle_timeout is not None:
            seconds = _idle_seconds(idle_timeout, "idle_timeout")
            files.write_file(str(base / files.IDLE_FILE), repr(seconds))
        _ensure(base, socket_path(base), timeout)
        # Looked at again now that it exists: a directory in a public place could have been made by others.
        return socket_path(base)
    except OSError as error:
        raise StoreUnavailable(
            f"the embedded server cannot use its directory {base}: {error}",
            address=str(base),
            transient=False,
        ) from error


def _ensure(base: Path, path: Path, timeout: float) -> None:
    began = time.monotonic()
    state = "absent"
    while True:
        left = began + timeout - time.monotonic()
        before, state = state, _probe(path, max(left, 0.25))
        if (before, state) == ("loading", "silent"):
            state = "loading"
        if state == "ready":
            return
        if left <= 0:
            raise _too_slow(base, path, state, timeout)
        impatient = left < timeout - _COURTESY
        if state != "absent" or not _start(base, path, left, impatient=impatient):
            time.sleep(_STEP)


def stop_server(home: Path | None = None, timeout: float = 10.0) -> bool:
    """Have the server write everything down and end; whether there was one.

    Returns when server and keeper are gone. Its data stays, and so does the right to start it again; a
    recorded ``idle_timeout`` is forgotten. Raises `StoreUnavailable` when it refuses or takes too long.
    """
    base = home_path(home)
    if not base.is_dir():
        return False
    base = private(base)
    path = socket_path(base)
    files.remove(str(base / files.IDLE_FILE))
    deadline = time.monotonic() + timeout
    run = files.read_record(str(base)).get("run")
    asked = False
    while not files.life_is_free(str(base)) and files.read_record(str(base)).get("run", run) == run:
        if time.monotonic() >= deadline:
            raise _too_slow(base, path, "stopping", timeout)
        asked = _ask_to_stop(path, deadline - time.monotonic()) or asked
        time.sleep(_STEP)
    return asked


def server_status(home: Path | None = None) -> ServerStatus:
    """What runs in this home; starts nothing and makes no directory."""
    base = home_path(home)
    path = socket_path(base)
    facts: dict[str, str] = {}
    running = True
    try:
        wire = Wire(str(path), 2.0)
    except OSError:
        running = False
    else:
        try:
            facts = wire.info()
        except TimeoutError:
            facts = {}
        except OSError:
            running = False
        finally:
            wire.close()
    record = files.read_record(str(base)) if running else {}
    return _describe(base, path, running, facts, record)


def _idle_seconds(value: float | str, name: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise ConfigError(f"{name} is {value!r}: give seconds, or 0 for never", name=name, value=value)
    return 0.0 if math.isinf(seconds) else seconds


def _default_idle() -> float:
    return _idle_seconds(os.environ.get("RUSHLIGHT_SERVER_IDLE") or DEFAULT_IDLE, "RUSHLIGHT_SERVER_IDLE")


def _probe(path: Path, left: float) -> str:
    """``ready``, ``loading``, ``silent`` (somebody listens and does not answer) or ``absent``."""
    try:
        wire = Wire(str(path), min(left, 1.0))
    except (TimeoutError, BlockingIOError):
        return "silent"
    except OSError:
        return "absent"
    try:
        return "loading" if wire.ask("PING").startswith("-LOADING") else "ready"
    except TimeoutError:
        return "silent"
    except OSError:
        return "absent"
    finally:
        wire.close()


def _start(base: Path, path: Path, left: float, *, impatient: bool) -> bool:
    """Start a keeper unless somebody else is at it; whether one of ours is ready."""
    binary = find_binary()
    with open(os.open(base / files.START_LOCK, os.O_RDWR | os.O_CREAT, 0o600), "wb") as lock:
        if not (files.lock_start(lock.fileno()) or impatient) or not files.life_is_free(str(base)):
            return False
        word, _, reason = _run_keeper(base, path, binary, left).partition("\n")
    if word in ("ready", "busy", ""):
        return word == "ready"
    raise _failed(base, binary, reason.strip() or word)


def _run_keeper(base: Path, path: Path, binary: str, left: float) -> str:
    """What the keeper says of its start; empty when it said nothing in time."""
    import select
    import subprocess

    command = [sys.executable, "-I", "-S", "-c", _KEEPER, os.path.dirname(__file__), str(base), str(path)]
    process = subprocess.Popen(
        [*command, binary, repr(_default_idle()), repr(0.9 * left)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        cwd=base,
        umask=0o077,
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    )
    said = b""
    deadline = time.monotonic() + left
    with process:
        assert process.stdout is not None
        while select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0))[0]:
            data = os.read(process.stdout.fileno(), 65536)
            if not data:
                break
            said += data
    return said.decode("utf-8", "replace")


def _failed(base: Path, binary: str, reason: str) -> StoreUnavailable:
    tail = files.log_tail(str(base))
    last = " | ".join(tail.splitlines()[-3:])
    hint = ""
    if "appenddirname" in tail or "RDB format" in tail:
        hint = "; a newer server wrote this data: use that one (RUSHLIGHT_SERVER) or another RUSHLIGHT_HOME"
    return StoreUnavailable(
        f"the embedded server did not start: {binary} {reason}; "
        f"its log {base / files.LOG} ends: {last}{hint}",
        address=str(base),
        log_tail=tail,
        transient=False,
    )


def _too_slow(base: Path, path: Path, state: str, timeout: float) -> StoreUnavailable:
    record = files.read_record(str(base))
    who = f"keeper {record.get('keeper', '?')}, server {record.get('server', '?')}"
    here = os.uname().nodename
    reason = {
        "loading": "is still loading its data",
        "silent": "listens but does not answer",
        "stopping": "has not ended",
    }.get(state, "could not be started, or another is about to end")
    if state == "absent" and record.get("host", here) != here:
        reason = f"runs on host {record['host']}, not here: give its address (url=) or another RUSHLIGHT_HOME"
    return StoreUnavailable(
        f"the embedded server of {base} {reason} after {timeout:g} s ({who}; log {base / files.LOG})",
        address=str(path),
        log_tail=files.log_tail(str(base)),
    )


def _ask_to_stop(path: Path, left: float) -> bool:
    """Whether a server took the request; raises when it refuses."""
    try:
        wire = Wire(str(path), max(left, 0.05))
    except OSError:
        return False
    try:
        refusal = wire.ask("SHUTDOWN")
    except TimeoutError:
        return False
    except OSError:
        return True
    finally:
        wire.close()
    raise StoreUnavailable(f"the embedded server refuses to stop: {refusal[1:]}", address=str(path))


def _describe(
    base: Path, path: Path, running: bool, facts: dict[str, str], record: dict[str, str]
) -> ServerStatus:
    recorded = record.get("server") == facts.get("process_id", record.get("server"))
    kept = running and recorded and "keeper" in record
    version = facts.get("valkey_version") or facts.get("redis_version")
    name = "valkey" if "valkey_version" in facts else "redis"
    idle = files.read_number(str(base / files.IDLE_FILE), float(record.get("idle", _default_idle())))
    return ServerStatus(
        running=running,
        pid=int(facts["process_id"]) if "process_id" in facts else None,
        keeper_pid=int(record["keeper"]) if kept else None,
        socket=path,
        home=base,
        log=base / files.LOG,
        version=f"{name} {version}" if version else None,
        binary=record.get("binary") if kept else None,
        clients=max(int(facts["connected_clients"]) - 1 - kept, 0) if facts else None,
        memory=int(facts["used_memory"]) if facts else None,
        idle_timeout=idle,
        uptime=float(facts["uptime_in_seconds"]) if facts else None,
    )
