"""A call that every worker makes once, whenever it comes.

It is noted for the workers to come, which make it before anything else, and is a task of each that is
there. Its number keeps a worker that meets it both ways from making it twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from . import _names
from ._call_options import NIL, CallOptions
from ._calls import Shelf, encode_call
from ._futures import CallFuture
from ._kin import Kin
from ._muster import LIVE
from ._sending import Outgoing


def broadcast(
    controller: Kin, shelf: Shelf, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[CallFuture]:
    """The futures of the workers there are."""
    ref, store = shelf.refer(fn), controller._rush._store
    number = f"{time.time_ns():020d}-{_names.random_token()}"
    spilled: dict[str, bytes] = {}
    xs = encode_call(store, ref, args, kwargs, spilled, broadcast=number)
    store.write(lambda epoch: [*store.keep_spilled(epoch, spilled), store.scripts.keep_spec(epoch)])
    # Before one looks who is there, so that nobody comes between.
    store.keep_broadcast(number, xs)
    live = [worker_id for worker_id, state in store.worker_states().items() if state in LIVE]
    keys = [f"broadcast-{number[-12:]}-{worker_id}" for worker_id in live]
    # It is nobody's to collect.
    controller._collector.hide(keys)
    futures = []
    for key, worker_id in zip(keys, live, strict=True):
        head = CallOptions(worker=worker_id).packed() + msgspec.msgpack.encode(key) + xs + NIL
        futures.append(controller._send(Outgoing(key, head, {}, worker_id)))
    return futures
