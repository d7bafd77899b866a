"""The synchronous client."""

import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack, cast
from urllib.parse import quote
from uuid import uuid4

import httpx

from messaging_client.errors import ProblemError
from messaging_client.events import Event, EventParser
from messaging_client.fields import EmailFields, Moment, ReplyFields, SmsFields, body_of
from messaging_client.models import (
    BatchResponse,
    BulkResponse,
    ConversationResponse,
    DeadLetterResponse,
    DeadLetterWithHistory,
    DeliveryResponse,
    DiscardResponse,
    EventPage,
    MessageResponse,
    MessageWithHistory,
    RecoverResponse,
    ReplayResponse,
    SuppressionResponse,
    WebhookAttemptResponse,
    WebhookEndpointResponse,
    WebhookEndpointWithSecret,
)
from messaging_client.retries import delay_after, is_temporary

_STREAM_TIMEOUT = 40.0
"""Seconds. The service sends something every 15 seconds."""


class Client:
    """An synchronous client of the messaging service.

    It repeats requests that fail for a while, after the time that the service asks for. A message is never
    accepted twice, because each request to send has an `Idempotency-Key`. Methods raise ProblemError if the
    service refuses a request, and httpx.TransportError if it cannot be reached.

    Args:
        base_url: the URL of the gateway.
        api_key: needed if the gateway has API keys.
        timeout: seconds that one attempt may take.
        max_attempts: how often a request is made before its error is raised.
        http: an HTTP client to use, for example with certificates or a proxy of its own.
    """

    def __init__(
        self,
        base_url: str = "http://localhost:8080",
        *,
        api_key: str | None = None,
        timeout: float = 10.0,
        max_attempts: int = 4,
        http: httpx.Client | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout = timeout
        self._max_attempts = max_attempts
        self._http = http or httpx.Client()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    # --- Messages

    def send_sms(self, *, idempotency_key: str | None = None, **fields: Unpack[SmsFields]) -> MessageResponse:
        """Send an SMS, or an MMS with the `type` `mms`."""
        body = {"type": "sms", **body_of(fields)}
        return cast("MessageResponse", self._create("/api/messages/sms", body, idempotency_key))

    def send_email(
        self, *, idempotency_key: str | None = None, **fields: Unpack[EmailFields]
    ) -> MessageResponse:
        """Send an e-mail."""
        body = body_of(fields)
        return cast("MessageResponse", self._create("/api/messages/email", body, idempotency_key))

    def send_batch(
        self, messages: Sequence[Mapping[str, Any]], *, idempotency_key: str | None = None
    ) -> BatchResponse:
        """Send up to 500 messages of both channels; each item has a message or a problem.

        Args:
            messages: the fields of each message, with its `type`: `sms`, `mms` or `email`.
            idempotency_key: identifies the whole batch.
        """
        body = {"messages": [body_of(each) for each in messages]}
        return cast("BatchResponse", self._create("/api/messages/batch", body, idempotency_key))

    def get_message(self, id: str) -> MessageWithHistory:  # noqa: A002 - the name in the API
        """Get a message with its history."""
        return cast("MessageWithHistory", self._call("GET", f"/api/messages/{_escaped(id)}"))

    def cancel_message(self, id: str) -> MessageResponse:  # noqa: A002 - the name in the API
        """Cancel a message that is waiting to be sent."""
        return cast("MessageResponse", self._call("DELETE", f"/api/messages/{_escaped(id)}"))

    def list_messages(self, **filters: Any) -> Iterator[MessageResponse]:  # noqa: ANN401 - a query
        """List messages; the filters are those of `GET /api/messages`."""
        return cast("Iterator[MessageResponse]", self._items("/api/messages", filters))

    # --- Conversations

    def list_conversations(
        self,
        *,
        participant: str | None = None,
        channel: str | None = None,
        updated_since: Moment | None = None,
    ) -> Iterator[ConversationResponse]:
        """List conversations, most recent message first."""
        filters = body_of({"participant": participant, "channel": channel, "updated_since": updated_since})
        return cast("Iterator[ConversationResponse]", self._items("/api/conversations", filters))

    def get_conversation(self, id: int | str) -> ConversationResponse:  # noqa: A002 - the name in the API
        """Get a conversation by its id or key."""
        return cast("ConversationResponse", self._call("GET", f"/api/conversations/{_escaped(id)}"))

    def list_conversation_messages(self, id: int | str) -> Iterator[MessageResponse]:  # noqa: A002 - the same
        """List the messages of a conversation, oldest first."""
        path = f"/api/conversations/{_escaped(id)}/messages"
        return cast("Iterator[MessageResponse]", self._items(path, {}))

    def reply_to_conversation(
        self,
        id: int | str,  # noqa: A002 - the name in the API
        *,
        idempotency_key: str | None = None,
        **fields: Unpack[ReplyFields],
    ) -> MessageResponse:
        """Send a message to the other participant of a conversation."""
        path = f"/api/conversations/{_escaped(id)}/messages"
        return cast("MessageResponse", self._create(path, body_of(fields), idempotency_key))

    # --- Dead letters

    def list_dead_letters(self, **filters: Any) -> Iterator[DeadLetterResponse]:  # noqa: ANN401 - a query
        """List dead letters, newest first; the filters are those of `GET /api/dead-letters`."""
        return cast("Iterator[DeadLetterResponse]", self._items("/api/dead-letters", filters))

    def get_dead_letter(self, id: str) -> DeadLetterWithHistory:  # noqa: A002 - the name in the API
        """Get a dead letter with the history of its message."""
        return cast("DeadLetterWithHistory", self._call("GET", f"/api/dead-letters/{_escaped(id)}"))

    def replay_dead_letter(self, id: str) -> ReplayResponse:  # noqa: A002 - the name in the API
        """Replay a dead letter; doing so again does not replay it twice."""
        path = f"/api/dead-letters/{_escaped(id)}/replay"
        return cast("ReplayResponse", self._call("POST", path))

    def discard_dead_letter(self, id: str, *, reason: str) -> DiscardResponse:  # noqa: A002 - the same
        """Discard a dead letter."""
        path = f"/api/dead-letters/{_escaped(id)}/discard"
        return cast("DiscardResponse", self._call("POST", path, body={"reason": reason}))

    def replay_dead_letters(self, **body: Any) -> BulkResponse:  # noqa: ANN401 - a body
        """Replay some of the dead letters that match a `filter`, or of `all`; continue with `cursor`."""
        return cast("BulkResponse", self._call("POST", "/api/dead-letters/replay", body=body))

    def discard_dead_letters(self, *, reason: str, **body: Any) -> BulkResponse:  # noqa: ANN401 - a body
        """Discard some of the dead letters that match a `filter`, or of `all`; continue with `cursor`."""
        body = {**body, "reason": reason}
        return cast("BulkResponse", self._call("POST", "/api/dead-letters/discard", body=body))

    # --- Suppressions

    def list_suppressions(
        self, *, channel: str | None = None, address: str | None = None
    ) -> Iterator[SuppressionResponse]:
        """List suppressed addresses, most recent first."""
        filters = {"channel": channel, "address": address}
        return cast("Iterator[SuppressionResponse]", self._items("/api/suppressions", filters))

    def suppress_address(
        self, address: str, *, reason: str, sender: str | None = None
    ) -> SuppressionResponse:
        """Send no more messages to an address, from one sender address or from all of them."""
        path, query = f"/api/suppressions/{_escaped(address)}", {"sender": sender}
        found = self._call("PUT", path, query=query, body={"reason": reason})
        return cast("SuppressionResponse", found)

    def lift_suppression(self, address: str, *, sender: str | None = None) -> None:
        """Lift a suppression."""
        self._call("DELETE", f"/api/suppressions/{_escaped(address)}", query={"sender": sender})

    # --- Webhook endpoints

    def create_webhook_endpoint(
        self,
        *,
        url: str,
        idempotency_key: str | None = None,
        **fields: Any,  # noqa: ANN401 - those of the API
    ) -> WebhookEndpointWithSecret:
        """Create a webhook endpoint; its secret is shown only once."""
        found = self._create("/api/webhook-endpoints", {**fields, "url": url}, idempotency_key)
        return cast("WebhookEndpointWithSecret", found)

    def list_webhook_endpoints(self) -> Iterator[WebhookEndpointResponse]:
        """List webhook endpoints, newest first."""
        return cast("Iterator[WebhookEndpointResponse]", self._items("/api/webhook-endpoints", {}))

    def get_webhook_endpoint(self, id: str) -> WebhookEndpointResponse:  # noqa: A002 - the name in the API
        """Get a webhook endpoint."""
        return cast("WebhookEndpointResponse", self._call("GET", _endpoint(id)))

    def update_webhook_endpoint(self, id: str, **fields: Any) -> WebhookEndpointResponse:  # noqa: A002, ANN401 - those of the API
        """Change the given fields of a webhook endpoint."""
        return cast("WebhookEndpointResponse", self._call("PATCH", _endpoint(id), body=fields))

    def delete_webhook_endpoint(self, id: str) -> None:  # noqa: A002 - the name in the API
        """Delete a webhook endpoint."""
        self._call("DELETE", _endpoint(id))

    def rotate_webhook_secret(self, id: str) -> WebhookEndpointWithSecret:  # noqa: A002 - the name in the API
        """Rotate the secret of a webhook endpoint; this is not repeated, which would rotate it twice."""
        found = self._call("POST", _endpoint(id, "rotate-secret"), max_attempts=1)
        return cast("WebhookEndpointWithSecret", found)

    def test_webhook_endpoint(self, id: str) -> DeliveryResponse:  # noqa: A002 - the name in the API
        """Send a test event to a webhook endpoint."""
        return cast("DeliveryResponse", self._call("POST", _endpoint(id, "test")))

    def list_webhook_attempts(self, id: str, **filters: Any) -> Iterator[WebhookAttemptResponse]:  # noqa: A002, ANN401 - a query
        """List the attempts to deliver events to a webhook endpoint, newest first."""
        return cast("Iterator[WebhookAttemptResponse]", self._items(_endpoint(id, "attempts"), filters))

    def retry_webhook_attempt(self, id: str, attempt_id: str) -> DeliveryResponse:  # noqa: A002 - the same
        """Send the event of an attempt again."""
        path = _endpoint(id, "attempts", attempt_id, "retry")
        return cast("DeliveryResponse", self._call("POST", path))

    def recover_webhook_events(self, id: str, *, since: Moment, **fields: Any) -> RecoverResponse:  # noqa: A002, ANN401 - a body
        """Send the events that an endpoint has never received since a time."""
        body = body_of({**fields, "since": since})
        return cast("RecoverResponse", self._call("POST", _endpoint(id, "recover"), body=body))

    # --- Events

    def events(
        self,
        *,
        after: int | None = None,
        types: Sequence[str] = (),
        channel: str | None = None,
        address: str | None = None,
    ) -> Iterator[Event]:
        """Yield events as they happen, and continue after a lost connection without missing any.

        Args:
            after: the `sequence` of the last event that was processed; by default, only new events are
                yielded. Store it to continue after a restart.
            types: the types of events, such as `message.received`; all by default.
            channel: `sms` or `email`.
            address: one of your addresses.

        Raises:
            ProblemError: `events_expired`, the events after `after` are no longer stored.
        """
        query = {"type": [*types], "channel": channel, "address": address}
        parser = EventParser(None if after is None else str(after))
        failures = 0
        while True:
            parser.reset()
            try:
                with self._http.stream(
                    "GET",
                    f"{self._base_url}/api/events",
                    params=_given({**query, "after": parser.last_id}),
                    headers={**self._headers, "Accept": "text/event-stream"},
                    timeout=httpx.Timeout(self._timeout, read=_STREAM_TIMEOUT),
                ) as response:
                    if not response.is_success:
                        response.read()
                        raise ProblemError.of(response)
                    parser.last_id = parser.last_id or response.headers.get("last-event-id")
                    for chunk in response.iter_bytes():
                        failures = 0
                        for event in parser.feed(chunk):
                            yield event
                failures = 0
                self._pause(httpx.ReadError("the stream has ended"), 1)
            except (ProblemError, httpx.TransportError) as exc:
                failures += 1
                if not is_temporary(exc):
                    raise
                self._pause(exc, failures)

    def list_events(self, **query: Any) -> EventPage:  # noqa: ANN401 - a query
        """Get a page of events, for those who poll; continue with its `next_cursor` as `after`."""
        return cast("EventPage", self._call("GET", "/api/events", query=query))

    def _pause(self, error: ProblemError | httpx.TransportError, failures: int) -> None:
        time.sleep(delay_after(error, failures))

    # --- Requests

    def _create(self, path: str, body: Mapping[str, Any], key: str | None) -> Any:  # noqa: ANN401 - JSON
        headers = {"Idempotency-Key": key or str(uuid4())}
        return self._call("POST", path, body=body, headers=headers)

    def _items(self, path: str, filters: Mapping[str, Any]) -> Iterator[Any]:
        query = dict(filters)
        while True:
            page = self._call("GET", path, query=query)
            for item in page["items"]:
                yield item
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        max_attempts: int | None = None,
    ) -> Any:  # noqa: ANN401 - JSON
        failures = 0
        while True:
            try:
                response = self._http.request(
                    method,
                    self._base_url + path,
                    params=_given(query or {}),
                    json=body,
                    headers={**self._headers, **(headers or {})},
                    timeout=self._timeout,
                )
                if response.is_success:
                    return response.json() if response.content else None
                raise ProblemError.of(response)
            except (ProblemError, httpx.TransportError) as exc:
                failures += 1
                if failures >= (max_attempts or self._max_attempts) or not is_temporary(exc):
                    raise
                self._pause(exc, failures)


def _given(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None and value != []}


def _endpoint(*parts: str) -> str:
    return "/".join(["/api/webhook-endpoints", *map(_escaped, parts)])


def _escaped(value: object) -> str:
    return quote(str(value), safe="")
