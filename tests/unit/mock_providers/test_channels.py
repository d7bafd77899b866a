"""Several APIs at one address: a made-up one is registered beside the others, and each works by itself."""

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
NORMAL = {"requests": 0, "accepted": 0, "refused": 0, "repeated_keys": 0}


class PigeonSettings(MockSettings):
    pigeon_token: str = "coo"


class Pigeon(MockApi[PigeonSettings]):
    """The whole mock of a provider that the project does not have."""

    name = "pigeon"
    settings_class = PigeonSettings
    outcomes = {"delivered": ("released", "delivered"), "lost": ("released", "lost")}  # noqa: RUF012

    def router(self) -> APIRouter:
        router = APIRouter()
        router.post("/pigeons", response_model=None)(self.send)
        return router

    async def send(self, request: Request) -> Response:
        key = bare_key(request.headers.get("idempotency-key"))

        def decide(body: bytes, behaviour: Behaviour) -> Response:
            if not behaviour.accepts or request.headers.get("token") != self.settings.pigeon_token:
                self.ledger.stats.refused += 1
                return make_response(behaviour.status or 401, {"coo": "no"}, behaviour)
            message = self.ledger.accept(f"pigeon-{body.decode()}", body, idempotency_key=key)
            self.tasks.start(self._report(message.id, behaviour))
            return make_response(201, {"pigeon": message.id}, behaviour)

        return await self.respond(request, decide)

    async def _report(self, message_id: str, behaviour: Behaviour) -> None:
        for status in self.statuses_to_report(behaviour):
            await self.send_receipt(Receipt(provider_message_id=message_id, status=status))

    async def send_inbound(self, fields: Payload) -> WebhookResult:
        return await self._post("inbound", {"message": "coo", **fields})

    async def send_receipt(self, receipt: Receipt) -> WebhookResult:
        return await self._post("receipts", {"pigeon": receipt.provider_message_id, "fate": receipt.status})

    async def _post(self, kind: str, payload: Payload) -> WebhookResult:
        url = f"{self.gateway.public_url}/api/webhooks/pigeon/{kind}"
        headers = {"token": self.settings.pigeon_token}
        return WebhookResult.of(payload, await self.gateway.post(url, orjson.dumps(payload), headers))


@dataclass
class Loft:
    """A channel with the made-up API, and the webhooks that it has sent."""

    http: httpx.AsyncClient
    webhooks: list[httpx.Request] = field(default_factory=list)

    async def send_text(self) -> httpx.Response:
        return await self.http.post("/messages", json=TEXT, headers={"Idempotency-Key": "key"})

    async def send_pigeon(self, body: str = "1") -> httpx.Response:
        return await self.http.post(
            "/pigeons", content=body, headers={"Idempotency-Key": "key", "token": "coo"}
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
async def loft() -> AsyncIterator[Loft]:
    received: list[httpx.Request] = []

    def receive(request: httpx.Request) -> httpx.Response:
        received.append(request)
        return httpx.Response(200, json={"ok": True})

    listener = listen("127.0.0.1", 0)
    channel = Channel("Texts and pigeons", (*SMS.apis, Pigeon))
    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(receive)) as webhooks,
        httpx.AsyncClient(base_url=url_of(listener), trust_env=False) as http,
        serving({listener: create_app(channel, Gateway(webhooks, "http://gateway"), Random(1))}),
    ):
        yield Loft(http, received)


async def test_each_api_accepts_messages_and_keys_of_its_own(loft: Loft) -> None:
    text, pigeon, twilio = await loft.send_text(), await loft.send_pigeon(), await loft.send_twilio()
    assert (text.status_code, pigeon.status_code) == (202, 201)
    assert await loft.providers() == ["generic_sms", "pigeon", "twilio"]
    items = (await loft.get("/mock/messages"))["items"]
    assert [item["id"] for item in items] == [
        text.json()["messaging_provider_id"],
        pigeon.json()["pigeon"],
        twilio.sid,
    ]
    # The key is the same, but a key belongs to one API.
    assert await loft.providers(idempotency_key="key") == ["generic_sms", "pigeon"]
    assert await loft.providers(idempotency_key="key", provider="pigeon") == ["pigeon"]
    assert await loft.providers(provider="twilio") == ["twilio"]


async def test_statistics_of_all_apis_and_of_one(loft: Loft) -> None:
    await loft.send_text()
    await loft.send_text()
    await loft.send_pigeon()
    await loft.http.post("/pigeons", content="2", headers={"token": "wrong"})
    assert await loft.get("/mock/stats") == {"requests": 4, "accepted": 2, "refused": 1, "repeated_keys": 1}
    pigeons = await loft.get("/mock/stats", provider="pigeon")
    assert pigeons == {"requests": 2, "accepted": 1, "refused": 1, "repeated_keys": 0}


async def test_messages_of_one_api_are_forgotten(loft: Loft) -> None:
    await loft.send_text()
    await loft.send_pigeon()
    await loft.http.delete("/mock/messages", params={"provider": "pigeon"})
    assert await loft.providers() == ["generic_sms"]
    assert await loft.get("/mock/stats", provider="pigeon") == NORMAL
    await loft.http.delete("/mock/messages")
    assert await loft.get("/mock/stats") == NORMAL


async def test_a_behaviour_affects_all_apis(loft: Loft) -> None:
    await loft.http.put("/mock/behaviour", json={"status": 503, "times": 2})
    # The APIs share the two times.
    statuses = [(await send()).status_code for send in (loft.send_text, loft.send_pigeon, loft.send_text)]
    assert statuses == [503, 503, 202]


async def test_a_behaviour_of_one_api_leaves_the_others_alone(loft: Loft) -> None:
    await loft.http.put("/mock/behaviour", params={"provider": "pigeon"}, json={"status": 503, "times": 9})
    assert (await loft.send_text()).status_code == 202
    assert (await loft.send_pigeon()).status_code == 503
    assert (await loft.get("/mock/behaviour"))["status"] is None
    assert (await loft.get("/mock/behaviour", provider="pigeon"))["times"] == 8
    await loft.http.delete("/mock/behaviour", params={"provider": "pigeon"})
    assert (await loft.send_pigeon()).status_code == 201


async def test_a_behaviour_of_all_apis_replaces_that_of_one(loft: Loft) -> None:
    await loft.http.put("/mock/behaviour", params={"provider": "pigeon"}, json={"status": 503})
    await loft.http.delete("/mock/behaviour")
    assert (await loft.send_pigeon()).status_code == 201


@pytest.mark.parametrize(
    ("outcome", "pigeon", "twilio"),
    [
        ("lost", ["released", "lost"], ["sent", "delivered"]),
        ("undelivered", ["released", "delivered"], ["sent", "undelivered"]),
    ],
)
async def test_an_outcome_of_one_api_is_the_normal_one_of_another(
    loft: Loft, outcome: str, pigeon: list[str], twilio: list[str]
) -> None:
    await loft.http.put("/mock/behaviour", json={"outcome": outcome})
    await loft.send_pigeon()
    await loft.send_twilio(callback="http://gateway/callback")

    async def all_are_there() -> bool:
        return len(loft.webhooks) == 4

    await eventually(all_are_there)
    callbacks = [dict(httpx.QueryParams(r.content.decode())) for r in by_path(loft, "/callback")]
    assert [callback["MessageStatus"] for callback in callbacks] == twilio
    receipts = [orjson.loads(r.content) for r in by_path(loft, "/api/webhooks/pigeon/receipts")]
    assert [receipt["fate"] for receipt in receipts] == pigeon


def by_path(loft: Loft, path: str) -> list[httpx.Request]:
    return [request for request in loft.webhooks if request.url.path == path]


@pytest.mark.parametrize("outcome", ["bounce", "lost"])
async def test_an_outcome_that_the_api_does_not_have(loft: Loft, outcome: str) -> None:
    answer = await loft.http.put("/mock/behaviour", params={"provider": "twilio"}, json={"outcome": outcome})
    assert answer.status_code == 422
    assert "undelivered" in answer.text


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, "/api/webhooks/sms"),
        ({"provider": "generic_sms"}, "/api/webhooks/sms"),
        ({"provider": "twilio"}, "/api/webhooks/twilio/messages"),
        ({"provider": "pigeon"}, "/api/webhooks/pigeon/inbound"),
    ],
)
async def test_an_inbound_message_of_each_api(loft: Loft, params: dict[str, str], path: str) -> None:
    given = {"Body": "Grüße", "message": "hello"}
    answer = await loft.http.post("/mock/inbound", params=params, json=given)
    assert (answer.status_code, answer.json()["status"]) == (200, 200)
    assert given.items() <= answer.json()["payload"].items()
    (webhook,) = loft.webhooks
    assert webhook.url.path == path


async def test_a_receipt_of_each_api(loft: Loft) -> None:
    message = await loft.send_twilio(callback="http://gateway/callback")
    for provider, message_id in (("generic_sms", "1"), ("twilio", message.sid), ("pigeon", "2")):
        receipt = {"provider_message_id": message_id, "status": "failed", "error_code": "30005"}
        answer = await loft.http.post("/mock/receipts", params={"provider": provider}, json=receipt)
        assert (answer.status_code, answer.json()["status"]) == (200, 200)
        assert message_id in answer.json()["payload"].values()
        assert "failed" in answer.json()["payload"].values()
    assert Counter(webhook.url.path for webhook in loft.webhooks)["/api/webhooks/sms/status"] == 1
    assert Counter(webhook.url.path for webhook in loft.webhooks)["/api/webhooks/pigeon/receipts"] == 1


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
async def test_an_unknown_provider(loft: Loft, method: str, path: str, body: object) -> None:
    answer = await loft.http.request(method, path, params={"provider": "fax"}, json=body)
    assert answer.status_code == 422
    assert "must be one of generic_sms, twilio, pigeon" in answer.text
    assert loft.webhooks == []


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
