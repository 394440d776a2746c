"""How a socket waits for an answer: adaptively, or asleep."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from rushlight import Rush, _sockets, plan
from rushlight._connect import StoreConfig
from rushlight._sockets import adaptive, set_timeout
from rushlight.errors import ConfigError


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one line."""
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


class Server:
    """The other end, which answers after so many microseconds. The clock is its own: it goes on by one when
    it is asked, and by ``turn`` when others are let run."""

    def __init__(self, end: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
        self._end = end
        self.turn = 1.0
        self.now = self.answer_at = 0.0
        self.turns = 0
        monkeypatch.setattr(os, "sched_yield", self._run)
        monkeypatch.setattr(_sockets, "time", SimpleNamespace(perf_counter=self._clock))

    def _clock(self) -> float:
        self._tick(1.0)
        return self.now / 1e6

    def _run(self) -> None:
        self.turns += 1
        self._tick(self.turn)

    def _tick(self, microseconds: float) -> None:
        self.now += microseconds
        if self.now >= self.answer_at > 0:
            self._end.send(b"answer")
            self.answer_at = 0.0

    def answer_after(self, microseconds: float) -> None:
        self.turns = 0
        self.answer_at = self.now + microseconds
        if not microseconds:
            self._end.send(b"answer")


def looked(server: Server, receive: Callable[[], bytes], after: float) -> int:
    """How often it let others run in a wait for an answer that takes so long; none where it slept at once."""
    server.answer_after(after)
    assert b"answer" == receive()
    return server.turns


def asleep(server: Server, receive: Callable[[], bytes]) -> int:
    """How many waits it sleeps through until it looks again."""
    for n in range(10_000):
        server.answer_after(0)
        before = server.now
        receive()
        if server.now > before:
            return n
    raise AssertionError("it looks no more")


def test_an_answer_that_comes_soon_is_met_awake(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lets others run between its looks, and no more often than it takes."""
    server = Server(pair[1], monkeypatch)
    receive = adaptive(pair[0])
    for after, turns in ((0, 0), (3, 1), (15, 7), (391, 195)):
        assert turns == looked(server, receive, after)
    assert 0 == asleep(server, receive)


def test_looking_in_vain_becomes_rare(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that take long are slept for; now and then it looks again, and goes on where that pays."""
    server = Server(pair[1], monkeypatch)
    receive = adaptive(pair[0])
    rests = []
    for _ in range(10):
        assert 199 <= looked(server, receive, 403)
        rests.append(asleep(server, receive))
    # Each is twice the one before, less what the look behind that was worth.
    assert [16, 31, 61, 121, 237] == rests[:5]
    assert 4000 < rests[-1] <= 4096
    for _ in range(300):
        assert 7 == looked(server, receive, 15)
    looked(server, receive, 403)
    assert 16 == asleep(server, receive)


def test_what_is_rarely_in_vain_goes_on(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look in a hundred in vain, as among workers that share the server's cores, costs sixteen waits
    each; one in twenty ends in hardly any looks."""
    server = Server(pair[1], monkeypatch)
    receive = adaptive(pair[0])
    for every, rest in ((100, range(16, 18)), (20, range(500, 4097))):
        for _ in range(20):
            for _ in range(every):
                looked(server, receive, 15)
            looked(server, receive, 403)
            found = asleep(server, receive)
        assert found in rest


def test_whoever_wants_the_core_is_left_alone(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others who are let run keep the core for milliseconds: sleeping, it would have it back sooner. The
    longer they keep it, the more waits are slept through."""
    for turn, rest in ((500.0, 20), (3000.0, 120)):
        server = Server(pair[1], monkeypatch)
        receive = adaptive(pair[0])
        server.turn = turn
        assert 1 == looked(server, receive, 15)
        assert rest == asleep(server, receive)


def test_an_end_is_told(pair: tuple[socket.socket, socket.socket]) -> None:
    """A line that was closed gives nothing, as a plain one does."""
    receive = adaptive(pair[0])
    pair[1].close()
    assert b"" == receive()


def test_silence_has_an_end(pair: tuple[socket.socket, socket.socket]) -> None:
    """The timeout of the socket holds."""
    set_timeout(pair[0], 0.05)
    with pytest.raises(BlockingIOError):
        adaptive(pair[0])()


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, server: object) -> None:
    """By a plan, or by the variable ``RUSHLIGHT_WAIT``; anything else it may say is an error."""
    assert StoreConfig.find().adaptive
    monkeypatch.setenv("RUSHLIGHT_WAIT", "block")
    assert not StoreConfig.find().adaptive
    with plan(adaptive_waiting=True), Rush("waiting") as rush:
        assert rush._store.config.adaptive
    monkeypatch.setenv("RUSHLIGHT_WAIT", "never")
    with pytest.raises(ConfigError, match="RUSHLIGHT_WAIT='never'"):
        StoreConfig.find()
