"""The generic APIs over real HTTP, with a fake gateway as the recipient of their webhooks."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

import httpx
import pytest
import pytest_asyncio
from standardwebhooks import Webhook

from mock_providers.app import create_app
from mock_providers.behaviour import BehaviourSwitch
from mock_providers.generic.api import GenericApi
from mock_providers.generic.email import GenericEmail
from mock_providers.generic.settings import GenericSettings
from mock_providers.generic.signature import decode_secret
from mock_providers.generic.sms import GenericSms
from mock_providers.registry import EMAIL, SMS
from mock_providers.server import listen, serving, url_of
from mock_providers.webhooks import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BROKEN = (httpx.RemoteProtocolError, httpx.ReadError)

TEXT = {
    "from": "+12025550110",
    "to": "+12025550111",
    "type": "sms",
    "body": "See you at nine",
    "attachments": None,
    "timestamp": "2026-03-01T08:00:00Z",
}
LETTER = {
    "from": "office@example.org",
    "to": "[a@example.com](mailto:a@example.com)",
    "body": "<p>See you at nine</p>",
    "attachments": ["https://example.org/map.png"],
    "timestamp": "2026-03-01T08:00:00+00:00",
}


@dataclass
class FakeGateway:
    """Keeps the webhooks, and responds with what `answer` returns."""

    answer: Callable[[], httpx.Response] = lambda: httpx.Response(200, json={"ok": True})
    received: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.received.append(request)
        return self.answer()


class ProviderClient:
    """A client of a generic API and of the controls."""

    _keys = count()

    def __init__(self, api: type[GenericApi], http: httpx.AsyncClient, message: dict[str, Any]) -> None:
        self.api = api
        self.http = http
        self.message = message

    async def send(self, key: str | None = None, **kwargs: Any) -> httpx.Response:  # noqa: ANN401
        headers = {"Idempotency-Key": key or f"key-{next(self._keys)}"}
        return await self.http.post("/messages", headers=headers, **{"json": self.message, **kwargs})

    async def behave(self, **behaviour: object) -> None:
        (await self.http.put("/mock/behaviour", json=behaviour)).raise_for_status()

    async def accepted(self, **params: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self.http.get("/mock/messages", params=params)).json()["items"]
        return items

    async def stats(self) -> dict[str, int]:
        counts: dict[str, int] = (await self.http.get("/mock/stats")).json()
        return counts

    async def until(self, **expected: int) -> None:
        """Wait until the statistics have these counts."""
        while not expected.items() <= (await self.stats()).items():
            pass


@dataclass
class World:
    gateway: FakeGateway
    sms: ProviderClient
    email: ProviderClient


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[World]:
    fake = FakeGateway()
    sms, email = listen("127.0.0.1", 0), listen("127.0.0.1", 0)
    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(fake)) as webhooks,
        httpx.AsyncClient(base_url=url_of(sms), trust_env=False) as sms_http,
        httpx.AsyncClient(base_url=url_of(email), trust_env=False) as email_http,
    ):
        gateway, random = Gateway(webhooks, "http://gateway"), Random(1)
        settings = [GenericSettings.model_construct(webhook_secret=decode_secret(SECRET))]
        apps = {
            sms: create_app(SMS, gateway, random, settings),
            email: create_app(EMAIL, gateway, random, settings),
        }
        async with serving(apps):
            sms_client = ProviderClient(GenericSms, sms_http, TEXT)
            yield World(fake, sms_client, ProviderClient(GenericEmail, email_http, LETTER))


@pytest_asyncio.fixture(loop_scope="module")
async def world(running: World) -> World:
    """Return the running providers in the state in which they started."""
    running.gateway.received.clear()
    running.gateway.answer = FakeGateway.answer
    for provider in (running.sms, running.email):
        for path in ("/mock/behaviour", "/mock/messages"):
            assert (await provider.http.delete(path)).status_code == 204
    return running


@pytest.fixture
def sms(world: World) -> ProviderClient:
    return world.sms


@pytest.fixture(params=["sms", "email"])
def provider(world: World, request: pytest.FixtureRequest) -> ProviderClient:
    client: ProviderClient = getattr(world, request.param)
    return client


class TestMessages:
    async def test_a_message_is_accepted(self, provider: ProviderClient) -> None:
        response = await provider.send("key-of-mine")
        assert response.status_code == 202
        assert list(response.json()) == [provider.api.id_field]
        (item,) = await provider.accepted()
        assert item["id"] == response.json()[provider.api.id_field]
        assert item["idempotency_key"] == "key-of-mine"
        assert item["payload"] == provider.message
        assert item["accepted_at"].endswith("Z")

    @pytest.mark.parametrize("repeat", ["order-7", '"order-7"'])
    async def test_a_repeated_key_gets_the_first_message_id(
        self, provider: ProviderClient, repeat: str
    ) -> None:
        first, again = await provider.send("order-7"), await provider.send(repeat)
        assert (again.status_code, again.json()) == (202, first.json())
        assert len(await provider.accepted()) == 1
        assert await provider.stats() == {"requests": 2, "accepted": 1, "refused": 0, "repeated_keys": 1}

    async def test_simultaneous_requests_with_a_key_are_one_message(self, sms: ProviderClient) -> None:
        responses = await asyncio.gather(*(sms.send("same") for _ in range(20)))
        assert len({response.text for response in responses}) == 1
        assert await sms.stats() == {"requests": 20, "accepted": 1, "refused": 0, "repeated_keys": 19}

    async def test_without_a_key_every_request_is_a_message(self, sms: ProviderClient) -> None:
        for _ in range(2):
            assert (await sms.http.post("/messages", json=TEXT)).status_code == 202
        assert [item["idempotency_key"] for item in await sms.accepted()] == [None, None]

    async def test_messages_are_listed_in_order_or_by_key(self, sms: ProviderClient) -> None:
        for key in ("c", "a", "b"):
            await sms.send(key)
        assert [item["idempotency_key"] for item in await sms.accepted()] == ["c", "a", "b"]
        assert [item["idempotency_key"] for item in await sms.accepted(idempotency_key="a")] == ["a"]
        assert await sms.accepted(idempotency_key="d") == []

    async def test_forgotten_keys_can_be_used_again(self, sms: ProviderClient) -> None:
        first = await sms.send("again")
        await sms.http.delete("/mock/messages")
        assert await sms.accepted() == []
        assert (await sms.send("again")).json() != first.json()

    @pytest.mark.parametrize(
        "extra", [{"subject": "Tomorrow"}, {"callback": "https://example.org"}, {"media": [{"n": 1.5}]}]
    )
    async def test_other_fields_are_recorded(self, provider: ProviderClient, extra: dict[str, Any]) -> None:
        assert (await provider.send(json=provider.message | extra)).status_code == 202
        (item,) = await provider.accepted()
        assert item["payload"] == provider.message | extra

    @pytest.mark.parametrize("missing", ["from", "to", "body", "timestamp"])
    async def test_missing_fields(self, provider: ProviderClient, missing: str) -> None:
        message = {name: value for name, value in provider.message.items() if name != missing}
        response = await provider.send(json=message)
        assert response.status_code == 400
        assert response.json() == {"error": "invalid_message", "message": f"{missing}: Field required"}

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"\xff",
            b'{"body": NaN}',
            *(
                httpx.Request("POST", "http://x", json=TEXT | wrong).content
                for wrong in (
                    {"type": "fax"},
                    {"from": ""},
                    {"to": ["+12025550111"]},
                    {"attachments": "https://example.org/map.png"},
                    {"timestamp": "yesterday"},
                    {"timestamp": "2026-03-01T08:00:00"},
                )
            ),
        ],
    )
    async def test_invalid_messages(self, sms: ProviderClient, content: bytes) -> None:
        response = await sms.send(json=None, content=content)
        assert response.status_code == 400
        assert response.json()["error"] == "invalid_message"
        assert await sms.accepted() == []
        assert await sms.stats() == {"requests": 1, "accepted": 0, "refused": 1, "repeated_keys": 0}

    async def test_a_refused_request_does_not_use_up_its_key(self, sms: ProviderClient) -> None:
        assert (await sms.send("key", json={})).status_code == 400
        assert (await sms.send("key")).status_code == 202


class TestBehaviour:
    async def test_a_status_for_some_requests(self, provider: ProviderClient) -> None:
        await provider.behave(status=503, times=2, retry_after=7)
        refusals = [await provider.send("key") for _ in range(2)]
        assert [(r.status_code, r.headers["retry-after"]) for r in refusals] == [(503, "7")] * 2
        assert refusals[0].json()["error"] == "simulated"
        assert (await provider.send("key")).status_code == 202
        assert await provider.stats() == {"requests": 3, "accepted": 1, "refused": 2, "repeated_keys": 0}

    async def test_a_repeated_key_is_affected_too(self, sms: ProviderClient) -> None:
        await sms.send("key")
        await sms.behave(status=500)
        assert (await sms.send("key")).status_code == 500

    async def test_retry_after_as_a_date(self, sms: ProviderClient) -> None:
        date = "Wed, 21 Oct 2026 07:28:00 GMT"
        await sms.behave(status=429, retry_after=date)
        assert (await sms.send()).headers["retry-after"] == date

    @pytest.mark.parametrize(
        ("behaviour", "status", "content_type", "accepted"),
        [
            ({"status": 200}, 200, "application/json", 1),
            ({"status": 204}, 204, None, 1),
            ({"status": 304}, 304, None, 0),
            ({"status": 299, "html": True}, 299, "text/html; charset=utf-8", 1),
            ({"html": True}, 202, "text/html; charset=utf-8", 1),
            ({"status": 502, "html": True}, 502, "text/html; charset=utf-8", 0),
            ({"status": 401}, 401, "application/json", 0),
            ({"latency_ms": 1}, 202, "application/json", 1),
            ({"latency_ms": 1, "status": 500}, 500, "application/json", 0),
            ({"rate": 0.0, "status": 500}, 202, "application/json", 1),
        ],
    )
    async def test_responses(
        self,
        sms: ProviderClient,
        behaviour: dict[str, Any],
        status: int,
        content_type: str | None,
        accepted: int,
    ) -> None:
        await sms.behave(**behaviour)
        response = await sms.send()
        assert (response.status_code, response.headers.get("content-type")) == (status, content_type)
        assert len(await sms.accepted()) == accepted

    async def test_a_dropped_connection_accepts_nothing(self, provider: ProviderClient) -> None:
        await provider.behave(drop_connection=True, times=1)
        with pytest.raises(BROKEN):
            await provider.send("key")
        assert await provider.accepted() == []
        assert (await provider.send("key")).status_code == 202

    async def test_an_ambiguous_failure_accepts_the_message(self, provider: ProviderClient) -> None:
        await provider.behave(ambiguous=True, times=1)
        with pytest.raises(BROKEN):
            await provider.send("key")
        (item,) = await provider.accepted()
        assert (await provider.send("key")).json() == {provider.api.id_field: item["id"]}
        assert await provider.stats() == {"requests": 2, "accepted": 1, "refused": 0, "repeated_keys": 1}

    async def test_many_closed_connections(self, sms: ProviderClient) -> None:
        await sms.behave(ambiguous=True)
        results = await asyncio.gather(*(sms.send() for _ in range(24)), return_exceptions=True)
        assert all(isinstance(result, BROKEN) for result in results)
        assert len(await sms.accepted()) == 24

    async def test_a_hanging_request_gets_no_response(self, sms: ProviderClient) -> None:
        await sms.behave(hang=True, times=1)
        with pytest.raises(httpx.ReadTimeout):
            await sms.send("key", timeout=0.1)
        assert await sms.accepted() == []
        assert (await sms.send("key")).status_code == 202

    async def test_a_delayed_response_does_not_delay_acceptance(self, sms: ProviderClient) -> None:
        await sms.behave(latency_ms=600_000, times=1)
        waiting = asyncio.create_task(sms.send("key"))
        await sms.until(accepted=1)
        assert not waiting.done()
        # The client times out and retries, as after any ambiguous failure.
        waiting.cancel()
        assert (await sms.send("key")).status_code == 202
        assert await sms.stats() == {"requests": 2, "accepted": 1, "refused": 0, "repeated_keys": 1}

    async def test_a_behaviour_is_set_returned_and_reset(self, sms: ProviderClient) -> None:
        normal = (await sms.http.get("/mock/behaviour")).json()
        wanted = {"status": 500, "times": 3, "rate": 1, "retry_after": 2, "latency_ms": 5}
        put = await sms.http.put("/mock/behaviour", json=wanted)
        assert put.status_code == 200
        assert put.json() == normal | wanted
        assert (await sms.http.get("/mock/behaviour")).json() == normal | wanted
        # A PUT replaces the behaviour: omitted fields return to normal.
        assert (await sms.http.put("/mock/behaviour", json={"hang": True})).json() == normal | {"hang": True}
        assert (await sms.http.delete("/mock/behaviour")).status_code == 204
        assert (await sms.http.get("/mock/behaviour")).json() == normal

    async def test_an_invalid_behaviour_changes_nothing(self, sms: ProviderClient) -> None:
        await sms.behave(status=500)
        assert (await sms.http.put("/mock/behaviour", json={"status": 42})).status_code == 422
        assert (await sms.http.get("/mock/behaviour")).json()["status"] == 500

    async def test_only_requests_that_send_messages_are_affected(self, world: World) -> None:
        await world.sms.behave(drop_connection=True)
        for path in ("/healthz", "/mock/behaviour", "/mock/messages", "/mock/stats", "/openapi.json"):
            assert (await world.sms.http.get(path)).status_code == 200
        assert (await world.sms.http.post("/mock/inbound")).status_code == 200
        assert (await world.email.send()).status_code == 202


class TestWebhooks:
    async def test_an_example_of_an_inbound_message(self, world: World, provider: ProviderClient) -> None:
        response = await provider.http.post("/mock/inbound")
        assert response.status_code == 200
        (webhook,) = world.gateway.received
        assert str(webhook.url) == f"http://gateway{provider.api.webhook_path}"
        payload = Webhook(SECRET).verify(webhook.content, dict(webhook.headers))
        assert response.json() == {"status": 200, "payload": payload, "response": {"ok": True}}
        assert payload.keys() == provider.message.keys() | {provider.api.id_field}
        assert payload["timestamp"].endswith("Z")

    async def test_given_fields_are_sent_unchanged(self, world: World, provider: ProviderClient) -> None:
        given = {"from": 5, "body": "Grüße 👋", provider.api.id_field: "ü-1", "carrier": {"name": None}}
        response = await provider.http.post("/mock/inbound", json=given)
        assert given.items() <= response.json()["payload"].items()
        Webhook(SECRET).verify(world.gateway.received[0].content, dict(world.gateway.received[0].headers))

    @pytest.mark.parametrize(
        ("given", "kind"),
        [
            ({}, "sms"),
            ({"attachments": []}, "sms"),
            ({"attachments": ["https://example.org/1.png"]}, "mms"),
            ({"attachments": ["https://example.org/1.png"], "type": "sms"}, "sms"),
        ],
    )
    async def test_attachments_make_an_mms(
        self, sms: ProviderClient, given: dict[str, Any], kind: str
    ) -> None:
        response = await sms.http.post("/mock/inbound", json=given)
        assert response.json()["payload"]["type"] == kind

    async def test_the_webhook_id_stays_with_the_message(
        self, world: World, provider: ProviderClient
    ) -> None:
        for provider_id in ("message-1", "message-1", "message-2"):
            await provider.http.post("/mock/inbound", json={provider.api.id_field: provider_id})
        first, again, other = (webhook.headers["webhook-id"] for webhook in world.gateway.received)
        assert first == again != other

    @pytest.mark.parametrize(
        ("given", "sent"),
        [
            ({"status": "delivered"}, {"status": "delivered", "error_code": None}),
            ({"status": "failed", "error_code": "30005"}, {"status": "failed", "error_code": "30005"}),
            ({"status": "failed", "error_code": 30005}, {"status": "failed", "error_code": 30005}),
            (
                {"status": "undelivered", "timestamp": "2026-03-01T08:00:00Z"},
                {"status": "undelivered", "error_code": None, "timestamp": "2026-03-01T08:00:00Z"},
            ),
        ],
    )
    async def test_receipts(
        self, world: World, provider: ProviderClient, given: dict[str, Any], sent: dict[str, Any]
    ) -> None:
        response = await provider.http.post("/mock/receipts", json={"provider_message_id": "m-1"} | given)
        (webhook,) = world.gateway.received
        payload = Webhook(SECRET).verify(webhook.content, dict(webhook.headers))
        assert response.json() == {"status": 200, "payload": payload, "response": {"ok": True}}
        assert webhook.url.path == f"{provider.api.webhook_path}/status"
        assert payload == {"timestamp": payload["timestamp"], provider.api.id_field: "m-1"} | sent

    @pytest.mark.parametrize("receipt", [{}, {"status": "delivered"}, {"provider_message_id": "m-1"}])
    async def test_receipts_need_a_message_and_a_status(self, world: World, receipt: dict[str, Any]) -> None:
        assert (await world.sms.http.post("/mock/receipts", json=receipt)).status_code == 422
        assert world.gateway.received == []

    @pytest.mark.parametrize(
        ("answer", "content"),
        [
            (httpx.Response(422, json={"title": "no"}), {"title": "no"}),
            (httpx.Response(503, text="<h1>busy</h1>"), "<h1>busy</h1>"),
            (httpx.Response(204), ""),
        ],
        ids=["json", "text", "empty"],
    )
    async def test_the_response_of_the_gateway_is_returned(
        self, world: World, answer: httpx.Response, content: object
    ) -> None:
        world.gateway.answer = lambda: answer
        response = await world.sms.http.post("/mock/inbound")
        assert response.status_code == 200
        assert response.json()["status"] == answer.status_code
        assert response.json()["response"] == content

    @pytest.mark.parametrize("path", ["/mock/inbound", "/mock/receipts"])
    async def test_an_unreachable_gateway(self, world: World, provider: ProviderClient, path: str) -> None:
        def refuse() -> httpx.Response:
            raise httpx.ConnectError("connection refused")

        world.gateway.answer = refuse
        response = await provider.http.post(path, json={"provider_message_id": "m-1", "status": "delivered"})
        assert response.status_code == 502
        assert response.json()["error"] == "gateway_unreachable"
        assert "http://gateway/api/webhooks/" in response.json()["message"]

    async def test_webhooks_are_not_signed_without_a_secret(self) -> None:
        fake = FakeGateway()
        async with httpx.AsyncClient(transport=httpx.MockTransport(fake)) as client:
            api = GenericSms(
                GenericSettings.model_construct(),
                Gateway(client, "http://gateway"),
                BehaviourSwitch(Random(1)),
            )
            await api.send_inbound({})
        assert "webhook-signature" not in fake.received[0].headers
        assert fake.received[0].headers["webhook-id"]


async def test_the_api_is_documented(provider: ProviderClient) -> None:
    document = (await provider.http.get("/openapi.json")).json()
    operation = document["paths"]["/messages"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["required"]) >= {"from", "to", "body", "timestamp"}
    assert [parameter["name"] for parameter in operation["parameters"]] == ["Idempotency-Key"]
    assert {"202", "400"} <= operation["responses"].keys()
    assert (await provider.http.get("/docs")).status_code == 200
