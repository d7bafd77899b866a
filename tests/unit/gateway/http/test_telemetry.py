from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from tests.unit.gateway.requests import BODIES, SMS, WEBHOOKS


def requests_of(method: str, route: str, status: int) -> float:
    labels = {"method": method, "route": route, "status": str(status)}
    return REGISTRY.get_sample_value("messaging_http_request_duration_seconds_count", labels) or 0


@pytest.mark.parametrize(
    ("method", "path", "route", "status"),
    [
        ("POST", "/api/messages/sms", "/api/messages/sms", 422),
        ("PUT", "/api/messages/sms", "/api/messages/sms", 405),
        ("GET", "/api/messages/1", "/api/messages/{id}", 404),
        ("GET", "/api/conversations/0/messages", "/api/conversations/{id}/messages", 404),
        ("PUT", "/api/suppressions/nobody", "/api/suppressions/{address}", 422),
        ("POST", "/api/webhooks/sms/status", "/api/webhooks/sms/status", 202),
        ("GET", "/api/nowhere", "none", 404),
    ],
)
async def test_requests_are_counted_by_the_path_of_their_route(
    client: httpx.AsyncClient, method: str, path: str, route: str, status: int
) -> None:
    before = requests_of(method, route, status)
    body: dict[str, Any] = {} if method == "GET" else {"json": {}}
    response = await client.request(method, path, **body)

    assert response.status_code == status
    assert requests_of(method, route, status) == before + 1


async def test_methods_that_clients_invent_are_counted_under_one_name(client: httpx.AsyncClient) -> None:
    before = requests_of("_OTHER", "none", 404)
    for method in ("BREW", "X" * 1_000):
        await client.request(method, "/nowhere")

    assert requests_of("_OTHER", "none", 404) == before + 2
    assert requests_of("BREW", "none", 404) == 0


async def test_errors_are_counted_by_their_status(client: httpx.AsyncClient) -> None:
    def errors(status: int) -> float:
        return REGISTRY.get_sample_value("messaging_http_errors_total", {"status": str(status)}) or 0

    before = errors(415), errors(202)
    await client.post("/api/messages/sms", content=b"x")
    await client.post("/api/messages/sms", json=SMS)

    assert (errors(415), errors(202)) == (before[0] + 1, 0)


async def test_every_operation_has_a_route_in_the_metrics(client: httpx.AsyncClient) -> None:
    for path in BODIES:
        status = 202 if path in WEBHOOKS else 422
        before = requests_of("POST", path, status)
        assert (await client.post(path, json=[])).status_code == status
        assert requests_of("POST", path, status) == before + 1
