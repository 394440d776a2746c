"""Functions of a task's inputs, for workers of other processes: what ready-made loops are tested with."""

from __future__ import annotations

import ctypes
import logging
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any


class Cursed(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def act(how: str = "", x: int = 0, offset: int = 0, path: str = "") -> Any:
    """Do what the task says: return something, or end in one way or another."""
    return ACTIONS[how](x, offset, path)


def _fail(x: int, offset: int, path: str) -> Any:
    raise ValueError(f"bad x: {x}")


def _cursed(x: int, offset: int, path: str) -> Any:
    raise Cursed


def _crash(x: int, offset: int, path: str) -> Any:
    print("about to crash", file=sys.stderr)
    ctypes.string_at(0)


def _exit(x: int, offset: int, path: str) -> Any:
    print("so long", file=sys.stderr, flush=True)
    os._exit(3)


def _kill(x: int, offset: int, path: str) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(x: int, offset: int, path: str) -> Any:
    """Hold on without end, deaf to polite signals, with a process beside."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "1000"])
    Path(path).write_text(f"{os.getpid()} {child.pid}", encoding="utf-8")
    threading.Event().wait(60)


def _leave_a_process(x: int, offset: int, path: str) -> Any:
    child = subprocess.Popen(["sleep", "1000"])
    return {"child": child.pid}


def _wait_for(x: int, offset: int, path: str) -> Any:
    """Wait for a file to be there."""
    Path(path + ".started").touch()
    for _ in range(3000):
        if Path(path).exists():
            return {"y": x}
        threading.Event().wait(0.01)
    raise TimeoutError


def _print(x: int, offset: int, path: str) -> Any:
    print("on stdout")
    print("on stderr", file=sys.stderr)
    logging.getLogger("mine").warning("logged %d", x)
    print("y" * 300_000)
    return x


def _count(x: int, offset: int, path: str) -> Any:
    """How often this process has come here before."""
    act.calls = getattr(act, "calls", 0) + 1  # type: ignore[attr-defined]
    return {"calls": act.calls, "pid": os.getpid(), "parent": os.getppid()}  # type: ignore[attr-defined]


ACTIONS = {
    "": lambda x, offset, path: {"y": x + offset, "pid": os.getpid()},
    "number": lambda x, offset, path: x + offset,
    "none": lambda x, offset, path: None,
    "list": lambda x, offset, path: [x, x],
    "random": lambda x, offset, path: {"y": random.random()},
    "large": lambda x, offset, path: {"y": bytes(5_000_000)},
    "generator": lambda x, offset, path: {"y": (i for i in range(3))},
    "names": lambda x, offset, path: {1: 2},
    "exit politely": lambda x, offset, path: sys.exit("enough"),
    "fail": _fail,
    "cursed": _cursed,
    "crash": _crash,
    "exit": _exit,
    "kill": _kill,
    "hang": _hang,
    "leave a process": _leave_a_process,
    "wait for": _wait_for,
    "print": _print,
    "count": _count,
}
