"""The files of an embedded server's home, and the locks that say who is alive.

Home directory:

    server.sock    the socket (in a short private directory elsewhere if this path would be too long)
    life.lock      held with flock by keeper and server together; free means: neither is alive
    start.lock     held by a process that is starting a keeper
    server.run     who runs: ``name=value`` lines, gone after a clean end
    idle-timeout   seconds somebody asked for in words; outlives the server until it is stopped in words
    server.log     what server and keeper have to say; server.log.1 is the one before
    data/          the append-only file
    key            the user's secret

Used by the keeper, so it imports next to nothing, and nothing of Rushlight. Never starts or ends
anything.
"""

from __future__ import annotations

import os
import stat
import sys
import time

if sys.platform != "win32":
    import fcntl

SOCKET_NAME = "server.sock"
LIFE_LOCK = "life.lock"
START_LOCK = "start.lock"
RECORD = "server.run"
IDLE_FILE = "idle-timeout"
LOG = "server.log"
DATA = "data"
KEY_FILE = "key"
#: While the keeper makes sure nobody is coming, the socket has this ending and no client finds it.
CLOSING = ".closing"
#: Bytes of log after which a start begins a new file, and after which a running server's log is emptied.
LOG_ROTATE, LOG_LIMIT = 256 * 1024, 8 * 1024 * 1024


def lock_life(home: str, *, shared: bool = False, patience: float = 0.0) -> int | None:
    """The open, locked life lock, or None when another process has it.

    `flock` belongs to the open file, so a server that inherits the descriptor holds the lock until it
    has ended too: two servers never write one append-only file, not even for an instant.
    """
    fd = os.open(os.path.join(home, LIFE_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                return None
        except BaseException:
            os.close(fd)
            raise
        time.sleep(0.005)


def life_is_free(home: str) -> bool:
    """Whether neither a keeper nor a server of this home is alive."""
    fd = lock_life(home, shared=True)
    if fd is None:
        return False
    # Said aloud and not left to close(): a child forked by another thread may have the file open too.
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)
    return True


def lock_start(fd: int) -> bool:
    """Take the start lock if it is free; closing the file gives it back.

    It only spares needless keepers: of two, the life lock lets one live. It is a record lock because
    those are not inherited by what other threads fork meanwhile.
    """
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def own_folder(path: str) -> None:
    """Make a directory for this user alone where others may write too; OSError if somebody was faster."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        facts = os.lstat(path)
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise


def write_file(path: str, text: str) -> None:
    """Replace a small file at once: a reader sees the old text or the new, a crash leaves either."""
    spare = f"{path}.{os.getpid()}.{time.monotonic_ns()}"
    with open(os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(spare, path)


def read_number(path: str, default: float) -> float:
    """The number in a small file, or the default when there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return float(file.read())
    except (OSError, ValueError):
        return default


def read_record(home: str) -> dict[str, str]:
    """The fields of server.run; none when nobody runs."""
    try:
        with open(os.path.join(home, RECORD), encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def log_tail(home: str, lines: int = 12) -> str:
    """The last lines of the log."""
    try:
        with open(os.path.join(home, LOG), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(line for line in text.splitlines()[-lines:] if line.strip())


def append_only_files(data: str) -> list[str]:
    """The files a server of any age keeps its commands in."""
    folder = os.path.join(data, "appendonlydir")
    names = [os.path.join(data, "appendonly.aof")]
    if os.path.isdir(folder):
        names += [os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".aof")]
    return [name for name in names if os.path.isfile(name)]


def trim_torn_tail(data: str) -> None:
    """Cut the zero bytes that a power failure can leave at the end of an append-only file.

    A complete file ends with a line end, never with zeros; the server forgives a record cut short
    but not zeros after it.
    """
    for name in append_only_files(data):
        with open(name, "r+b") as file:
            end = file.seek(0, os.SEEK_END)
            while end:
                start = max(0, end - 65536)
                file.seek(start)
                block = file.read(end - start).rstrip(b"\0")
                if block:
                    end = start + len(block)
                    break
                end = start
            file.truncate(end)


def inode_of(path: str) -> int:
    """The file's number, 0 when there is none."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def remove(path: str) -> None:
    """Remove a file that may be gone already."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
