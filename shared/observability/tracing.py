"""Tracing with OpenTelemetry, configured by the standard `OTEL_*` environment variables.

Without an endpoint nothing is traced, and the SDK is not even imported. Span names and attributes follow the
semantic conventions. Attributes under `messaging_service` identify the message (its id, conversation key and
the like). Spans never contain texts, addresses or credentials, and therefore no exception messages and no
URLs.

The context travels in the W3C headers `traceparent` and `tracestate` of a message. A delayed retry keeps
them, so that all attempts belong to one trace. Events do not carry the context, although CloudEvents has an
extension for it: the content of an event depends only on what happened, so that publishing it again yields
the same event. A message that an operator publishes without these headers starts a new trace.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_log = structlog.get_logger()

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_FLUSH_SECONDS = 1
_WARNING_INTERVAL = 60
"""Seconds between two warnings of the same kind."""

_MAX_TRACESTATE = 512
"""Characters; W3C Trace Context allows a longer value, which any client may send, to be discarded."""

_FIRST_CLIENT_ERROR = 400
_FIRST_SERVER_ERROR = 500

_propagator = TraceContextTextMapPropagator()
_tracer: Tracer | None = None

Attributes = Mapping[str, str | int]


@asynccontextmanager
async def exporting(service: str) -> AsyncIterator[None]:
    """Export spans inside the context if an endpoint is configured.

    An endpoint that is slow or unavailable does not affect the service: a background thread exports spans
    from a queue of limited size, and has one second for the rest when the context ends.

    Args:
        service: name of the service, unless the environment sets another.
    """
    global _tracer  # noqa: PLW0603 - a process has one tracer, as it has one log
    provider = _create_provider(service)
    if provider is None:
        yield
        return
    _tracer = provider.get_tracer("messaging_service")
    try:
        yield
    finally:
        _tracer = None
        flushing = threading.Thread(target=provider.shutdown, daemon=True)
        flushing.start()
        await asyncio.to_thread(flushing.join, _FLUSH_SECONDS)


def is_on() -> bool:
    """Return whether spans are exported."""
    return _tracer is not None


def headers() -> dict[str, str]:
    """Return the headers that let the receiver continue the current trace."""
    carrier: dict[str, str] = {}
    if _tracer is not None:
        _propagator.inject(carrier)
    return carrier


def annotate(**attributes: object) -> None:
    """Add attributes of the message to the current span, except those that are None."""
    if _tracer is not None:
        trace.get_current_span().set_attributes(
            {
                f"messaging_service.{name}": value if isinstance(value, int) else str(value)
                for name, value in attributes.items()
                if value is not None
            }
        )


def serving(method: str, request_headers: Mapping[str, str]) -> AbstractContextManager[None]:
    """Start a span for a request to this service, as part of the trace of its client."""
    return _span(method, SpanKind.SERVER, {"http.request.method": method}, parent=request_headers)


def served(method: str, route: str, status: int) -> None:
    """Record the route and the response status of the current server span."""
    if _tracer is not None:
        span = trace.get_current_span()
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)
        _set_response(span, status, _FIRST_SERVER_ERROR)


def calling(method: str, host: str, port: int) -> AbstractContextManager[None]:
    """Start a span for a request to another service."""
    attributes: Attributes = {"http.request.method": method, "server.address": host, "server.port": port}
    return _span(method, SpanKind.CLIENT, attributes)


def called(status: int) -> None:
    """Record the response status of the current client span."""
    if _tracer is not None:
        _set_response(trace.get_current_span(), status, _FIRST_CLIENT_ERROR)


def publishing(stream: str, event_id: object | None) -> AbstractContextManager[None]:
    """Start a span for publishing a message, which should carry the result of `headers`."""
    attributes = dict(_messaging("publish", "send", stream))
    if event_id is not None:
        attributes["messaging.message.id"] = str(event_id)
    return _span(f"publish {stream}", SpanKind.PRODUCER, attributes)


def processing(stream: str, message_headers: Mapping[str, str]) -> AbstractContextManager[None]:
    """Start a span for processing a message, as part of the trace in which it was published."""
    attributes = _messaging("process", "process", stream)
    return _span(f"process {stream}", SpanKind.CONSUMER, attributes, parent=message_headers)


def processing_batch(
    stream: str, messages: Iterable[Mapping[str, str]], count: int
) -> AbstractContextManager[None]:
    """Start a span for processing several messages: a new trace with links to the traces of the messages."""
    attributes = {**_messaging("process", "process", stream), "messaging.batch.message_count": count}
    return _span(f"process {stream}", SpanKind.CONSUMER, attributes, linked=messages)


def _messaging(name: str, kind: str, stream: str) -> Attributes:
    return {
        "messaging.system": "nats",
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "messaging.destination.name": str(stream),
    }


_NO_SPAN = nullcontext()


def _span(
    name: str,
    kind: SpanKind,
    attributes: Attributes,
    *,
    parent: Mapping[str, str] | None = None,
    linked: Iterable[Mapping[str, str]] = (),
) -> AbstractContextManager[None]:
    return _NO_SPAN if _tracer is None else _started_span(_tracer, name, kind, attributes, parent, linked)


@contextmanager
def _started_span(
    tracer: trace.Tracer,
    name: str,
    kind: SpanKind,
    attributes: Attributes,
    parent: Mapping[str, str] | None,
    linked: Iterable[Mapping[str, str]],
) -> Iterator[None]:
    with tracer.start_as_current_span(
        name,
        context=None if parent is None else _context(parent),
        kind=kind,
        attributes=attributes,
        links=[link for carrier in linked if (link := _link(carrier))],
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except BaseException as exc:
            span.set_attribute("error.type", type(exc).__qualname__)
            span.set_status(StatusCode.ERROR)
            raise


def _context(carrier: Mapping[str, str]) -> Context:
    known = {name: carrier.get(name, "") for name in _propagator.fields}
    if len(known["tracestate"]) > _MAX_TRACESTATE:
        del known["tracestate"]
    return _propagator.extract(known, Context())


def _link(carrier: Mapping[str, str]) -> Link | None:
    context = trace.get_current_span(_context(carrier)).get_span_context()
    return Link(context) if context.is_valid else None


def _set_response(span: Span, status: int, first_error: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= first_error:
        span.set_attribute("error.type", str(status))
        span.set_status(StatusCode.ERROR)


def _create_provider(service: str) -> "TracerProvider | None":
    if not any(os.environ.get(variable, "").strip() for variable in _ENDPOINTS):
        return None
    # Imported here, because these modules cost time and memory that are wasted without tracing.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    logger = logging.getLogger("opentelemetry")
    logger.handlers, logger.propagate = [_RateLimitedHandler()], False
    try:
        resource = Resource.create({"service.name": service}).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except Exception as exc:  # noqa: BLE001 - a wrong variable must not keep the service from starting
        _log.error("tracing_disabled", error=repr(exc))
        return None
    return provider


class _RateLimitedHandler(logging.Handler):
    """Logs each warning of the SDK once a minute; it warns every second while the endpoint is down."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._suppressed_until: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now >= self._suppressed_until.get(record.msg, 0):
            self._suppressed_until[record.msg] = now + _WARNING_INTERVAL
            _log.warning("tracing_degraded", error=record.getMessage())
