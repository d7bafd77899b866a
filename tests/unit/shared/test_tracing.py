"""Tracing in a process: configured, misconfigured, and not configured."""

import subprocess
import sys
import threading
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI, Response

from mock_providers.server import listen, serving, url_of
from shared.observability import tracing

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
async def collector() -> AsyncIterator[str]:
    """Yield the URL of a collector that accepts all spans.

    Without one, the exporter's thread would keep trying for some seconds during the tests that follow, and
    Hypothesis would blame the `random` of its pauses on their strategies.
    """
    app = FastAPI()

    @app.post("/v1/traces")
    def export() -> Response:
        return Response(media_type="application/x-protobuf")

    with listen("127.0.0.1", 0) as listener:
        async with serving({listener: app}):
            yield f"{url_of(listener)}/v1/traces"


@pytest.fixture(autouse=True)
def endpoint(monkeypatch: pytest.MonkeyPatch, collector: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector)


async def headers_of_a_request(**received: str) -> dict[str, str]:
    async with tracing.exporting("test"):
        with tracing.serving("GET", received):
            return tracing.headers()


async def test_only_the_trace_context_is_propagated() -> None:
    sent = await headers_of_a_request(traceparent=TRACEPARENT, tracestate="a=b", baggage="user=ann")
    assert sent.keys() == {"traceparent", "tracestate"}
    assert sent["traceparent"].split("-")[1] == TRACE
    assert sent["tracestate"] == "a=b"


@pytest.mark.parametrize("traceparent", ["", "x", TRACEPARENT.replace("0af7", "ZZZZ"), f"00-{'0' * 32}-1-01"])
async def test_an_invalid_traceparent_starts_a_new_trace(traceparent: str) -> None:
    sent = await headers_of_a_request(traceparent=traceparent)
    assert sent.keys() == {"traceparent"}
    assert sent["traceparent"].split("-")[1] != TRACE


async def test_a_long_tracestate_is_not_propagated() -> None:
    state = ",".join(f"{name}={'x' * 200}" for name in "abc")
    sent = await headers_of_a_request(traceparent=TRACEPARENT, tracestate=state)
    assert sent.keys() == {"traceparent"}


async def test_the_sampling_decision_of_the_client_is_kept() -> None:
    sent = await headers_of_a_request(traceparent=TRACEPARENT.removesuffix("1") + "0")
    assert sent["traceparent"].endswith("-00")


async def test_no_thread_of_the_exporter_remains() -> None:
    assert await headers_of_a_request() != {}
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("Otel")] == []


async def test_an_invalid_variable_only_disables_tracing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "0")
    assert await headers_of_a_request(traceparent=TRACEPARENT) == {}


async def test_without_an_endpoint_there_are_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", " ")
    assert await headers_of_a_request(traceparent=TRACEPARENT) == {}


@pytest.mark.parametrize("service", ["gateway", "ingest", "sender"])
def test_the_sdk_is_not_imported_without_tracing(service: str) -> None:
    program = f"import sys, services.{service}.app; sys.exit('opentelemetry.sdk.trace' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
