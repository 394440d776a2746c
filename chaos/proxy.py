"""A proxy between clients and a server that does to packets what networks do, at the worst moment.

It reads both directions as the server's protocol, so that it knows which reply answers which request. Runs in
a thread of its own; its methods may be called from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import hiredis

T = TypeVar("T")
#: What a client waits with; nobody waits on its behalf any more once its connection is gone.
_BLOCKING = (b"BLPOP", b"BLOCK")
_CHUNK = 1 << 16


@dataclass
class Counts:
    """What was done to packets."""

    connections: int = 0
    cuts: int = 0
    lost_replies: int = 0
    lost_requests: int = 0
    twice: int = 0
    held: int = 0
    delays: int = 0


@dataclass
class Orders:
    """What is to be done to the next requests: so many of each. Held ones wait for ``release``, while their
    client is cut off at once and asks again; copies of ``twice`` go ahead of the request, or ``late`` seconds
    behind it, on another connection."""

    lose_replies: int = 0
    lose_requests: int = 0
    twice: int = 0
    late: float = 0.0
    hold: int = 0
    delay: float = 0.0
    frozen: bool = False
    chosen: Callable[[list[bytes]], bool] = field(default=lambda _: True)


class _Line:
    """One client's connection and the one to the server behind it."""

    def __init__(self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.reader, self.writer = reader, writer
        self.server: asyncio.StreamWriter | None = None
        self.asked = self.answered = 0
        #: The replies from here on are read and thrown away; then the client's line breaks.
        self.mute = False

    async def serve(self) -> None:
        try:
            back, self.server = await self.proxy.connect()
        except OSError:
            self.cut()
            return
        up = asyncio.ensure_future(self._up())
        down = asyncio.ensure_future(self._down(back))
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            self.close()

    async def _up(self) -> None:
        requests = hiredis.Reader()
        while data := await self.reader.read(_CHUNK):
            await self.proxy.hindered()
            requests.feed(data)
            batch: list[list[bytes]] = []
            while (request := requests.gets()) is not False:
                batch.append(request)
            if not batch:
                self._send(data)
                continue
            self.asked += len(batch)
            if await self._fault(batch, data):
                return
            self._send(data)

    async def _fault(self, batch: list[list[bytes]], data: bytes) -> bool:
        """Does to a request what is ordered; True where the client's line has ended by it."""
        orders, counts = self.proxy.orders, self.proxy.counts
        waits = any(word.upper() in _BLOCKING for request in batch for word in request[:4])
        whole = data.startswith(b"*") and not waits and orders.chosen(batch[0])
        if whole and orders.hold:
            orders.hold -= 1
            counts.held += 1
            self.proxy.keep(data, len(batch))
            return self.cut()
        if orders.lose_requests and whole:
            orders.lose_requests -= 1
            counts.lost_requests += 1
            return self.cut()
        if orders.lose_replies and whole:
            orders.lose_replies -= 1
            counts.lost_replies += 1
            self.mute = True
        if orders.twice and whole:
            orders.twice -= 1
            counts.twice += 1
            if orders.late:
                self.proxy.spawn(self.proxy.deliver(data, len(batch), after=orders.late))
            else:
                await self.proxy.deliver(data, len(batch))
        return False

    def _send(self, data: bytes) -> None:
        if self.server is not None:
            self.server.write(data)

    async def _down(self, back: asyncio.StreamReader) -> None:
        replies = hiredis.Reader()
        while data := await back.read(_CHUNK):
            replies.feed(data)
            while replies.gets() is not False:
                self.answered += 1
            if not self.mute:
                await self.proxy.hindered()
                self.writer.write(data)
                await self.writer.drain()
            elif self.answered >= self.asked:
                self.cut()
                return

    def cut(self) -> bool:
        """Breaks the client's line, by a reset where that is possible."""
        sock = self.writer.get_extra_info("socket")
        with contextlib.suppress(OSError, AttributeError):
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.proxy.counts.cuts += 1
        self.close()
        return True

    def close(self) -> None:
        for end in (self.writer, self.server):
            if end is not None:
                with contextlib.suppress(OSError, RuntimeError):
                    end.close()


class FaultProxy:
    """Listens on a port of loopback and passes everything on to the server's Unix socket."""

    def __init__(self, server: str) -> None:
        self._server = server
        self.orders, self.counts = Orders(), Counts()
        self._lines: set[_Line] = set()
        self._held: list[tuple[bytes, int]] = []
        self._tasks: set[asyncio.Future[Any]] = set()
        self._open = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._listener = self._call(asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 26))
        self._call(self._thaw())
        self.port: int = self._listener.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self, share: float = 1.0, rng: random.Random | None = None) -> int:
        """Cuts connections, all or some; how many."""

        async def cutting() -> int:
            chosen = [line for line in self._lines if rng is None or rng.random() < share]
            for line in chosen:
                line.cut()
            return len(chosen)

        return self._call(cutting())

    def freeze(self) -> None:
        """From now on nothing passes, until ``thaw``."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def thaw(self) -> None:
        self._call(self._thaw())

    def release(self) -> list[Any]:
        """The requests that were held arrive at the server, from connections of nobody; their replies."""
        held, self._held = self._held, []

        async def releasing() -> list[Any]:
            return [await self.deliver(data, n) for data, n in held]

        return self._call(releasing())

    def close(self) -> None:
        """Cuts everything and ends the thread."""

        async def closing() -> None:
            self._listener.close()
            self._open.set()
            for line in list(self._lines):
                line.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._call(closing())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- in the thread ------------------------------------------------------------------------------

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self._server, limit=1 << 26)

    async def hindered(self) -> None:
        """Waits as packets are to wait."""
        await self._open.wait()
        if self.orders.delay:
            self.counts.delays += 1
            await asyncio.sleep(self.orders.delay)

    def keep(self, data: bytes, n: int) -> None:
        self._held.append((data, n))

    async def deliver(self, data: bytes, n: int, after: float = 0.0) -> list[Any]:
        """Sends requests on a connection of their own and hears the replies; they are nobody's."""
        if after:
            await asyncio.sleep(after)
        replies: list[Any] = []
        with contextlib.suppress(OSError):
            back, writer = await self.connect()
            reader = hiredis.Reader()
            try:
                writer.write(data)
                while len(replies) < n and (found := await back.read(_CHUNK)):
                    reader.feed(found)
                    while (reply := reader.gets()) is not False:
                        replies.append(reply)
            finally:
                # Also where the proxy is closed before the replies are here.
                writer.close()
        return replies

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts.connections += 1
        line = _Line(self, reader, writer)
        self._lines.add(line)
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        try:
            await line.serve()
        except (OSError, asyncio.CancelledError):
            line.close()
        finally:
            self._lines.discard(line)
            if task is not None:
                self._tasks.discard(task)

    async def _thaw(self) -> None:
        self._open.set()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(60)
