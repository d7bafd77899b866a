"""Parsing webhooks without a gateway."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from shared.events import Event, decode, message_received, receipt_received, suppression_changed
from shared.message import IncomingMessage
from shared.providers.registry import PROVIDERS
from shared.providers.webhooks import (
    InvalidWebhookError,
    UnreadableWebhookError,
    Webhook,
    WebhookContent,
    WebhookRequest,
)
from tests.webhooks import MULTIPART, SENDGRID_INBOUND, multipart

Files = Mapping[str, tuple[str, str, bytes]]

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

_MAX_EVENT = 1024 * 1024 - 4 * 1024
"""Bytes that a NATS message can hold, without its headers."""

_PREFIX = "/api/webhooks/"
_WEBHOOKS = {
    _PREFIX + webhook.path: webhook for provider in PROVIDERS.values() for webhook in provider.webhooks
}


def webhook_at(path: str) -> Webhook:
    return _WEBHOOKS[path]


def request(
    body: bytes,
    headers: Mapping[str, str],
    *,
    path: str = "",
    query: bytes = b"",
    received_at: datetime = NOW,
) -> WebhookRequest:
    return WebhookRequest(
        path=path, query=query, headers=headers, body=body, received_at=received_at, default_region="US"
    )


def parse(path: str, body: bytes, headers: Mapping[str, str]) -> WebhookContent:
    """Parse a webhook, and check that it can be answered and that everything in it can be published."""
    webhook = webhook_at(path)
    content = webhook.parse(request(body, headers))
    webhook.respond(content)
    events: list[Event[Any]] = [
        *(message_received(message) for message in content.messages),
        *(receipt_received(receipt, time=NOW) for receipt in content.receipts),
        *(suppression_changed(change) for change in content.suppressions),
    ]
    for event in events:
        payload = event.encode()
        assert len(payload) <= _MAX_EVENT
        assert decode(payload).data == event.data
    return content


def invalid_fields(path: str, body: bytes, headers: Mapping[str, str]) -> set[str]:
    """Parse a webhook that is not valid, and return the names of the fields at fault."""
    with pytest.raises(InvalidWebhookError) as caught:
        parse(path, body, headers)
    return {fault.field for fault in caught.value.faults}


def require_tolerated(path: str, body: bytes, headers: Mapping[str, str]) -> None:
    """Parse any bytes, which may raise only the errors that the gateway handles."""
    try:
        content = parse(path, body, headers)
    except (InvalidWebhookError, UnreadableWebhookError):
        return
    assert all(incoming.message.from_ and incoming.message.to for incoming in content.messages)


def without(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def flipped(data: bytes, position: int, by: int) -> bytes:
    """Return the data with one byte changed."""
    position %= len(data)
    return data[:position] + bytes([data[position] ^ by]) + data[position + 1 :]


fuzzed = settings(deadline=None, max_examples=150)

flips = st.integers(1, 255)
"""The value that is XORed with a byte to change it."""

anything = st.text(st.characters(codec="utf-8"), max_size=30)
some_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | anything,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
    max_leaves=8,
)


def changed(fields: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return these fields with some removed, some replaced and others added."""
    return st.builds(
        lambda removed, replaced, added: {**without(fields, *removed), **replaced, **added},
        st.sets(st.sampled_from(sorted(fields)), max_size=2),
        st.dictionaries(st.sampled_from(sorted(fields)), anything, max_size=3),
        st.dictionaries(anything, anything, max_size=2),
    )


def json_bytes(value: object) -> bytes:
    """Return JSON in which a lone surrogate is an escape, as clients write it."""
    return json.dumps(value).encode()


def parse_emails(fields: Mapping[str, str | bytes], files: Files | None = None) -> list[IncomingMessage]:
    return parse(SENDGRID_INBOUND, multipart(fields, files), MULTIPART).messages


def parse_email(fields: Mapping[str, str | bytes], files: Files | None = None) -> IncomingMessage:
    [incoming] = parse_emails(fields, files)
    return incoming
