"""The services with the NATS accounts of docker-compose.yml, each of which has only the rights it needs."""

import json
from pathlib import Path

from tests.e2e.stack import Stack, running_stack
from tests.e2e.test_replay import exchange
from tests.receiver import Receiver, answering, receiving
from tests.rights import provisioned_server
from tests.waiting import eventually

SERVICES = ("mocks", "gateway", "ingest", "sender", "notifier")
SETTINGS = {
    "WEBHOOK_ENDPOINT_KEY": "a key of some length",
    "ALLOW_PRIVATE_WEBHOOKS": "true",
    "WEBHOOK_RETRY_DELAYS": "0.2,0.2",
}


async def test_services_do_all_their_work_with_their_own_rights(tmp_path: Path, database_url: str) -> None:
    async with (
        provisioned_server(tmp_path / "nats") as server,
        receiving() as receiver,
        running_stack(
            tmp_path,
            database_url=database_url,
            nats_url=server.url_for,
            settings=SETTINGS,
            services=SERVICES,
        ) as stack,
    ):
        await create_endpoints(stack, receiver)
        await exchange(stack)
        await expect_webhooks(stack, receiver)
        logged = [
            json.loads(line)
            for service in SERVICES[1:]
            for line in stack.processes[service].log().splitlines()
            if line.startswith("{")
        ]
    problems = {
        *("nats_error", "nats_disconnected", "consumer_failed", "handler_unavailable", "handler_failed"),
        *("tail_unavailable", "webhook_endpoints_unavailable", "webhooks_wait", "webhook_failed"),
    }
    assert {entry["event"] for entry in logged} & problems == set()
    expected = {
        "message_accepted",
        "message_sent",
        "stored",
        "webhook_attempted",
        "webhook_endpoint_disabled",
    }
    assert expected <= {entry["event"] for entry in logged}


async def create_endpoints(stack: Stack, receiver: Receiver) -> None:
    receiver.responses |= {"healthy": answering(500, 204), "gone": answering(410)}
    for name in ("healthy", "gone"):
        response = await stack.post("/api/webhook-endpoints", {"url": receiver.url(name)})
        assert response.status_code == 201, response.text


async def expect_webhooks(stack: Stack, receiver: Receiver) -> None:
    """Wait until an event has arrived at the second attempt, and the endpoint that is gone is disabled."""

    async def has_all() -> bool:
        ids = [webhook.id for webhook in receiver.received["healthy"]]
        types = {webhook.json["type"] for webhook in receiver.received["healthy"]}
        return len(ids) > len(set(ids)) and {"message.sent", "webhook_endpoint.disabled"} <= types

    async def are_stored() -> bool:
        (healthy,) = [
            item for item in await stack.items("/api/webhook-endpoints") if item["state"] == "enabled"
        ]
        attempts = await stack.items(f"/api/webhook-endpoints/{healthy['id']}/attempts")
        return {attempt["attempt"] for attempt in attempts} == {1, 2}

    await eventually(has_all)
    await eventually(are_stored)
