"""The contract of the adapters: what each puts on the wire, and what it makes of the answers.

A new provider adds its rows here.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from mock_providers.contract import Contract
from mock_providers.email import EMAIL
from mock_providers.sms import SMS
from services.sender.providers.base import (
    CredentialsError,
    NotReachedError,
    Provider,
    ProviderError,
    RejectedError,
    TemporaryError,
    UnknownOutcomeError,
)
from services.sender.providers.generic import GenericProvider
from services.sender.providers.generic_email import GenericEmail
from services.sender.providers.generic_sms import GenericSms
from services.sender.providers.http import make_client
from services.sender.providers.registry import PROVIDERS
from shared.channels import MessageType
from shared.events import Message
from tests import messages, providers
from tests.providers import MockProvider

WRITTEN = "2024-11-01T14:00:00Z"


@dataclass(frozen=True)
class Row:
    adapter: type[GenericProvider]
    contract: Contract
    message: Message
    request: dict[str, Any]


ROWS = {
    "generic_sms": Row(
        GenericSms,
        SMS,
        messages.message(timestamp=WRITTEN),
        {
            "from": messages.ALICE,
            "to": messages.BOB,
            "type": "sms",
            "body": "Hello",
            "attachments": [],
            "timestamp": WRITTEN,
        },
    ),
    "generic_sms, a picture": Row(
        GenericSms,
        SMS,
        messages.message(
            type=MessageType.MMS, body="", attachments=["https://example.com/a.png"], timestamp=WRITTEN
        ),
        {
            "from": messages.ALICE,
            "to": messages.BOB,
            "type": "mms",
            "body": "",
            "attachments": ["https://example.com/a.png"],
            "timestamp": WRITTEN,
        },
    ),
    "generic_email": Row(
        GenericEmail,
        EMAIL,
        messages.email(timestamp=WRITTEN),
        {
            "from": "ann@example.com",
            "to": "ben@example.org",
            "body": "Hello",
            "attachments": [],
            "timestamp": WRITTEN,
        },
    ),
    "generic_email, with a subject": Row(
        GenericEmail,
        EMAIL,
        messages.email(subject="Greetings", body="<b>Hi</b>", timestamp=WRITTEN),
        {
            "from": "ann@example.com",
            "to": "ben@example.org",
            "subject": "Greetings",
            "body": "<b>Hi</b>",
            "attachments": [],
            "timestamp": WRITTEN,
        },
    ),
}

ANSWERS: list[tuple[dict[str, Any], type[ProviderError], str]] = [
    ({"status": 400}, RejectedError, "http_400"),
    ({"status": 401}, CredentialsError, "http_401"),
    ({"status": 403}, CredentialsError, "http_403"),
    ({"status": 404}, RejectedError, "http_404"),
    ({"status": 408}, TemporaryError, "http_408"),
    ({"status": 422}, RejectedError, "http_422"),
    ({"status": 429, "retry_after": 7}, TemporaryError, "http_429"),
    ({"status": 500}, TemporaryError, "http_500"),
    ({"status": 503, "html": True}, TemporaryError, "http_503"),
    ({"html": True}, RejectedError, "unreadable_answer"),
    ({"drop_connection": True}, UnknownOutcomeError, "connection_lost"),
    ({"ambiguous": True}, UnknownOutcomeError, "connection_lost"),
    ({"hang": True}, UnknownOutcomeError, "timeout"),
]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with make_client(timeout=1.0) as client:
        yield client


@pytest.fixture(params=ROWS)
def row(request: pytest.FixtureRequest) -> Row:
    return ROWS[request.param]


@pytest.fixture
async def mock(row: Row) -> AsyncIterator[MockProvider]:
    async with providers.running(row.contract) as mock:
        yield mock


@pytest.fixture
def adapter(row: Row, mock: MockProvider, client: httpx.AsyncClient) -> Provider:
    return row.adapter(client, mock.url)


def test_every_registered_provider_has_rows() -> None:
    assert {row.adapter.name for row in ROWS.values()} == PROVIDERS.keys()


async def test_the_request_is_the_providers_own(row: Row, mock: MockProvider, adapter: Provider) -> None:
    provider_message_id = await adapter.send(row.message)
    [taken] = await mock.messages()
    assert taken["payload"] == row.request
    assert taken["idempotency_key"] == str(row.message.id)
    assert taken["id"] == provider_message_id


@pytest.mark.parametrize(("behaviour", "error", "code"), ANSWERS)
async def test_an_answer_is_one_of_few_errors(
    row: Row,
    mock: MockProvider,
    adapter: Provider,
    behaviour: dict[str, Any],
    error: type[ProviderError],
    code: str,
) -> None:
    await mock.behave(**behaviour)
    with pytest.raises(error) as caught:
        await adapter.send(row.message)
    assert caught.value.code == code
    retry_after = caught.value.retry_after
    assert (retry_after and retry_after.total_seconds()) == behaviour.get("retry_after")


async def test_a_provider_that_is_not_there_has_nothing(row: Row, client: httpx.AsyncClient) -> None:
    with pytest.raises(NotReachedError):
        await row.adapter(client, "http://127.0.0.1:9").send(row.message)
