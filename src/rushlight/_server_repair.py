"""Mends an embedded server's append-only file that the server refuses to read. Loaded only where it does.

Never takes anything away but bytes that no command is made of.
"""

from __future__ import annotations

import mmap
import os
import re

from ._server_files import append_only_files

_COUNT = re.compile(rb"\*(\d+)\r\n")
_SIZE = re.compile(rb"\$(\d+)\r\n")
_NOT_ZERO = re.compile(rb"[^\0]")


def close_holes(data: str) -> bool:
    """Take runs of zero bytes out from between the commands of append-only files; whether there were any.

    A server whose disk was full takes a part it has written back, goes on behind it, and refuses to read the
    file at its next start (Redis 7.0, Valkey 9.1). Nothing is missing from such a file.
    """
    found = False
    for name in append_only_files(data):
        with open(name, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                continue
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                holes = _holes(content)
                if not holes:
                    continue
                starts = [0, *(stop for _, stop in holes)]
                stops = [*(start for start, _ in holes), len(content)]
                with open(
                    os.open(f"{name}.whole", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
                ) as whole:
                    whole.writelines(content[start:stop] for start, stop in zip(starts, stops, strict=True))
        os.replace(f"{name}.whole", name)
        found = True
    return found


def _holes(content: mmap.mmap) -> list[tuple[int, int]]:
    """Where runs of zero bytes begin and end, as far as the content can be read."""
    holes: list[tuple[int, int]] = []
    at: int | None = 0
    while at is not None and at < len(content):
        if content[at]:
            at = _end_of_command(content, at)
        else:
            rest = _NOT_ZERO.search(content, at)
            stop = rest.start() if rest else len(content)
            holes.append((at, stop))
            at = stop
    return holes


def _end_of_command(content: mmap.mmap, at: int) -> int | None:
    """Where the command that begins there ends; None where it is none, or not whole."""
    head = _COUNT.match(content, at)
    if head is None:
        return None
    end = head.end()
    for _ in range(int(head[1])):
        size = _SIZE.match(content, end)
        if size is None:
            return None
        end = size.end() + int(size[1]) + 2
        if content[end - 2 : end] != b"\r\n":
            return None
    return end
