"""Mends an embedded server's append-only file that the server refuses to read.

Never takes anything away but bytes that no command is made of. What it needs is imported where it is needed,
as every keeper loads this module.
"""

from __future__ import annotations

import os

from ._server_files import append_only_files


def close_holes(data: str) -> bool:
    """Take runs of zero bytes out from between the commands of append-only files; whether there were any.

    A server whose disk was full takes a part it has written back, goes on behind it, and refuses to read the
    file at its next start (Redis 7.0, Valkey 9.1). Nothing is missing from such a file.
    """
    import mmap

    found = False
    for name in append_only_files(data):
        if not os.path.getsize(name):
            continue
        with open(name, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            holes = _holes(content)  # type: ignore[arg-type]  # a mapped file is searched like bytes
            if not holes:
                continue
            starts = [0, *(stop for _, stop in holes)]
            stops = [*(start for start, _ in holes), len(content)]
            spare = os.open(f"{name}.whole", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(spare, "wb") as whole:
                whole.writelines(content[start:stop] for start, stop in zip(starts, stops, strict=True))
        os.replace(f"{name}.whole", name)
        found = True
    return found


def _holes(content: bytes) -> list[tuple[int, int]]:
    """Where runs of zero bytes begin and end, as far as the content can be read."""
    import re

    count, size, rest = (re.compile(text) for text in (rb"\*(\d+)\r\n", rb"\$(\d+)\r\n", rb"[^\0]"))
    holes: list[tuple[int, int]] = []
    at = 0
    while at < len(content):
        if not content[at]:
            found = rest.search(content, at)
            stop = found.start() if found else len(content)
            holes.append((at, stop))
            at = stop
            continue
        head = count.match(content, at)
        if head is None:
            break
        at = head.end()
        for _ in range(int(head[1])):
            part = size.match(content, at)
            if part is None:
                return holes
            at = part.end() + int(part[1]) + 2
    return holes
