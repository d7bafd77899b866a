"""Traces by OpenTelemetry, as far as its environment variables say where to export them.

Without an endpoint nothing is traced and the SDK is not even imported. The names and attributes are those of
the semantic conventions, and of a message its id, conversation key and the like under `messaging_service`:
never texts, addresses or credentials, and so no exceptions' messages and no URLs either.

The context travels in the headers `traceparent` and `tracestate` (W3C). They survive the delay of a retry,
so that all attempts are one trace. Events do not carry it, although CloudEvents has an extension for that:
what an event says follows from what happened alone, so that it can be told again, and something that an
operator puts into a stream without headers is rightly the beginning of another trace.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
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
_SILENCE = 60
"""Seconds between complaints of one kind."""

_LONGEST_TRACESTATE = 512
"""Characters; longer ones, which strangers may send, need not be propagated."""

_FIRST_CLIENT_ERROR = 400
_FIRST_SERVER_ERROR = 500

_propagator = TraceContextTextMapPropagator()
_tracer: Tracer | None = None

Attributes = Mapping[str, str | int]


@asynccontextmanager
async def exporting(service: str) -> AsyncIterator[None]:
    """Trace while inside, if an endpoint is configured, as `service` unless the environment says otherwise.

    Whatever becomes of the endpoint does not matter to the service: spans wait in a queue of limited size
    for a thread of their own, and when left have a second to be gone.
    """
    global _tracer  # noqa: PLW0603 - a process has one, as it has one log
    provider = _make_provider(service)
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
    return _tracer is not None


def headers() -> dict[str, str]:
    """Tell what has to go along for the present span to be continued elsewhere."""
    carrier: dict[str, str] = {}
    if _tracer is not None:
        _propagator.inject(carrier)
    return carrier


def annotate(**what: object) -> None:
    """Add to the present span what is known of its message; None is left out."""
    if _tracer is not None:
        trace.get_current_span().set_attributes(
            {
                f"messaging_service.{name}": value if isinstance(value, int) else str(value)
                for name, value in what.items()
                if value is not None
            }
        )


def serving(method: str, request_headers: Mapping[str, str]) -> AbstractContextManager[None]:
    """Span a request to us, as part of the trace that its client tells of."""
    return _span(method, SpanKind.SERVER, {"http.request.method": method}, parent=request_headers)


def served(method: str, route: str, status: int) -> None:
    """Tell of the present span what was asked for, by the path of its route, and what was answered."""
    if _tracer is not None:
        span = trace.get_current_span()
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)
        _answered(span, status, _FIRST_SERVER_ERROR)


def calling(method: str, host: str, port: int) -> AbstractContextManager[None]:
    """Span a request of ours."""
    attributes: Attributes = {"http.request.method": method, "server.address": host, "server.port": port}
    return _span(method, SpanKind.CLIENT, attributes)


def called(status: int) -> None:
    """Tell of the present span what we were answered."""
    if _tracer is not None:
        _answered(trace.get_current_span(), status, _FIRST_CLIENT_ERROR)


def publishing(stream: str, event_id: object | None) -> AbstractContextManager[None]:
    """Span a publication, whose message is to take `headers` along."""
    attributes = dict(_messaging("publish", "send", stream))
    if event_id is not None:
        attributes["messaging.message.id"] = str(event_id)
    return _span(f"publish {stream}", SpanKind.PRODUCER, attributes)


def processing(stream: str, message_headers: Mapping[str, str]) -> AbstractContextManager[None]:
    """Span what is done with one message, as part of the trace it was published in."""
    attributes = _messaging("process", "process", stream)
    return _span(f"process {stream}", SpanKind.CONSUMER, attributes, parent=message_headers)


def processing_batch(
    stream: str, messages: Iterable[Mapping[str, str]], count: int
) -> AbstractContextManager[None]:
    """Span what is done with several messages at once: a trace of its own with links to theirs."""
    attributes = {**_messaging("process", "process", stream), "messaging.batch.message_count": count}
    return _span(f"process {stream}", SpanKind.CONSUMER, attributes, linked=messages)


def _messaging(name: str, kind: str, stream: str) -> Attributes:
    return {
        "messaging.system": "nats",
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "messaging.destination.name": str(stream),
    }


@contextmanager
def _span(
    name: str,
    kind: SpanKind,
    attributes: Attributes,
    *,
    parent: Mapping[str, str] | None = None,
    linked: Iterable[Mapping[str, str]] = (),
) -> Iterator[None]:
    if _tracer is None:
        yield
        return
    with _tracer.start_as_current_span(
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
    if len(known["tracestate"]) > _LONGEST_TRACESTATE:
        del known["tracestate"]
    return _propagator.extract(known, Context())


def _link(carrier: Mapping[str, str]) -> Link | None:
    context = trace.get_current_span(_context(carrier)).get_span_context()
    return Link(context) if context.is_valid else None


def _answered(span: Span, status: int, first_error: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= first_error:
        span.set_attribute("error.type", str(status))
        span.set_status(StatusCode.ERROR)


def _make_provider(service: str) -> "TracerProvider | None":
    if not any(os.environ.get(variable, "").strip() for variable in _ENDPOINTS):
        return None
    # Here, since they take time and memory that only those who trace should spend.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    logger = logging.getLogger("opentelemetry")
    logger.handlers, logger.propagate = [_Sparingly()], False
    try:
        resource = Resource.create({"service.name": service}).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except Exception as exc:  # noqa: BLE001 - a mistake in its variables is no reason not to serve
        _log.error("tracing_off", error=repr(exc))
        return None
    return provider


class _Sparingly(logging.Handler):
    """Logs a complaint of one kind once a minute: while the endpoint is away there is one every second."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._silent_until: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now >= self._silent_until.get(record.msg, 0):
            self._silent_until[record.msg] = now + _SILENCE
            _log.warning("tracing_disturbed", error=record.getMessage())
