"""The provider of `docs/providers.md` in the sender and the gateway; its rows are in `test_adapters.py`."""

import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from services.gateway.webhooks.service import WebhookService
from services.sender.provider_selection import create_adapters
from services.sender.settings import SenderSettings
from shared.bus.suppression_list import SuppressionList
from shared.bus.topology import Stream
from shared.channels import MessageType
from shared.events import Event, decode
from shared.message import IncomingMessage, IncomingReceipt
from shared.providers import registry
from shared.providers.base import Provider
from shared.providers.http import make_client, send
from shared.providers.registry import create_verifier
from shared.settings import read
from shared.status import Status
from shared.suppressions import SuppressionState
from tests import messages
from tests.integration.providers.documented import PAGE, documented_package
from tests.jetstream import BusTo, JetStream, PublisherTo
from tests.stand_in import Answer, standing_in

SECRET = "coo-0123456789"
PARCEL = {
    "parcel": "p-7",
    "sender": "(804) 555-1234",
    "recipient": messages.ALICE,
    "text": "Coo",
    "at": "2024-11-01T14:00:00Z",
}
LANDING = {"parcel": "p-1", "outcome": "lost", "reason": "hawk", "at": "2024-11-01T14:00:00Z"}


@pytest.fixture(autouse=True)
def pigeon(monkeypatch: pytest.MonkeyPatch) -> Provider[Any]:
    """Register the provider, as the line on the page does."""
    provider: Provider[Any] = documented_package().PIGEON
    monkeypatch.setitem(cast("dict[str, Any]", registry.PROVIDERS), provider.name, provider)
    return provider


def test_the_registry_takes_lines_like_the_one_on_the_page() -> None:
    line = "\n        PIGEON,\n"
    assert f"```{line}```" in PAGE.read_text()
    assert line.replace("PIGEON", "TWILIO") in Path(registry.__file__).read_text()


async def test_the_sender_sends_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(SenderSettings, nats_url="nats://127.0.0.1:9", sms_providers="pigeon,generic_sms")
    message = messages.message()
    async with standing_in() as server, make_client(timeout=1) as client:
        server.answer = lambda _: Answer(202, body=b'{"parcel": "p-1"}')
        monkeypatch.setenv("PIGEON_KEY", "crumbs-0123456789")
        monkeypatch.setenv("PIGEON_URL", server.url)
        assert await send(client, create_adapters(settings)["pigeon"], message) == "p-1"
        [request] = server.requests
    assert request.path == "/v1/parcels"
    assert request.headers["idempotency-key"] == str(message.id)


class Gateway:
    """A gateway with a JetStream in memory."""

    def __init__(self, client: httpx.AsyncClient, server: JetStream) -> None:
        self._client = client
        self._server = server

    async def post(self, path: str, payload: object, *, secret: str = SECRET) -> httpx.Response:
        body = json.dumps(payload).encode()
        signature = hmac.digest(secret.encode(), body, "sha256").hex()
        headers = {"Content-Type": "application/json", "X-Pigeon-Signature": signature}
        return await self._client.post(f"/api/webhooks/{path}", content=body, headers=headers)

    def stored(self, stream: Stream) -> list[Event[Any]]:
        return [decode(each.payload) for each in self._server.messages(stream)]


@pytest.fixture
async def gateway(pigeon: Provider[Any]) -> AsyncIterator[Gateway]:
    settings = read(GatewaySettings, nats_url="nats://unused", database_url="postgresql+asyncpg://unused")
    verifier = create_verifier(pigeon, pigeon_webhook_secret=SECRET)
    app = create_app(settings, {pigeon.name: verifier})
    server = JetStream(messages.now)
    publisher = PublisherTo(server)
    app.state.services = SimpleNamespace(
        webhook_service=WebhookService(
            publisher,
            SuppressionList(BusTo(server), publisher),
            "US",
        ),
        clock=messages.now,
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield Gateway(client, server)


async def test_the_gateway_receives_its_messages(gateway: Gateway) -> None:
    response = await gateway.post("pigeon/parcels", PARCEL)
    assert response.status_code == 204, response.text

    [event] = gateway.stored(Stream.INBOUND)
    assert isinstance(event.data, IncomingMessage)
    message = event.data.message
    assert (message.from_, message.to, message.body) == (messages.BOB, messages.ALICE, "Coo")
    assert (message.type, message.provider, message.provider_message_id) == (
        MessageType.SMS,
        "pigeon",
        "p-7",
    )


async def test_pictures_make_an_mms_and_stop_opts_out(gateway: Gateway) -> None:
    pictures = ["https://example.com/a.png"]
    await gateway.post("pigeon/parcels", {**PARCEL, "text": "Stop", "pictures": pictures})

    [event] = gateway.stored(Stream.INBOUND)
    assert (event.data.message.type, event.data.message.attachments) == (MessageType.MMS, pictures)
    [change] = gateway.stored(Stream.SUPPRESSIONS)
    assert change.data.state is SuppressionState.OPTED_OUT


async def test_what_can_be_read_of_a_message_is_kept(gateway: Gateway) -> None:
    odd = {
        "parcel": "p-8",
        "recipient": messages.ALICE,
        "pictures": "here",
        "at": "soon",
        "text": "half \ud83d",
    }
    assert (await gateway.post("pigeon/parcels", odd)).status_code == 204

    [event] = gateway.stored(Stream.INBOUND)
    message = event.data.message
    assert (message.from_, message.body, message.timestamp) == ("unknown", "half \ufffd", message.created_at)
    assert [warning.partition(":")[0] for warning in message.warnings] == ["text", "at"]


async def test_a_receipt_with_an_unknown_word_is_kept(gateway: Gateway) -> None:
    assert (await gateway.post("pigeon/landings", {"parcel": "p-1", "outcome": "circling"})).is_success

    [event] = gateway.stored(Stream.INBOUND)
    assert (event.data.status, event.data.error_code) == (Status.UNKNOWN, "circling")


async def test_the_gateway_receives_its_receipts(gateway: Gateway) -> None:
    response = await gateway.post("pigeon/landings", LANDING)
    assert response.status_code == 204, response.text

    [event] = gateway.stored(Stream.INBOUND)
    receipt = event.data
    assert isinstance(receipt, IncomingReceipt)
    assert (receipt.provider_message_id, receipt.status) == ("p-1", Status.UNDELIVERED)
    assert receipt.error_code == "hawk"


@pytest.mark.parametrize(("path", "payload"), [("pigeon/parcels", PARCEL), ("pigeon/landings", LANDING)])
async def test_a_webhook_is_stored_once_and_only_if_it_is_genuine_and_valid(
    gateway: Gateway, path: str, payload: dict[str, str]
) -> None:
    for _ in range(2):
        assert (await gateway.post(path, payload)).is_success
    assert (await gateway.post(path, payload, secret="another")).status_code == 403
    assert (await gateway.post(path, {**payload, "parcel": ""})).status_code == 202
    assert len(gateway.stored(Stream.INBOUND)) == 1
    assert len(gateway.stored(Stream.DEADLETTER)) == 1
