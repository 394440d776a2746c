"""Traces of OpenTelemetry that go on in workers: its own SDK on both sides, spans written to a file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from harness import SOURCE
from rushlight import Controller

PATIENCE = 60.0
#: Of this process; it need not be the global one to have a current span.
TRACER = TracerProvider().get_tracer("test")


def exporting_to(path: Path) -> Callable[[], None]:
    """An ``on_worker_start`` as users write it: spans are written in batches, seldom."""

    def start() -> None:
        file = path.open("a", encoding="utf-8")
        exporter = ConsoleSpanExporter(out=file, formatter=lambda span: span.to_json(indent=None) + "\n")
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=3_600_000))
        trace.set_tracer_provider(provider)

    return start


@pytest.fixture
def spans(tmp_path: Path) -> Path:
    """The file the worker's spans go to."""
    return tmp_path / "spans"


def read(path: Path) -> list[dict[str, Any]]:
    """The spans that were written there."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def plus_one(x: int) -> int:
    """A call that makes a span of its own."""
    with trace.get_tracer("user").start_as_current_span("inside"):
        return x + 1


def fail() -> None:
    """A call that fails."""
    raise KeyError("not here")


def test_a_call_is_a_span_of_its_submitters_trace(network: str, spans: Path) -> None:
    """A worker runs a call in a span that is a child of the submitter's and says what ran where; what the
    call itself traces lies below; all is sent by the time the worker has left."""
    with Controller(network, max_workers=1, on_worker_start=exporting_to(spans)) as controller:
        with TRACER.start_as_current_span("study") as study:
            future = controller.push("job", plus_one, 1)
        assert 2 == future.result(PATIENCE)
        assert 3 == controller.submit(plus_one, 2).result(PATIENCE)
        workers = controller.workers()["worker_id"].to_list()
    mine = study.get_span_context()
    below = {
        span["name"]: span for span in read(spans) if int(span["context"]["trace_id"], 16) == mine.trace_id
    }
    assert {"inside", "rushlight.call"} == below.keys()
    call = below["rushlight.call"]
    assert mine.span_id == int(call["parent_id"], 16)
    assert call["context"]["span_id"] == below["inside"]["parent_id"]
    assert {
        "rushlight.network": network,
        "rushlight.worker": workers[0],
        "rushlight.key": "job",
        "rushlight.attempt": 1,
        "rushlight.function": "plus_one",
    } == call["attributes"]
    # A call made outside of any span is in none.
    assert {"inside": 2, "rushlight.call": 1} == Counter(span["name"] for span in read(spans))


def test_an_error_is_recorded_in_the_span(network: str, spans: Path) -> None:
    """The span of a call that failed has the error's status and its event; a chunk of ``map`` is one span."""
    with Controller(network, max_workers=1, on_worker_start=exporting_to(spans)) as controller:
        with TRACER.start_as_current_span("study"):
            failing = controller.submit(fail)
            values = controller.map(plus_one, range(6), chunksize=3)
        assert isinstance(failing.exception(PATIENCE), KeyError)
        assert [1, 2, 3, 4, 5, 6] == list(values)
    calls = [span for span in read(spans) if span["name"] == "rushlight.call"]
    assert ["ERROR", "UNSET", "UNSET"] == sorted(span["status"]["status_code"] for span in calls)
    (failed,) = [span for span in calls if span["status"]["status_code"] == "ERROR"]
    (event,) = failed["events"]
    assert ("exception", "KeyError") == (event["name"], event["attributes"]["exception.type"])


def test_a_worker_without_a_provider_does_the_call_all_the_same(network: str) -> None:
    """The submitter's trace is no condition: where nobody set a provider, nothing is exported."""
    with Controller(network, max_workers=1) as controller, TRACER.start_as_current_span("study"):
        assert 2 == controller.submit(plus_one, 1).result(PATIENCE)


def test_where_opentelemetry_is_not_installed_calls_go_on() -> None:
    """A submitter without it sends no context, and a worker without it makes the call in no span."""
    code = """if True:
        import sys
        sys.modules["opentelemetry"] = None
        from rushlight import Task, TaskState, _telemetry
        assert b"\\xc0" == _telemetry.context()
        extra = {"trace": {"traceparent": "00-" + "1" * 32 + "-" + "1" * 16 + "-01"}}
        task = Task("key", TaskState.RUNNING, {"call": "f:1"}, xs_extra=extra)
        with _telemetry.span(task, "network", "worker"):
            print("called")
        _telemetry.flush()
    """
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "called\n" == told.stdout
