"""Any body is stored, as messages, receipts or events, or else as a dead letter."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.bus.topology import Stream
from shared.message import IncomingReceipt
from tests.jetstream import JetStream
from tests.unit.gateway.in_memory import events as events_in
from tests.unit.gateway.requests import WEBHOOKS
from tests.unit.gateway.webhooks.posts import BODIES, GENERIC, MEDIA_TYPES, PATHS
from tests.webhooks import (
    DELIVERED,
    FORM,
    JSON,
    MAIL,
    MULTIPART,
    SENDGRID_EVENTS,
    SENDGRID_INBOUND,
    SMS,
    STATUS,
    TWILIO_MESSAGES,
    TWILIO_STATUS,
    multipart,
    urlencoded,
)

anything = st.text(st.characters(codec="utf-8"), max_size=30)
some_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | anything,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
    max_leaves=8,
)
fuzzed = settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def changed(
    fields: Mapping[str, Any], values: st.SearchStrategy[Any] = anything
) -> st.SearchStrategy[dict[str, Any]]:
    """Return these fields with some removed, some replaced and others added."""
    return st.builds(
        lambda removed, replaced, added: {
            **{name: value for name, value in fields.items() if name not in removed},
            **replaced,
            **added,
        },
        st.sets(st.sampled_from(sorted(fields)), max_size=2),
        st.dictionaries(st.sampled_from(sorted(fields)), values, max_size=3),
        st.dictionaries(anything, values, max_size=2),
    )


class Checked:
    """Posts bodies, each of which must be accepted and leave a trace."""

    def __init__(self, client: httpx.AsyncClient, server: JetStream) -> None:
        self._client = client
        self._server = server

    async def post(self, path: str, body: bytes, headers: Mapping[Any, Any]) -> None:
        before = len(self._server.messages(Stream.INBOUND))
        response = await self._client.post(path, content=body, headers=headers)
        stored = events_in(self._server, Stream.INBOUND)[before:]
        assert response.is_success
        if "dead_letter_id" in response.text:
            assert stored == []
            kept = {str(event.data.id) for event in events_in(self._server, Stream.DEADLETTER)}
            assert response.json()["dead_letter_id"] in kept
        for event in stored:
            assert isinstance(event.data, IncomingReceipt) or (event.data.message.from_key and event.data.raw)


@pytest.fixture
def checked(client: httpx.AsyncClient, server: JetStream) -> Checked:
    return Checked(client, server)


@fuzzed
@given(st.sampled_from(PATHS), st.binary(max_size=200))
async def test_any_bytes(checked: Checked, path: str, body: bytes) -> None:
    await checked.post(path, body, MEDIA_TYPES[path])


@pytest.mark.parametrize("path", GENERIC)
@fuzzed
@given(st.data())
async def test_any_json_object(checked: Checked, path: str, data: st.DataObject) -> None:
    payload = data.draw(changed(WEBHOOKS[path], some_json))
    await checked.post(path, json.dumps(payload).encode(), JSON)


@fuzzed
@given(changed({**SMS, "MediaUrl0": "https://a.example"}).map(urlencoded))
async def test_any_form_of_twilio(checked: Checked, body: bytes) -> None:
    await checked.post(TWILIO_MESSAGES, body, FORM)


@fuzzed
@given(changed({**STATUS, "ErrorCode": "30003"}).map(urlencoded))
async def test_any_callback_of_twilio(checked: Checked, body: bytes) -> None:
    await checked.post(TWILIO_STATUS, body, FORM)


@fuzzed
@given(changed(MAIL), st.text(max_size=20), st.binary(max_size=50), st.text(max_size=20))
async def test_any_email_of_sendgrid(
    checked: Checked, fields: dict[str, str], charset: str, text: bytes, name: str
) -> None:
    charsets = json.dumps({"text": charset, "html": charset, "from": charset})
    known = {name: value for name, value in fields.items() if name in MAIL}
    added = {name.encode().hex(): value for name, value in fields.items() if name not in MAIL}
    file = (name.encode(errors="replace").hex(), "a/b", text)
    body = multipart({**known, **added, "charsets": charsets, "text": text}, {"file": file})
    await checked.post(SENDGRID_INBOUND, body, MULTIPART)


EMAIL = BODIES[SENDGRID_INBOUND]


@fuzzed
@given(st.integers(0, len(EMAIL)), st.binary(max_size=8), st.integers(0, 20))
async def test_any_damaged_email_of_sendgrid(
    checked: Checked, position: int, added: bytes, removed: int
) -> None:
    await checked.post(SENDGRID_INBOUND, EMAIL[:position] + added + EMAIL[position + removed :], MULTIPART)


@fuzzed
@given(st.text(st.characters(codec="latin-1", exclude_characters="\r\n\x00"), max_size=60))
async def test_any_parameters_of_a_multipart_content_type(checked: Checked, parameters: str) -> None:
    content_type = f"multipart/form-data; boundary={parameters}".encode("latin-1")
    await checked.post(SENDGRID_INBOUND, EMAIL, {"content-type": content_type})


@fuzzed
@given(st.lists(some_json | st.dictionaries(st.sampled_from(sorted(DELIVERED)), some_json), max_size=4))
async def test_any_events_of_sendgrid(checked: Checked, batch: list[Any]) -> None:
    await checked.post(SENDGRID_EVENTS, json.dumps(batch).encode(), JSON)
