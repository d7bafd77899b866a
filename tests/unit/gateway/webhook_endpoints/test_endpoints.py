from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from services.gateway.http.errors import ConflictError
from services.gateway.webhook_endpoints.schemas import WebhookEndpointCreate
from services.gateway.webhook_endpoints.service import WebhookEndpointService
from shared.bus.topology import Stream
from shared.endpoint_secrets import SecretCipher
from tests.jetstream import BusTo, JetStream, PublisherTo
from tests.unit.gateway.in_memory import NOW, calling, create_gateway
from tests.unit.gateway.requests import problem_of

PATH = "/api/webhook-endpoints"
URL = "https://example.com/hook"


@pytest.fixture
def server() -> JetStream:
    return JetStream(lambda: NOW)


@pytest.fixture
async def client(server: JetStream) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(create_gateway(server)) as client:
        yield client


async def create(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any field
    response = await client.post(PATH, json={"url": URL, **fields})
    assert response.status_code == 201, response.text
    assert response.headers["location"] == f"{PATH}/{response.json()['id']}"
    created: dict[str, Any] = response.json()
    return created


async def test_an_endpoint_is_created_with_defaults_and_shown(client: httpx.AsyncClient) -> None:
    created = await create(client)
    secret = created.pop("secret")

    assert secret.startswith("whsec_")
    assert created == (await client.get(f"{PATH}/{created['id']}")).json()
    assert {name: created[name] for name in ("url", "state", "event_types", "channels", "addresses")} == {
        "url": URL,
        "state": "enabled",
        "event_types": [],
        "channels": [],
        "addresses": [],
    }


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"url": "http://example.com/"}, "url"),
        ({"url": "https://example.com:8443/"}, "url"),
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": "https://[::1]/"}, "url"),
        ({"url": "https://localhost/"}, "url"),
        ({"url": "https://user:secret@example.com/"}, "url"),
        ({"url": "https://example.com/#fragment"}, "url"),
        ({"url": "https:///path"}, "url"),
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "https://exa mple.com/"}, "url"),
        ({"url": "https://münchen.example/"}, "url"),
        ({"url": "https://xn--a/"}, "url"),
        ({"url": "https://example..com/"}, "url"),
        ({"url": "https://[1::2::3]/"}, "url"),
        ({"url": "https://203.0.113/"}, "url"),
        ({"url": "https://203.0.113.256/"}, "url"),
        ({"url": "https://0x7f.1/"}, "url"),
        ({"url": "https://a.0x/"}, "url"),
        ({"url": "https://example.com:/"}, "url"),
        ({"url": "https://example.com:99999/"}, "url"),
        ({"url": "https://example.com/%zz"}, "url"),
        ({"url": "https://example.com/ü"}, "url"),
        ({"url": f"https://{'a.' * 130}com/"}, "url"),
        ({"url": None}, "url"),
        ({"event_types": ["message.unknown"]}, "event_types.0"),
        ({"channels": ["fax"]}, "channels.0"),
        ({"addresses": ["nobody@"]}, "addresses.0"),
        ({"description": "x" * 501}, "description"),
        ({"metadata": {"key": "x" * 513}}, "metadata.key"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"metadata": {"a\nb": ""}}, "metadata.a\nb.[key]"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_invalid_fields_are_refused(
    client: httpx.AsyncClient, fields: dict[str, Any], field: str
) -> None:
    created = await create(client)
    for response in (
        await client.post(PATH, json={"url": URL, **fields}),
        await client.patch(f"{PATH}/{created['id']}", json=fields),
    ):
        assert response.status_code == 422
        (fault,) = response.json()["errors"]
        assert fault["field"] == field


async def test_an_international_host_is_written_as_a_labels(client: httpx.AsyncClient) -> None:
    url = "https://xn--mnchen-3ya.example/?city=M%C3%BCnchen"
    assert (await create(client, url=url))["url"] == url


async def test_a_change_leaves_other_fields_as_they_are(client: httpx.AsyncClient) -> None:
    created = await create(client, event_types=["message.sent"], addresses=["(201) 666-1234"])
    response = await client.patch(
        f"{PATH}/{created['id']}", json={"channels": ["sms"], "metadata": {"a": "b"}}
    )

    changed = response.json()
    assert changed["event_types"] == ["message.sent"]
    assert changed["addresses"] == ["+12016661234"]
    assert changed["channels"] == ["sms"]
    assert changed["metadata"] == {"a": "b"}
    assert "secret" not in changed


async def test_endpoints_are_listed_in_pages_newest_first(client: httpx.AsyncClient) -> None:
    ids = [(await create(client))["id"] for _ in range(3)]
    first = (await client.get(PATH, params={"limit": 2})).json()
    second = (await client.get(PATH, params={"limit": 2, "cursor": first["next_cursor"]})).json()

    assert [item["id"] for item in first["items"] + second["items"]] == ids[::-1]
    assert second["next_cursor"] is None
    assert all("secret" not in item for item in first["items"])


async def test_a_deleted_endpoint_is_not_found_and_its_secret_is_gone(
    client: httpx.AsyncClient, server: JetStream
) -> None:
    created = await create(client)
    for status in (204, 404):
        assert (await client.delete(f"{PATH}/{created['id']}")).status_code == status
    (stored,) = server.messages("KV_WEBHOOK_ENDPOINTS")
    assert b'"secrets":[]' in stored.payload


@pytest.mark.parametrize("id_", ["01936c5b-7d00-7000-8000-000000000000", "not-an-id"])
async def test_an_unknown_endpoint_is_not_found(client: httpx.AsyncClient, id_: str) -> None:
    path, body = f"{PATH}/{id_}", {"since": "2026-01-01T00:00:00Z"}
    for response in (
        await client.get(path),
        await client.patch(path, json={}),
        await client.delete(path),
        await client.post(f"{path}/rotate-secret"),
        await client.post(f"{path}/test"),
        await client.get(f"{path}/attempts"),
        await client.post(f"{path}/attempts/{id_}/retry"),
        await client.post(f"{path}/recover", json=body),
    ):
        assert (response.status_code, problem_of(response)) == (404, "webhook_endpoint_not_found")


async def test_nothing_is_sent_to_a_disabled_endpoint(client: httpx.AsyncClient, server: JetStream) -> None:
    created = await create(client)
    await client.patch(f"{PATH}/{created['id']}", json={"state": "disabled"})

    for action, body in (("test", None), ("recover", {"since": "2026-01-01T00:00:00Z"})):
        response = await client.post(f"{PATH}/{created['id']}/{action}", json=body)
        assert (response.status_code, problem_of(response)) == (409, "webhook_endpoint_disabled")
    assert server.messages(Stream.WEBHOOK_RETRIES) == []


async def test_a_position_that_no_event_can_have_is_refused(client: httpx.AsyncClient) -> None:
    created = await create(client)
    body = {"since": "2026-01-01T00:00:00Z", "after": 2**63}
    response = await client.post(f"{PATH}/{created['id']}/recover", json=body)
    assert response.status_code == 422


async def test_a_test_is_scheduled_for_now(client: httpx.AsyncClient, server: JetStream) -> None:
    created = await create(client)
    response = await client.post(f"{PATH}/{created['id']}/test")

    (schedule,) = server.messages(Stream.WEBHOOK_RETRIES)
    assert response.status_code == 202
    assert schedule.subject == f"webhook.wait.{created['id']}.0.{response.json()['event_id']}"
    assert schedule.headers["Nats-Schedule-Target"] == schedule.subject.replace("wait", "due")


async def test_a_repeated_request_returns_the_same_endpoint(client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "once"}
    first, second = [await client.post(PATH, json={"url": URL}, headers=headers) for _ in range(2)]
    assert first.json() == second.json()
    assert [each.headers.get("Idempotency-Replayed") for each in (first, second)] == [None, "true"]
    assert len((await client.get(PATH)).json()["items"]) == 1

    other = await client.post(PATH, json={"url": f"{URL}/other"}, headers=headers)
    assert other.status_code == 422
    assert other.json()["errors"][0]["field"] == "Idempotency-Key"


async def test_a_deleted_endpoint_is_not_created_again(client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "once"}
    created = (await client.post(PATH, json={"url": URL}, headers=headers)).json()
    await client.delete(f"{PATH}/{created['id']}")

    response = await client.post(PATH, json={"url": URL}, headers=headers)
    assert (response.status_code, problem_of(response)) == (409, "webhook_endpoint_deleted")


async def test_secrets_expire_after_a_day(client: httpx.AsyncClient) -> None:
    created = await create(client)
    first = (await client.post(f"{PATH}/{created['id']}/rotate-secret")).json()
    second = (await client.post(f"{PATH}/{created['id']}/rotate-secret")).json()

    assert len({created["secret"], first["secret"], second["secret"]}) == 3
    assert first["former_secret_expires_at"] == "2026-01-03T03:04:05.678901Z"


async def test_without_a_key_no_endpoint_is_created(server: JetStream) -> None:
    bus, publisher = BusTo(server), PublisherTo(server)
    service = WebhookEndpointService(bus, publisher, SecretCipher(), "US", lambda: NOW, allow_private=False)
    with pytest.raises(ConflictError, match="WEBHOOK_ENDPOINT_KEY"):
        await service.create(WebhookEndpointCreate(url=URL), "caller")
