"""The spans that the services export to a collector, and their behaviour without one."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fastapi import FastAPI, Request, Response
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mock_providers.server import listen, serving, url_of
from tests.e2e.stack import Stack, running_stack
from tests.ports import free_port
from tests.waiting import eventually

SERVICES = ("gateway", "ingest", "sender")
CLIENTS_TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENTS_SPAN = "b7ad6b7169203331"
TRACEPARENT = f"00-{CLIENTS_TRACE}-{CLIENTS_SPAN}-01"
SECRETS = ("Hello", "12016661234", "18045551234", "s3cret")


@dataclass
class Outside:
    """A collector of spans, and a provider that records the headers of its requests.

    Attributes:
        spans: exported spans, each with the name of its service.
        exports: export requests as text.
        answers: status codes of the next responses of the provider, before it accepts messages.
        requests: headers of the requests to the provider.
    """

    url: str
    spans: list[tuple[str, Span]] = field(default_factory=list)
    exports: list[str] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)

    def named(self, *names: str) -> list[Span]:
        """Return the spans with these names (`service: span`), in the order of their start."""
        found = [span for service, span in self.spans if f"{service}: {span.name}" in names]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    async def exported(self, count: int, *names: str) -> list[Span]:
        async def find() -> list[Span] | None:
            found = self.named(*names)
            return found if len(found) == count else None

        found = await eventually(find)
        assert found is not None
        return found

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/traces")
        async def export(request: Request) -> Response:
            exported = ExportTraceServiceRequest.FromString(await request.body())
            self.exports.append(str(exported))
            for part in exported.resource_spans:
                service = attributes(part.resource)["service.name"]
                self.spans += [(str(service), span) for scope in part.scope_spans for span in scope.spans]
            return Response(media_type="application/x-protobuf")

        @app.post("/messages")
        async def send(request: Request) -> Response:
            self.requests.append(dict(request.headers))
            if self.answers:
                return Response(status_code=self.answers.pop())
            return Response('{"messaging_provider_id": "m-1"}', media_type="application/json")

        return app


def attributes(of: object) -> dict[str, str | int]:
    found = {}
    for attribute in of.attributes:  # type: ignore[attr-defined] # spans, links and resources have them
        kind = attribute.value.WhichOneof("value")
        found[attribute.key] = getattr(attribute.value, kind)
    return found


@pytest.fixture
async def outside() -> AsyncIterator[Outside]:
    listener = listen("127.0.0.1", 0)
    outside = Outside(url_of(listener))
    async with serving({listener: outside.app()}):
        yield outside


@pytest.fixture
async def traced(tmp_path: Path, database_url: str, nats_url: str, outside: Outside) -> AsyncIterator[Stack]:
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": outside.url,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "SMS_PROVIDER_URL": outside.url.replace("://", "://user:s3cret@"),
    }
    async with running_stack(
        tmp_path, database_url=database_url, nats_url=nats_url, settings=settings, services=SERVICES
    ) as stack:
        yield stack


async def test_a_message_is_one_trace_from_the_client_to_the_provider(
    traced: Stack, outside: Outside
) -> None:
    payload = {"from": "+12016661234", "to": "+18045551234", "type": "sms", "body": "Hello"}
    response = await traced.post(
        "/api/messages/sms", payload, traceparent=TRACEPARENT, tracestate="vendor=value"
    )
    message = response.json()
    [server] = await outside.exported(1, "gateway: POST /api/messages/sms")
    [producer] = await outside.exported(1, "gateway: publish OUTBOUND")
    [consumer] = await outside.exported(1, "sender: process OUTBOUND")
    [client] = await outside.exported(1, "sender: POST")
    [event] = await outside.exported(1, "sender: publish EVENTS")
    chain = [server, producer, consumer, client]

    assert {span.trace_id.hex() for span in [*chain, event]} == {CLIENTS_TRACE}
    parents = [CLIENTS_SPAN, *(span.span_id.hex() for span in chain[:-1])]
    assert [span.parent_span_id.hex() for span in chain] == parents
    assert event.parent_span_id == consumer.span_id
    kinds = [Span.SPAN_KIND_SERVER, Span.SPAN_KIND_PRODUCER, Span.SPAN_KIND_CONSUMER, Span.SPAN_KIND_CLIENT]
    assert [span.kind for span in chain] == kinds

    [request] = outside.requests
    assert request["traceparent"] == f"00-{CLIENTS_TRACE}-{client.span_id.hex()}-01"
    assert request["tracestate"] == "vendor=value"

    said = attributes(consumer)
    assert {
        name.rpartition(".")[2]: said[name] for name in said if name.startswith("messaging_service.")
    } == {
        "message_id": message["id"],
        "conversation_key": message["conversation_key"],
        "channel": "sms",
        "provider": "generic_sms",
        "generation": 0,
        "attempt": 1,
        "outcome": "sent",
    }
    assert attributes(server)["messaging_service.message_id"] == message["id"]
    assert attributes(server)["messaging_service.request_id"]

    for stream, published in (("OUTBOUND", producer), ("EVENTS", event)):
        [stored] = await outside.exported(1, f"ingest: process {stream}")
        assert [link.span_id for link in stored.links] == [published.span_id]
    assert not [secret for secret in SECRETS if secret in "".join(outside.exports)]


async def test_a_retry_continues_the_trace(traced: Stack, outside: Outside) -> None:
    outside.answers = [503]
    await traced.send()
    first, again = await outside.exported(2, "sender: POST")
    [process] = await outside.exported(1, "sender: process OUTBOUND")
    [delay] = await outside.exported(1, "sender: publish DELAYED")
    [due] = await outside.exported(1, "sender: process DELAYED")
    assert {span.trace_id for span in (first, again, delay, due)} == {process.trace_id}
    assert [first.parent_span_id, delay.parent_span_id] == [process.span_id] * 2
    assert [due.parent_span_id, again.parent_span_id] == [delay.span_id, due.span_id]
    assert [attributes(span)["messaging_service.outcome"] for span in (process, due)] == ["retrying", "sent"]
    assert [attributes(span)["http.response.status_code"] for span in (first, again)] == [503, 200]
    assert first.status.code == first.status.STATUS_CODE_ERROR


async def test_a_request_without_a_trace_starts_one_and_probes_are_not_traced(
    traced: Stack, outside: Outside
) -> None:
    await traced.client.get(f"{traced.processes['gateway'].health_url}/metrics")
    await traced.get("/api/conversations/999")
    [server] = await outside.exported(1, "gateway: GET /api/conversations/{id}")
    assert server.parent_span_id == b""
    assert not outside.named("gateway: GET /metrics", "gateway: GET /readyz")


@pytest.mark.parametrize("hangs", [False, True], ids=["refuses", "hangs"])
async def test_an_unavailable_endpoint_does_not_affect_the_services(
    tmp_path: Path, database_url: str, nats_url: str, *, hangs: bool
) -> None:
    # A socket that listens but never accepts a connection lets requests time out.
    listener = socket.create_server(("127.0.0.1", 0)) if hangs else None
    port = listener.getsockname()[1] if listener else free_port()
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "60",
        "OTEL_BSP_SCHEDULE_DELAY": "10",
    }
    async with running_stack(
        tmp_path, database_url=database_url, nats_url=nats_url, settings=settings
    ) as stack:
        sent = [await stack.send() for _ in range(20)]
        await asyncio.gather(*(stack.message_becomes(message["id"], "sent") for message in sent))
        for service in SERVICES:
            # This fails if the service does not stop within 20 seconds.
            await stack.processes[service].end(signal.SIGTERM)
            warnings = [
                line for line in stack.processes[service].log().splitlines() if "tracing_degraded" in line
            ]
            assert len(warnings) <= 3, warnings
            assert "Traceback" not in stack.processes[service].log()
    if listener:
        listener.close()
