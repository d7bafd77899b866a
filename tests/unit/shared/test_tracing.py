"""What tracing does to a service: as configured, misconfigured, and not configured at all."""

import subprocess
import sys

import pytest

from shared.observability import tracing

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9/v1/traces")


async def headers_of_a_request(**received: str) -> dict[str, str]:
    async with tracing.exporting("test"):
        with tracing.serving("GET", received):
            return tracing.headers()


async def test_a_trace_is_continued_and_nothing_else_is_passed_on() -> None:
    sent = await headers_of_a_request(traceparent=TRACEPARENT, tracestate="a=b", baggage="user=ann")
    assert sent.keys() == {"traceparent", "tracestate"}
    assert sent["traceparent"].split("-")[1] == TRACE
    assert sent["tracestate"] == "a=b"


@pytest.mark.parametrize("traceparent", ["", "x", TRACEPARENT.replace("0af7", "ZZZZ"), f"00-{'0' * 32}-1-01"])
async def test_what_is_no_trace_is_not_continued(traceparent: str) -> None:
    sent = await headers_of_a_request(traceparent=traceparent)
    assert sent.keys() == {"traceparent"}
    assert sent["traceparent"].split("-")[1] != TRACE


async def test_a_state_of_any_length_goes_no_further() -> None:
    state = ",".join(f"{name}={'x' * 200}" for name in "abc")
    sent = await headers_of_a_request(traceparent=TRACEPARENT, tracestate=state)
    assert sent.keys() == {"traceparent"}


async def test_a_client_that_is_not_sampled_is_not_and_says_so() -> None:
    sent = await headers_of_a_request(traceparent=TRACEPARENT.removesuffix("1") + "0")
    assert sent["traceparent"].endswith("-00")


async def test_a_mistake_in_the_variables_turns_tracing_off_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "0")
    assert await headers_of_a_request(traceparent=TRACEPARENT) == {}


async def test_without_an_endpoint_there_are_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", " ")
    assert await headers_of_a_request(traceparent=TRACEPARENT) == {}


@pytest.mark.parametrize("service", ["gateway", "ingest", "sender"])
def test_the_sdk_is_imported_by_those_who_trace_only(service: str) -> None:
    program = f"import sys, services.{service}.app; sys.exit('opentelemetry.sdk.trace' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
