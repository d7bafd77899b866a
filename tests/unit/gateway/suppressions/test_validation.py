"""The validation of requests about suppressions."""

import httpx
import pytest

from shared.bus.topology import Stream
from tests.jetstream import JetStream
from tests.messages import BOB
from tests.unit.gateway.requests import faults_of, problem_of


@pytest.mark.parametrize(
    ("address", "sender", "body", "field"),
    [
        ("nobody@", None, {"reason": "x"}, "address"),
        ("12", None, {"reason": "x"}, "address"),
        ("x" * 321, None, {"reason": "x"}, "address"),
        (BOB, "ann@example.com", {"reason": "x"}, "sender"),
        (BOB, "12", {"reason": "x"}, "sender"),
        (BOB, "", {"reason": "x"}, "sender"),
        (BOB, None, {}, "reason"),
        (BOB, None, {"reason": " "}, "reason"),
        (BOB, None, {"reason": "x" * 501}, "reason"),
        (BOB, None, {"reason": "nul \0"}, "reason"),
        (BOB, None, {"reason": "x", "why": "x"}, "why"),
        (BOB, None, [], "body"),
    ],
)
async def test_an_invalid_field_of_a_suppression_is_named(
    client: httpx.AsyncClient,
    server: JetStream,
    address: str,
    sender: str | None,
    body: object,
    field: str,
) -> None:
    query = {} if sender is None else {"sender": sender}
    response = await client.put(f"/api/suppressions/{address}", params=query, json=body)

    assert (response.status_code, problem_of(response)) == (422, "invalid_request")
    assert faults_of(response) == {field}
    assert server.messages(Stream.SUPPRESSIONS) == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("nobody@", "address"),
        (f"{BOB}?sender=ann@example.com", "sender"),
        (f"{BOB}?sender={'x' * 321}", "sender"),
    ],
)
async def test_an_invalid_address_of_a_lifted_suppression_is_named(
    client: httpx.AsyncClient, path: str, field: str
) -> None:
    response = await client.delete(f"/api/suppressions/{path}")

    assert response.status_code == 422
    assert faults_of(response) == {field}
