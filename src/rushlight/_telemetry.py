"""Traces that go on from those who make calls to those who run them, where OpenTelemetry is in use.

Owns how a trace travels with a call (W3C trace context, in the call's ``xs_extra``) and the span around it.
Never imports OpenTelemetry for one who has not: a submitter who has no span pays a look into a dict.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import msgspec

from ._records import Task

#: The field of ``xs_extra`` with the submitter's trace context.
TRACE: Final = "trace"
#: The span around a call.
SPAN: Final = "rushlight.call"
_API: Final = "opentelemetry.trace"
_NOTHING: Final[AbstractContextManager[Any]] = nullcontext()
_NIL: Final = b"\xc0"


def context() -> bytes:
    """The ``xs_extra`` of a call made now, encoded: the current span's context, nil where there is none."""
    api = sys.modules.get(_API)
    if api is None or not api.get_current_span().get_span_context().is_valid:
        return _NIL
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return msgspec.msgpack.encode({TRACE: carrier})


def span(task: Task, network: str, worker_id: str) -> AbstractContextManager[Any]:
    """A span around the call of a task, a child of its submitter's; nothing where that had none,
    or where OpenTelemetry is not installed here. An error that leaves the block is recorded."""
    carrier = task.xs_extra.get(TRACE) if task.xs_extra else None
    if not carrier:
        return _NOTHING
    try:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:
        return _NOTHING
    said = {
        "rushlight.network": network,
        "rushlight.worker": worker_id,
        "rushlight.key": task.key,
        "rushlight.attempt": task.attempt,
        "rushlight.function": task.xs["call"].rpartition(":")[0],
    }
    found: AbstractContextManager[Any] = trace.get_tracer("rushlight").start_as_current_span(
        SPAN,
        context=TraceContextTextMapPropagator().extract(carrier),
        kind=trace.SpanKind.CONSUMER,
        attributes=said,
    )
    return found


def flush() -> None:
    """Sends the spans that wait in this process: a worker's process ends without asking anybody."""
    api = sys.modules.get(_API)
    send = None if api is None else getattr(api.get_tracer_provider(), "force_flush", None)
    if send is not None:
        send()
