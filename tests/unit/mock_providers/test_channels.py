"""Several APIs of one channel: a made-up third one works beside the others."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx
import orjson
import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from twilio.rest import Client

from mock_providers.api import Channel, MockApi, Receipt
from mock_providers.app import create_app
from mock_providers.behaviour import Behaviour, BehaviourSwitch
from mock_providers.ledger import bare_key
from mock_providers.registry import EMAIL, SMS
from mock_providers.responses import make_response
from mock_providers.server import listen, serving, url_of
from mock_providers.settings import MockSettings
from mock_providers.twilio.settings import TwilioSettings
from mock_providers.webhooks import Gateway, Payload, WebhookResult
from tests.waiting import eventually

TEXT = {
    "from": "+12025550110",
    "to": "+12025550111",
    "type": "sms",
    "body": "See you at nine",
    "timestamp": "2026-03-01T08:00:00Z",
}
NO_REQUESTS = {"requests": 0, "accepted": 0, "refused": 0, "repeated_keys": 0}


class AcmeSettings(MockSettings):
    acme_token: str = "acme-token"


class Acme(MockApi[AcmeSettings]):
    """The whole mock of a provider that the project does not have."""

    name = "acme"
    settings_class = AcmeSettings
    outcomes = {"delivered": ("queued", "delivered"), "expired": ("queued", "expired")}  # noqa: RUF012

    def router(self) -> APIRouter:
        router = APIRouter()
        router.post("/acme/messages", response_model=None)(self.send)
        return router

    async def send(self, request: Request) -> Response:
        key = bare_key(request.headers.get("idempotency-key"))

        def decide(body: bytes, behaviour: Behaviour) -> Response:
            if not behaviour.accepts or request.headers.get("token") != self.settings.acme_token:
                self.ledger.stats.refused += 1
                return make_response(behaviour.status or 401, {"error": "refused"}, behaviour)
            message = self.ledger.accept(f"acme-{body.decode()}", body, idempotency_key=key)
            self.tasks.start(self._report(message.id, behaviour))
            return make_response(201, {"acme_id": message.id}, behaviour)

        return await self.respond(request, decide)

    async def _report(self, message_id: str, behaviour: Behaviour) -> None:
        for status in self.statuses_to_report(behaviour):
            await self.send_receipt(Receipt(provider_message_id=message_id, status=status))

    async def send_inbound(self, fields: Payload) -> WebhookResult:
        return await self._post("inbound", {"text": "Hello", **fields})

    async def send_receipt(self, receipt: Receipt) -> WebhookResult:
        return await self._post("receipts", {"acme_id": receipt.provider_message_id, "state": receipt.status})

    async def _post(self, kind: str, payload: Payload) -> WebhookResult:
        url = f"{self.gateway.public_url}/api/webhooks/acme/{kind}"
        headers = {"token": self.settings.acme_token}
        return WebhookResult.of(payload, await self.gateway.post(url, orjson.dumps(payload), headers))


@dataclass
class Running:
    """A channel with a made-up third API, and the webhooks that its APIs have sent."""

    http: httpx.AsyncClient
    webhooks: list[httpx.Request] = field(default_factory=list)

    async def send_text(self) -> httpx.Response:
        return await self.http.post("/messages", json=TEXT, headers={"Idempotency-Key": "key"})

    async def send_acme(self, body: str = "1") -> httpx.Response:
        return await self.http.post(
            "/acme/messages", content=body, headers={"Idempotency-Key": "key", "token": "acme-token"}
        )

    async def send_twilio(self, *, callback: str | None = None) -> Any:  # noqa: ANN401 - the SDK has no types
        settings = TwilioSettings.model_construct()
        client = Client(settings.twilio_account_sid, settings.twilio_auth_token)
        client.api.base_url = str(self.http.base_url).rstrip("/")
        fields = {"from_": TEXT["from"], "to": TEXT["to"], "body": TEXT["body"]}
        if callback:
            fields["status_callback"] = callback
        return await asyncio.to_thread(client.messages.create, **fields)

    async def get(self, path: str, **params: str) -> Any:  # noqa: ANN401 - JSON
        return (await self.http.get(path, params=params)).raise_for_status().json()

    async def providers(self, **params: str) -> list[str]:
        """Return which API accepted each message."""
        return [item["provider"] for item in (await self.get("/mock/messages", **params))["items"]]


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    received: list[httpx.Request] = []

    def receive(request: httpx.Request) -> httpx.Response:
        received.append(request)
        return httpx.Response(200, json={"ok": True})

    listener = listen("127.0.0.1", 0)
    channel = Channel("SMS with a third API", (*SMS.apis, Acme))
    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(receive)) as webhooks,
        httpx.AsyncClient(base_url=url_of(listener), trust_env=False) as http,
        serving({listener: create_app(channel, Gateway(webhooks, "http://gateway"), Random(1))}),
    ):
        yield Running(http, received)


async def test_each_api_accepts_messages_and_keys_of_its_own(running: Running) -> None:
    text, acme, twilio = await running.send_text(), await running.send_acme(), await running.send_twilio()
    assert (text.status_code, acme.status_code) == (202, 201)
    assert await running.providers() == ["generic_sms", "acme", "twilio"]
    items = (await running.get("/mock/messages"))["items"]
    assert [item["id"] for item in items] == [
        text.json()["messaging_provider_id"],
        acme.json()["acme_id"],
        twilio.sid,
    ]
    # The key is the same, but a key belongs to one API.
    assert await running.providers(idempotency_key="key") == ["generic_sms", "acme"]
    assert await running.providers(idempotency_key="key", provider="acme") == ["acme"]
    assert await running.providers(provider="twilio") == ["twilio"]


async def test_statistics_of_all_apis_and_of_one(running: Running) -> None:
    await running.send_text()
    await running.send_text()
    await running.send_acme()
    await running.http.post("/acme/messages", content="2", headers={"token": "wrong"})
    assert await running.get("/mock/stats") == {
        "requests": 4,
        "accepted": 2,
        "refused": 1,
        "repeated_keys": 1,
    }
    acme = await running.get("/mock/stats", provider="acme")
    assert acme == {"requests": 2, "accepted": 1, "refused": 1, "repeated_keys": 0}


async def test_messages_of_one_api_are_forgotten(running: Running) -> None:
    await running.send_text()
    await running.send_acme()
    await running.http.delete("/mock/messages", params={"provider": "acme"})
    assert await running.providers() == ["generic_sms"]
    assert await running.get("/mock/stats", provider="acme") == NO_REQUESTS
    await running.http.delete("/mock/messages")
    assert await running.get("/mock/stats") == NO_REQUESTS


async def test_a_behaviour_affects_all_apis(running: Running) -> None:
    await running.http.put("/mock/behaviour", json={"status": 503, "times": 2})
    # The APIs share the two times.
    requests = (running.send_text, running.send_acme, running.send_text)
    statuses = [(await send()).status_code for send in requests]
    assert statuses == [503, 503, 202]


async def test_a_behaviour_of_one_api_leaves_the_others_alone(running: Running) -> None:
    await running.http.put("/mock/behaviour", params={"provider": "acme"}, json={"status": 503, "times": 9})
    assert (await running.send_text()).status_code == 202
    assert (await running.send_acme()).status_code == 503
    assert (await running.get("/mock/behaviour"))["status"] is None
    assert (await running.get("/mock/behaviour", provider="acme"))["times"] == 8
    await running.http.delete("/mock/behaviour", params={"provider": "acme"})
    assert (await running.send_acme()).status_code == 201


async def test_a_behaviour_of_all_apis_replaces_that_of_one(running: Running) -> None:
    await running.http.put("/mock/behaviour", params={"provider": "acme"}, json={"status": 503})
    await running.http.delete("/mock/behaviour")
    assert (await running.send_acme()).status_code == 201


@pytest.mark.parametrize(
    ("outcome", "acme", "twilio"),
    [
        ("expired", ["queued", "expired"], ["sent", "delivered"]),
        ("undelivered", ["queued", "delivered"], ["sent", "undelivered"]),
    ],
)
async def test_an_outcome_of_one_api_is_the_normal_one_of_another(
    running: Running, outcome: str, acme: list[str], twilio: list[str]
) -> None:
    await running.http.put("/mock/behaviour", json={"outcome": outcome})
    await running.send_acme()
    await running.send_twilio(callback="http://gateway/callback")

    async def all_are_there() -> bool:
        return len(running.webhooks) == 4

    await eventually(all_are_there)
    callbacks = [dict(httpx.QueryParams(r.content.decode())) for r in by_path(running, "/callback")]
    assert [callback["MessageStatus"] for callback in callbacks] == twilio
    receipts = [orjson.loads(r.content) for r in by_path(running, "/api/webhooks/acme/receipts")]
    assert [receipt["state"] for receipt in receipts] == acme


def by_path(running: Running, path: str) -> list[httpx.Request]:
    return [request for request in running.webhooks if request.url.path == path]


@pytest.mark.parametrize("outcome", ["bounce", "expired"])
async def test_an_outcome_that_the_api_does_not_have(running: Running, outcome: str) -> None:
    behaviour = {"outcome": outcome}
    answer = await running.http.put("/mock/behaviour", params={"provider": "twilio"}, json=behaviour)
    assert answer.status_code == 422
    assert "undelivered" in answer.text


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, "/api/webhooks/sms"),
        ({"provider": "generic_sms"}, "/api/webhooks/sms"),
        ({"provider": "twilio"}, "/api/webhooks/twilio/messages"),
        ({"provider": "acme"}, "/api/webhooks/acme/inbound"),
    ],
)
async def test_an_inbound_message_of_each_api(running: Running, params: dict[str, str], path: str) -> None:
    given = {"Body": "Grüße", "text": "Goodbye"}
    answer = await running.http.post("/mock/inbound", params=params, json=given)
    assert (answer.status_code, answer.json()["status"]) == (200, 200)
    assert given.items() <= answer.json()["payload"].items()
    (webhook,) = running.webhooks
    assert webhook.url.path == path


async def test_a_receipt_of_each_api(running: Running) -> None:
    message = await running.send_twilio(callback="http://gateway/callback")
    for provider, message_id in (("generic_sms", "1"), ("twilio", message.sid), ("acme", "2")):
        receipt = {"provider_message_id": message_id, "status": "failed", "error_code": "30005"}
        answer = await running.http.post("/mock/receipts", params={"provider": provider}, json=receipt)
        assert (answer.status_code, answer.json()["status"]) == (200, 200)
        assert message_id in answer.json()["payload"].values()
        assert "failed" in answer.json()["payload"].values()
    assert Counter(webhook.url.path for webhook in running.webhooks)["/api/webhooks/sms/status"] == 1
    assert Counter(webhook.url.path for webhook in running.webhooks)["/api/webhooks/acme/receipts"] == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/mock/behaviour", None),
        ("PUT", "/mock/behaviour", {}),
        ("DELETE", "/mock/behaviour", None),
        ("GET", "/mock/messages", None),
        ("DELETE", "/mock/messages", None),
        ("GET", "/mock/stats", None),
        ("POST", "/mock/inbound", {}),
        ("POST", "/mock/receipts", {"provider_message_id": "1", "status": "delivered"}),
    ],
)
async def test_an_unknown_provider(running: Running, method: str, path: str, body: object) -> None:
    answer = await running.http.request(method, path, params={"provider": "fax"}, json=body)
    assert answer.status_code == 422
    assert "must be one of generic_sms, twilio, acme" in answer.text
    assert running.webhooks == []


@pytest.mark.parametrize("channel", [SMS, EMAIL], ids=["sms", "email"])
async def test_the_registered_apis_do_not_overlap(channel: Channel) -> None:
    assert len({api.name for api in channel.apis}) == len(channel.apis)
    async with httpx.AsyncClient() as http:
        paths = [paths_of(api, Gateway(http, "http://gateway")) for api in channel.apis]
    assert all(paths)
    assert len(set().union(*paths)) == sum(map(len, paths))


def paths_of(api: type[MockApi[Any]], gateway: Gateway) -> set[str]:
    app = FastAPI()
    app.include_router(
        api(api.settings_class.model_construct(), gateway, BehaviourSwitch(Random(1))).router()
    )
    return set(app.openapi()["paths"])
