"""The limits of the HTTP server, which hold before anything is known about a client.

uvicorn limits neither the size of headers nor the time that a request takes to arrive. `HttpProtocol` adds
these limits, and answers requests that would be too many at once. It never refuses a new connection because
others hold too much: it closes the one that has been without a complete request for the longest time.
"""

import asyncio
import re
import resource
from typing import Any, cast

import uvicorn
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shared.http_admission import Admission
from shared.http_problems import refusal
from shared.observability.metrics import HTTP_REFUSED
from shared.request_ids import new_request_id, request_id_of

MAX_CONNECTIONS = 8_192

MAX_HEAD = 64 * 1024
"""Bytes of the request line and the headers."""

MAX_UNFINISHED = 64 * 1024 * 1024
"""Bytes of all bodies that have begun to arrive and are not complete."""

TICK = 10.0
"""Seconds that the headers of a request may take, and between two checks that a body or response advances."""

MIN_PROGRESS = 10 * 1024
"""Bytes of a body or a response that must be transferred in each `TICK`."""

_SMALL_BODY = 16 * 1024
"""Bytes. A request with such a body is handled only once it is complete."""

_MAX_DIGITS = 9
"""The maximum number of digits of the length of a small body, including leading zeros."""

_SEPARATORS = len(b": \r\n")
_MAX_PIPELINED = 16
_GRACE_SECONDS = 5
_UPGRADE = re.compile(rb"(\r\n)upgrade[ \t]*:", re.IGNORECASE)


class HttpProtocol(HttpToolsProtocol):
    """A connection. Its application is an `Admission`.

    Attributes:
        is_stale: whether the next request may have waited unread for too long.
    """

    _admission: Admission

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as its base
        super().connection_made(transport)
        self._admission = cast("Admission", self.app)
        self._is_private = self._admission.is_private(self.server)
        self._timer: asyncio.TimerHandle | None = None
        self._postponed: RequestResponseCycle | None = None
        self._is_in_head = True
        self._unparsed = 0
        self._body_bytes = 0
        self._progress = 0
        self._written = 0
        self._shed_at_once = 0
        self.is_stale = False
        self._arm()
        if len(self.connections) > MAX_CONNECTIONS and not self._is_private:
            self._make_room()
        self._admission.unfinished[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._release_body()
        self._admission.unfinished.pop(self, None)
        self._admission.forget_pause(self)
        self._postponed = None
        super().connection_lost(exc)

    # --- Receiving

    def data_received(self, data: bytes) -> None:
        if self._is_in_head:
            data = _without_upgrade(data)
        self._unparsed += len(data)
        self._shed_at_once = 0
        super().data_received(data)
        if self._timer is None and (self._unparsed > 0 or not self._is_in_head):
            self._arm()  # a request has begun, and is not complete
        # Headers, trailers and chunk extensions are collected by the parser, which does not limit their size.
        if self._unparsed > MAX_HEAD and self.parser is not None:
            self.refuse(431, "headers_too_large", f"The headers are larger than {MAX_HEAD} bytes")

    def _unsupported_upgrade_warning(self) -> None:
        # The parser has stopped. What it has not read must not be taken for another request.
        self.refuse(400, "unsupported_upgrade", "The protocol cannot be changed")

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + _SEPARATORS for name, value in self.headers)
        if size > MAX_HEAD:
            self.refuse(431, "headers_too_large", f"The headers are larger than {MAX_HEAD} bytes")
        if len(self.pipeline) >= _MAX_PIPELINED:
            self.refuse(503, "overloaded", "Too many requests were sent without waiting for a response")
        if self.transport.is_closing():
            raise ConnectionAbortedError  # stops the parser
        self._is_in_head = False
        self._unparsed = self._progress = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        self._progress += len(body)
        super().on_body(body)
        if self.cycle.response_complete or self.transport.is_closing():
            return
        admission = self._admission
        self._body_bytes += len(body)
        admission.unfinished_bytes += len(body)
        admission.receiving.setdefault(self, None)
        while admission.unfinished_bytes > MAX_UNFINISHED:
            oldest = next(iter(admission.receiving))
            oldest.refuse(503, "overloaded", "Too many requests are being received at the moment")

    def on_message_complete(self) -> None:
        self._is_in_head = True
        self._unparsed = 0
        self._disarm()
        self._release_body()
        self._admission.unfinished.pop(self, None)
        super().on_message_complete()
        if cycle := self._postponed:
            self._postponed = None
            self._start_asgi_task(cycle, self.app)
        elif self.cycle.response_complete:  # it was refused before its body had arrived
            self._admission.unfinished[self] = None
            self._arm()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 - as its base
        if cycle.more_body and self._is_small(cycle):
            self._postponed = cycle
        elif self._admission.admits(
            cast("Scope", cycle.scope),
            is_complete=not cycle.more_body,
            is_private=self._is_private,
            is_stale=self.is_stale,
        ):
            self._admission.forget_pause(self)
            super()._start_asgi_task(cycle, app)
        else:
            self._shed(cycle)

    @staticmethod
    def _is_small(cycle: RequestResponseCycle) -> bool:
        if cycle.waiting_for_100_continue:
            return False
        headers = dict(cycle.scope["headers"])
        length = headers.get(b"content-length", b"0")
        # The parser refuses a length that is not a number, and headers with both.
        return (
            b"transfer-encoding" not in headers and len(length) <= _MAX_DIGITS and int(length) <= _SMALL_BODY
        )

    # --- Refusing

    def _shed(self, cycle: RequestResponseCycle) -> None:
        """Answer a request without handling it, as cheaply as possible."""
        _SHED.inc()
        self._shed_at_once += 1
        is_last = not cycle.keep_alive or self._shed_at_once >= _MAX_PIPELINED
        respond = _overloaded_last if is_last else _overloaded
        response = respond(request_id_of(cycle.scope["headers"]))
        if cycle.scope["method"] == "HEAD":
            response = response.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        self.transport.write(response)
        cycle.response_started = cycle.response_complete = True
        if is_last:
            self.transport.close()
        self.on_response_complete()
        if not self.pipeline and not self.transport.is_closing():
            self._admission.pause(self)

    def suspend(self) -> None:
        """Read no more until `resume` is called."""
        self.flow.pause_reading()

    def resume(self) -> None:
        """Read again after a request was shed."""
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def refuse(self, status: int, code: str, detail: str) -> None:
        """Refuse a request that has arrived in part, and close the connection."""
        if self.transport.is_closing():
            return
        HTTP_REFUSED.labels(code).inc()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete or not (self._is_in_head or cycle.response_started):
            self.transport.write(refusal(status, code, detail, is_last=True)(new_request_id()))
        self._abandon()
        self.transport.close()
        self._arm()  # in case the client does not read the answer

    def send_400_response(self, msg: str) -> None:
        self.refuse(400, "malformed_request", msg)

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def _abandon(self) -> None:
        """Notify the application, if it is already handling the request, that the rest will not arrive."""
        self._postponed = None
        self._release_body()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    def _make_room(self) -> None:
        HTTP_REFUSED.labels("too_many_connections").inc()
        unfinished = self._admission.unfinished
        oldest = unfinished.popitem(last=False)[0] if unfinished else self
        oldest.abort()

    def _release_body(self) -> None:
        self._admission.unfinished_bytes -= self._body_bytes
        self._body_bytes = 0
        self._admission.receiving.pop(self, None)

    # --- Time

    def on_response_complete(self) -> None:
        self._release_body()
        self._admission.unfinished[self] = None
        super().on_response_complete()
        if self.transport.is_closing():
            self._arm()  # in case the client does not read the response

    def timeout_keep_alive_handler(self) -> None:
        self.transport.abort()  # `close` would wait for a client that does not read

    def pause_writing(self) -> None:
        super().pause_writing()
        self._written = self.transport.get_write_buffer_size()
        self._arm()

    def resume_writing(self) -> None:
        self._disarm()
        if not self._is_in_head or self.transport.is_closing():
            self._arm()
        super().resume_writing()

    def _arm(self) -> None:
        self._disarm()
        self._timer = self.loop.call_later(TICK, self._on_tick)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_tick(self) -> None:
        self._timer = None
        if self.flow.write_paused:
            left = self.transport.get_write_buffer_size()
            advances = left <= self._written - MIN_PROGRESS
            self._written = left
        else:
            is_receiving = not self._is_in_head and not self.cycle.response_complete
            advances = is_receiving and (self._progress >= MIN_PROGRESS or self.flow.read_paused)
            self._progress = 0
        if advances and not self.transport.is_closing():
            self._arm()
        elif self._is_in_head or self.transport.is_closing() or self.cycle.response_started:
            HTTP_REFUSED.labels("too_slow").inc()
            self.transport.abort()
        else:
            # Not 408, because SendGrid discards an e-mail if the answer is any 4xx.
            self.refuse(503, "body_timeout", "The body did not arrive in time")


def _without_upgrade(data: bytes) -> bytes:
    """Rename the `Upgrade` header, which HTTP permits to ignore, in what has arrived of a request's head.

    Clients such as curl and Java's offer HTTP/2 with it. The parser would not read the body after it.
    """
    if _UPGRADE.search(data) is None:
        return data
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(rb"\1x-ignored-upgrade:", head) + end + rest


def config_of(app: Admission) -> uvicorn.Config:
    """Return the configuration of a server whose connections are limited."""
    return uvicorn.Config(
        app,
        http=HttpProtocol,
        ws="none",
        backlog=MAX_CONNECTIONS,  # the system may limit it; connections beyond it get no response for seconds
        log_config=None,
        access_log=False,
        proxy_headers=False,  # nothing depends on the client's address
        timeout_graceful_shutdown=_GRACE_SECONDS,
        timeout_keep_alive=30,
    )


def raise_descriptor_limit() -> None:
    """Allow the process as many descriptors as the system permits, up to what `MAX_CONNECTIONS` needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


_SHED = HTTP_REFUSED.labels("overloaded")
_DETAIL = "Too many requests are in progress. Nothing was accepted; try again later."
_overloaded = refusal(503, "overloaded", _DETAIL, is_last=False)
_overloaded_last = refusal(503, "overloaded", _DETAIL, is_last=True)
